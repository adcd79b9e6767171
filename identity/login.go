package identity

import (
	"cmp"
	"context"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"strings"
	"time"

	"github.com/tidegate/tidegate/identity/safehttp"
)

// LoginConfig configures [NewLogin].
type LoginConfig struct {
	Sessions *Sessions // required
	// LinkCaller is who a one-time login link signs in. Via is filled in. nil: there
	// are no login links, as behind an OIDC provider there should be none.
	LinkCaller *Caller
	// Provider lets people sign in at an OIDC provider. nil: they cannot.
	Provider *Provider
	// Auth has the API tokens that sign in, too, from when it has some; it should read the
	// sessions that begin here. nil: none do.
	Auth *Authenticator
	Log  *slog.Logger // default slog.Default()
}

// Login signs browsers in and out.
type Login struct {
	cfg      LoginConfig
	links    links
	states   seal
	attempts *attempts
	mux      *http.ServeMux
}

// NewLogin returns the login pages, to be served at /login, /login/ and /logout.
func NewLogin(cfg LoginConfig) (*Login, error) {
	if cfg.Sessions == nil {
		return nil, errors.New("identity: a login needs sessions, which are where it leads")
	}
	cfg.Log = cmp.Or(cfg.Log, slog.Default())
	links, err := newLinks(cfg.Sessions)
	if err != nil {
		return nil, err
	}
	states, err := newSeal(cfg.Sessions.key, "login state")
	if err != nil {
		return nil, err
	}
	l := &Login{cfg: cfg, links: links, states: states, attempts: newAttempts(), mux: http.NewServeMux()}
	l.mux.HandleFunc("GET /login", l.begin)
	l.mux.HandleFunc("GET /login/ready", l.ready)
	l.mux.HandleFunc("GET /login/login.css", serveStyle)
	l.mux.HandleFunc("POST /logout", l.logout)
	if cfg.Auth != nil {
		l.mux.HandleFunc("POST /login", l.byToken)
	}
	if cfg.Provider != nil {
		l.mux.HandleFunc("GET /login/oidc", l.toProvider)
		l.mux.HandleFunc("GET "+CallbackPath, l.fromProvider)
	}
	return l, nil
}

// NewLink mints a login link: the path and query to put behind the server's
// address. It signs one browser in, until expires. Any process with the key of the
// sessions can mint one.
func (l *Login) NewLink(now time.Time) (path string, expires time.Time) {
	code, expires := l.links.mint(now)
	return "/login?code=" + code, expires
}

// Handler serves the login pages, with their security headers.
func (l *Login) Handler() http.Handler {
	return safehttp.SecureHeaders(safehttp.SameOrigin(safehttp.LimitBody(4<<10, l.mux)))
}

// begin shows the login page, or exchanges the code of a login link for a session.
// As with a notebook server's link, opening it is enough: a page with a button
// between would only help against programs that open links unasked, and a link to
// a private server is out of their reach. Those that ask for the head alone, or
// fetch ahead of the reader, use nothing up.
func (l *Login) begin(w http.ResponseWriter, r *http.Request) {
	query := r.URL.Query()
	next := localPath(query.Get("next"))
	code := query.Get("code")
	switch {
	case code == "":
		l.page(w, http.StatusOK, view{Next: next})
		return
	case !navigates(r):
		l.refuse(w, r, invalidLink("a page of another site asked for it: open the link itself"), next)
		return
	case prefetched(r):
		w.Header().Set("Cache-Control", "no-store")
		w.WriteHeader(http.StatusServiceUnavailable)
		return
	case r.Method == http.MethodHead:
		w.Header().Set("Cache-Control", "no-store")
		return
	case l.cfg.LinkCaller == nil:
		l.refuse(w, r, invalidLink("this server has no login links: sign in with your provider"), next)
		return
	case !keepsCookies(r):
		l.refuse(w, r, insecureAddress(), next)
		return
	}
	if err := l.redeem(r, code); err != nil {
		// Whoever opens the link a second time in the same browser is signed in
		// already, and wants to get on.
		if _, signedIn := l.cfg.Sessions.read(r); signedIn == nil {
			redirect(w, r, next)
			return
		}
		l.refuse(w, r, err, next)
		return
	}
	caller := *l.cfg.LinkCaller
	caller.Via = ViaLoginLink
	l.signIn(w, r, caller, next)
}

// redeem uses a code up. Only guesses are limited, for others can make a browser here send
// as many as they like.
func (l *Login) redeem(r *http.Request, code string) error {
	raw, err := decodeCode(code)
	if err != nil {
		return err
	}
	if !l.links.made(raw) {
		return l.attempt(r, func() error { return invalidLink("the link is not one that this server made") })
	}
	return l.links.redeem(raw, time.Now())
}

// byToken signs in whoever has an API token. The session names the token and has nothing of
// it: see [Tokens.resume]. The token comes in the body alone, since addresses are logged. No page
// of another site can send it, so nobody is signed in as somebody else by surprise.
func (l *Login) byToken(w http.ResponseWriter, r *http.Request) {
	next := localPath(r.PostFormValue("next"))
	if !keepsCookies(r) {
		l.refuse(w, r, insecureAddress(), next)
		return
	}
	var caller Caller
	err := l.attempt(r, func() (err error) {
		if l.tokens() == nil {
			return invalidToken("this server takes no API tokens", nil)
		}
		caller, err = l.tokens().Verify(r.Context(), strings.TrimSpace(r.PostFormValue("token")))
		return err
	})
	if err != nil {
		l.refuse(w, r, err, next)
		return
	}
	l.signIn(w, r, Caller{Subject: caller.Subject, Name: caller.Name, Via: ViaToken}, next)
}

