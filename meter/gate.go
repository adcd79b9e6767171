package meter

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"github.com/tidegate/tidegate/events"
)

// Gate answers whether a port may spend; events.Client is one. Its verdict is
// acted on whatever its error is, since that says what to do when nobody answers.
type Gate interface {
	Check(ctx context.Context, r events.CheckRequest) (events.Verdict, error)
}

// Reserver holds what a call may cost until the usage event names the hold;
// events.Client is one, given a publisher.
type Reserver interface {
	Reserve(ctx context.Context, r events.ReserveRequest) (*events.Reservation, error)
	// Release gives a hold back where nothing was spent. Transport waits up to a
	// second for it; a hold that could not be released expires by itself.
	Release(ctx context.Context, port, reservationID string) error
}

const releaseTimeout = time.Second

// RefusedError is why a call did not happen, or was stopped while it streamed.
type RefusedError struct {
	Port            string
	EstimatedTokens int64
	Verdict         events.Verdict
	Streaming       bool  // the reply was being received
	Err             error // why the gate could not be asked, nil when the refusal is its own
}

// Unwrap returns Err.
func (e *RefusedError) Unwrap() error { return e.Err }

func (e *RefusedError) Error() string {
	what := "call of about"
	if e.Streaming {
		what = "stream stopped after about"
	}
	v := e.Verdict
	s := fmt.Sprintf("meter: port %s: %s %d tokens refused%s: %s", e.Port, what, e.EstimatedTokens, byLimit(&v), cmp.Or(v.Reason, events.ReasonGateUnavailable))
	if v.HardCapTokens != nil {
		s += fmt.Sprintf(" (%d used and %d held of %d%s)", v.UsedTokens, v.HeldTokens, *v.HardCapTokens, inUnit(&v))
	}
	if !v.ResetsAt.IsZero() {
		s += ", the period rolls over at " + v.ResetsAt.UTC().Format(time.RFC3339)
	}
	if e.Err != nil {
		s += ": " + e.Err.Error()
	}
	return s
}

// byLimit names the limit that refuses, if it is not the port's own.
func byLimit(v *events.Verdict) string {
	switch {
	case v.Limit == "" || v.Limit == events.PortLimit:
		return ""
	case v.LimitValue != "":
		return fmt.Sprintf(" by limit %s for %q", v.Limit, v.LimitValue)
	}
	return " by limit " + v.Limit
}

func inUnit(v *events.Verdict) string {
	switch v.Unit {
	case "":
		return ""
	case events.UnitRequests:
		return " requests"
	}
	return " " + string(v.Unit) + " tokens"
}

// refusedHeader marks Transport's own refusals; its value is the reason.
const refusedHeader = "Tidegate-Refused"

// refusal is the response that a refused request gets. An error from RoundTrip
// would look like a broken connection, which every SDK retries; this one says in
// its status and header that retrying is useless, and reading it, which is what
// SDKs do with an error response, yields the error itself.
func refusal(req *http.Request, refused error, reason string) *http.Response {
	const status = http.StatusPaymentRequired
	return &http.Response{
		Status: fmt.Sprintf("%d %s", status, http.StatusText(status)), StatusCode: status,
		Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1,
		Header: http.Header{
			"Content-Type": {"application/json"}, "X-Should-Retry": {"false"},
			refusedHeader: {reason},
		},
		Body:          refusedBody(refused),
		ContentLength: -1,
		Request:       req,
	}
}

// failingBody is a body that says what is wrong, for clients that show a body and no
// error of reading it, and then fails.
type failingBody struct {
	err  error
	text io.Reader
}

func refusedBody(err error) *failingBody {
	text, _ := json.Marshal(map[string]string{"error": err.Error()}, jsontext.AllowInvalidUTF8(true))
	return &failingBody{err, bytes.NewReader(append(text, '\n'))}
}

func (b *failingBody) Read(p []byte) (int, error) {
	if n, _ := b.text.Read(p); n > 0 {
		return n, nil
	}
	return 0, b.err
}

func (b *failingBody) Close() error { return nil }

// Refused tells whether a response is Transport's own refusal. Code that uses
// http.Client without an SDK asks it before it reads the body.
func Refused(resp *http.Response) (refused *RefusedError, ok bool) {
	if resp == nil || resp.Header[refusedHeader] == nil {
		return nil, false
	}
	_, err := resp.Body.Read(nil) // http.Client may have wrapped the body
	return refused, errors.As(err, &refused)
}
