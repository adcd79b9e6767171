package identity_test

import (
	"bytes"
	"encoding/base64"
	"errors"
	"log/slog"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/tidegate/tidegate/identity"
	"github.com/tidegate/tidegate/identity/safehttp"
)

// tokenSite is a site where API tokens sign in, too.
func tokenSite(t *testing.T, change func(*identity.LoginConfig)) (s site, store *memory, tokens *identity.Tokens, log *bytes.Buffer) {
	t.Helper()
	store, log = newMemory(), new(bytes.Buffer)
	tokens = identity.NewTokens(store, quiet())
	s = newSite(t, func(_ *identity.SessionConfig, c *identity.LoginConfig) {
		c.Auth, c.Log = &identity.Authenticator{Tokens: tokens}, slog.New(slog.NewTextHandler(log, nil))
		if change != nil {
			change(c)
		}
	})
	return s, store, tokens, log
}

// enter sends the form of the login page.
func (b *browser) enter(token, next string, header ...string) answer {
	b.t.Helper()
	b.body = url.Values{"token": {token}, "next": {next}}.Encode()
	defer func() { b.body = "" }()
	return b.do("POST", "/login", append([]string{"Content-Type", "application/x-www-form-urlencoded"}, header...)...)
}

func TestAnAPITokenSignsIn(t *testing.T) {
	s, store, tokens, log := tokenSite(t, nil)
	shown, token := createToken(t, tokens, func(r *identity.TokenRequest) { r.Ports = []string{"p2"} })
	who := "ci (token:" + token.ID + ")"
	b := newBrowser(t, s)
	b.do("GET", "/login").wantPage(t, http.StatusOK, "API token")

	// As whoever holds the token, for its ports and no others, and where they wanted to go.
	a := b.enter("  "+shown+"\n", "/api/v1/ports/p2/ai-budget")
	if a.StatusCode != http.StatusSeeOther || a.Header.Get("Location") != "/login/ready?next=%2Fapi%2Fv1%2Fports%2Fp2%2Fai-budget" {
		t.Fatalf("%d %v %s", a.StatusCode, a.Header, a.body)
	}
	b.open(a.Header.Get("Location")).wantHello(t, who)
	b.do("GET", "/api/v1/ports", "Accept", "application/json").wantHello(t, who)
	b.do("GET", budget, "Accept", "application/json").wantProblem(t, http.StatusForbidden, "port-not-allowed", `"p1"`)
	b.do("GET", budget).wantPage(t, http.StatusForbidden, "signed in as "+who)

	// Neither the cookie nor the log knows the token, and an address gives nothing.
	head, _, _ := strings.Cut(b.session().Value, ".")
	content := string(must(base64.RawURLEncoding.DecodeString(head)))
	for name, text := range map[string]string{"the cookie": content, "the log": log.String()} {
		if !strings.Contains(text, token.ID) || strings.Contains(text, shown[16:40]) || strings.Contains(text, manage) {
			t.Errorf("%s: %s", name, text)
		}
	}
	newBrowser(t, s).do("POST", "/login?token="+shown).wantPage(t, http.StatusUnauthorized, "not a whole API token")

	// A store that does not answer lets nobody in, and says so to people, too.
	store.fail = errors.New("down")
	b.do("GET", "/api/v1/ports", "Accept", "application/json").wantProblem(t, http.StatusServiceUnavailable, "identity-unavailable", "does not answer")
	if a := b.do("GET", "/api/v1/ports"); a.StatusCode != http.StatusServiceUnavailable || a.Header.Get("Content-Type") != "text/html; charset=utf-8" || !strings.Contains(a.body, "Try again") {
		t.Errorf("a person is told: %d %v %s", a.StatusCode, a.Header, a.body)
	}
	newBrowser(t, s).enter(shown, "/").wantPage(t, http.StatusServiceUnavailable, "does not answer")
	store.fail = nil

	// Revoked, it ends what it began; elsewhere it is worth nothing anyway.
	b.open("/api/v1/ports").wantHello(t, who)
	elsewhere := newSite(t, nil)
	other := newBrowser(t, elsewhere)
	other.cookies = b.cookies
	other.do("GET", "/api/v1/ports", "Accept", "application/json").wantProblem(t, http.StatusUnauthorized, "session-ended", "takes none")
	if err := tokens.Revoke(t.Context(), token.ID, "grace"); err != nil {
		t.Fatal(err)
	}
	b.do("GET", "/api/v1/ports", "Accept", "application/json").wantProblem(t, http.StatusUnauthorized, "session-ended", "was revoked at")
	wantLogin(t, b.do("GET", "/api/v1/ports"), "/api/v1/ports")
	newBrowser(t, s).enter(shown, "/").wantPage(t, http.StatusUnauthorized, "revoked at")
}

