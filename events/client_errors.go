package events

import (
	"errors"
	"fmt"
)

// ErrUnavailable says that no gate answered: none runs, it is not ready, it took
// too long, or there is no connection to NATS. Trying again later may help.
var ErrUnavailable = errors.New("the budget gate is unavailable")

// ErrConflict says that what is stored is not what the request goes by. A budget was
// changed by somebody else in between: read it again and decide anew. Or an idempotency
// key holds tokens for another request.
var ErrConflict = errors.New("what is stored is not what the request goes by")

// ServiceError is a fault that the gate reports, as opposed to a refusal.
type ServiceError struct {
	Code        int // 400 bad request, 404 unknown, 409 conflict, 413 the answer is too large, 429 too many holds, 503 not ready
	Description string
	Subject     string // what was asked
	TryAgain    bool   // nothing was done: the same may be asked again
}

func (e *ServiceError) Error() string {
	return fmt.Sprintf("events: %s answered %d: %s", e.Subject, e.Code, e.Description)
}

// Is makes 503 match [ErrUnavailable] and 409 [ErrConflict].
func (e *ServiceError) Is(target error) bool {
	return target == ErrUnavailable && e.Code == 503 || target == ErrConflict && e.Code == 409
}

func unavailable(subject string, cause error) error {
	return fmt.Errorf("events: asking %s: %w: %w", subject, ErrUnavailable, cause)
}
