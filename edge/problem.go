package edge

import (
	"context"
	"errors"
	"log/slog"
	"net/http"
	"os"
	"strconv"
	"strings"

	"github.com/tidegate/tidegate/events"
	"github.com/tidegate/tidegate/identity/safehttp"
	"github.com/tidegate/tidegate/internal/room"
)

// problemDocs is where the problem types of this package are explained.
const problemDocs = "https://github.com/tidegate/tidegate/blob/main/docs/http.md#"

// problem is an error that knows its answer.
type problem struct {
	safehttp.Problem
	cause error // for the log
}

func (p *problem) Error() string { return p.Title + ": " + p.Detail }

func refusal(status int, name, title, detail string) *problem {
	return &problem{Problem: safehttp.Problem{Type: problemDocs + name, Title: title, Status: status, Detail: detail}}
}

var (
	errTooMany      = refusal(http.StatusServiceUnavailable, "busy", "Too many requests are in flight", "nothing was done; wait as long as Retry-After says and send it again")
	errTooManyOfOne = refusal(http.StatusTooManyRequests, "too-many-requests", "Too many requests of this token are in flight",
		"nothing was done; wait for answers before you send more, and put more events into a request")
)

func invalid(field, value, rule string) *problem {
	p := refusal(http.StatusUnprocessableEntity, "invalid-field", "A value is not allowed", field+" = "+value+": "+rule)
	p.Errors = []safehttp.FieldError{{Field: field, Value: value, Rule: rule}}
	return p
}

func malformed(detail string) *problem {
	return refusal(http.StatusBadRequest, "malformed-body", "The body cannot be read", detail)
}

func unavailable(detail string, cause error) *problem {
	p := refusal(http.StatusServiceUnavailable, "unavailable", "Tidegate cannot answer right now", detail)
	p.cause = cause
	return p
}

func quoted(text string) string {
	if text = strconv.QuoteToASCII(text); len(text) > 80 {
		return text[:80] + "…"
	}
	return text
}

// refuse turns whatever went wrong into the answer. What the caller cannot mend is logged,
// and told without its details.
func (e *Edge) refuse(w http.ResponseWriter, r *http.Request, err error) {
	p := problemOf(err)
	if p.cause != nil && r.Context().Err() == nil {
		e.log.LogAttrs(r.Context(), slog.LevelWarn, "edge: a request failed", slog.String("path", r.URL.Path), slog.Int("status", p.Status), slog.Any("error", p.cause))
	}
	switch p.Status {
	case http.StatusServiceUnavailable, http.StatusTooManyRequests:
		w.Header().Set("Retry-After", "1")
	case http.StatusRequestTimeout:
		w.Header().Set("Connection", "close")
	}
	if inProtobuf(r) {
		p.writeStatus(w)
		return
	}
	safehttp.WriteProblem(w, p.Problem)
}

func problemOf(err error) *problem {
	var known *problem
	var field *events.FieldError
	var fault *events.ServiceError
	if tooLarge, ok := safehttp.TooLarge(err); ok {
		return &problem{Problem: tooLarge}
	}
	switch {
	case errors.As(err, &known):
		return known
	case errors.Is(err, room.ErrFull):
		return errTooMany
	case errors.Is(err, room.ErrFullOfOne):
		return errTooManyOfOne
	case errors.As(err, &field) && field.Reason == events.ReasonTooLarge:
		return refusal(http.StatusRequestEntityTooLarge, "too-large", "This is too large", field.Field+" = "+field.Value+": "+field.Rule)
	case errors.As(err, &field) && field.Field == "payload":
		return malformed(field.Rule)
	case errors.As(err, &field):
		return invalid(field.Field, field.Value, field.Rule)
	case errors.Is(err, events.ErrConflict):
		return refusal(http.StatusConflict, "conflict", "The idempotency key is taken", "it holds tokens for another request: use a new key for each reservation, and the same body when you send one again")
	case errors.Is(err, events.ErrUnavailable):
		return unavailable("no gate answered; what the service does meanwhile is for it to decide. A reservation may have been made: with the same idempotency key the next request finds it", err)
	case errors.As(err, &fault) && fault.Code == http.StatusTooManyRequests:
		return refusal(http.StatusTooManyRequests, "too-many-holds", "The gate takes no more", fault.Description)
	case errors.As(err, &fault) && fault.Code >= 400 && fault.Code < 500:
		return refusal(http.StatusBadRequest, "bad-request", "The gate does not understand this", fault.Description)
	case errors.Is(err, os.ErrDeadlineExceeded):
		return refusal(http.StatusRequestTimeout, "slow-body", "The body came too slowly", "the whole request must be here within 30 seconds")
	case errors.Is(err, context.Canceled):
		return unavailable("the request was given up", nil) // nobody reads this
	default:
		p := refusal(http.StatusInternalServerError, "internal", "Something is wrong here", "it is in the server's log, and nothing you sent is to blame")
		p.cause = err
		return p
	}
}

func notFound(w http.ResponseWriter, r *http.Request) {
	safehttp.WriteProblem(w, refusal(http.StatusNotFound, "unknown-address", "There is nothing here", "there is no "+quoted(r.URL.Path)+"; edge/openapi.json lists what there is").Problem)
}

func methodNotAllowed(allowed string) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Allow", allowed)
		safehttp.WriteProblem(w, refusal(http.StatusMethodNotAllowed, "method", "This is not done with "+strings.ToUpper(r.Method), "this address takes "+allowed).Problem)
	})
}