func TestTokensThatSignNobodyIn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, _, tokens, _ := tokenSite(t, func(c *identity.LoginConfig) { c.LinkCaller = nil })
		shown, _ := createToken(t, tokens, func(r *identity.TokenRequest) { r.ExpiresAt = time.Now().Add(time.Minute) })
		foreign, _ := createToken(t, identity.NewTokens(newMemory(), quiet()), nil)
		b := newBrowser(t, s)
		b.do("GET", "/login").wantPage(t, http.StatusOK, "API token")

		// Another site cannot sign this browser in, nor can it be done where no cookie is kept.
		b.enter(shown, "/", "Sec-Fetch-Site", "cross-site").wantProblem(t, http.StatusForbidden, "cross-origin", "another origin")
		r := request("POST", "/login", "Accept", html, "Content-Type", "application/x-www-form-urlencoded")
		r.Host = "192.168.1.5:8080"
		exchange(t, s, r).wantPage(t, http.StatusBadRequest, "http://127.0.0.1")

		// Guesses are limited, from an address.
		b.from = "203.0.113.9:1000"
		for range 9 {
			b.enter(foreign, "/").wantPage(t, http.StatusUnauthorized, "no such API token")
		}
		b.enter(shown[:40], "/").wantPage(t, http.StatusUnauthorized, "not a whole API token")
		b.enter(shown, "/").wantPage(t, http.StatusTooManyRequests, "wait")
		if b.session() != nil {
			t.Error("signed in")
		}

		// A session ends with its token.
		person := newBrowser(t, s)
		person.from = "198.51.100.7:1000"
		person.enter(shown, "https://evil.example")
		person.open("/").wantHello(t, "ci (token:"+shown[3:15]+")")
		time.Sleep(time.Minute)
		person.do("GET", "/", "Accept", "application/json").wantProblem(t, http.StatusUnauthorized, "session-ended", "expired at")
		person.enter(shown, "/").wantPage(t, http.StatusUnauthorized, "expired at")
	})
}

// A page for people stands for itself: its policy allows its own style and nothing else.
func TestProblemsAsPages(t *testing.T) {
	later := new(safehttp.Later)
	for name, h := range map[string]http.Handler{"starting": later, "another name": safehttp.KnownHosts(later, "tidegate.example")} {
		r := request("GET", "/ports", "Accept", html)
		if r.Host = "127.0.0.1:8080"; name == "another name" {
			r.Host = "evil.example"
		}
		a := exchange(t, h, r)
		if a.StatusCode < 400 || a.Header.Get("Content-Type") != "text/html; charset=utf-8" || a.Header.Get("Cache-Control") != "no-store" ||
			!strings.Contains(a.Header.Get("Content-Security-Policy"), "default-src 'none'; style-src 'sha256-") || !strings.Contains(a.body, "<h1>") {
			t.Errorf("%s: %d %v %s", name, a.StatusCode, a.Header, a.body)
		}
		r.Header.Set("Accept", "*/*")
		if a := exchange(t, h, r); a.Header.Get("Content-Type") != "application/problem+json" {
			t.Errorf("%s, to a program: %v", name, a.Header)
		}
	}
}
