package gate

import (
	"fmt"
	"hash/maphash"
	"maps"
	"strconv"
	"sync"
	"testing"

	"pgregory.net/rapid"
)

// A table is a map, whatever its hashes are: with few of them ports share one, and with those
// of the last slots tables go around.
func TestTableIsAMap(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		hashes := rapid.SampledFrom([]uint64{1, 3, 1 << 40}).Draw(t, "hashes")
		hash := func(id string) uint64 {
			n, _ := strconv.ParseUint(id, 10, 64)
			return -(1 + n%hashes) * shards
		}
		var table table
		want := map[string]*port{}
		for range rapid.IntRange(1, 80).Draw(t, "steps") {
			id := strconv.Itoa(rapid.IntRange(0, 30).Draw(t, "id"))
			if _, ok := want[id]; ok || rapid.Bool().Draw(t, "remove") {
				table.remove(hash(id), id)
				delete(want, id)
			} else {
				want[id] = &port{id: id}
				table.put(hash(id), want[id])
			}
			for n := range 31 {
				id := strconv.Itoa(n)
				if got, ok := table.get(hash(id), id); got != want[id] || ok != (want[id] != nil) {
					t.Fatalf("%s is %v, want %v, of %d", id, got, want[id], len(want))
				}
			}
			if table.taken != len(want) {
				t.Fatalf("%d ports, want %d", table.taken, len(want))
			}
		}
	})
}

// To look up many at once finds the same as one after the other: ports that are there, those
// that are not, and those of which another one has the hash.
func TestFindManyPorts(t *testing.T) {
	t.Parallel()
	p := newPorts()
	ids := make([]string, 3_000)
	for i := range ids {
		ids[i] = fmt.Sprint("port-", i)
		switch hash := maphash.String(p.seed, ids[i]); i % 4 {
		case 0: // it is not there
		case 1: // another one of its hash is, and it is too
			p.of[hash%shards].put(hash, &port{id: "another"})
			fallthrough
		case 2:
			p.put(&port{id: ids[i]})
		case 3: // only another one is
			p.of[hash%shards].put(hash, &port{id: "another"})
		}
	}
	found := make([]*port, len(ids))
	p.find(found, func(i int) string { return ids[i] })
	for i, f := range found {
		if there := i%4 == 1 || i%4 == 2; there != (f != nil) || there && f.id != ids[i] {
			t.Fatalf("%s: %+v", ids[i], f)
		}
	}
}

// A walk may remove any of the ports that it visits, and visits the others all the same.
func TestAWalkRemovesPorts(t *testing.T) {
	t.Parallel()
	p := newPorts()
	want := map[string]bool{}
	for i := range 20_000 {
		id := fmt.Sprint("port-", i)
		p.put(&port{id: id})
		want[id] = true
	}
	visited := map[string]bool{}
	p.walk(&sync.Mutex{}, func(id string, _ *port) {
		visited[id] = true
		if len(visited)%2 == 0 {
			p.remove(id)
			p.remove(id) // it is gone
		}
	})
	if !maps.Equal(visited, want) || p.len() != 10_000 {
		t.Errorf("%d of %d ports were visited, %d stayed", len(visited), len(want), p.len())
	}
}
