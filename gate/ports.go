package gate

import (
	"hash/maphash"
	"sync"
)

// shards is how many tables the ports are spread over, so that a walk over a million of
// them holds the lock for a thousand at a time, a fraction of a millisecond, and so does
// a table that grows.
const shards = 1024

// ports are all that a gate knows of, by their ids: a map. What a Go map cannot do is to look up
// many at once, see [ports.find], and a gate looks up ten million at its start.
type ports struct {
	seed maphash.Seed
	of   [shards]table
}

// table is a hash table with linear probing.
type table struct {
	slots []slot // a power of two of them, at most three quarters of which are taken
	taken int
}

// slot is free if it has no port.
type slot struct {
	hash uint64
	port *port
}

func newPorts() *ports { return &ports{seed: maphash.MakeSeed()} }

func (p *ports) get(id string) (*port, bool) {
	hash := maphash.String(p.seed, id)
	return p.of[hash%shards].get(hash, id)
}

// find looks up many ports at once: found[i] becomes that of id(i), nil if there is none. Most of a lookup
// is waiting for memory, thrice: for the slot, the port and its id. Here each of these is done for all
// ports before the next, so that the processor waits for many at a time.
func (p *ports) find(found []*port, id func(i int) string) {
	for i := range found {
		hash := maphash.String(p.seed, id(i))
		found[i] = p.of[hash%shards].like(hash)
	}
	for i, f := range found {
		if f != nil && f.id != id(i) { // another one with the same hash
			found[i], _ = p.get(id(i))
		}
	}
}

// put adds a port that is not there.
func (p *ports) put(added *port) {
	hash := maphash.String(p.seed, added.id)
	p.of[hash%shards].put(hash, added)
}

func (p *ports) remove(id string) {
	hash := maphash.String(p.seed, id)
	p.of[hash%shards].remove(hash, id)
}

func (p *ports) len() (n int) {
	for i := range p.of {
		n += p.of[i].taken
	}
	return n
}

// walk visits every port that is there all along, some under the lock at a time: between
// two of them others come and go, and checks are answered. visit may remove its port.
func (p *ports) walk(lock sync.Locker, visit func(id string, p *port)) {
	var some []slot
	for i := range p.of {
		lock.Lock()
		some = append(some[:0], p.of[i].slots...) // to remove one moves others
		for _, s := range some {
			if s.port != nil {
				visit(s.port.id, s.port)
			}
		}
		lock.Unlock()
	}
}

func (t *table) get(hash uint64, id string) (*port, bool) {
	if t.taken == 0 {
		return nil, false
	}
	found := t.slots[t.at(hash, id)].port
	return found, found != nil
}

// like is the first port of that hash, nil if there is none.
func (t *table) like(hash uint64) *port {
	if t.taken == 0 {
		return nil
	}
	at := t.home(hash)
	for t.slots[at].port != nil && t.slots[at].hash != hash {
		at = t.next(at)
	}
	return t.slots[at].port
}

func (t *table) put(hash uint64, added *port) {
	if 4*t.taken >= 3*len(t.slots) {
		old := t.slots
		t.slots = make([]slot, max(2*len(old), 4))
		for _, s := range old {
			if s.port != nil {
				t.slots[t.at(s.hash, s.port.id)] = s
			}
		}
	}
	t.slots[t.at(hash, added.id)] = slot{hash, added}
	t.taken++
}

// remove removes a port, if it is there. Those after it close up: none may be after a free slot.
func (t *table) remove(hash uint64, id string) {
	if _, ok := t.get(hash, id); !ok {
		return
	}
	free := t.at(hash, id)
	for at := t.next(free); t.slots[at].port != nil; at = t.next(at) {
		if t.steps(t.home(t.slots[at].hash), at) >= t.steps(free, at) { // else it would be before its home
			t.slots[free], free = t.slots[at], at
		}
	}
	t.slots[free] = slot{}
	t.taken--
}

// at is the slot that the port has, or would get.
func (t *table) at(hash uint64, id string) int {
	at := t.home(hash)
	for t.slots[at].port != nil && (t.slots[at].hash != hash || t.slots[at].port.id != id) {
		at = t.next(at)
	}
	return at
}

// home is the slot that a port gets if that is free. The shard has had the lowest bits of the hash.
func (t *table) home(hash uint64) int   { return int(hash / shards & uint64(len(t.slots)-1)) }
func (t *table) next(at int) int        { return (at + 1) & (len(t.slots) - 1) }
func (t *table) steps(from, to int) int { return (to - from) & (len(t.slots) - 1) }
