package proxy

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"os"
	"strconv"
	"time"

	"github.com/go-json-experiment/json"

	"github.com/tidegate/tidegate/events"
	"github.com/tidegate/tidegate/internal/room"
	"github.com/tidegate/tidegate/meter"
)

// kind is what is wrong, and how each provider would say it. SDKs choose their error type, and
// whether they try again, by these words and the status.
type kind struct {
	name                           string
	status                         int
	openAI, anthropic, google, aws string
	awsStatus                      int  // where AWS' SDKs would try again otherwise
	again                          bool // trying again may help
}

var (
	quota           = &kind{"refused", 429, "insufficient_quota", "rate_limit_error", "RESOURCE_EXHAUSTED", "ServiceQuotaExceededException", 400, false}
	crowded         = &kind{"crowded", 429, "rate_limit_exceeded", "rate_limit_error", "RESOURCE_EXHAUSTED", "ThrottlingException", 0, true}
	badRequest      = &kind{"bad request", 400, "invalid_request_error", "invalid_request_error", "INVALID_ARGUMENT", "ValidationException", 0, false}
	unauthenticated = &kind{"unauthenticated", 401, "invalid_api_key", "authentication_error", "UNAUTHENTICATED", "AccessDeniedException", 0, false}
	forbidden       = &kind{"forbidden", 403, "permission_denied", "permission_error", "PERMISSION_DENIED", "AccessDeniedException", 0, false}
	notFound        = &kind{"not found", 404, "not_found", "not_found_error", "NOT_FOUND", "ResourceNotFoundException", 0, false}
	slowBody        = &kind{"slow", 408, "request_timeout", "timeout_error", "DEADLINE_EXCEEDED", "RequestTimeoutException", 0, true}
	tooLarge        = &kind{"too large", 413, "request_too_large", "request_too_large", "INVALID_ARGUMENT", "ValidationException", 0, false}
	badGateway      = &kind{"bad gateway", 502, "server_error", "api_error", "UNAVAILABLE", "InternalServerException", 0, true}
	unavailable     = &kind{"unavailable", 503, "server_error", "api_error", "UNAVAILABLE", "ServiceUnavailableException", 0, true}
	tooLong         = &kind{"too long", 504, "server_error", "api_error", "DEADLINE_EXCEEDED", "ModelTimeoutException", 0, false}
)

// fault is an error that knows its answer.
type fault struct {
	*kind
	message string
	verdict *verdict // of a refusal
	cause   error    // for the log
}

func (f *fault) Error() string { return f.name + ": " + f.message }

// verdict is what the body says of a refusal, for programs.
type verdict struct {
	Port            string               `json:"port"`
	Reason          events.RefusalReason `json:"reason"`
	Limit           string               `json:"limit"`
	LimitValue      string               `json:"limit_value,omitzero"`
	Unit            string               `json:"unit,omitzero"` // left out: tokens
	EstimatedTokens int64                `json:"estimated_tokens"`
	Used            int64                `json:"used_tokens"`
	Held            int64                `json:"held_tokens"`
	HardCap         *int64               `json:"hard_cap_tokens"`
	Remaining       *int64               `json:"remaining_tokens"`
	ResetsAt        *time.Time           `json:"resets_at"` // null: never
}

// refuse answers instead of the provider.
func (p *Proxy) refuse(w http.ResponseWriter, r *http.Request, err error) {
	to := targetOf(r.Context())
	f := faultOf(err)
	if errors.Is(r.Context().Err(), context.Canceled) {
		p.requests.WithLabelValues(to.name, "gone").Inc()
		panic(http.ErrAbortHandler) // nobody reads an answer
	}
	p.requests.WithLabelValues(to.name, f.name).Inc()
	if f.cause != nil {
		p.log.LogAttrs(r.Context(), slog.LevelWarn, "proxy: a call was not made", slog.String("upstream", to.name), slog.Int("status", f.status), slog.Any("error", f.cause))
	}
	h := w.Header()
	h.Set("Content-Type", "application/json")
	h.Set("X-Should-Retry", strconv.FormatBool(f.again)) // OpenAI's and Anthropic's SDKs obey it
	if f.again {
		h.Set("Retry-After", "1")
	}
	if f.kind == tooLarge || f.kind == slowBody {
		h.Set("Connection", "close") // its body was not read
	}
	status, body := to.shape(f, h)
	text, err := json.Marshal(body, json.Deterministic(true))
	if err != nil { // only a message that is no UTF-8
		status, text = http.StatusInternalServerError, []byte("{}")
	}
	w.WriteHeader(status)
	_, _ = w.Write(append(text, '\n'))
}

