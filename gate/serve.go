package gate

import (
	"context"
	"errors"
	"net/http"
	"strconv"
	"sync"
	"time"

	"github.com/nats-io/nats.go/micro"

	"github.com/tidegate/tidegate/events"
	"github.com/tidegate/tidegate/internal/bus"
	"github.com/tidegate/tidegate/internal/inbox"
	"github.com/tidegate/tidegate/internal/intake"
	"github.com/tidegate/tidegate/internal/reservation"
	"github.com/tidegate/tidegate/ledger"
)

// version of the service, as `nats micro ls` shows it: that of the wire.
const version = "1.0.0"

// slowTimeout is how long what needs Postgres may take, its turn included, unless its
// caller says that it waits for less.
const slowTimeout = 10 * time.Second

// register makes the gate known and begins to answer.
func (g *Gate) register(ctx context.Context) (micro.Service, error) {
	service, err := micro.AddService(g.cfg.Conn, micro.Config{
		Name: events.GateService, Version: version,
		Description: "Tidegate: may this port still spend tokens?",
		Metadata:    map[string]string{"gate_id": g.id},
	})
	if err != nil {
		return nil, err
	}
	for _, e := range []struct {
		name, subject string
		handle        func(base string) micro.HandlerFunc
	}{
		{"reserve", events.SubjectReserve, func(base string) micro.HandlerFunc { return g.reserve(base) }},
		{"release", events.SubjectRelease, func(base string) micro.HandlerFunc { return g.release(base) }},
		{"get", events.SubjectBudgetGet, func(base string) micro.HandlerFunc { return g.beside(ctx, g.changes, base, g.get) }},
		{"set", events.SubjectBudgetSet, func(base string) micro.HandlerFunc { return g.beside(ctx, g.changes, base, g.set) }},
		{"usage", events.SubjectReport, func(base string) micro.HandlerFunc { return g.beside(ctx, g.reports, base, g.report) }},
		// Last: whoever waits for a check to be answered finds all the others there.
		{"check", events.SubjectCheck, func(base string) micro.HandlerFunc { return g.fast(base, g.check) }},
	} {
		handler := e.handle(e.subject)
		for name, subject := range map[string]string{e.name: e.subject + ".*", e.name + "-any": e.subject} {
			if err := service.AddEndpoint(name, handler, micro.WithEndpointSubject(subject)); err != nil {
				return nil, errors.Join(err, service.Stop())
			}
		}
	}
	if err := g.flush(ctx); err != nil {
		return nil, errors.Join(err, service.Stop())
	}
	return service, nil
}

// buffers for replies: a check allocates next to nothing.
var buffers = sync.Pool{New: func() any { b := make([]byte, 0, 1024); return &b }}

// fast answers from memory, on the connection's own goroutine.
func (g *Gate) fast(base string, answer func(base string, req micro.Request, to []byte) ([]byte, error)) micro.HandlerFunc {
	return func(req micro.Request) {
		if !inbox.Allowed(req.Reply()) {
			g.metrics.unrepliable.Inc()
			return
		}
		start := time.Now()
		buf := buffers.Get().(*[]byte)
		body, err := answer(base, req, (*buf)[:0])
		if err != nil {
			g.fault(req.Reply(), err)
		} else {
			g.sent(inbox.Publish(g.cfg.Conn, req.Reply(), body))
		}
		*buf = body
		buffers.Put(buf)
		g.metrics.seconds.Observe(time.Since(start).Seconds())
	}
}

// beside answers from Postgres, on a goroutine of its own: the connection's must
// never wait. prepare reads the request, so that a bad one is answered at once and no
// payload is kept waiting, and returns what gets the answer.
func (g *Gate) beside(ctx context.Context, line *intake.Line, base string, prepare func(base string, req micro.Request) (slow, error)) micro.HandlerFunc {
	return func(req micro.Request) {
		reply := req.Reply()
		if !inbox.Allowed(reply) {
			g.metrics.unrepliable.Inc()
			return
		}
		answer, err := prepare(base, req)
		if err == nil {
			patience := patienceOf(req)
			err = reservation.ErrBusy
			open := g.intake.Take(func() {
				if line.Join() {
					err = nil
					g.tasks.Go(func() { g.answerSlowly(ctx, line, patience, reply, answer) })
				}
			})
			if !open {
				err = reservation.ErrStopping
			}
		}
		if err != nil {
			g.fault(reply, err)
		}
	}
}

