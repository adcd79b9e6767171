package identity

import (
	"cmp"
	"log/slog"
	"net/http"
	"net/url"
	"slices"
	"strings"

	"github.com/tidegate/tidegate/identity/safehttp"
)

// Authenticator finds out who makes a request. What is nil is not accepted; the
// zero value lets nobody in.
type Authenticator struct {
	OIDC     *OIDC     // bearer tokens of a provider
	Tokens   *Tokens   // API tokens
	Sessions *Sessions // the browsers' cookie
	// LoginPath is where a browser that is not signed in is sent, usually /login.
	// Empty: it gets the problem document like everyone else.
	LoginPath string
	// Log takes what the caller must not see, such as why the store failed.
	// Default: slog.Default().
	Log *slog.Logger
}

// maxBearerChars is more than any provider issues, and little to verify.
const maxBearerChars = 16 << 10

var sameOrigin = http.NewCrossOriginProtection()

// Authenticate finds the caller by its bearer token or, when there is none, by its
// session cookie. A bad bearer token is refused even beside a good cookie. Every
// error is a [*Refusal].
func (a *Authenticator) Authenticate(r *http.Request) (Caller, error) {
	caller, _, err := a.authenticate(r)
	return caller, err
}

func (a *Authenticator) authenticate(r *http.Request) (Caller, *session, error) {
	token, given, err := bearer(r)
	switch {
	case err != nil:
		return Caller{}, nil, err
	case given && strings.HasPrefix(token, tokenPrefix):
		if a.Tokens == nil {
			return Caller{}, nil, invalidToken("this server takes no API tokens", nil)
		}
		caller, err := a.Tokens.Verify(r.Context(), token)
		return caller, nil, err
	case given:
		if a.OIDC == nil {
			return Caller{}, nil, invalidToken("this is no API token, and the server has no OIDC issuer configured", nil)
		}
		caller, err := a.OIDC.Verify(r.Context(), token)
		return caller, nil, err
	case a.Sessions == nil:
		return Caller{}, nil, unauthenticated(false)
	}
	s, err := a.Sessions.read(r)
	if err != nil {
		return Caller{}, nil, err
	}
	// The cookie comes along on its own, so here, and not only in some outer
	// handler, is the place that must not forget to ask where the request is from.
	if err := sameOrigin.Check(r); err != nil {
		return Caller{}, nil, crossOrigin(err)
	}
	if s.Caller.Via != ViaToken {
		return s.Caller, &s, nil
	}
	caller, err := a.resume(r, s)
	return caller, &s, err
}

// resume finds the caller of a session that began with an API token. The cookie only names
// the token.
func (a *Authenticator) resume(r *http.Request, s session) (Caller, error) {
	if a.Tokens == nil {
		return Caller{}, invalidSession("it began with an API token, and this server takes none")
	}
	caller, err := a.Tokens.resume(r.Context(), s.Caller.Subject)
	if end := s.Caller.ExpiresAt; caller.ExpiresAt.IsZero() || end.Before(caller.ExpiresAt) {
		caller.ExpiresAt = end
	}
	return caller, err
}

// bearer takes the token from the Authorization header. Other schemes are not
// ours: a proxy in front may use one.
func bearer(r *http.Request) (token string, given bool, err error) {
	headers := r.Header.Values("Authorization")
	if len(headers) > 1 {
		return "", true, invalidToken("there are several Authorization headers", nil)
	}
	if len(headers) == 0 {
		return "", false, nil
	}
	scheme, token, _ := strings.Cut(headers[0], " ")
	if !strings.EqualFold(scheme, "Bearer") {
		return "", false, nil
	}
	token = strings.Trim(token, " ")
	if len(token) > maxBearerChars || !isToken(token) {
		return "", true, invalidToken("after Bearer there must be one token and nothing else", nil)
	}
	return token, true, nil
}