// faultOf turns whatever went wrong into the answer.
func faultOf(err error) *fault {
	var known *fault
	var refused *meter.RefusedError
	var unmetered *meter.UnmeteredError
	var large *http.MaxBytesError
	switch {
	case errors.As(err, &known):
		return known
	case errors.As(err, &refused):
		return refusal(refused)
	case errors.As(err, &unmetered):
		return &fault{kind: forbidden, message: "Tidegate cannot meter a call to this address, so it is not made: docs/meter.md lists what is read; the proxy's --pass-unmetered lets such calls pass"}
	case errors.As(err, &large):
		return &fault{kind: tooLarge, message: fmt.Sprintf("Tidegate's proxy takes at most %d MiB in a request", maxBody>>20)}
	case errors.Is(err, room.ErrFullOfOne):
		return &fault{kind: crowded, message: "this caller has half of what Tidegate's proxy takes in flight: wait for answers before you send more"}
	case errors.Is(err, room.ErrFull):
		return &fault{kind: unavailable, message: "Tidegate's proxy has as many requests in flight as it takes; nothing was done"}
	case errors.Is(err, context.DeadlineExceeded):
		return &fault{kind: tooLong, message: "the provider took longer than Tidegate's proxy waits (--max-call); the call may have cost something, and counts as partial"}
	case errors.Is(err, os.ErrDeadlineExceeded):
		return &fault{kind: slowBody, message: fmt.Sprintf("the request's body must be here within %s", bodyTimeout)}
	}
	return &fault{kind: badGateway, message: "the provider cannot be reached, or broke the connection; Tidegate's log says how", cause: err}
}

// refusal is the budget's.
func refusal(r *meter.RefusedError) *fault {
	v := &r.Verdict
	if v.Reason == "" || v.Reason == events.ReasonGateUnavailable || v.Reason == events.ReasonGateStale {
		return &fault{kind: unavailable, message: "Tidegate's budget gate does not answer (" + string(cmp.Or(v.Reason, events.ReasonGateUnavailable)) + "), and nothing is spent that nobody has checked; the call was not made", cause: r}
	}
	told := &verdict{
		Port: r.Port, Reason: v.Reason, Limit: cmp.Or(v.Limit, events.PortLimit), LimitValue: v.LimitValue, Unit: string(v.Unit),
		EstimatedTokens: r.EstimatedTokens, Used: v.UsedTokens, Held: v.HeldTokens, HardCap: v.HardCapTokens, Remaining: v.RemainingTokens,
	}
	unit, resets := "tokens", "it never resets"
	switch v.Unit {
	case "":
	case events.UnitRequests:
		unit = "requests"
	default:
		unit = string(v.Unit) + " tokens"
	}
	if !v.ResetsAt.IsZero() {
		told.ResetsAt, resets = &v.ResetsAt, "it resets at "+v.ResetsAt.UTC().Format(time.RFC3339)
	}
	limit := "limit " + told.Limit
	if v.LimitValue != "" {
		limit += " for " + quoted(v.LimitValue)
	}
	message := fmt.Sprintf("Tidegate refuses this call (%s): port %s, %s", v.Reason, r.Port, limit)
	if v.RemainingTokens != nil && v.HardCapTokens != nil {
		message += fmt.Sprintf(": %d %s remain of %d", *v.RemainingTokens, unit, *v.HardCapTokens)
	}
	return &fault{kind: quota, message: fmt.Sprintf("%s; the call may take %d tokens; %s", message, r.EstimatedTokens, resets), verdict: told}
}

func quoted(text string) string { return fmt.Sprintf("%.80q", text) }
