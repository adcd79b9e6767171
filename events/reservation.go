package events

import (
	"cmp"
	"context"
	"errors"
	"sync/atomic"

	"github.com/google/uuid"
)

// Reservation is the answer to a reserve. When it is allowed, GrantedTokens are
// held for this call until exactly one of these happens: [Reservation.Settle],
// [Reservation.Release], or ExpiresAt, which frees them by itself. A reservation
// may therefore be dropped: nothing leaks but time.
type Reservation struct {
	// Verdict is right to act on whatever Reserve's error was, as with [Client.Check].
	Verdict

	request   ReserveRequest
	client    *Client
	publisher *Publisher
	trace     string // the span of whoever reserved
	ended     atomic.Bool
}

// Reserve asks whether r.PortID may spend r.EstimatedTokens now and, when it may,
// holds them, so that no number of callers can spend the same tokens. The call
// must then cost no more than GrantedTokens and be settled before ExpiresAt: that
// is what keeps a port within its hard cap.
//
// It needs [ClientConfig.Publisher]. The errors are those of [Client.Check], and
// [ErrConflict] when r.IdempotencyKey holds tokens for another request. When an answer is
// missing, a hold may exist that nobody knows: it expires. Reserve asks again until the
// deadline, and for one hold however often: with IdempotencyKey, which finds the first, or from
// the second time on with a key of its own.
func (c *Client) Reserve(ctx context.Context, r ReserveRequest) (*Reservation, error) {
	if c.publisher == nil {
		err := errors.New("events: Reserve needs ClientConfig.Publisher, which reports what the call cost")
		return &Reservation{request: r, client: c}, err // refused whatever the policy: its usage would be lost
	}
	r.Service = cmp.Or(r.Service, c.service)
	reservation := &Reservation{request: r, client: c, publisher: c.publisher, trace: TraceParent(ctx)}
	q := question{base: SubjectReserve, repeatable: r.IdempotencyKey != ""}
	if !q.repeatable { // at first there is no key: with one, Postgres would have to decide
		q.again = func() { r.IdempotencyKey = uuid.NewString() }
	}
	if err := c.ask(ctx, q, &r, &reservation.Verdict); err != nil {
		reservation.Verdict = c.undecided(err)
		return reservation, err
	}
	return reservation, nil
}

// Settle reports what the call cost; booking it ends the hold, whether the call
// took more or less than that. Port, feature, user and run default to those of the
// reservation, the caller's span to that of the context it was made in. Like [Publisher.Record] it returns at once and never fails. Only
// the first of Settle and Release counts as the end of the hold; the usage of a
// second Settle is recorded all the same, since the tokens are spent.
func (r *Reservation) Settle(u Usage) {
	if r.publisher == nil {
		return
	}
	u.PortID = cmp.Or(u.PortID, r.request.PortID)
	u.Feature = cmp.Or(u.Feature, r.request.Feature)
	u.UserID = cmp.Or(u.UserID, r.request.UserID)
	u.RunID = cmp.Or(u.RunID, r.request.RunID)
	u.TraceParent = cmp.Or(u.TraceParent, r.trace)
	if r.ended.CompareAndSwap(false, true) {
		u.ReservationID = r.ReservationID
	}
	r.publisher.Record(u)
}

// Release gives the tokens back: the call did not happen. After Settle, or
// without a hold, it does nothing. An error is no harm: the hold expires.
func (r *Reservation) Release(ctx context.Context) error {
	if r.ReservationID == "" || !r.ended.CompareAndSwap(false, true) {
		return nil
	}
	return r.client.Release(ctx, r.request.PortID, r.ReservationID)
}

// Release gives a hold back by its id. One that is unknown, settled or expired is
// no error: there is nothing left to give back.
func (c *Client) Release(ctx context.Context, port, reservationID string) error {
	return c.ask(ctx, question{base: SubjectRelease, repeatable: true}, &ReleaseRequest{PortID: port, ReservationID: reservationID}, &Released{})
}
