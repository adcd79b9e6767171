package identity_test

import (
	"encoding/base64"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/tidegate/tidegate/identity"
)

func TestASessionEndsAfterItsLifetime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := signedIn(t, newSite(t, nil))
		for range 11*6 + 5 { // in use every ten minutes
			time.Sleep(10 * time.Minute)
			b.do("GET", budget).wantHello(t, local)
		}
		time.Sleep(10*time.Minute - 2*time.Second)
		b.do("GET", budget).wantHello(t, local)
		time.Sleep(2 * time.Second)
		b.wantNoSession("began more than 12h0m0s ago")
	})
}

func TestASessionEndsWhenItIsNotUsed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := signedIn(t, newSite(t, nil))
		time.Sleep(time.Hour - 2*time.Second)
		b.do("GET", budget).wantHello(t, local) // moves the limit on
		time.Sleep(59 * time.Minute)
		b.do("GET", budget).wantHello(t, local)
		time.Sleep(time.Hour)
		wantLogin(t, b.do("GET", budget), budget)
	})
}

func TestTheLimitsOfASessionAreConfigurable(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSite(t, func(c *identity.SessionConfig, _ *identity.LoginConfig) {
			c.Lifetime, c.Idle = time.Hour, 10*time.Minute
		})
		b := signedIn(t, s)
		time.Sleep(10 * time.Minute)
		wantLogin(t, b.do("GET", "/"), "/")
		b = signedIn(t, s)
		for range 11 {
			time.Sleep(5 * time.Minute)
			b.do("GET", "/").wantHello(t, local)
		}
		time.Sleep(5 * time.Minute)
		wantLogin(t, b.do("GET", "/"), "/")
	})
}

// A session in use does not get a new cookie with every answer.
func TestCookiesAreRenewedNowAndThen(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := signedIn(t, newSite(t, nil))
		renewed := 0
		for range 59 {
			time.Sleep(time.Minute)
			renewed += len(b.do("GET", budget).Cookies())
		}
		if renewed < 5 || renewed > 10 {
			t.Errorf("renewed %d times in an hour", renewed)
		}
	})
}

// wantNoSession asks as a program would, to see why.
func (b *browser) wantNoSession(why string) {
	b.t.Helper()
	r := request("GET", budget)
	r.AddCookie(b.session())
	exchange(b.t, b.site, r).wantProblem(b.t, http.StatusUnauthorized, "session-ended", why)
}

func TestCookiesThatWereTamperedWith(t *testing.T) {
	s := newSite(t, nil)
	b := signedIn(t, s)
	value := b.session().Value
	try := func(value string) answer {
		return ask(t, s, "GET", budget, "Cookie", identity.CookieName+"="+value)
	}
	try(value).wantHello(t, local)
	for i := range len(value) {
		other := "A"
		if value[i] == 'A' {
			other = "B"
		}
		try(value[:i]+other+value[i+1:]).wantProblem(t, http.StatusUnauthorized, "session-ended", "not one that this server made")
	}
	payload, mac, _ := strings.Cut(value, ".")
	const digits = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
	last := len(value) - 1
	sameBits := value[:last] + string(digits[strings.IndexByte(digits, value[last])^1])
	raw, err := base64.RawURLEncoding.DecodeString(payload)
	if err != nil {
		t.Fatal(err)
	}
	grown := base64.RawURLEncoding.EncodeToString([]byte(strings.Replace(string(raw), manage, scan, 1)))
	other := newSite(t, func(c *identity.SessionConfig, _ *identity.LoginConfig) {
		c.Key = []byte("another key, of 32 characters...")
	})
	foreign := signedIn(t, other).session().Value
	for name, value := range map[string]string{
		"another payload": grown + "." + mac, "no signature": payload, "an empty signature": payload + ".", "nothing": "", "a dot": ".",
		"padding": value + "=", "other padding bits": sameBits, "twice": value + "." + mac, "another server's": foreign, "far too long": strings.Repeat("A", 5000),
	} {
		t.Run(name, func(t *testing.T) {
			try(value).wantProblem(t, http.StatusUnauthorized, "session-ended", "not one that this server made")
		})
	}
}

