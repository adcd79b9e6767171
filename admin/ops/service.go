package ops

import (
	"cmp"
	"context"
	"errors"
	"log/slog"
	"net/http"
	"strings"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/nats-io/nats.go/micro"

	"github.com/tidegate/tidegate/alert"
	"github.com/tidegate/tidegate/consumer/quarantine"
	"github.com/tidegate/tidegate/events"
	"github.com/tidegate/tidegate/identity"
	"github.com/tidegate/tidegate/internal/changes"
	"github.com/tidegate/tidegate/internal/service"
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
	Alerts  *alert.Deliverer // of this process; nil: it delivers none
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
	service    *service.Service
	started    atomic.Bool
}

const (
	changesAtOnce  = 4
	readingsAtOnce = 4
	longAtOnce     = 2                // verifications, and trials of limits and receivers, each
	waiting        = 64               // in each line
	quickly        = 30 * time.Second // for everything but these
	tryLimit       = time.Minute
	verifyLimit    = time.Hour
)

// New returns a service. It does not talk to the network.
func New(cfg Config) (*Service, error) {
	if cfg.Conn == nil || cfg.Ledger == nil || cfg.Tokens == nil {
		return nil, errors.New("ops: Conn, Ledger and Tokens are required")
	}
	cfg.Logger = cmp.Or(cfg.Logger, slog.Default())
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	js, err := jetstream.New(cfg.Conn)
	if err != nil {
		return nil, err
	}
	s := &Service{cfg: cfg, log: cfg.Logger, js: js, quarantine: quarantine.Open(js)}
	s.service = service.New(service.Config{Conn: cfg.Conn, Name: ServiceName, Description: "Tidegate for its operators", Problem: problem, Log: s.log})
	return s, nil
}

// Run answers until ctx ends. It returns after the requests under way are
// answered; a verification is cut short.
func (s *Service) Run(ctx context.Context) error {
	line := func(atOnce int, limit time.Duration) *service.Line {
		l := service.NewLine(atOnce, waiting, limit)
		l.CutShort = true
		return l
	}
	// Changes do not stand in line behind readings.
	changes, readings := line(changesAtOnce, quickly), line(readingsAtOnce, quickly)
	verifications, trials := line(longAtOnce, verifyLimit), line(longAtOnce, tryLimit)
	var endpoints []service.Endpoint
	for _, e := range []struct {
		subject string
		line    *service.Line
		decode  decoder
	}{
		{subjectVerify, verifications, handle(s.verify)},
		{subjectPorts, readings, handle(s.ports)},
		{subjectPortName, changes, handle(s.namePort)},
		{subjectPortDelete, changes, handle(s.deletePort)},
		{subjectHolds, readings, handle(s.holds)},
		{subjectUnsettled, readings, handle(s.unsettled)},
		{subjectUserErase, changes, handle(s.eraseUser)},
		{subjectQuarantineList, readings, handle(s.listQuarantine)},
		{subjectQuarantineShow, readings, handle(s.showQuarantined)},
		{subjectQuarantineReplay, changes, handle(s.replayQuarantined)},
		{subjectTokenCreate, changes, handle(s.createToken)},
		{subjectTokenList, readings, handle(s.listTokens)},
		{subjectTokenRevoke, changes, handle(s.revokeToken)},
		{subjectLoginLink, changes, handle(s.loginLink)},
		{subjectSimulate, readings, handle(s.simulate)},
		{subjectTryLimit, trials, handle(s.simulateLimit)},
		{subjectAlerts, readings, handle(s.listAlerts)},
		{subjectAlertTest, trials, handle(s.testAlert)},
		{subjectAlertRetry, changes, handle(s.retryAlerts)},
		{subjectRebook, changes, handle(s.rebook)},
		{subjectPosition, readings, handle(s.position)},
	} {
		name := strings.ReplaceAll(strings.TrimPrefix(e.subject, subjectAdmin+"."), ".", "-")
		endpoints = append(endpoints, service.Endpoint{Name: name, Subject: e.subject, Handle: s.service.Slow(ctx, e.line, e.decode)})
	}
	if err := s.service.Start(ctx, endpoints); err != nil {
		if ctx.Err() != nil {
			return nil
		}
		return err
	}
	s.started.Store(true)
	<-ctx.Done()
	return s.service.Stop()
}

// Health says why operators are not answered now; nil: they are.
func (s *Service) Health() error {
	switch {
	case !s.started.Load():
		return errors.New("operators are not answered yet")
	case !s.service.Answers():
		return errors.New("operators are not answered any more")
	}
	return nil
}

var errNoLinks = errors.New("this installation has no login links: people sign in at the OIDC provider")

// decoder reads a request and returns what answers it.
type decoder = func(micro.Request) (func(context.Context) (any, error), error)

func handle[T any](answer func(context.Context, T) (any, error)) decoder {
	return func(req micro.Request) (func(context.Context) (any, error), error) {
		var r T
		err := events.DecodeStrict(req.Data(), &r)
		return func(ctx context.Context) (any, error) { return answer(ctx, r) }, err
	}
}

// problem says what the operator is told of an error.
func problem(err error) service.Problem {
	switch {
	case errors.Is(err, identity.ErrBadTokenRequest):
		return service.Problem{Code: http.StatusBadRequest}
	case errors.Is(err, ledger.ErrUnknownPort), errors.Is(err, quarantine.ErrNotFound), errors.Is(err, identity.ErrTokenNotFound), errors.Is(err, errNoLinks),
		errors.Is(err, errNoReceivers), errors.Is(err, alert.ErrUnknownReceiver):
		return service.Problem{Code: http.StatusNotFound}
	case errors.Is(err, errNotTaken):
		return service.Problem{Code: http.StatusBadGateway}
	}
	return service.Problem{Code: http.StatusServiceUnavailable}
}

func (s *Service) ports(ctx context.Context, r portsRequest) (any, error) {
	ports, err := s.cfg.Ledger.Ports(ctx, ledger.PortQuery{After: r.After, Limit: clamp(r.Limit, maxPorts)}, s.cfg.Now())
	return portsReply{ports}, err
}

func (s *Service) namePort(ctx context.Context, r portNameRequest) (any, error) {
	if err := (events.CheckRequest{PortID: r.PortID}).Validate(); err != nil {
		return nil, err
	}
	return struct{}{}, changes.NamePort(ctx, s.cfg.Ledger, s.cfg.Conn, s.log, r.PortID, r.Name, r.By)
}

func (s *Service) deletePort(ctx context.Context, r portDeleteRequest) (any, error) {
	rows, err := changes.DeletePort(ctx, s.cfg.Ledger, s.cfg.Conn, s.log, r.PortID, r.By)
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
