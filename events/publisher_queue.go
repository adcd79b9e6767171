package events

// ring is a queue of fixed capacity. It holds pointers, so that an idle
// publisher costs eight bytes per place and a push never copies the others.
type ring struct {
	slots []*Usage
	head  int // the oldest
	count int
}

func newRing(capacity int) ring { return ring{slots: make([]*Usage, capacity)} }

func (r *ring) len() int { return r.count }

// push adds u; the caller has checked that there is room.
func (r *ring) push(u *Usage) {
	r.slots[(r.head+r.count)%len(r.slots)] = u
	r.count++
}

// pop takes up to n, oldest first.
func (r *ring) pop(n int) []*Usage {
	taken := make([]*Usage, min(n, r.count))
	for i := range taken {
		taken[i], r.slots[r.head] = r.slots[r.head], nil
		r.head = (r.head + 1) % len(r.slots)
	}
	r.count -= len(taken)
	return taken
}
