package gate

import (
	"hash/maphash"
	"sync"
)

// shards is how many maps the ports are spread over, so that a walk over a million of
// them holds the lock for a thousand at a time, a fraction of a millisecond.
const shards = 1024

// ports are all that a gate knows of, by their ids.
type ports struct {
	seed maphash.Seed
	of   [shards]map[string]*port
}

func newPorts() *ports {
	p := &ports{seed: maphash.MakeSeed()}
	for i := range p.of {
		p.of[i] = map[string]*port{}
	}
	return p
}

func (p *ports) shard(id string) map[string]*port { return p.of[maphash.String(p.seed, id)%shards] }

func (p *ports) get(id string) (*port, bool) {
	found, ok := p.shard(id)[id]
	return found, ok
}

func (p *ports) put(id string, as *port) { p.shard(id)[id] = as }
func (p *ports) remove(id string)        { delete(p.shard(id), id) }

func (p *ports) len() (n int) {
	for _, shard := range p.of {
		n += len(shard)
	}
	return n
}

// walk visits every port that is there all along, some under the lock at a time: between
// two of them others come and go, and checks are answered. visit may remove its port.
func (p *ports) walk(lock sync.Locker, visit func(id string, p *port)) {
	for _, shard := range p.of {
		lock.Lock()
		for id, found := range shard {
			visit(id, found)
		}
		lock.Unlock()
	}
}
