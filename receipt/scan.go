package receipt

import (
	"context"
	"errors"
	"fmt"
	"image"
	"log/slog"
	"net/http"
	"time"

	"github.com/tidegate/tidegate/events"
	"github.com/tidegate/tidegate/identity"
	"github.com/tidegate/tidegate/identity/safehttp"
	"github.com/tidegate/tidegate/meter"
	"github.com/tidegate/tidegate/receipt/picture"
)

const (
	uploadTimeout = 60 * time.Second // a photo over a slow phone connection
	answerTimeout = 10 * time.Second // for what comes after the reading
	// stopGrace is what a reading may still take when the process stops, before it is
	// cancelled and its sender told to type: less than safehttp.Serve waits.
	stopGrace = 6 * time.Second
)

var errStopping = errors.New("the service is stopping")

// scan is one request: upload, gate, reading, answer. Nothing that goes wrong after
// the upload is an error to the caller, whose receipt can always be typed.
func (s *service) scan(w http.ResponseWriter, r *http.Request) {
	port := r.PathValue("port")
	if !events.ValidPort(port) {
		safehttp.WriteProblem(w, *problem(http.StatusBadRequest, "invalid-port", "This is no port", "a port is 1 to 64 of A-Z a-z 0-9 _ -"))
		return
	}
	select {
	case s.slots <- struct{}{}:
		defer func() { <-s.slots }()
	default:
		busy(w)
		return
	}
	control, now := http.NewResponseController(w), time.Now()
	_ = control.SetReadDeadline(now.Add(uploadTimeout)) // a server without deadlines has none to move
	_ = control.SetWriteDeadline(now.Add(uploadTimeout + s.Timeout + answerTimeout))

	data, refused := s.upload(r)
	if refused != nil {
		safehttp.WriteProblem(w, *refused)
		return
	}
	file, err := picture.Open(data, s.MaxPixels)
	if err != nil {
		safehttp.WriteProblem(w, *pictureProblem(err))
		return
	}
	caller, _ := identity.CallerFrom(r.Context())
	j := &job{service: s, port: port, user: userID(caller)}
	ctx, done := s.bound(r)
	defer done()
	if !j.check(ctx) {
		j.answer(w, Receipt{}, nil)
		return
	}
	img, err := s.decode(ctx, file)
	if err != nil {
		safehttp.WriteProblem(w, *pictureProblem(err))
		return
	}
	read, err := j.runOCR(ctx, img)
	j.answer(w, read, err)
}

// bound is the context of a reading: it ends with the request, after Timeout, or
// some seconds after the server began to stop. done must be called.
func (s *service) bound(r *http.Request) (ctx context.Context, done func()) {
	ctx, cancel := context.WithCancelCause(r.Context())
	ctx, stop := context.WithTimeout(ctx, s.Timeout)
	watched := make(chan struct{})
	go func() {
		defer close(watched)
		select {
		case <-ctx.Done():
			return
		case <-safehttp.Stopping(r):
		}
		select {
		case <-ctx.Done():
		case <-time.After(stopGrace):
			cancel(errStopping)
		}
	}()
	return ctx, func() {
		stop()
		cancel(nil)
		<-watched
	}
}

// smallPixels is what a small picture has at most. To decode it takes some 20 MB.
const smallPixels = 2_000_000

func (s *service) decode(ctx context.Context, file picture.File) (image.Image, error) {
	var small chan struct{} // nil: no place there
	if file.Pixels <= smallPixels {
		small = s.decodingSmall
	}
	select {
	case s.decoding <- struct{}{}:
		defer func() { <-s.decoding }()
	case small <- struct{}{}:
		defer func() { <-small }()
	case <-ctx.Done():
		return nil, fmt.Errorf("%w: it waited too long for its turn", picture.ErrUndecoded)
	}
	return file.Decode()
}

// userID is the caller as usage events name a user.
func userID(c identity.Caller) string {
	if (events.CheckRequest{PortID: "p", UserID: c.Subject}).Validate() == nil {
		return c.Subject
	}
	return c.Actor() // always fits
}

// runOCR reads the receipt and records what that cost; what it cost is in j.spent,
// whatever the error.
func (j *job) runOCR(ctx context.Context, img image.Image) (read Receipt, err error) {
	if j.Provider == nil {
		return Receipt{}, fmt.Errorf("%w: none was chosen", ErrNotConfigured)
	}
	defer func() {
		if p := recover(); p != nil { // a picture that crashes a reader must not cost the person's receipt
			err = fmt.Errorf("receipt: panic in provider %s: %v", j.Provider.Name(), p)
		}
	}()
	transport := meter.NewTransport(meter.Config{
		Base: j.Transport, Port: j.port, User: j.user, Feature: Feature,
		Recorder: j, Reserver: j, Logger: j.Logger,
	})
	read, usage, err := j.Provider.Read(ctx, &http.Client{Transport: transport}, img)
	if usage != nil {
		usage.PortID, usage.UserID, usage.Feature = j.port, j.user, Feature
		j.Record(*usage)
	}
	return read, err
}

// answer tells what came of the scan.
func (j *job) answer(w http.ResponseWriter, read Receipt, err error) {
	a := j.outcome(read, err)
	if a.Reason != "" {
		level := slog.LevelInfo
		if a.Reason != BudgetExceeded {
			level = slog.LevelWarn
		}
		j.Logger.Log(context.Background(), level, "receipt: a receipt is to be typed", "port", j.port, "reason", a.Reason, "error", err)
	}
	writeJSON(w, a)
}
