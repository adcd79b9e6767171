package identity_test

import (
	"io"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/tidegate/tidegate/identity"
	"github.com/tidegate/tidegate/identity/safehttp"
)

const html = "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"

// site is a service with login pages, as run serves them.
type site struct {
	http.Handler
	login    *identity.Login
	sessions *identity.Sessions
}

var localAdmin = identity.Caller{Subject: "local", Name: "Local admin", Permissions: []string{manage}}

const local = "Local admin (login-link:local)"

func newSite(t *testing.T, change func(*identity.SessionConfig, *identity.LoginConfig)) site {
	t.Helper()
	sessionConfig := identity.SessionConfig{Key: testKey}
	loginConfig := identity.LoginConfig{LinkCaller: &localAdmin, Log: quiet()}
	if change != nil {
		change(&sessionConfig, &loginConfig)
	}
	sessions, err := identity.NewSessions(sessionConfig)
	if err != nil {
		t.Fatal(err)
	}
	loginConfig.Sessions = sessions
	login, err := identity.NewLogin(loginConfig)
	if err != nil {
		t.Fatal(err)
	}
	auth := &identity.Authenticator{}
	if loginConfig.Auth != nil {
		auth = loginConfig.Auth
	}
	auth.Sessions, auth.LoginPath, auth.Log = sessions, "/login", quiet()
	mux := http.NewServeMux()
	mux.Handle("/", guarded(auth))
	mux.Handle("/login", login.Handler())
	mux.Handle("/login/", login.Handler())
	mux.Handle("/logout", login.Handler())
	return site{Handler: safehttp.SecureHeaders(mux), login: login, sessions: sessions}
}

var testKey = []byte("0123456789abcdef0123456789abcdef")

// browser keeps cookies and follows nothing on its own.
type browser struct {
	t       *testing.T
	site    http.Handler
	cookies map[string]*http.Cookie
	from    string // the address of its connection
	body    string // of the next request
}

func newBrowser(t *testing.T, site http.Handler) *browser {
	return &browser{t: t, site: site, cookies: map[string]*http.Cookie{}}
}

func (b *browser) do(method, path string, header ...string) answer {
	b.t.Helper()
	r := request(method, path, "Accept", html, "Sec-Fetch-Site", "same-origin")
	for i := 0; i < len(header); i += 2 {
		r.Header.Set(header[i], header[i+1])
	}
	if b.body != "" {
		r.Body, r.ContentLength = io.NopCloser(strings.NewReader(b.body)), int64(len(b.body))
	}
	if b.from != "" {
		r.RemoteAddr = b.from
	}
	for _, c := range b.cookies {
		r.AddCookie(c)
	}
	a := exchange(b.t, b.site, r)
	for _, c := range a.Cookies() {
		if !strings.HasPrefix(c.Name, "__Host-") || !c.Secure || !c.HttpOnly || c.Path != "/" || c.Domain != "" || c.SameSite != http.SameSiteLaxMode {
			b.t.Errorf("a careless cookie: %s", c.Raw)
		}
		b.cookies[c.Name] = c
		if c.MaxAge < 0 {
			delete(b.cookies, c.Name)
		}
	}
	return a
}

// open goes where it is led, as a person's browser does.
func (b *browser) open(path string) answer {
	b.t.Helper()
	a := b.do("GET", path)
	for hops := 0; a.StatusCode == http.StatusSeeOther; hops++ {
		if hops == 5 {
			b.t.Fatalf("led in circles, last to %s", a.Header.Get("Location"))
		}
		a = b.do("GET", a.Header.Get("Location"))
	}
	return a
}

func (a answer) wantPage(t *testing.T, status int, text string) {
	t.Helper()
	if a.StatusCode != status || !strings.Contains(a.body, text) || a.Header.Get("Content-Type") != "text/html; charset=utf-8" {
		t.Errorf("got %d %s %s\nwant a page, %d, with %q", a.StatusCode, a.Header.Get("Content-Type"), a.body, status, text)
	}
	if (a.Header.Get("WWW-Authenticate") != "") != (status == http.StatusUnauthorized) || (a.Header.Get("Retry-After") != "") != (status == http.StatusTooManyRequests || status == http.StatusServiceUnavailable) {
		t.Errorf("a page, %d, with the headers %v", status, a.Header)
	}
	if a.Header.Get("Content-Security-Policy") != safehttp.ContentSecurityPolicy || a.Header.Get("Cache-Control") != "no-store" || a.Header.Get("Referrer-Policy") != "no-referrer" {
		t.Errorf("a page with the headers %v", a.Header)
	}
}

// signedIn returns a browser that has used a login link.
func signedIn(t *testing.T, s site) *browser {
	t.Helper()
	b := newBrowser(t, s)
	link, _ := s.login.NewLink(time.Now())
	b.open(link).wantHello(t, local)
	return b
}

func (b *browser) session() *http.Cookie { return b.cookies[identity.CookieName] }

func wantLogin(t *testing.T, a answer, next string) {
	t.Helper()
	if want := "/login?next=" + url.QueryEscape(next); a.StatusCode != http.StatusSeeOther || a.Header.Get("Location") != want {
		t.Errorf("got %d to %q, want the login page, %s", a.StatusCode, a.Header.Get("Location"), want)
	}
}
