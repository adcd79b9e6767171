package demo

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/tidegate/tidegate/events"
)

const (
	bookedWithin  = 10 * time.Second      // of its report, a history is booked
	lookEvery     = 50 * time.Millisecond // whether it is
	unsettledHold = 24_000                // tokens of the reservation that nobody settles
	askedInVain   = 12                    // checks of the port over its cap
)

// firstStart makes what the demo's ports have behind them. Budgets come last, that of the
// last port at the very end: who finds it knows that all of it was done. What an interrupted
// start has reported already, the next one reports again, with the same ids.
type firstStart struct {
	cfg       Config
	publisher *events.Publisher // on subjects that name the port
	budgets   *events.Client
	days      int
	now       time.Time
}

func (f *firstStart) run(ctx context.Context) error {
	was, err := f.wasBefore(ctx)
	if err != nil || was {
		return err
	}
	began := time.Now()
	calls, sums, err := f.report(ctx)
	if err != nil {
		return err
	}
	for i := range ports {
		if p := &ports[i]; p.budget != nil && !p.live {
			if err := giveBudget(ctx, f.budgets, p, sums[p.id]); err != nil {
				return fmt.Errorf("budget of %s: %w", p.id, err)
			}
			if p.id == overPort { // whose services have not heard yet
				for range askedInVain {
					if _, err := f.budgets.Check(ctx, events.CheckRequest{PortID: p.id, Feature: agent.feature, EstimatedTokens: 2000}); err != nil {
						return fmt.Errorf("check of %s: %w", p.id, err)
					}
				}
			}
		}
	}
	f.cfg.Logger.Info("demo: the ports have a history", "days", f.days, "calls", calls, "took", time.Since(began).Round(time.Millisecond))
	return nil
}

// wasBefore waits for the gate.
func (f *firstStart) wasBefore(ctx context.Context) (bool, error) {
	for {
		last, err := f.budgets.Get(ctx, ports[len(ports)-1].id)
		if !errors.Is(err, events.ErrUnavailable) {
			return last.Version > 0, err
		}
		if !sleep(ctx, retryEvery) {
			return false, ctx.Err()
		}
	}
}

// report names the ports, reports their calls, one that contradicts another, and a
// reservation that is never settled. It returns once the calls are booked.
func (f *firstStart) report(ctx context.Context) (calls int, sums map[string]used, err error) {
	// On the shared subject the events of all ports share messages.
	publisher, err := events.NewPublisher(f.cfg.Conn, events.PublisherConfig{SharedSubject: true, Logger: f.cfg.Logger})
	if err != nil {
		return 0, nil, err
	}
	defer publisher.Close(context.WithoutCancel(ctx)) // everything is acknowledged, or was given up
	sums = map[string]used{}
	for i := range ports {
		p := &ports[i]
		if f.cfg.Name != nil {
			if err := f.cfg.Name(ctx, p.id, p.name); err != nil {
				return calls, sums, err
			}
		}
		history := p.history(f.days, f.now)
		if err := publisher.Publish(ctx, history); err != nil {
			return calls, sums, err
		}
		calls, sums[p.id] = calls+len(history), usedBy(history, f.days, f.now)
		if p.id == quarantinedPort && len(history) > 0 {
			again := history[len(history)-1] // the same id, and more tokens: a service that counts anew when it sends again
			again.InputTokens += 1000
			if err := f.publisher.Publish(ctx, []events.Usage{again}); err != nil {
				return calls, sums, err
			}
		}
		if p.id == unsettledPort {
			if _, err := f.budgets.Reserve(ctx, events.ReserveRequest{PortID: p.id, Feature: agent.feature, UserID: p.users[0], EstimatedTokens: unsettledHold, TTLSeconds: 1}); err != nil {
				return calls, sums, err
			}
		}
	}
	return calls, sums, f.awaitBooked(ctx, sums)
}

// awaitBooked waits until the history is counted. A cap that came earlier would be passed by it, and
// the gates would say that it was overshot.
func (f *firstStart) awaitBooked(ctx context.Context, sums map[string]used) error {
	end := time.Now().Add(bookedWithin)
	for i := range ports {
		for p := &ports[i]; !p.live && time.Now().Before(end); {
			r, err := f.budgets.Usage(ctx, events.ReportRequest{PortID: p.id})
			if err != nil && !errors.Is(err, events.ErrUnavailable) {
				return err
			}
			if err == nil && r.UsedTokens >= sums[p.id].month {
				break
			}
			if !sleep(ctx, lookEvery) {
				return ctx.Err()
			}
		}
	}
	return nil
}
