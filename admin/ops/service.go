package ops

import (
	"context"
	"errors"
	"log/slog"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/nats-io/nats.go/micro"

	"github.com/tidegate/tidegate/consumer/quarantine"
	"github.com/tidegate/tidegate/events"
	"github.com/tidegate/tidegate/identity"
	"github.com/tidegate/tidegate/internal/bus"
	"github.com/tidegate/tidegate/internal/inbox"
	"github.com/tidegate/tidegate/internal/intake"
	"github.com/tidegate/tidegate/ledger"
)

// Config makes a [Service].
type Config struct {
	Conn   *nats.Conn       // required; stays the caller's
	Ledger *ledger.Ledger   // required
	Tokens *identity.Tokens // required
	// Permissions are those that an API token can be made for: any other is a typing error.
	Permissions []string
	// NewLink mints a one-time login link. nil: there are none, as behind an OIDC issuer.
	NewLink func(now time.Time) (path string, expires time.Time)
	PageURL string           // of the page that NewLink's paths are on
	Logger  *slog.Logger     // default slog.Default()
	Now     func() time.Time // default time.Now
}

// Service answers operators. Several may run: they share the requests.
type Service struct {
	cfg         Config
	log         *slog.Logger
	js          jetstream.JetStream
	quarantine  quarantine.Store
	tasks       sync.WaitGroup
	intake      intake.Intake // of tasks
	quick, long *intake.Line
	service     atomic.Pointer[micro.Service] // nil until Run has registered everything
}

const (
	quickAtOnce = 8
	longAtOnce  = 2                // verifications
	waiting     = 64               // in each line
	quickly     = 30 * time.Second // for everything but a verification
	verifyLimit = time.Hour
)

