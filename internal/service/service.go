// Package service is what the NATS micro services of Tidegate have in common. Answers go
// only where they may. What is slow is answered beside the connection's goroutine, when it
// is its turn. Every caller hears something: an answer, or a fault.
package service

import (
	"context"
	"errors"
	"log/slog"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/micro"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/tidegate/tidegate/events"
	"github.com/tidegate/tidegate/internal/intake"
)

// version of the services, as `nats micro ls` shows it: that of the wire.
const version = "1.0.0"

// Config makes a [Service].
type Config struct {
	Conn              *nats.Conn // stays the caller's
	Name, Description string
	Metadata          map[string]string
	// Problem says what a caller is told of an error. It is not asked about bad requests
	// ([*events.FieldError]), nor about those that found no place or came too late.
	Problem func(error) Problem
	Log     *slog.Logger
	// Faults counts faults, Unrepliable the requests that name no subject where answers may
	// go. nil: nobody wants to know.
	Faults, Unrepliable prometheus.Counter
}

// Service answers requests.
type Service struct {
	cfg    Config
	micro  micro.Service // set by Start
	tasks  sync.WaitGroup
	intake intake.Intake // of tasks
	ways   ways
}

// Endpoint is a subject and what answers the requests on it.
type Endpoint struct {
	Name, Subject string
	Handle        micro.HandlerFunc
	ForServices   bool // in an account of their own too
}

// New returns a service. It does not talk to the network.
func New(cfg Config) *Service {
	for _, c := range []*prometheus.Counter{&cfg.Faults, &cfg.Unrepliable} {
		if *c == nil {
			*c = prometheus.NewCounter(prometheus.CounterOpts{})
		}
	}
	return &Service{cfg: cfg}
}

// Start makes the service known, its endpoints in the order given, and begins to answer.
// It returns when NATS has heard of all of them.
func (s *Service) Start(ctx context.Context, endpoints []Endpoint) (err error) {
	s.micro, err = micro.AddService(s.cfg.Conn, micro.Config{Name: s.cfg.Name, Version: version, Description: s.cfg.Description, Metadata: s.cfg.Metadata})
	if err != nil {
		return err
	}
	add := func(name, subject string, mayReply func(string) bool, handle func(micro.Request)) error {
		return s.micro.AddEndpoint(name, micro.HandlerFunc(func(req micro.Request) {
			if mayReply(req.Reply()) {
				if s.ways.both(subject, req.Reply()) {
					s.cfg.Log.Warn("questions come as service imports and as streams: where one account of services has both, each is asked twice. Take the service imports out of the NATS configuration (deploy/nats.conf has none of them)", "subject", subject)
				}
				handle(req)
			} else {
				s.cfg.Unrepliable.Inc()
			}
		}), micro.WithEndpointSubject(subject))
	}
	for _, e := range endpoints {
		err := add(e.Name, e.Subject, MayReply, e.Handle)
		if err == nil && e.ForServices {
			err = add(e.Name+"-services", servicesPrefix+e.Subject, isInbox, func(req micro.Request) { e.Handle(fromService{req}) })
		}
		if err != nil {
			return errors.Join(err, s.Stop())
		}
	}
	if err := Flush(ctx, s.cfg.Conn); err != nil {
		return errors.Join(err, s.Stop())
	}
	return nil
}

// servicesPrefix begins the subject of a question that the server carries here from the account
// of services, and of the answer that it carries back: see deploy/nats.conf. Both accounts
// import a stream. A service import needs no prefix, but the server keeps a record of each
// question, and carries a fifth fewer.
const servicesPrefix = "ai.services."

// ways are those in which questions came from other accounts. Which account it was is not told.
type ways struct {
	imported, streamed, told atomic.Bool
}

// both reports, once, that there are two.
func (w *ways) both(subject, reply string) bool {
	switch {
	case strings.HasPrefix(subject, servicesPrefix):
		w.streamed.Store(true)
	case !isInbox(reply):
		w.imported.Store(true)
	}
	return w.streamed.Load() && w.imported.Load() && w.told.CompareAndSwap(false, true)
}

// fromService is a question from the account of services, as it was asked there.
type fromService struct{ micro.Request }

