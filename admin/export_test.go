package admin

import (
	"net/http"
	"slices"
	"strings"
	"time"
)

// Route is an operation as the tests walk them.
type Route struct {
	Method, Path string // with {port} and {user}
	EveryPort    bool   // callers limited to some ports are refused
	OnePort      bool
}

// Routes is the route table.
func Routes() (list []Route) {
	for _, r := range routes {
		list = append(list, Route{r.method, basePath + r.path, r.reach == everyPort, r.reach == onePort})
	}
	return list
}

// At is the route's path for a port, and for some user.
func (r Route) At(port string) string {
	return strings.NewReplacer("{port}", port, "{user}", "u1").Replace(r.Path)
}

// NewWithTimeout is New with less patience.
func NewWithTimeout(cfg Config, timeout time.Duration) (http.Handler, error) {
	hasty := slices.Clone(routes)
	for i := range hasty {
		hasty[i].timeout = timeout
	}
	return newHandler(cfg, hasty)
}

// NewWithNakedRoute is New with a route that says nothing of who may.
func NewWithNakedRoute(cfg Config) (http.Handler, error) {
	return newHandler(cfg, []route{{method: http.MethodGet, path: "/naked", handle: func(_ *api, c *call) error { return c.reply("secret") }}})
}
