// Package demo keeps three ports busy with made-up AI calls, so that a newcomer
// sees Tidegate count, warn and refuse within two minutes of starting it. It is
// also the smallest complete example of a service: every call reserves the tokens
// it may take, takes no more than was granted, and settles what it took. So no
// port passes its hard cap, and the capped one ends exactly there.
package demo

import (
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
	retryEvery   = time.Second      // while the gate does not answer
	patience     = 5 * time.Second  // until the log says so: at the start the gate is still loading
	complainGap  = 30 * time.Second // between two log lines about it
	flushTimeout = 5 * time.Second
)

// Run gives the demo's ports a budget, unless they have one, and makes calls for
// them until ctx ends. It waits for NATS and the gate as long as they are away,
// at the start too; nothing is spent meanwhile. It returns after the calls that
// were made are acknowledged by JetStream; the error says how many were not
// within 5 seconds. nc stays the caller's. A nil logger is [slog.Default].
func Run(ctx context.Context, nc *nats.Conn, logger *slog.Logger) error {
	return run(ctx, nc, logger, pace)
}

func run(ctx context.Context, nc *nats.Conn, logger *slog.Logger, pace time.Duration) error {
	if logger == nil {
		logger = slog.Default()
	}
	publisher, err := events.NewPublisher(nc, events.PublisherConfig{Logger: logger})
	if err != nil {
		return fmt.Errorf("demo: %w", err)
	}
	// A demo may wait, so an outage of the gate never overruns a budget.
	budgets, err := events.NewClient(nc, events.ClientConfig{Service: "demo", Publisher: publisher, WhenUnavailable: events.FailClosed})
	if err != nil {
		return fmt.Errorf("demo: %w", err)
	}
	var group sync.WaitGroup
	for _, p := range ports {
		s := &service{
			port: p, budgets: budgets, pace: pace,
			log: logger.With("port_id", p.id), told: map[answer]bool{}, complain: rate.Sometimes{Interval: complainGap},
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
	port     port
	budgets  *events.Client
	pace     time.Duration
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
	for sleep(ctx, s.pace/2+rand.N(s.pace)) {
		s.call(ctx)
	}
}

// hasBudget stores the port's budget if there is none, and reports whether there
// is one now.
func (s *service) hasBudget(ctx context.Context) bool {
	stored, err := s.budgets.Get(ctx, s.port.id)
	if err == nil && stored.Version == 0 {
		request := s.port.budget
		request.PortID, request.UpdatedBy, request.IfVersion = s.port.id, "demo", &stored.Version
		_, err = s.budgets.Set(ctx, request)
	}
	if err == nil || errors.Is(err, events.ErrConflict) { // somebody else was faster
		s.since = time.Time{}
		return true
	}
	s.missing(ctx, err)
	return false
}

// call is one AI call: reserve what it may take, do it with what was granted,
// report what it took.
func (s *service) call(ctx context.Context) {
	j := jobs[rand.N(len(jobs))]
	user := ""
	if !j.background {
		user = s.port.users[rand.N(len(s.port.users))]
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
		reservation.Settle(j.do(reservation.GrantedTokens))
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
