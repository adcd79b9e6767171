package admin

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"strconv"
	"strings"

	"github.com/tidegate/tidegate/events"
	"github.com/tidegate/tidegate/identity/safehttp"
	"github.com/tidegate/tidegate/ledger"
)

// problemDocs is where the problem types of this package are explained.
const problemDocs = "https://github.com/tidegate/tidegate/blob/main/docs/admin-api.md#"

// problem is an error that knows its answer.
type problem struct{ safehttp.Problem }

func (p *problem) Error() string { return p.Title + ": " + p.Detail }

func refusal(status int, name, title, detail string) *problem {
	return &problem{safehttp.Problem{Type: problemDocs + name, Title: title, Status: status, Detail: detail}}
}

// invalidFields names every field that breaks a rule.
func invalidFields(wrong []safehttp.FieldError) *problem {
	first := wrong[0]
	p := refusal(http.StatusUnprocessableEntity, "invalid-field", "A value is not allowed", first.Field+" = "+first.Value+": "+first.Rule)
	if len(wrong) > 1 {
		p.Title, p.Detail = "Some values are not allowed", p.Detail+", and "+strconv.Itoa(len(wrong)-1)+" more"
	}
	p.Errors = wrong
	return p
}

func invalid(field, value, rule string) *problem {
	return invalidFields([]safehttp.FieldError{{Field: field, Value: value, Rule: rule}})
}

// quoted shows a value as it was received, shortened.
func quoted(text string) string { return shortened(strconv.QuoteToASCII(text)) }

func shortened(text string) string {
	if len(text) > 80 {
		return strings.ToValidUTF8(text[:80], "") + "…" // not half a character
	}
	return text
}

// refuse turns whatever went wrong into the answer. What the caller cannot mend is
// logged, and told without its details.
func (a *api) refuse(w http.ResponseWriter, r *http.Request, err error) {
	p := problemOf(err)
	gone := r.Context().Err() != nil // whoever asked; what failed for that is no news
	if p.Status >= http.StatusInternalServerError && !gone {
		a.log.LogAttrs(r.Context(), slog.LevelError, "admin: a request failed", slog.String("method", r.Method),
			slog.String("pattern", r.Pattern), slog.Int("status", p.Status), slog.Any("error", err))
	}
	if p.Status == http.StatusServiceUnavailable {
		w.Header().Set("Retry-After", "2")
	}
	safehttp.Refuse(w, r, p) // a page for whoever follows a link to a file
}

func problemOf(err error) safehttp.Problem {
	var known *problem
	var field *events.FieldError
	if tooLarge, ok := safehttp.TooLarge(err); ok {
		return tooLarge
	}
	switch {
	case errors.As(err, &known):
		return known.Problem
	case errors.As(err, &field):
		return invalid(field.Field, field.Value, field.Rule).Problem
	case errors.Is(err, ledger.ErrConflict):
		return refusal(http.StatusPreconditionFailed, "changed-meanwhile", "The budget has changed", ledger.ErrConflict.Error()).Problem
	case errors.Is(err, ledger.ErrUnknownPort):
		return refusal(http.StatusNotFound, "unknown-port", "There is no such port", "it has neither spent anything nor been given a budget, or it was deleted").Problem
	case isOutage(err):
		return refusal(http.StatusServiceUnavailable, "unavailable", "The ledger does not answer", "nothing was lost; try again in a moment").Problem
	default:
		return refusal(http.StatusInternalServerError, "internal", "Something is wrong here", "it is in the server's log, and nothing you sent is to blame").Problem
	}
}

// isOutage: the database could not be reached, or did not answer in time. Its own
// complaints are bugs of ours, unless it is shutting down or full.
func isOutage(err error) bool {
	var refused interface{ SQLState() string }
	if errors.As(err, &refused) {
		class := (refused.SQLState() + "  ")[:2]
		return class == "08" || class == "53" || class == "57"
	}
	var network net.Error
	return errors.As(err, &network) || errors.Is(err, context.DeadlineExceeded) || errors.Is(err, context.Canceled) ||
		errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, net.ErrClosed)
}

func notFound(w http.ResponseWriter, r *http.Request) {
	safehttp.Refuse(w, r, refusal(http.StatusNotFound, "unknown-address", "There is nothing here", "the API has no "+quoted(r.URL.Path)+"; admin/openapi.json lists what there is").Problem)
}

func methodNotAllowed(allowed string) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Allow", allowed)
		safehttp.WriteProblem(w, refusal(http.StatusMethodNotAllowed, "method", "This is not done with "+r.Method, "this address takes "+allowed).Problem)
	})
}