// What is sealed for a login at the provider, or for a link, is no session.
func TestNothingElseThatWasSealedIsASession(t *testing.T) {
	i := newIssuer(t)
	s := newSite(t, withProvider(t, i))
	b := newBrowser(t, s)
	b.do("GET", "/login/oidc")
	state := b.cookies["__Host-tidegate-login"].Value
	ask(t, s, "GET", budget, "Cookie", identity.CookieName+"="+state).wantProblem(t, http.StatusUnauthorized, "session-ended", "not one")
	session := signedIn(t, s).session().Value
	a := ask(t, s, "GET", identity.CallbackPath+"?state=&code=x", "Cookie", "__Host-tidegate-login="+session)
	a.wantProblem(t, http.StatusUnauthorized, "login-failed", "begin again")
}

func TestSigningOutEndsTheSessionForGood(t *testing.T) {
	for name, dir := range map[string]string{"in memory": "", "in a directory": t.TempDir()} {
		t.Run(name, func(t *testing.T) {
			remember := func(c *identity.SessionConfig, _ *identity.LoginConfig) { c.SpentDir = dir }
			s := newSite(t, remember)
			b, other := signedIn(t, s), signedIn(t, s)
			stolen := b.session()
			wantLogoutRedirect(t, b.do("POST", "/logout"))
			if b.session() != nil {
				t.Error("the browser still has its cookie")
			}
			copied := newBrowser(t, s)
			copied.cookies[identity.CookieName] = stolen
			copied.wantNoSession("signed out")
			other.open("/").wantHello(t, local)
			b.do("POST", "/logout") // again, with nothing to end

			if dir == "" {
				return
			}
			restarted := newSite(t, remember) // and another process of this machine
			copied.site = restarted
			copied.wantNoSession("signed out")
			other.site = restarted
			other.open("/").wantHello(t, local)
		})
	}
}

func wantLogoutRedirect(t *testing.T, a answer) {
	t.Helper()
	if a.StatusCode != http.StatusSeeOther || a.Header.Get("Location") != "/login" {
		t.Errorf("signing out: %d to %q", a.StatusCode, a.Header.Get("Location"))
	}
}

func TestSigningOutAsAProgram(t *testing.T) {
	b := signedIn(t, newSite(t, nil))
	r := request("POST", "/logout")
	r.AddCookie(b.session())
	if a := exchange(t, b.site, r); a.StatusCode != http.StatusNoContent {
		t.Errorf("%d %s", a.StatusCode, a.body)
	}
	if a := b.do("GET", "/logout"); a.StatusCode != http.StatusMethodNotAllowed {
		t.Errorf("a link can sign people out: %d", a.StatusCode)
	}
}

func TestASignOutThatCannotBeRecordedSaysSo(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "spent")
	s := newSite(t, func(c *identity.SessionConfig, _ *identity.LoginConfig) { c.SpentDir = dir })
	b := signedIn(t, s)
	if err := os.RemoveAll(dir); err != nil {
		t.Fatal(err)
	}
	b.do("POST", "/logout").wantPage(t, http.StatusServiceUnavailable, "could not be recorded")
	link, _ := s.login.NewLink(time.Now())
	newBrowser(t, s).open(link).wantPage(t, http.StatusServiceUnavailable, "could not be recorded")
}

