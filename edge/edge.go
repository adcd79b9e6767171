// Package edge is HTTP for services that keep no NATS connection: it reports usage, and asks
// the budget gate. It is itself a plain client of NATS, like any service: what it is sent goes
// to the usage stream, what it is asked goes to a gate. It books nothing and decides nothing.
package edge

//go:generate go test -run ^TestAPIDocument$ -update .

import (
	"cmp"
	"context"
	"errors"
	"log/slog"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/tidegate/tidegate/events"
	"github.com/tidegate/tidegate/identity"
	"github.com/tidegate/tidegate/identity/safehttp"
	"github.com/tidegate/tidegate/internal/room"
)

// What a token must hold, for the port that a request names.
const (
	PermissionReport  = "usage.report"   // to report what calls cost
	PermissionReserve = "budget.reserve" // to check, to reserve and release, to read the budget
)

const (
	maxUsageBytes = 1 << 20 // of a report, before and after inflating
	maxEvents     = 5_000   // of a report

	// A request waits for what is being published, and then for its own events: twice
	// this at most, which is less than a stop of the process may take.
	publishTimeout = 4 * time.Second
	ackTimeout     = 2 * time.Second // then the same is published again
)

// Config makes a [Edge].
type Config struct {
	// Conn may publish on ai.usage and ai.usage.*, and ask ai.budget.check, reserve, release and get of any
	// port. It stays the caller's to close, after [Edge.Close]. Required.
	Conn *nats.Conn
	// Tokens is where API tokens are looked up. Required.
	Tokens identity.TokenStore
	// Room is for requests in flight, default 1,024 of them with bodies of 32 MiB. Beyond, the
	// answer is 503; a token that takes more than half of either gets 429.
	Room *room.Room
	// Registerer gets the metrics. nil: there are none.
	Registerer prometheus.Registerer
	// Logger gets what an operator should know. Default slog.Default().
	Logger *slog.Logger
}

// Edge answers what is below /v1/.
type Edge struct {
	http.Handler
	storing *storing
	client  *events.Client
	auth    *identity.Authenticator
	room    *room.Room
	log     *slog.Logger
	events  *prometheus.CounterVec
}

// New does no I/O.
func New(cfg Config) (*Edge, error) {
	if cfg.Conn == nil || cfg.Tokens == nil {
		return nil, errors.New("edge: Conn and Tokens are required")
	}
	log := cmp.Or(cfg.Logger, slog.Default())
	// A report may name many ports, and was let through for each of them.
	publisher, err := events.NewPublisher(cfg.Conn, events.PublisherConfig{SharedSubject: true, AckTimeout: ackTimeout, Logger: log})
	if err != nil {
		return nil, err
	}
	client, err := events.NewClient(cfg.Conn, events.ClientConfig{WhenUnavailable: events.FailClosed, Publisher: publisher, Service: "edge"})
	if err != nil {
		return nil, err
	}
	js, err := jetstream.New(cfg.Conn)
	if err != nil {
		return nil, err
	}
	e := &Edge{
		storing: &storing{nc: cfg.Conn, js: js, publisher: publisher}, client: client, log: log,
		auth: &identity.Authenticator{Tokens: identity.NewTokens(identity.Remember(cfg.Tokens), log), Log: log},
		room: cmp.Or(cfg.Room, room.New(1024, 32<<20)),
	}
	f := promauto.With(cfg.Registerer)
	e.events = f.NewCounterVec(prometheus.CounterOpts{Name: "tidegate_edge_events_total", Help: "Usage events, LiteLLM's records and spans of model calls reported over HTTP, by what became of them."}, []string{"outcome"})
	seconds := f.NewHistogramVec(prometheus.HistogramOpts{Name: "tidegate_edge_request_seconds",
		Help: "Time to answer requests of services over HTTP, by operation and status.", Buckets: prometheus.ExponentialBuckets(0.001, 4, 8)}, []string{"operation", "code"})
	e.Handler = e.mount(seconds)
	return e, nil
}

// Close waits for what is being published. Call it once no request is in flight any more.
func (e *Edge) Close(ctx context.Context) error { return e.storing.close(ctx) }

// Stats are the counts of the edge's publisher.
func (e *Edge) Stats() events.Stats { return e.storing.publisher.Stats() }

// mount registers the routes, and answers for what is none of them.
func (e *Edge) mount(seconds *prometheus.HistogramVec) http.Handler {
	mux := http.NewServeMux()
	methods := map[string][]string{}
	for _, r := range routes {
		handler := promhttp.InstrumentHandlerDuration(seconds.MustCurryWith(prometheus.Labels{"operation": r.id}), e.guard(r))
		mux.Handle(r.method+" "+r.path, handler)
		methods[r.path] = append(methods[r.path], r.method)
	}
	for path, allowed := range methods {
		slices.Sort(allowed)
		mux.Handle(path, methodNotAllowed(strings.Join(allowed, ", ")))
	}
	mux.HandleFunc("/", notFound)
	return mux
}

// call is one request that was let through.
type call struct {
	*http.Request
	w      http.ResponseWriter
	caller identity.Caller
	port   string // in the address; "" where that names none

	maxBody int64 // also once it is inflated
}

// guard lets through who may, as long as there is room.
func (e *Edge) guard(r route) http.Handler {
	handler := http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		c := &call{Request: req, w: w, port: req.PathValue("port"), maxBody: r.maxBody}
		c.caller, _ = identity.CallerFrom(req.Context())
		if err := e.serve(r, c); err != nil {
			e.refuse(w, req, err)
		}
	})
	limited := safehttp.LimitBody(r.maxBody, handler)
	if !strings.Contains(r.path, "{port}") {
		return e.auth.RequireSomePort(r.permission, limited)
	}
	return e.auth.Require(r.permission, identity.PathPort("port"), limited)
}

func (e *Edge) serve(r route, c *call) error {
	if strings.Contains(r.path, "{port}") && !events.ValidPort(c.port) {
		return invalid("port_id", quoted(c.port), "must be 1 to 64 of A-Z a-z 0-9 _ -")
	}
	if c.URL.RawQuery != "" && r.query == nil {
		return invalid("query", quoted(c.URL.RawQuery), "must be left out: this address has no parameters")
	}
	size := r.maxBody // as large as it may get
	if c.ContentLength >= 0 && c.Header.Get("Content-Encoding") == "" {
		size = c.ContentLength
	}
	leave, err := e.room.Enter(c.caller.Subject, size)
	if err != nil {
		return err
	}
	defer leave()
	return r.handle(e, c)
}
