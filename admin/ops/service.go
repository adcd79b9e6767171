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
	"github.com/tidegate/tidegate/internal/inbox"
	"github.com/tidegate/tidegate/internal/intake"
	"github.com/tidegate/tidegate/ledger"
)

// Config makes a [Service].
type Config struct {
	Conn   *nats.Conn     // required; stays the caller's
	Ledger *ledger.Ledger // required
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
	cfg        Config
	log        *slog.Logger
	js         jetstream.JetStream
	quarantine quarantine.Store
	tokens     *identity.Tokens
	tasks      sync.WaitGroup
	intake     intake.Intake // of tasks
	slots      chan struct{}
	service    atomic.Pointer[micro.Service] // nil until Run has registered everything
}

const (
	atOnce      = 8
	quickly     = 30 * time.Second // for everything but a verification
	verifyLimit = time.Hour
)

// New returns a service. It does not talk to the network.
func New(cfg Config) (*Service, error) {
	if cfg.Conn == nil || cfg.Ledger == nil {
		return nil, errors.New("ops: Conn and Ledger are required")
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
		tokens: identity.NewTokens(cfg.Ledger, cfg.Logger), slots: make(chan struct{}, atOnce)}, nil
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
		name := strings.ReplaceAll(strings.TrimPrefix(subject, events.SubjectAdmin+"."), ".", "-")
		limit := quickly
		if subject == subjectVerify {
			limit = verifyLimit
		}
		if err := service.AddEndpoint(name, s.endpoint(ctx, limit, answer), micro.WithEndpointSubject(subject)); err != nil {
			return errors.Join(err, service.Stop())
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
	case (*service).Stopped():
		return errors.New("operators are not answered any more")
	}
	return nil
}

// endpoint answers each request on a goroutine of its own, a few at a time.
func (s *Service) endpoint(ctx context.Context, limit time.Duration, answer func(context.Context, []byte) (any, error)) micro.HandlerFunc {
	return func(req micro.Request) {
		// Anybody who may ask could otherwise have the answer sent into JetStream's API.
		if !inbox.Allowed(req.Reply()) {
			return
		}
		select {
		case s.slots <- struct{}{}:
		default:
			s.fault(req, errBusy)
			return
		}
		begun := s.intake.Take(func() {
			s.tasks.Go(func() {
				defer func() { <-s.slots }()
				ctx, cancel := context.WithTimeout(ctx, limit)
				defer cancel()
				s.answer(ctx, req, answer)
			})
		})
		if !begun {
			<-s.slots
			s.fault(req, errStopping)
		}
	}
}

func (s *Service) answer(ctx context.Context, req micro.Request, answer func(context.Context, []byte) (any, error)) {
	reply, err := answer(ctx, req.Data())
	if err != nil {
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
	code := 503
	var field *events.FieldError
	switch {
	case errors.As(err, &field), errors.Is(err, identity.ErrBadTokenRequest):
		code = 400
	case errors.Is(err, ledger.ErrUnknownPort), errors.Is(err, quarantine.ErrNotFound), errors.Is(err, identity.ErrTokenNotFound), errors.Is(err, errNoLinks):
		code = 404
	}
	s.sent(req, inbox.Fault(s.cfg.Conn, req.Reply(), code, err.Error()))
}

func (s *Service) ports(ctx context.Context, r portsRequest) (any, error) {
	ports, err := s.cfg.Ledger.Ports(ctx, r.After, clamp(r.Limit, maxPorts), s.cfg.Now())
	return portsReply{ports}, err
}

func (s *Service) deletePort(ctx context.Context, r portDeleteRequest) (any, error) {
	rows, err := s.cfg.Ledger.DeletePort(ctx, r.PortID, r.By)
	if err != nil {
		return nil, err
	}
	_ = events.AnnounceDeleted(s.cfg.Conn, r.PortID) // lost: the gates' next reading finds it
	s.log.Info("port deleted", "port_id", r.PortID, "rows", rows, "by", r.By)
	return Deleted{rows}, nil
}

func (s *Service) holds(ctx context.Context, r holdsRequest) (any, error) {
	return s.cfg.Ledger.Holds(ctx, r.PortID)
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
