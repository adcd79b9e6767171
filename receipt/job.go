package receipt

import (
	"context"
	"errors"
	"sync"

	"github.com/tidegate/tidegate/events"
)

// job is what one scan knows. It stands between the meter and the real gate and
// recorder, to see what they answer and what is spent.
type job struct {
	*service
	port, user string

	mu      sync.Mutex
	verdict events.Verdict // the latest, or what the policy makes of none
	down    bool           // no gate answers: it is not asked again for this scan
	spent   []events.Usage
}

// check asks the gate before anything is done. Its answer comes from memory and
// costs next to nothing; what the reading may cost is held later, by the meter.
func (j *job) check(ctx context.Context) bool {
	v, err := j.Gate.Check(ctx, events.CheckRequest{PortID: j.port, Feature: Feature, UserID: j.user})
	j.learn(v, err)
	return v.Allowed
}

// Reserve holds what a call may cost. A gate cannot hold anything while Postgres
// is down, but it still knows what was used: then its check decides.
func (j *job) Reserve(ctx context.Context, r events.ReserveRequest) (*events.Reservation, error) {
	if j.isDown() {
		return &events.Reservation{Verdict: events.Verdict{Allowed: true}}, nil // check was told to go on
	}
	held, err := j.Gate.Reserve(ctx, r)
	if !errors.Is(err, events.ErrUnavailable) || ctx.Err() != nil {
		j.learn(held.Verdict, err)
		return held, err
	}
	j.Logger.Warn("receipt: nothing can be held, the gate is checked instead", "port", j.port, "error", err)
	v, err := j.Gate.Check(ctx, r.Check())
	j.learn(v, err)
	return &events.Reservation{Verdict: v}, err
}

// Release gives a hold back.
func (j *job) Release(ctx context.Context, port, reservationID string) error {
	return j.Gate.Release(ctx, port, reservationID)
}

// Record passes a usage event on and keeps it for the answer.
func (j *job) Record(u events.Usage) {
	j.Recorder.Record(u)
	j.mu.Lock()
	defer j.mu.Unlock()
	j.spent = append(j.spent, u)
}

func (j *job) learn(v events.Verdict, err error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.verdict = v
	j.down = errors.Is(err, events.ErrUnavailable)
	if err != nil {
		j.Logger.Warn("receipt: the gate did not answer", "port", j.port, "going on", v.Allowed, "error", err)
	}
}

func (j *job) isDown() bool {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.down
}

// seen is what the scan learnt: the gate's latest verdict and what was spent.
func (j *job) seen() (v events.Verdict, spent []events.Usage) {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.verdict, j.spent
}
