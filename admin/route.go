package admin

import (
	"context"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/tidegate/tidegate/events"
	"github.com/tidegate/tidegate/identity"
)

// basePath is where the API begins.
const basePath = "/api/v1"

// reach says whose business a route is. The zero value is the strictest.
type reach int

const (
	everyPort reach = iota // callers limited to some ports are refused
	onePort                // the {port} in the path must be the caller's
	somePorts              // the handler leaves out what is not the caller's
)

// route is one operation of the API: who may, what it takes, what it gives. The
// document in admin/openapi.json says the same, because it is made from this.
type route struct {
	method, path string // below basePath
	permission   string // empty: nobody may
	reach        reach
	timeout      time.Duration // default 10 s

	id, summary, about string
	query              []param
	body               any // what a PUT takes, as a zero value; nil: nothing is read
	reply              any // what a success gives, as a zero value; csv; nil: 204
	fails              []int

	handle func(*api, *call) error
}

// csv is the reply of routes that answer with CSV.
type csv struct{}

// call is one request that was let through.
type call struct {
	*http.Request
	w      http.ResponseWriter
	caller identity.Caller
	port   string // of a route that reaches one port
	query  values
	now    time.Time
}

// mayChange: the caller may do more than look. Its ports are those of the route.
func (c *call) mayChange() bool { return c.caller.Has(Permission) }

const requestTimeout = 10 * time.Second

// mount registers the routes, and answers for what is none of them: nothing below
// basePath is open to anyone without a permission.
func (a *api) mount(mux *http.ServeMux, routes []route) {
	methods := map[string][]string{}
	for _, r := range routes {
		mux.Handle(r.method+" "+basePath+r.path, a.guard(r))
		methods[r.path] = append(methods[r.path], r.method)
	}
	for path, allowed := range methods {
		if slices.Contains(allowed, http.MethodGet) {
			allowed = append(allowed, http.MethodHead)
		}
		slices.Sort(allowed)
		mux.Handle(basePath+path, a.cfg.Auth.RequireSomePort(View, methodNotAllowed(strings.Join(allowed, ", ")), Permission))
	}
	mux.Handle("/api/", a.cfg.Auth.RequireSomePort(View, http.HandlerFunc(notFound), Permission))
}

func (a *api) guard(r route) http.Handler {
	handler := http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		if err := a.serve(r, w, req); err != nil {
			a.refuse(w, req, err)
		}
	})
	var or []string
	if r.permission == View {
		or = []string{Permission} // who may change it may see it
	}
	switch r.reach {
	case onePort:
		return a.cfg.Auth.Require(r.permission, identity.PathPort("port"), handler, or...)
	case somePorts:
		return a.cfg.Auth.RequireSomePort(r.permission, handler, or...)
	default:
		return a.cfg.Auth.Require(r.permission, nil, handler, or...)
	}
}

// serve checks what the route declares and calls its handler.
func (a *api) serve(r route, w http.ResponseWriter, req *http.Request) error {
	timeout := r.timeout
	if timeout == 0 {
		timeout = requestTimeout
	} else {
		// Where it cannot be moved the server's own deadline stays.
		_ = http.NewResponseController(w).SetWriteDeadline(time.Now().Add(timeout + time.Second))
	}
	ctx, cancel := context.WithTimeout(req.Context(), timeout)
	defer cancel()
	c := &call{Request: req.WithContext(ctx), w: w, now: a.cfg.Now()}
	c.caller, _ = identity.CallerFrom(ctx)
	if r.reach == onePort {
		if c.port = req.PathValue("port"); !events.ValidPort(c.port) {
			return invalid("port_id", quoted(c.port), "must be 1 to 64 of A-Z a-z 0-9 _ -")
		}
	}
	var err error
	if c.query, err = parseQuery(r.query, req.URL.RawQuery); err != nil {
		return err
	}
	return r.handle(a, c)
}
