package safehttp

import (
	"net/http"
	"sync/atomic"
)

// Later is a handler that is not there yet: until [Later.Set] it answers 503, to be
// asked again. So a server can listen before what it serves has started. The zero value
// is ready to use.
type Later struct{ handler atomic.Pointer[http.Handler] }

// Set makes h answer from now on.
func (l *Later) Set(h http.Handler) { l.handler.Store(&h) }

func (l *Later) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if h := l.handler.Load(); h != nil {
		(*h).ServeHTTP(w, r)
		return
	}
	w.Header().Set("Retry-After", "1")
	w.Header().Set("Refresh", "1") // what a browser knows of that
	Refuse(w, r, Problem{Type: "about:blank", Status: http.StatusServiceUnavailable, Title: "The service is starting", Detail: "try again in a moment"})
}
