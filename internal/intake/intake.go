// Package intake ends the intake of a service: a NATS micro service that is
// stopped goes on calling its handlers for what it had received.
package intake

import (
	"errors"
	"sync"
)

// What a caller is told: nothing was done, and the same may be asked again.
var (
	ErrBusy     = errors.New("too many requests that need Postgres are under way: try again")
	ErrStopping = errors.New("this process is stopping: try again, another one may answer")
)

// Intake is open until it is closed. The zero value is open.
type Intake struct {
	mu     sync.RWMutex
	closed bool
}

// Take runs take, which must not wait, and reports true, or reports false when the
// intake is closed: the caller is told [ErrStopping]. No take is running, and none will, once Close has returned.
func (i *Intake) Take(take func()) bool {
	i.mu.RLock()
	defer i.mu.RUnlock()
	if i.closed {
		return false
	}
	take()
	return true
}

// Close ends the intake.
func (i *Intake) Close() {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.closed = true
}