func TestWhatWasSpentIsForgottenInTheEnd(t *testing.T) {
	dir := t.TempDir()
	s := newSite(t, func(c *identity.SessionConfig, _ *identity.LoginConfig) { c.SpentDir = dir })
	for range 3 {
		signedIn(t, s).do("POST", "/logout")
	}
	files, err := os.ReadDir(dir)
	if err != nil || len(files) != 6 { // three codes, three sessions
		t.Fatalf("%v, %v", files, err)
	}
	for _, f := range files {
		info := must(f.Info())
		if left := time.Until(info.ModTime()); left < 9*time.Minute || left > 10*time.Minute && left < 11*time.Hour || left > 12*time.Hour {
			t.Errorf("%s is to be forgotten in %s", f.Name(), left)
		}
	}
	long := time.Now().Add(-2 * time.Hour)
	for _, f := range files[:4] {
		if err := os.Chtimes(filepath.Join(dir, f.Name()), long, long); err != nil {
			t.Fatal(err)
		}
	}
	signedIn(t, s)
	if files, _ = os.ReadDir(dir); len(files) != 3 {
		t.Errorf("%d files are left, want the two that still count and the new one", len(files))
	}
}

func TestRequestsFromOtherSites(t *testing.T) {
	s := newSite(t, nil)
	b := signedIn(t, s)
	for name, header := range map[string][]string{
		"another site":     {"Sec-Fetch-Site", "cross-site", "Origin", "https://evil.example"},
		"another port":     {"Sec-Fetch-Site", "same-site", "Origin", "http://127.0.0.1:3000"}, // cookies do not tell ports apart
		"an old browser":   {"Origin", "https://evil.example"},
		"a sandboxed page": {"Origin", "null"},
	} {
		t.Run(name, func(t *testing.T) {
			for _, method := range []string{"PUT", "POST", "DELETE", "PATCH"} {
				r := request(method, budget, header...)
				r.AddCookie(b.session())
				exchange(t, s, r).wantProblem(t, http.StatusForbidden, "cross-origin", "another origin")
			}
			r := request("POST", "/logout", header...)
			r.AddCookie(b.session())
			exchange(t, s, r).wantProblem(t, http.StatusForbidden, "cross-origin", "")
		})
	}
	b.do("PUT", budget).wantHello(t, local)
	b.do("GET", budget, "Sec-Fetch-Site", "cross-site").wantHello(t, local) // a link to us
}

// A bad token is refused even when the browser is signed in, and a session does
// not help a token.
func TestATokenComesBeforeTheCookie(t *testing.T) {
	s := newSite(t, nil)
	b := signedIn(t, s)
	if a := b.do("GET", budget, "Authorization", "Bearer garbage"); a.StatusCode == http.StatusOK {
		t.Errorf("%d %s", a.StatusCode, a.body)
	}
	b.do("GET", budget, "Authorization", "Basic Zm9vOmJhcg==").wantHello(t, local) // a proxy's, not ours
}

func TestACallerThatDoesNotFitIntoACookie(t *testing.T) {
	many := localAdmin
	for i := range 300 {
		many.Ports = append(many.Ports, fmt.Sprintf("port-%d", i))
	}
	s := newSite(t, func(_ *identity.SessionConfig, c *identity.LoginConfig) { c.LinkCaller = &many })
	link, _ := s.login.NewLink(time.Now())
	newBrowser(t, s).open(link).wantPage(t, http.StatusForbidden, "cookie can hold")
}

// A session keeps apart "every port" and "no port".
func TestSessionsKeepThePorts(t *testing.T) {
	for name, c := range map[string]struct {
		ports  []string
		status int
	}{"every": {nil, 200}, "none": {[]string{}, 403}, "its own": {[]string{"p1"}, 200}, "another": {[]string{"p2"}, 403}} {
		t.Run(name, func(t *testing.T) {
			caller := localAdmin
			caller.Ports = c.ports
			s := newSite(t, func(_ *identity.SessionConfig, cfg *identity.LoginConfig) { cfg.LinkCaller = &caller })
			link, _ := s.login.NewLink(time.Now())
			b := newBrowser(t, s)
			b.open(link)
			if a := b.do("GET", budget); a.StatusCode != c.status {
				t.Errorf("%d %s, want %d", a.StatusCode, a.body, c.status)
			}
		})
	}
}
