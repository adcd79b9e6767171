package intake

import "sync"

// Fair is a queue in which owners take turns: many tasks of one do not delay the few of
// another. The tasks of one owner stay in their order.
type Fair[T any] struct {
	room int

	mu     sync.Mutex
	change sync.Cond // a task came, or no more will
	lines  map[string]*line[T]
	turns  []*line[T] // of those who wait, the next first
	n      int        // tasks in all lines
	closed bool
}

type line[T any] struct {
	owner string
	tasks []T
}

// NewFair returns a queue with room for so many tasks.
func NewFair[T any](room int) *Fair[T] {
	f := &Fair[T]{room: room, lines: map[string]*line[T]{}}
	f.change.L = &f.mu
	return f
}

// Put adds a task, and never waits. A queue that is full sends a task away: the last of the
// owner who has most, or the new one if its owner would have as many.
func (f *Fair[T]) Put(owner string, task T) (away T, full bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	l := f.lines[owner]
	if f.n == f.room {
		longest, mine := f.longest(), 1
		if l != nil {
			mine += len(l.tasks)
		}
		last := len(longest.tasks) - 1
		if mine > last {
			return task, true
		}
		away, full = longest.tasks[last], true
		longest.tasks = longest.tasks[:last]
		f.n--
	}
	if l == nil {
		l = &line[T]{owner: owner}
		f.lines[owner] = l
		f.turns = append(f.turns, l)
	}
	l.tasks = append(l.tasks, task)
	f.n++
	f.change.Signal()
	return away, full
}

func (f *Fair[T]) longest() *line[T] {
	longest := f.turns[0]
	for _, l := range f.turns {
		if len(l.tasks) > len(longest.tasks) {
			longest = l
		}
	}
	return longest
}

// Close ends [Fair.Gather] once nothing waits. Nobody may put a task any more.
func (f *Fair[T]) Close() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.closed = true
	f.change.Signal()
}

// Gather hands on what waits, one of each owner in turn and at most so many at once, until
// the queue is closed. Only one goroutine may gather.
func (f *Fair[T]) Gather(atMost int, together func([]T)) {
	for batch := f.take(atMost); len(batch) > 0; batch = f.take(atMost) {
		together(batch)
	}
}

// take waits for a task, and returns none when no more will come.
func (f *Fair[T]) take(atMost int) (batch []T) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for f.n == 0 && !f.closed {
		f.change.Wait()
	}
	for len(batch) < atMost && f.n > 0 {
		l := f.turns[0]
		f.turns = f.turns[1:]
		batch = append(batch, l.tasks[0])
		f.n--
		if l.tasks = l.tasks[1:]; len(l.tasks) > 0 {
			f.turns = append(f.turns, l)
		} else {
			delete(f.lines, l.owner)
		}
	}
	return batch
}