func (r fromService) Subject() string { return strings.TrimPrefix(r.Request.Subject(), servicesPrefix) }
func (r fromService) Reply() string   { return servicesPrefix + r.Request.Reply() }

// Stop takes no new requests and returns when those that were taken are answered, or have
// got a fault that sends their callers to another process.
func (s *Service) Stop() error {
	err := s.micro.Stop()
	s.intake.Close()
	s.tasks.Wait()
	return err
}

// Answers reports whether requests are answered. It must not be asked before Start has returned.
func (s *Service) Answers() bool { return !s.micro.Stopped() && !s.cfg.Conn.IsClosed() }

// Flush returns when the server has everything that was sent to it. It may not be there
// yet: then there is nobody to answer either.
func Flush(ctx context.Context, nc *nats.Conn) error {
	for {
		err := nc.FlushTimeout(time.Second)
		if err == nil || nc.IsClosed() {
			return err
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(50 * time.Millisecond):
		}
	}
}

// Slow answers requests one by one, on goroutines of their own: the connection's must never
// wait. prepare reads a request, so that a bad one is answered at once and no payload is
// kept waiting, and returns what gets the answer. ctx ends when the service is to stop.
func (s *Service) Slow(ctx context.Context, line *Line, prepare func(micro.Request) (func(context.Context) (any, error), error)) micro.HandlerFunc {
	return func(req micro.Request) {
		reply := req.Reply()
		answer, err := prepare(req)
		if err == nil {
			deadline := time.Now().Add(patience(req, line.Limit))
			err = intake.ErrBusy
			open := s.intake.Take(func() {
				if line.Join() {
					err = nil
					s.tasks.Go(func() { s.answer(ctx, line, deadline, reply, answer) })
				}
			})
			if !open {
				err = intake.ErrStopping
			}
		}
		if err != nil {
			s.Fault(reply, err)
		}
	}
}

// patience is how long the caller waits for an answer, limit at most.
func patience(req micro.Request, limit time.Duration) time.Duration {
	ms, err := strconv.ParseInt(req.Headers().Get(events.TimeoutHeader), 10, 64)
	if err != nil || ms <= 0 || ms > limit.Milliseconds() {
		return limit
	}
	return time.Duration(ms) * time.Millisecond
}

// answer waits for the request's turn, for as long as its caller and this service do.
func (s *Service) answer(ctx context.Context, line *Line, deadline time.Time, reply string, answer func(context.Context) (any, error)) {
	waiting, cancel := context.WithDeadline(ctx, deadline)
	defer cancel()
	working := waiting
	if !line.CutShort {
		working, cancel = context.WithDeadline(context.WithoutCancel(ctx), deadline)
		defer cancel()
	}
	body, err := any(nil), intake.ErrBusy
	_ = line.Work(waiting, func() {
		if ctx.Err() == nil { // what was cut short makes room for those who wait: it is too late for them
			body, err = answer(working)
		}
	})
	if errors.Is(err, intake.ErrBusy) && ctx.Err() != nil {
		err = intake.ErrStopping
	}
	if err != nil {
		s.Fault(reply, err)
		return
	}
	s.Send(reply, body)
}

// Send answers with JSON.
func (s *Service) Send(reply string, answer any) { s.sent(Send(s.cfg.Conn, reply, answer)) }

// Publish answers with what is JSON already.
func (s *Service) Publish(reply string, body []byte) { s.sent(Publish(s.cfg.Conn, reply, body)) }

// Fault answers with an error.
func (s *Service) Fault(reply string, err error) {
	s.cfg.Faults.Inc()
	var p Problem
	var field *events.FieldError
	switch {
	case errors.As(err, &field):
		p.Code = http.StatusBadRequest
	case errors.Is(err, intake.ErrBusy), errors.Is(err, intake.ErrStopping):
		p = Problem{Code: http.StatusServiceUnavailable, TryAgain: true}
	default:
		p = s.cfg.Problem(err)
	}
	if p.What == "" {
		p.What = err.Error()
	}
	s.sent(Fault(s.cfg.Conn, reply, p))
}

// sent takes note of what came of sending an answer: its caller waits in vain.
func (s *Service) sent(err error) {
	if err != nil {
		s.cfg.Log.Debug("an answer cannot be sent", "service", s.cfg.Name, "error", err)
	}
}