// isToken allows what API tokens and compact JWTs are made of, a subset of the
// token68 of RFC 9110.
func isToken(s string) bool {
	for i := range len(s) {
		c := s[i]
		if !('a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9' || c == '_' || c == '-' || c == '.') {
			return false
		}
	}
	return s != ""
}

// Admit lets the request through with its caller in the context, see [CallerFrom],
// or answers it and returns false. It keeps a session alive, and no cache keeps
// the answer unless the handler says otherwise.
func (a *Authenticator) Admit(w http.ResponseWriter, r *http.Request, permission, port string) (*http.Request, bool) {
	return a.admit(w, r, []string{permission}, func(c Caller) bool { return c.reaches(port) }, port)
}

// admit wants one of the permissions. A refusal names the first.
func (a *Authenticator) admit(w http.ResponseWriter, r *http.Request, permissions []string, reaches func(Caller) bool, port string) (*http.Request, bool) {
	caller, s, err := a.authenticate(r)
	switch {
	case err != nil:
	case !slices.ContainsFunc(permissions, caller.Has):
		err = missingPermission(permissions[0])
	case !reaches(caller):
		err = portNotAllowed(port)
	}
	if err != nil {
		a.Refuse(w, r, err)
		return nil, false
	}
	if s != nil {
		a.Sessions.keep(w, *s)
	}
	w.Header().Set("Cache-Control", "no-store")
	return r.WithContext(WithCaller(r.Context(), caller)), true
}

// Require guards next: only callers that hold the permission for the port that
// portOf finds in the request reach it. A nil portOf, or one that finds none, means
// every port, which callers limited to some do not have. One of the permissions in or
// is as good.
func (a *Authenticator) Require(permission string, portOf func(*http.Request) string, next http.Handler, or ...string) http.Handler {
	permissions := append([]string{permission}, or...)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		port := ""
		if portOf != nil {
			port = portOf(r)
		}
		reaches := func(c Caller) bool { return c.reaches(port) }
		if r, ok := a.admit(w, r, permissions, reaches, port); ok {
			next.ServeHTTP(w, r)
		}
	})
}

// RequireSomePort guards a list: callers that hold the permission for some ports
// only reach next too, and next leaves out what [Caller.Can] refuses.
func (a *Authenticator) RequireSomePort(permission string, next http.Handler, or ...string) http.Handler {
	permissions := append([]string{permission}, or...)
	some := func(c Caller) bool { return c.Ports == nil || len(c.Ports) > 0 }
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r, ok := a.admit(w, r, permissions, some, ""); ok {
			next.ServeHTTP(w, r)
		}
	})
}

// PathPort finds the port in a path wildcard of [http.ServeMux].
func PathPort(wildcard string) func(*http.Request) string {
	return func(r *http.Request) string { return r.PathValue(wildcard) }
}

// Refuse answers with the problem document of err. A browser that navigates is sent
// to the login page when it is not signed in, and gets a page otherwise.
func (a *Authenticator) Refuse(w http.ResponseWriter, r *http.Request, err error) {
	refused := asRefusal(err)
	if refused.Status >= http.StatusInternalServerError {
		cmp.Or(a.Log, slog.Default()).LogAttrs(r.Context(), slog.LevelWarn, "identity: a caller could not be identified", slog.String("path", r.URL.Path), slog.Any("error", refused))
	}
	if a.LoginPath == "" {
		refused.write(w)
		return
	}
	if safehttp.Navigates(r) {
		switch refused.Status {
		case http.StatusUnauthorized:
			redirect(w, r, a.LoginPath+"?next="+url.QueryEscape(r.URL.RequestURI()))
			return
		case http.StatusForbidden:
			if a.Sessions == nil {
				break
			}
			if s, err := a.Sessions.read(r); err == nil {
				refused.setHeaders(w)
				writePage(w, refused.Status, view{Problem: &refused.Problem, SignedIn: s.Caller.Actor()})
				return
			}
		}
	}
	refused.setHeaders(w)
	safehttp.Refuse(w, r, refused.Problem)
}
