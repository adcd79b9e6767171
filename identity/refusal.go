package identity

import (
	"errors"
	"fmt"
	"math"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/tidegate/tidegate/identity/safehttp"
)

// Refusal is why a request is not let through: an error that knows its answer.
// Every error of [Authenticator.Authenticate] is one.
type Refusal struct {
	safehttp.Problem
	RetryAfter time.Duration // how long to wait before trying again; 0: trying again is of no use
	challenge  string        // WWW-Authenticate
	cause      error
}

func (r *Refusal) Error() string {
	text := r.Title + ": " + r.Detail
	if r.cause != nil {
		text += ": " + r.cause.Error()
	}
	return text
}

// Unwrap returns what lies behind it: for the log, never for the caller.
func (r *Refusal) Unwrap() error { return r.cause }

const challenge = `Bearer realm="tidegate"`

func refusal(status int, name, title, detail string) *Refusal {
	r := &Refusal{Problem: safehttp.Problem{Type: safehttp.ProblemDocs + name, Title: title, Status: status, Detail: detail}}
	if status == http.StatusUnauthorized {
		r.challenge = challenge // RFC 9110 wants one with every 401
	}
	return r
}

func unauthenticated(browsers bool) *Refusal {
	how := "send an Authorization: Bearer header with an API token or an OIDC access token"
	if browsers {
		how += ", or sign in with a browser at /login"
	}
	return refusal(http.StatusUnauthorized, "unauthenticated", "Who are you?", how)
}

func invalidToken(detail string, cause error) *Refusal {
	r := refusal(http.StatusUnauthorized, "invalid-token", "The token is not accepted", detail)
	r.challenge = challenge + `, error="invalid_token", error_description="` + quotable(detail) + `"`
	r.cause = cause
	return r
}

func invalidSession(detail string) *Refusal {
	return refusal(http.StatusUnauthorized, "session-ended", "The session has ended", detail+"; sign in again at /login")
}

func missingPermission(permission string) *Refusal {
	r := refusal(http.StatusForbidden, "missing-permission", "A permission is missing", fmt.Sprintf("this needs the permission %s, which the caller does not hold", permission))
	r.challenge = challenge + `, error="insufficient_scope", scope="` + quotable(permission) + `"`
	return r
}

func portNotAllowed(port string) *Refusal {
	detail := "this concerns every port, and the caller is limited to some, or to none"
	if port != "" {
		detail = fmt.Sprintf("the caller may not manage port %q", port)
	}
	return refusal(http.StatusForbidden, "port-not-allowed", "The port is not the caller's", detail)
}

func crossOrigin(cause error) *Refusal {
	return &Refusal{Problem: safehttp.CrossOrigin(), cause: cause}
}

func tooManyAttempts(wait time.Duration) *Refusal {
	r := refusal(http.StatusTooManyRequests, "too-many-attempts", "Too many failed logins", "wait a little, then try again")
	r.RetryAfter = wait
	return r
}

func unavailable(detail string, wait time.Duration, cause error) *Refusal {
	r := refusal(http.StatusServiceUnavailable, "identity-unavailable", "Callers cannot be identified right now", detail)
	r.RetryAfter = wait
	r.cause = cause
	return r
}

// asRefusal turns any error into a refusal: what nobody foresaw is an outage, and
// never lets anyone in.
func asRefusal(err error) *Refusal {
	var r *Refusal
	if errors.As(err, &r) {
		return r
	}
	return unavailable("an internal error, which is in the server's log", 0, err)
}

// write answers with the refusal as a problem document.
func (r *Refusal) write(w http.ResponseWriter) {
	r.setHeaders(w)
	safehttp.WriteProblem(w, r.Problem)
}

func (r *Refusal) setHeaders(w http.ResponseWriter) {
	if r.challenge != "" {
		w.Header().Set("WWW-Authenticate", r.challenge)
	}
	if r.RetryAfter > 0 {
		w.Header().Set("Retry-After", strconv.Itoa(int(math.Ceil(r.RetryAfter.Seconds()))))
	}
}

// quotable keeps what RFC 6750 allows inside error_description.
func quotable(s string) string {
	return strings.Map(func(c rune) rune {
		if c < ' ' || c > '~' || c == '"' || c == '\\' {
			return '\''
		}
		return c
	}, s)
}
