// Package safehttp holds what every HTTP server of this project needs and none should
// get wrong: timeouts, body limits, security headers, the cross-origin check and
// RFC 9457 problem documents. It knows nothing of callers.
package safehttp

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"time"
)

// The timeouts of every server. A handler that streams, or takes a large upload,
// moves its own deadlines with [http.ResponseController].
const (
	readHeaderTimeout = 5 * time.Second
	readTimeout       = 30 * time.Second // headers and body
	writeTimeout      = 60 * time.Second // from the end of the headers to the end of the answer
	idleTimeout       = 2 * time.Minute  // between two requests on one connection
	drainTimeout      = 10 * time.Second
	maxHeaderBytes    = 64 << 10 // room for an OIDC token with many groups
)

// Server returns a server for addr with all timeouts set. A handler that panics costs
// its own request and nothing else: net/http cuts that connection, and the stack is
// logged as an error by slog's default at the time of this call.
func Server(addr string, handler http.Handler) *http.Server {
	return &http.Server{
		Addr:              addr,
		Handler:           handler,
		ReadHeaderTimeout: readHeaderTimeout,
		ReadTimeout:       readTimeout,
		WriteTimeout:      writeTimeout,
		IdleTimeout:       idleTimeout,
		MaxHeaderBytes:    maxHeaderBytes,
		ErrorLog:          slog.NewLogLogger(slog.Default().Handler(), slog.LevelError),
	}
}

type stoppingKey struct{}

// Stopping is closed once the server of [Serve] has begun to stop. A handler that
// streams must end then: the server waits for it. Under any other server it is nil.
func Stopping(r *http.Request) <-chan struct{} {
	stopping, _ := r.Context().Value(stoppingKey{}).(<-chan struct{})
	return stopping
}

// Serve answers on listener until ctx ends. Then it accepts nothing new and
// returns when the requests in flight are answered, or cut off after 10 seconds;
// cutting some off is an error, stopping is not.
func Serve(ctx context.Context, listener net.Listener, handler http.Handler) error {
	server := Server(listener.Addr().String(), handler)
	base := context.WithValue(context.WithoutCancel(ctx), stoppingKey{}, ctx.Done())
	server.BaseContext = func(net.Listener) context.Context { return base }

	served := make(chan error, 1)
	go func() { served <- server.Serve(listener) }()
	select {
	case err := <-served:
		return err
	case <-ctx.Done():
	}
	drain, cancel := context.WithTimeout(context.WithoutCancel(ctx), drainTimeout)
	defer cancel()
	err := server.Shutdown(drain)
	if err != nil {
		err = errors.Join(errors.New("web: requests were still running 10s after the stop and were cut off"), server.Close())
	}
	<-served
	return err
}