// New returns a service. It does not talk to the network.
func New(cfg Config) (*Service, error) {
	if cfg.Conn == nil || cfg.Ledger == nil || cfg.Tokens == nil {
		return nil, errors.New("ops: Conn, Ledger and Tokens are required")
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.Default()
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	js, err := jetstream.New(cfg.Conn)
	if err != nil {
		return nil, err
	}
	return &Service{cfg: cfg, log: cfg.Logger, js: js, quarantine: quarantine.Open(js),
		quick: intake.NewLine(quickAtOnce, waiting), long: intake.NewLine(longAtOnce, waiting)}, nil
}

// Run answers until ctx ends. It returns after the requests under way are
// answered; a verification is cut short.
func (s *Service) Run(ctx context.Context) error {
	service, err := micro.AddService(s.cfg.Conn, micro.Config{Name: ServiceName, Version: "1.0.0", Description: "Tidegate for its operators"})
	if err != nil {
		return err
	}
	for subject, answer := range map[string]func(context.Context, []byte) (any, error){
		subjectVerify:           handle(s.verify),
		subjectPorts:            handle(s.ports),
		subjectPortDelete:       handle(s.deletePort),
		subjectHolds:            handle(s.holds),
		subjectUnsettled:        handle(s.unsettled),
		subjectUserErase:        handle(s.eraseUser),
		subjectQuarantineList:   handle(s.listQuarantine),
		subjectQuarantineShow:   handle(s.showQuarantined),
		subjectQuarantineReplay: handle(s.replayQuarantined),
		subjectTokenCreate:      handle(s.createToken),
		subjectTokenList:        handle(s.listTokens),
		subjectTokenRevoke:      handle(s.revokeToken),
		subjectLoginLink:        handle(s.loginLink),
		subjectSimulate:         handle(s.simulate),
		subjectRebook:           handle(s.rebook),
		subjectPosition:         handle(s.position),
	} {
		name := strings.ReplaceAll(strings.TrimPrefix(subject, subjectAdmin+"."), ".", "-")
		line, limit := s.quick, quickly
		if subject == subjectVerify {
			line, limit = s.long, verifyLimit
		}
		if err := service.AddEndpoint(name, s.endpoint(ctx, line, limit, answer), micro.WithEndpointSubject(subject)); err != nil {
			return errors.Join(err, service.Stop())
		}
	}
	for ctx.Err() == nil && s.cfg.Conn.FlushTimeout(time.Second) != nil { // NATS is not there yet
		select {
		case <-ctx.Done():
		case <-time.After(50 * time.Millisecond):
		}
	}
	s.service.Store(&service)
	<-ctx.Done()
	err = service.Stop()
	s.intake.Close()
	s.tasks.Wait()
	return err
}

// Health says why operators are not answered now; nil: they are.
func (s *Service) Health() error {
	service := s.service.Load()
	switch {
	case service == nil:
		return errors.New("operators are not answered yet")
	case (*service).Stopped(), s.cfg.Conn.IsClosed():
		return errors.New("operators are not answered any more")
	}
	return nil
}

// endpoint answers each request on a goroutine of its own, when it is its turn.
func (s *Service) endpoint(ctx context.Context, line *intake.Line, limit time.Duration, answer func(context.Context, []byte) (any, error)) micro.HandlerFunc {
	return func(req micro.Request) {
		// Anybody who may ask could otherwise have the answer sent into JetStream's API.
		if !inbox.Allowed(req.Reply()) {
			return
		}
		err := errBusy
		open := s.intake.Take(func() {
			if line.Join() {
				err = nil
				s.tasks.Go(func() { s.answer(ctx, line, limit, req, answer) })
			}
		})
		if !open {
			err = errStopping
		}
		if err != nil {
			s.fault(req, err)
		}
	}
}

func (s *Service) answer(ctx context.Context, line *intake.Line, limit time.Duration, req micro.Request, answer func(context.Context, []byte) (any, error)) {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	var reply any
	err := errBusy
	if line.Work(ctx, func() { reply, err = answer(ctx, req.Data()) }); err != nil {
		s.fault(req, err)
		return
	}
	s.sent(req, inbox.Send(s.cfg.Conn, req.Reply(), reply))
}

func (s *Service) sent(req micro.Request, err error) {
	if err != nil {
		s.log.Warn("an operator's answer cannot be sent", "subject", req.Subject(), "error", err)
	}
}

var (
	errBusy     = errors.New("too many operators' requests are under way: try again")
	errStopping = errors.New("this process is stopping: try again, another one may answer")
	errNoLinks  = errors.New("this installation has no login links: people sign in at the OIDC provider")
)

// handle decodes the request for f.
func handle[T any](f func(context.Context, T) (any, error)) func(context.Context, []byte) (any, error) {
	return func(ctx context.Context, body []byte) (any, error) {
		var request T
		if err := events.DecodeStrict(body, &request); err != nil {
			return nil, err
		}
		return f(ctx, request)
	}
}

func (s *Service) fault(req micro.Request, err error) {
	p := inbox.Problem{Code: 503, What: err.Error(), TryAgain: errors.Is(err, errBusy) || errors.Is(err, errStopping)}
	var field *events.FieldError
	switch {
	case errors.As(err, &field), errors.Is(err, identity.ErrBadTokenRequest):
		p.Code = 400
	case errors.Is(err, ledger.ErrUnknownPort), errors.Is(err, quarantine.ErrNotFound), errors.Is(err, identity.ErrTokenNotFound), errors.Is(err, errNoLinks):
		p.Code = 404
	}
	s.sent(req, inbox.Fault(s.cfg.Conn, req.Reply(), p))
}

func (s *Service) ports(ctx context.Context, r portsRequest) (any, error) {
	ports, err := s.cfg.Ledger.Ports(ctx, r.After, clamp(r.Limit, maxPorts), s.cfg.Now())
	return portsReply{ports}, err
}

func (s *Service) deletePort(ctx context.Context, r portDeleteRequest) (any, error) {
	rows, err := bus.DeletePort(ctx, s.cfg.Ledger, s.cfg.Conn, s.log, r.PortID, r.By)
	return Deleted{rows}, err
}

func (s *Service) holds(ctx context.Context, r holdsRequest) (any, error) {
	live, err := s.cfg.Ledger.LiveHolds(ctx, r.PortID, r.After, clamp(r.Limit, maxHolds))
	return holdsReply{live}, err
}

func (s *Service) unsettled(ctx context.Context, r unsettledRequest) (any, error) {
	unsettled, err := s.cfg.Ledger.UnsettledHolds(ctx, r.PortID, r.After, clamp(r.Limit, maxHolds))
	return unsettledReply{unsettled}, err
}

func (s *Service) eraseUser(ctx context.Context, r userEraseRequest) (any, error) {
	rows, err := s.cfg.Ledger.EraseUser(ctx, r.UserID)
	return Deleted{rows}, err
}

func (s *Service) listQuarantine(ctx context.Context, r quarantineListRequest) (any, error) {
	list, err := s.quarantine.List(ctx, r.From, clamp(r.Limit, maxQuarantined))
	for i := range list { // the whole is one request away
		list[i].Payload, list[i].Headers = nil, nil
		list[i].Text = strings.ToValidUTF8(list[i].Text[:min(len(list[i].Text), 200)], "") // not half a character
	}
	return quarantineReply{list}, err
}

func (s *Service) showQuarantined(ctx context.Context, r quarantineRequest) (any, error) {
	return s.quarantine.Get(ctx, r.Sequence)
}

func (s *Service) replayQuarantined(ctx context.Context, r quarantineRequest) (any, error) {
	return struct{}{}, s.quarantine.Replay(ctx, r.Sequence)
}

func clamp(limit, most int) int {
	if limit <= 0 || limit > most {
		return most
	}
	return limit
}
