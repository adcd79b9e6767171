package gate

import (
	"context"
	"errors"
	"net/http"
	"sync"
	"time"

	"github.com/nats-io/nats.go/micro"

	"github.com/tidegate/tidegate/events"
	"github.com/tidegate/tidegate/internal/inbox"
	"github.com/tidegate/tidegate/ledger"
)

// version of the service, as `nats micro ls` shows it: that of the wire.
const version = "1.0.0"

const slowTimeout = 10 * time.Second // for what needs Postgres

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
	// What needs Postgres must not outlive its request by much, but may outlive ctx.
	lasting := context.WithoutCancel(ctx)
	for _, e := range []struct {
		name, subject string
		handle        func(base string) micro.HandlerFunc
	}{
		{"reserve", events.SubjectReserve, func(base string) micro.HandlerFunc { return g.reserve(base) }},
		{"release", events.SubjectRelease, func(base string) micro.HandlerFunc { return g.release(base) }},
		{"get", events.SubjectBudgetGet, func(base string) micro.HandlerFunc { return g.beside(lasting, base, g.get) }},
		{"set", events.SubjectBudgetSet, func(base string) micro.HandlerFunc { return g.beside(lasting, base, g.set) }},
		{"usage", events.SubjectReport, func(base string) micro.HandlerFunc { return g.beside(lasting, base, g.report) }},
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
			g.sent(g.cfg.Conn.Publish(req.Reply(), body))
		}
		*buf = body
		buffers.Put(buf)
		g.metrics.seconds.Observe(time.Since(start).Seconds())
	}
}

// beside answers from Postgres, on a goroutine of its own: the connection's must
// never wait.
func (g *Gate) beside(ctx context.Context, base string, answer func(ctx context.Context, base string, req micro.Request) (any, error)) micro.HandlerFunc {
	return func(req micro.Request) {
		if !inbox.Allowed(req.Reply()) {
			g.metrics.unrepliable.Inc()
			return
		}
		select {
		case g.slow <- struct{}{}:
		default:
			g.fault(req.Reply(), errBusy)
			return
		}
		begun := g.intake.Take(func() {
			g.tasks.Go(func() {
				defer func() { <-g.slow }()
				ctx, cancel := context.WithTimeout(ctx, slowTimeout)
				defer cancel()
				g.answerSlowly(ctx, base, req, answer)
			})
		})
		if !begun {
			<-g.slow
			g.fault(req.Reply(), errStopping)
		}
	}
}

func (g *Gate) answerSlowly(ctx context.Context, base string, req micro.Request, answer func(ctx context.Context, base string, req micro.Request) (any, error)) {
	reply, err := answer(ctx, base, req)
	if err != nil {
		g.fault(req.Reply(), err)
		return
	}
	g.sent(inbox.Send(g.cfg.Conn, req.Reply(), reply))
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
	if !v.Allowed && v.HeldTokens > 0 && saturatingAdd(v.UsedTokens, r.EstimatedTokens) <= *v.HardCapTokens && !g.leases.barred(port, time.Now()) {
		// Other gates may have some of that to spare. This check does not wait for them;
		// those of the next second count what are holds only.
		g.recallPorts(port)
	}
	g.metrics.count(&v)
	return v.AppendJSON(to), nil
}

// get answers what is stored: whoever changes a budget reads it first, and this gate's
// memory may not know yet what another one has stored.
func (g *Gate) get(ctx context.Context, base string, req micro.Request) (any, error) {
	var r events.GetRequest
	port, err := events.DecodeRequest(base, req.Subject(), req.Data(), &r)
	if err != nil {
		return nil, err
	}
	return g.cfg.Ledger.Budget(ctx, port)
}

func (g *Gate) set(ctx context.Context, base string, req micro.Request) (any, error) {
	var r events.SetRequest
	port, err := events.DecodeRequest(base, req.Subject(), req.Data(), &r)
	if err != nil {
		return nil, err
	}
	b, err := g.cfg.Ledger.SetBudget(ctx, port, r.Budget(), r.IfVersion)
	if err != nil {
		return nil, err
	}
	g.memory.applyBudget(port, b)
	_ = events.AnnounceBudget(g.cfg.Conn, port, b) // lost: the next reading finds it
	if err := g.cfg.Ledger.AwaitLeases(ctx, port, b); err != nil {
		g.log.Warn("a budget is stored; a gate that does not answer may go by the old one for some seconds", "port_id", port, "error", err)
	}
	return b, nil
}

func (g *Gate) report(ctx context.Context, base string, req micro.Request) (any, error) {
	var r events.ReportRequest
	port, err := events.DecodeRequest(base, req.Subject(), req.Data(), &r)
	if err != nil {
		return nil, err
	}
	return g.cfg.Ledger.Report(ctx, port, r.By, g.cfg.Now())
}

var (
	errBusy     = errors.New("too many requests that need Postgres are under way: try again")
	errStopping = errors.New("this gate is stopping: try again, another one may answer")
)

// fault answers with an error.
func (g *Gate) fault(reply string, err error) {
	g.metrics.faults.Inc()
	code, what := http.StatusServiceUnavailable, "the ledger cannot be asked right now: "+err.Error()
	var field *events.FieldError
	switch {
	case errors.As(err, &field):
		code, what = http.StatusBadRequest, err.Error()
	case errors.Is(err, ledger.ErrConflict):
		code, what = http.StatusConflict, err.Error()
	case errors.Is(err, errBusy), errors.Is(err, errStopping):
		what = err.Error()
	}
	g.sent(inbox.Fault(g.cfg.Conn, reply, code, what))
}
