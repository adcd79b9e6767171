// Package demo shows a newcomer what Tidegate does. At its first start it reports the last 60
// days of a dozen ports, so that there is something to look at. Then it keeps three of them
// busy with made-up AI calls, and Tidegate counts, warns and refuses within two minutes. It is
// also the smallest complete example of a service: every call reserves the tokens
// it may take, takes no more than was granted, and settles what it took. So no
// port that is called passes its hard cap, and the capped one ends exactly there.
package demo

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
	"golang.org/x/time/rate"

	"github.com/tidegate/tidegate/events"
)

const (
	pace         = time.Second      // between two calls of one port, on average
	lively       = 300              // calls of a port at that pace
	slower       = 120              // times as slow it goes on, so that the days after the first are like those before
	retryEvery   = time.Second      // while the gate does not answer
	patience     = 5 * time.Second  // until the log says so: at the start the gate is still loading
	complainGap  = 30 * time.Second // between two log lines about it
	flushTimeout = 5 * time.Second
)

// Config is what the demo needs.
type Config struct {
	Conn *nats.Conn // required; stays the caller's
	// Name gives a port a name, unless it has one. nil: the ports have ids only.
	Name   func(ctx context.Context, port, name string) error
	Logger *slog.Logger // default slog.Default()
}

// Run gives the demo's ports a budget, unless they have one, and makes calls for the
// live ones until ctx ends. Beside that, at its first start, it reports their history. It
// waits for NATS and the gate as long as they are away, at the start too; nothing is spent
// meanwhile. It returns after the calls that were made are acknowledged by JetStream; the
// error says how many were not within 5 seconds.
func Run(ctx context.Context, cfg Config) error {
	return run(ctx, cfg, pace, historyDays)
}

func run(ctx context.Context, cfg Config, pace time.Duration, days int) error {
	cfg.Logger = cmp.Or(cfg.Logger, slog.Default())
	publisher, err := events.NewPublisher(cfg.Conn, events.PublisherConfig{Logger: cfg.Logger})
	if err != nil {
		return fmt.Errorf("demo: %w", err)
	}
	// A demo may wait, so an outage of the gate never overruns a budget.
	budgets, err := events.NewClient(cfg.Conn, events.ClientConfig{Service: "demo", Publisher: publisher, WhenUnavailable: events.FailClosed})
	if err != nil {
		return fmt.Errorf("demo: %w", err)
	}
	var group sync.WaitGroup
	if days > 0 {
		group.Go(func() {
			first := &firstStart{cfg: cfg, publisher: publisher, budgets: budgets, days: days, now: time.Now()}
			if err := first.run(ctx); err != nil && ctx.Err() == nil {
				cfg.Logger.Error("demo: the ports have no history", "error", err)
			}
		})
	}
	for i := range ports {
		if !ports[i].live {
			continue
		}
		s := &service{
			port: &ports[i], budgets: budgets, pace: pace, dice: rand.New(rand.NewPCG(rand.Uint64(), rand.Uint64())),
			log: cfg.Logger.With("port_id", ports[i].id), told: map[answer]bool{}, complain: rate.Sometimes{Interval: complainGap},
		}
		group.Go(func() { s.run(ctx) })
	}
	group.Wait()

	flush, cancel := context.WithTimeout(context.WithoutCancel(ctx), flushTimeout)
	defer cancel()
	if err := publisher.Close(flush); err != nil {
		return fmt.Errorf("demo: %w", err)
	}
	return nil
}

// service makes the calls of one port. Only its own goroutine touches it.
type service struct {
	port     *port
	budgets  *events.Client
	pace     time.Duration
	dice     *rand.Rand
	log      *slog.Logger
	told     map[answer]bool
	since    time.Time // the gate does not answer; zero while it does
	complain rate.Sometimes
}

func (s *service) run(ctx context.Context) {
	for !s.hasBudget(ctx) {
		if !sleep(ctx, retryEvery) {
			return
		}
	}
	for calls := 0; sleep(ctx, s.pause(calls)); calls++ {
		s.call(ctx)
	}
}

// pause is how long the port waits before its next call.
func (s *service) pause(calls int) time.Duration {
	between := s.pace
	if calls >= lively {
		between *= slower
	}
	return between/2 + time.Duration(s.dice.Int64N(int64(between)))
}

// hasBudget stores the port's budget if there is none, and reports whether there
// is one now.
func (s *service) hasBudget(ctx context.Context) bool {
	if err := giveBudget(ctx, s.budgets, s.port, used{}); err != nil {
		s.missing(ctx, err)
		return false
	}
	s.since = time.Time{}
	return true
}

// giveBudget stores the port's budget if there is none.
func giveBudget(ctx context.Context, budgets *events.Client, p *port, u used) error {
	stored, err := budgets.Get(ctx, p.id)
	if err == nil && stored.Version == 0 {
		request := p.budget(u)
		request.PortID, request.UpdatedBy, request.IfVersion = p.id, "demo", &stored.Version
		_, err = budgets.Set(ctx, request)
	}
	if errors.Is(err, events.ErrConflict) { // somebody else was faster
		return nil
	}
	return err
}

// call is one AI call: reserve what it may take, do it with what was granted,
// report what it took.
func (s *service) call(ctx context.Context) {
	j := jobs[s.dice.IntN(len(jobs))]
	user := ""
	if !j.background {
		user = s.port.users[s.dice.IntN(len(s.port.users))]
	}
	reservation, err := s.budgets.Reserve(ctx, events.ReserveRequest{
		PortID: s.port.id, Feature: j.feature, UserID: user, EstimatedTokens: j.most(), AcceptLess: true,
	})
	if err != nil {
		s.missing(ctx, err)
		return
	}
	s.since = time.Time{}
	s.tell(reservation.Verdict)
	if reservation.Allowed {
		reservation.Settle(j.do(s.dice, reservation.GrantedTokens))
	}
}

func (s *service) missing(ctx context.Context, err error) {
	if s.since.IsZero() {
		s.since = time.Now()
	}
	if ctx.Err() != nil || time.Since(s.since) < patience {
		return
	}
	s.complain.Do(func() { s.log.Warn("the demo waits for the budget gate", "error", err) })
}

// answer is a kind of verdict.
type answer struct {
	allowed, warning bool
	reason           events.RefusalReason
	period           time.Time
}

// tell logs each kind of verdict once a period.
func (s *service) tell(v events.Verdict) {
	a := answer{v.Allowed, v.SoftCapWarning, v.Reason, v.PeriodStart}
	if s.told[a] {
		return
	}
	for old := range s.told {
		if !old.period.Equal(a.period) {
			delete(s.told, old)
		}
	}
	s.told[a] = true
	switch {
	case !v.Allowed:
		s.log.Info("demo: a call was refused and not made", "reason", v.Reason, "used_tokens", v.UsedTokens, "resets_at", v.ResetsAt)
	case v.SoftCapWarning:
		s.log.Info("demo: calls are allowed with a warning, the soft cap is reached", "used_tokens", v.UsedTokens)
	default:
		s.log.Info("demo: calls are allowed", "used_tokens", v.UsedTokens)
	}
}

// sleep reports whether ctx still lives after d.
func sleep(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return ctx.Err() == nil
	case <-ctx.Done():
		return false
	}
}
