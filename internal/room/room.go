// Package room bounds what a server has in flight: where it is full, requests are turned away
// instead of kept in memory.
package room

import (
	"errors"
	"sync"
)

// What [Room.Enter] returns where there is no room: nothing was taken.
var (
	ErrFull      = errors.New("too many requests are in flight")
	ErrFullOfOne = errors.New("too many requests of one caller are in flight")
)

// Room is what may be in flight. Nobody may take more than half of it.
type Room struct {
	mu          sync.Mutex
	most, taken share
	of          map[string]share // by caller
}

type share struct{ requests, bytes int64 }

func (s share) within(most share) bool { return s.requests <= most.requests && s.bytes <= most.bytes }

func (s share) plus(requests, bytes int64) share {
	return share{s.requests + requests, s.bytes + bytes}
}

// New makes room for so many requests, whose bodies have so many bytes.
func New(requests, bytes int64) *Room {
	return &Room{most: share{requests, bytes}, of: map[string]share{}}
}

// Enter takes room for a request of the caller, until leave is called. The errors are [ErrFull] and
// [ErrFullOfOne].
func (r *Room) Enter(caller string, bytes int64) (leave func(), err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	all, own := r.taken.plus(1, bytes), r.of[caller].plus(1, bytes)
	if !own.within(share{(r.most.requests + 1) / 2, (r.most.bytes + 1) / 2}) {
		return nil, ErrFullOfOne
	}
	if !all.within(r.most) {
		return nil, ErrFull
	}
	r.taken, r.of[caller] = all, own
	return func() {
		r.mu.Lock()
		defer r.mu.Unlock()
		r.taken = r.taken.plus(-1, -bytes)
		if left := r.of[caller].plus(-1, -bytes); left.requests > 0 {
			r.of[caller] = left
		} else {
			delete(r.of, caller)
		}
	}, nil
}