// tokens are those that sign in; nil: none do.
func (l *Login) tokens() *Tokens {
	if l.cfg.Auth == nil {
		return nil
	}
	return l.cfg.Auth.Tokens
}

func (l *Login) signIn(w http.ResponseWriter, r *http.Request, caller Caller, next string) {
	if err := l.cfg.Sessions.start(w, caller); err != nil {
		l.refuse(w, r, refusal(http.StatusForbidden, "session-too-large", "There is no room for this session", "the account names more ports and permissions than a cookie can hold: use an API token, or have the provider name fewer"), next)
		l.cfg.Log.LogAttrs(r.Context(), slog.LevelError, "identity: a session could not begin", slog.Any("error", err))
		return
	}
	l.cfg.Log.LogAttrs(r.Context(), slog.LevelInfo, "identity: signed in", slog.String("caller", caller.Actor()), slog.String("address", clientAddress(r)))
	redirect(w, r, "/login/ready?next="+url.QueryEscape(next))
}

// ready is where a login leads first: it sees whether the browser kept the cookie,
// and says so when it did not, instead of asking for a login again and again.
func (l *Login) ready(w http.ResponseWriter, r *http.Request) {
	next := localPath(r.URL.Query().Get("next"))
	if _, err := l.cfg.Sessions.read(r); err == nil {
		redirect(w, r, next)
		return
	}
	l.refuse(w, r, refusal(http.StatusUnauthorized, "cookie-not-kept", "The browser did not keep the session",
		"allow cookies for this address; Safari, unless it is very new, keeps none without https: use another browser, or https"), next)
}

func (l *Login) logout(w http.ResponseWriter, r *http.Request) {
	if err := l.cfg.Sessions.end(w, r); err != nil {
		l.refuse(w, r, err, "/")
		return
	}
	if safehttp.PrefersHTML(r) {
		redirect(w, r, "/login")
		return
	}
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(http.StatusNoContent)
}

// attempt runs one login within the limits of failed ones.
func (l *Login) attempt(r *http.Request, login func() error) error {
	succeeded, wait := l.attempts.begin(clientAddress(r), time.Now())
	if wait > 0 {
		return tooManyAttempts(wait)
	}
	err := login()
	if err == nil || asRefusal(err).Status >= http.StatusInternalServerError {
		succeeded() // or our own fault, which is not held against anyone
	}
	return err
}

func (l *Login) refuse(w http.ResponseWriter, r *http.Request, err error, next string) {
	refused := asRefusal(err)
	level := slog.LevelInfo
	if refused.Status >= http.StatusInternalServerError {
		level = slog.LevelWarn
	}
	l.cfg.Log.LogAttrs(context.WithoutCancel(r.Context()), level, "identity: a login failed", slog.String("address", clientAddress(r)), slog.Any("error", refused))
	if !safehttp.PrefersHTML(r) {
		refused.write(w)
		return
	}
	refused.setHeaders(w)
	l.page(w, refused.Status, view{Next: next, Problem: &refused.Problem})
}

func redirect(w http.ResponseWriter, r *http.Request, to string) {
	w.Header().Set("Cache-Control", "no-store")
	http.Redirect(w, r, to, http.StatusSeeOther)
}

// localPath keeps a redirect on this server: anything but a plain path of ours
// becomes the first page.
func localPath(next string) string {
	u, err := url.Parse(next)
	if err != nil || u.IsAbs() || u.Host != "" || u.User != nil || !strings.HasPrefix(next, "/") ||
		strings.HasPrefix(next, "//") || strings.ContainsAny(next, "\\\r\n\t") ||
		u.Path == "/login" || strings.HasPrefix(u.Path, "/login/") || u.Path == "/logout" {
		return "/"
	}
	return next
}

// navigates reports whether a browser goes where r asks, rather than show or read it in a
// page that is open. Old browsers, and other clients, do not say.
func navigates(r *http.Request) bool {
	mode, dest := r.Header.Get("Sec-Fetch-Mode"), r.Header.Get("Sec-Fetch-Dest")
	return (mode == "" || mode == "navigate") && (dest == "" || dest == "document")
}

func prefetched(r *http.Request) bool {
	return strings.Contains(r.Header.Get("Sec-Purpose")+r.Header.Get("Purpose")+r.Header.Get("X-Moz"), "prefetch")
}

// keepsCookies reports whether a browser that came by this address would keep a
// Secure cookie. What a proxy claims is good enough here: a lie costs its author
// a login that does not last.
func keepsCookies(r *http.Request) bool {
	if r.TLS != nil || strings.EqualFold(r.Header.Get("X-Forwarded-Proto"), "https") {
		return true
	}
	host := r.Host
	if h, _, err := net.SplitHostPort(host); err == nil {
		host = h
	}
	if host == "localhost" || strings.HasSuffix(host, ".localhost") {
		return true
	}
	addr, err := netip.ParseAddr(strings.Trim(host, "[]"))
	return err == nil && addr.IsLoopback()
}

func insecureAddress() *Refusal {
	return refusal(http.StatusBadRequest, "insecure-address", "This address is not secure",
		"over plain http a browser keeps a session only for http://127.0.0.1 and http://localhost: use one of them (over ssh -L from elsewhere), or put https in front; what you sign in with is not used up")
}
