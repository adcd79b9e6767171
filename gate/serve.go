package gate

import (
	"context"
	"errors"
	"net/http"
	"sync"
	"time"

	"github.com/nats-io/nats.go/micro"
	"go.opentelemetry.io/otel/trace"

	"github.com/tidegate/tidegate/budget"
	"github.com/tidegate/tidegate/events"
	"github.com/tidegate/tidegate/internal/changes"
	"github.com/tidegate/tidegate/internal/reservation"
	"github.com/tidegate/tidegate/internal/service"
	"github.com/tidegate/tidegate/ledger"
)

// How many requests that need Postgres run at once, and how many of each kind may wait for
// how long. Changes do not stand in line behind readings.
const (
	changesAtOnce = 8
	getsAtOnce    = 8
	reportsAtOnce = 4
	slowWaiting   = 1024
	slowTimeout   = 10 * time.Second
)

func (g *Gate) newService() *service.Service {
	return service.New(service.Config{
		Conn: g.cfg.Conn, Name: events.GateService, Description: "Tidegate: may this port still spend tokens?",
		Metadata: map[string]string{"gate_id": g.id}, Problem: g.problem, Log: g.log, Faults: g.metrics.faults, Unrepliable: g.metrics.unrepliable,
	})
}

// problem says what the caller is told of an error. Tenants learn nothing of the database.
func (g *Gate) problem(err error) service.Problem {
	var key *reservation.KeyConflict
	if errors.Is(err, ledger.ErrConflict) || errors.As(err, &key) {
		return service.Problem{Code: http.StatusConflict}
	}
	if errors.Is(err, reservation.ErrTooManyHolds) {
		return service.Problem{Code: http.StatusTooManyRequests}
	}
	g.complain.Do(func() { g.log.Warn("the ledger cannot be asked", "error", err) })
	return service.Problem{Code: http.StatusServiceUnavailable, What: "the ledger cannot be asked right now: " + ledger.Plain(err)}
}

func (g *Gate) endpoints(ctx context.Context) (list []service.Endpoint) {
	line := func(atOnce int) *service.Line { return service.NewLine(atOnce, slowWaiting, slowTimeout) }
	changes, gets, reports := line(changesAtOnce), line(getsAtOnce), line(reportsAtOnce)
	for _, e := range []struct {
		name, subject string
		handle        func(base string) micro.HandlerFunc
		forServices   bool
	}{
		{"reserve", events.SubjectReserve, g.reserve, true},
		{"release", events.SubjectRelease, g.release, true},
		{"get", events.SubjectBudgetGet, slow(ctx, g.service, gets, g.get), true},
		{"set", events.SubjectBudgetSet, slow(ctx, g.service, changes, g.set), false},
		{"usage", events.SubjectReport, slow(ctx, g.service, reports, g.report), true},
		// Last: whoever waits for a check to be answered finds all the others there.
		{"check", events.SubjectCheck, g.check, true},
	} {
		handle := e.handle(e.subject)
		list = append(list,
			service.Endpoint{Name: e.name, Subject: e.subject + ".*", Handle: handle, ForServices: e.forServices},
			service.Endpoint{Name: e.name + "-any", Subject: e.subject, Handle: handle, ForServices: e.forServices})
	}
	return list
}

// slow answers requests from Postgres.
func slow[T any](ctx context.Context, s *service.Service, line *service.Line, answer func(context.Context, T) (any, error)) func(base string) micro.HandlerFunc {
	return func(base string) micro.HandlerFunc {
		return s.Slow(ctx, line, func(req micro.Request) (func(context.Context) (any, error), error) {
			var r T
			_, err := events.DecodeRequest(base, req.Subject(), req.Data(), &r)
			return func(ctx context.Context) (any, error) { return answer(ctx, r) }, err
		})
	}
}

// buffers for replies: a check allocates next to nothing.
var buffers = sync.Pool{New: func() any { b := make([]byte, 0, 1024); return &b }}

// check answers from memory, on the connection's own goroutine.
func (g *Gate) check(base string) micro.HandlerFunc {
	return func(req micro.Request) {
		start, span := time.Now(), g.trace(req, "check")
		buf := buffers.Get().(*[]byte)
		body, err := g.answerCheck(base, req.Subject(), req.Data(), (*buf)[:0], span)
		if err != nil {
			g.service.Fault(req.Reply(), err)
		} else {
			g.service.Publish(req.Reply(), body)
		}
		*buf = body
		buffers.Put(buf)
		g.metrics.seconds.Observe(time.Since(start).Seconds())
		endTrace(span, err)
	}
}

func (g *Gate) answerCheck(base, subject string, payload, to []byte, span trace.Span) ([]byte, error) {
	var r events.CheckRequest
	if _, err := events.DecodeRequest(base, subject, payload, &r); err != nil {
		return to, err
	}
	v := g.verdict(&r)
	g.metrics.count(&v)
	describe(span, &v)
	if !v.Allowed {
		g.noteRefusal(r.PortID, &v)
	}
	return v.AppendJSON(to), nil
}

// get answers what is stored: whoever changes a budget reads it first, and this gate's
// memory may not know yet what another one has stored.
func (g *Gate) get(ctx context.Context, r events.GetRequest) (any, error) {
	return g.cfg.Ledger.Budget(ctx, r.PortID)
}

func (g *Gate) set(ctx context.Context, r events.SetRequest) (any, error) {
	b, err := changes.StoreBudget(ctx, g.cfg.Ledger, g.cfg.Conn, g.log, r.PortID, r.Budget(), r.IfVersion)
	if err == nil {
		g.learnBudget(ctx, r.PortID, b) // the caller's next check must not come before the notice
	}
	return b, err
}

func (g *Gate) report(ctx context.Context, r events.ReportRequest) (any, error) {
	if r.LimitName == "" {
		return g.cfg.Ledger.Report(ctx, r, g.now())
	}
	return g.cfg.Ledger.LimitReport(ctx, r, g.now(), func(l *budget.Limit, value string, start time.Time) int64 {
		return g.memory.counts(r.PortID)(l, value, start).Held
	})
}
