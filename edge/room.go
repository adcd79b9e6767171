package edge

import "sync"

// room bounds what is in flight: where it is full, requests are turned away instead of kept
// in memory. Nobody may take more than half of it.
type room struct {
	mu          sync.Mutex
	most, taken share
	of          map[string]share // by token
}

type share struct{ requests, bytes int64 }

func (s share) within(most share) bool { return s.requests <= most.requests && s.bytes <= most.bytes }

func (s share) plus(requests, bytes int64) share {
	return share{s.requests + requests, s.bytes + bytes}
}

func newRoom(requests, bytes int64) *room {
	return &room{most: share{requests, bytes}, of: map[string]share{}}
}

// enter takes room for a request of the token, until leave is called.
func (r *room) enter(token string, bytes int64) (leave func(), err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	all, own := r.taken.plus(1, bytes), r.of[token].plus(1, bytes)
	if !own.within(share{(r.most.requests + 1) / 2, (r.most.bytes + 1) / 2}) {
		return nil, errTooManyOfOne
	}
	if !all.within(r.most) {
		return nil, errTooMany
	}
	r.taken, r.of[token] = all, own
	return func() {
		r.mu.Lock()
		defer r.mu.Unlock()
		r.taken = r.taken.plus(-1, -bytes)
		if left := r.of[token].plus(-1, -bytes); left.requests > 0 {
			r.of[token] = left
		} else {
			delete(r.of, token)
		}
	}, nil
}