// slow gets an answer from Postgres.
type slow func(ctx context.Context) (any, error)

// patienceOf is how long the caller waits for an answer.
func patienceOf(req micro.Request) time.Duration {
	ms, err := strconv.ParseInt(req.Headers().Get(events.TimeoutHeader), 10, 64)
	if err != nil || ms <= 0 || ms > slowTimeout.Milliseconds() {
		return slowTimeout
	}
	return time.Duration(ms) * time.Millisecond
}

// answerSlowly waits for the request's turn, for as long as its caller and, until ctx
// ends, this gate do.
func (g *Gate) answerSlowly(ctx context.Context, line *intake.Line, patience time.Duration, reply string, answer slow) {
	deadline := time.Now().Add(patience)
	waiting, cancel := context.WithDeadline(ctx, deadline)
	defer cancel()
	var body any
	var err error
	if out := line.Work(waiting, func() {
		ctx, cancel := context.WithDeadline(context.WithoutCancel(ctx), deadline)
		defer cancel()
		body, err = answer(ctx)
	}); out != nil {
		err = reservation.ErrBusy
		if ctx.Err() != nil {
			err = reservation.ErrStopping
		}
	}
	if err != nil {
		g.fault(reply, err)
		return
	}
	g.sent(inbox.Send(g.cfg.Conn, reply, body))
}

// sent takes note of what came of sending an answer: its caller waits in vain.
func (g *Gate) sent(err error) {
	if err != nil {
		g.log.Debug("an answer cannot be sent", "error", err)
	}
}

func (g *Gate) check(base string, req micro.Request, to []byte) ([]byte, error) {
	return g.answerCheck(base, req.Subject(), req.Data(), to)
}

func (g *Gate) answerCheck(base, subject string, payload, to []byte) ([]byte, error) {
	var r events.CheckRequest
	port, err := events.DecodeRequest(base, subject, payload, &r)
	if err == nil {
		err = r.Validate()
	}
	if err != nil {
		return to, err
	}
	v := g.verdict(port, r.EstimatedTokens)
	g.metrics.count(&v)
	return v.AppendJSON(to), nil
}

// get answers what is stored: whoever changes a budget reads it first, and this gate's
// memory may not know yet what another one has stored.
func (g *Gate) get(base string, req micro.Request) (slow, error) {
	var r events.GetRequest
	port, err := events.DecodeRequest(base, req.Subject(), req.Data(), &r)
	if err != nil {
		return nil, err
	}
	return func(ctx context.Context) (any, error) { return g.cfg.Ledger.Budget(ctx, port) }, nil
}

func (g *Gate) set(base string, req micro.Request) (slow, error) {
	var r events.SetRequest
	port, err := events.DecodeRequest(base, req.Subject(), req.Data(), &r)
	if err == nil {
		err = r.Budget().Validate()
	}
	if err != nil {
		return nil, err
	}
	return func(ctx context.Context) (any, error) {
		b, err := bus.StoreBudget(ctx, g.cfg.Ledger, g.cfg.Conn, port, r.Budget(), r.IfVersion)
		if err == nil {
			g.memory.applyBudget(port, b) // the caller's next check must not come before the notice
		}
		return b, err
	}, nil
}

func (g *Gate) report(base string, req micro.Request) (slow, error) {
	var r events.ReportRequest
	_, err := events.DecodeRequest(base, req.Subject(), req.Data(), &r)
	if err == nil {
		err = r.Validate()
	}
	if err != nil {
		return nil, err
	}
	return func(ctx context.Context) (any, error) {
		return g.cfg.Ledger.Report(ctx, r, g.now())
	}, nil
}

// fault answers with an error.
func (g *Gate) fault(reply string, err error) {
	g.metrics.faults.Inc()
	p := inbox.Problem{Code: http.StatusServiceUnavailable, What: err.Error()}
	var field *events.FieldError
	var key *reservation.KeyConflict
	switch {
	case errors.As(err, &field):
		p.Code = http.StatusBadRequest
	case errors.Is(err, ledger.ErrConflict), errors.As(err, &key):
		p.Code = http.StatusConflict
	case errors.Is(err, reservation.ErrBusy), errors.Is(err, reservation.ErrStopping):
		p.TryAgain = true
	default:
		p.What = "the ledger cannot be asked right now: " + p.What
	}
	g.sent(inbox.Fault(g.cfg.Conn, reply, p))
}
