package identity_test

import (
	"encoding/base64"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/tidegate/tidegate/identity"
)

func TestALoginLinkSignsInOnce(t *testing.T) {
	for name, dir := range map[string]string{"in memory": "", "in a directory": t.TempDir()} {
		t.Run(name, func(t *testing.T) {
			s := newSite(t, func(c *identity.SessionConfig, _ *identity.LoginConfig) { c.SpentDir = dir })
			link, expires := s.login.NewLink(time.Now())
			if code := strings.TrimPrefix(link, "/login?code="); len(code) != 54 || time.Until(expires).Round(time.Second) > 10*time.Minute {
				t.Fatalf("%s until %s", link, expires)
			}
			b := newBrowser(t, s)
			wantLogin(t, b.do("GET", "/"), "/")
			b.open(link).wantHello(t, local)
			b.open("/").wantHello(t, local)

			other := newBrowser(t, s)
			other.open(link).wantPage(t, http.StatusUnauthorized, "used already")
			wantLogin(t, other.do("GET", "/"), "/")
			b.open(link).wantHello(t, local) // the same browser just gets on
		})
	}
}

func TestALoginLinkExpires(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSite(t, nil)
		early, _ := s.login.NewLink(time.Now())
		late, expires := s.login.NewLink(time.Now())
		time.Sleep(time.Until(expires) - 1)
		newBrowser(t, s).open(early).wantHello(t, local)
		time.Sleep(time.Nanosecond)
		newBrowser(t, s).open(late).wantPage(t, http.StatusUnauthorized, "expired")
	})
}

func TestLoginLinksThatAreNotOurs(t *testing.T) {
	s := newSite(t, nil)
	other := newSite(t, func(c *identity.SessionConfig, _ *identity.LoginConfig) {
		c.Key = []byte("another key, of 32 characters...")
	})
	foreign, _ := other.login.NewLink(time.Now())
	link, _ := s.login.NewLink(time.Now())
	code := strings.TrimPrefix(link, "/login?code=")
	raw, _ := base64.RawURLEncoding.DecodeString(code)
	for i := range raw { // any bit: id, expiry or signature
		changed := append([]byte(nil), raw...)
		changed[i] ^= 0x10
		b := newBrowser(t, s)
		b.from = fmt.Sprintf("192.0.2.%d:4711", i)
		b.open("/login?code="+base64.RawURLEncoding.EncodeToString(changed)).wantPage(t, http.StatusUnauthorized, "not one that this server made")
	}
	for _, bad := range []string{code[:53], code + "A", code + "=", "x", "%00", strings.Repeat("A", 54)} {
		b := newBrowser(t, s)
		b.from = "198.51.100.1:4711"
		if a := b.open("/login?code=" + bad); a.StatusCode != http.StatusUnauthorized || len(b.cookies) != 0 {
			t.Errorf("%q: %d", bad, a.StatusCode)
		}
	}
	newBrowser(t, s).open(foreign).wantPage(t, http.StatusUnauthorized, "not one that this server made")
	newBrowser(t, s).open(link).wantHello(t, local) // after all this the real one still works
}

// A code is spent by whichever of several processes gets it first.
func TestACodeWorksInOneOfManyProcesses(t *testing.T) {
	dir := t.TempDir()
	var processes []site
	for range 4 {
		processes = append(processes, newSite(t, func(c *identity.SessionConfig, _ *identity.LoginConfig) { c.SpentDir = dir }))
	}
	for range 20 {
		link, _ := processes[0].login.NewLink(time.Now())
		var together sync.WaitGroup
		var mu sync.Mutex
		signedIn := 0
		for _, p := range processes {
			together.Go(func() {
				b := newBrowser(t, p)
				b.do("GET", link)
				mu.Lock()
				defer mu.Unlock()
				signedIn += len(b.cookies)
			})
		}
		together.Wait()
		if signedIn != 1 {
			t.Fatalf("one link signed %d browsers in", signedIn)
		}
	}
}

func TestWhatUsesNoCodeUp(t *testing.T) {
	s := newSite(t, nil)
	link, _ := s.login.NewLink(time.Now())
	b := newBrowser(t, s)
	b.do("HEAD", link)
	b.do("GET", link, "Sec-Purpose", "prefetch;prerender")
	b.do("GET", link, "Purpose", "prefetch")
	for _, fetched := range [][]string{{"Sec-Fetch-Mode", "no-cors", "Sec-Fetch-Dest", "image"}, {"Sec-Fetch-Mode", "cors"}, {"Sec-Fetch-Mode", "navigate", "Sec-Fetch-Dest", "iframe"}} {
		b.do("GET", link, fetched...).wantPage(t, http.StatusUnauthorized, "open the link itself")
	}
	if a := b.do("POST", link); a.StatusCode != http.StatusMethodNotAllowed {
		t.Errorf("POST: %d", a.StatusCode)
	}
	r := request("GET", link, "Accept", html)
	r.Host = "192.168.1.5:8080" // no browser would keep the cookie here
	exchange(t, s, r).wantPage(t, http.StatusBadRequest, "http://127.0.0.1")
	if len(b.cookies) != 0 {
		t.Errorf("signed in by %v", b.cookies)
	}
	b.do("GET", link, "Sec-Fetch-Mode", "navigate", "Sec-Fetch-Dest", "document")
	b.open("/").wantHello(t, local)
}

func TestAddressesThatKeepTheCookie(t *testing.T) {
	for host, works := range map[string]bool{
		"localhost:8080": true, "127.0.0.1": true, "127.0.0.53:80": true, "[::1]:8080": true, "tidegate.localhost:8080": true,
		"192.168.1.5:8080": false, "tidegate.example.com": false, "127.0.0.1.example.com": false, "localhost.example.com": false, "": false,
	} {
		s := newSite(t, nil)
		link, _ := s.login.NewLink(time.Now())
		r := request("GET", link)
		r.Host = host
		if got := exchange(t, s, r).StatusCode == http.StatusSeeOther; got != works {
			t.Errorf("%q: %v, want %v", host, got, works)
		}
		r.Host, r.Header = "tidegate.example.com", http.Header{"X-Forwarded-Proto": {"https"}}
		if got := exchange(t, s, r).StatusCode; !works && got != http.StatusSeeOther {
			t.Errorf("behind https: %d", got)
		}
	}
}

func TestABrowserThatKeepsNoCookieIsTold(t *testing.T) {
	s := newSite(t, nil)
	link, _ := s.login.NewLink(time.Now())
	a := newBrowser(t, s).do("GET", link)
	newBrowser(t, s).do("GET", a.Header.Get("Location")).wantPage(t, http.StatusUnauthorized, "did not keep the session")
}

func TestWhereALoginLeads(t *testing.T) {
	s := newSite(t, nil)
	for next, want := range map[string]string{
		"":                              "/",
		"/api/v1/ports?x=1%202":         "/api/v1/ports?x=1%202",
		"https://evil.example":          "/",
		"//evil.example":                "/",
		"///evil.example":               "/",
		"/\\evil.example":               "/",
		"/\t/evil.example":              "/",
		"javascript:alert(1)":           "/",
		"evil.example":                  "/",
		"/login?code=x":                 "/",
		"/logout":                       "/",
		"/login/oidc":                   "/",
		"/%2f/evil.example/../login%0a": "/%2f/evil.example/../login%0a",
	} {
		link, _ := s.login.NewLink(time.Now())
		b := newBrowser(t, s)
		a := b.do("GET", link+"&next="+strings.NewReplacer("%", "%25", "?", "%3F", "\\", "%5C", "\t", "%09", "=", "%3D").Replace(next))
		a = b.do("GET", a.Header.Get("Location"))
		if got := a.Header.Get("Location"); got != want && !strings.HasPrefix(want, "/%2f") || strings.HasPrefix(got, "//") {
			t.Errorf("next=%q leads to %q, want %q", next, got, want)
		}
	}
}

// guess is a code that looks like one.
var guess = "/login?code=" + strings.Repeat("A", 54)

func TestFailedLoginsAreLimitedPerAddress(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSite(t, nil)
		attacker, person := newBrowser(t, s), newBrowser(t, s)
		attacker.from, person.from = "203.0.113.9:1000", "198.51.100.7:1000"
		for range 100 { // and no guess
			attacker.do("GET", "/login?code=mistyped").wantPage(t, http.StatusUnauthorized, "not whole")
		}
		for range 10 {
			attacker.do("GET", guess).wantPage(t, http.StatusUnauthorized, "not one")
		}
		for range 200 { // none of which the others pay for
			attacker.do("GET", guess).wantPage(t, http.StatusTooManyRequests, "wait")
		}
		person.do("GET", guess).wantPage(t, http.StatusUnauthorized, "not one")
		attacker.from = "203.0.113.9:2000" // another connection is no other address
		r := request("GET", guess)
		r.RemoteAddr = attacker.from
		a := exchange(t, s, r)
		a.wantProblem(t, http.StatusTooManyRequests, "too-many-attempts", "wait")
		if a.Header.Get("Retry-After") != "6" {
			t.Errorf("Retry-After: %q", a.Header.Get("Retry-After"))
		}
		time.Sleep(6 * time.Second)
		attacker.do("GET", guess).wantPage(t, http.StatusUnauthorized, "not one")
		attacker.do("GET", guess).wantPage(t, http.StatusTooManyRequests, "wait")

		// A link of ours works from there too: any page may have made this browser guess.
		link, _ := s.login.NewLink(time.Now())
		attacker.open(link).wantHello(t, local)

		// Logins that succeed are not counted.
		for range 30 {
			link, _ := s.login.NewLink(time.Now())
			person.do("GET", link)
		}
		person.open("/").wantHello(t, local)
	})
}

func TestFailedLoginsAreLimitedOverall(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSite(t, nil)
		from := func(address string) answer {
			b := newBrowser(t, s)
			b.from = address
			return b.do("GET", guess)
		}
		for i := range 150 { // those that succeed are not counted
			b := newBrowser(t, s)
			b.from = fmt.Sprintf("192.0.2.%d:1", i)
			link, _ := s.login.NewLink(time.Now())
			b.open(link).wantHello(t, local)
		}
		for i := range 100 {
			from(fmt.Sprintf("[2001:db8:%x::1]:1", i)).wantPage(t, http.StatusUnauthorized, "not one")
		}
		from("203.0.113.1:1").wantPage(t, http.StatusTooManyRequests, "wait")
		time.Sleep(time.Second)
		from("203.0.113.1:1").wantPage(t, http.StatusUnauthorized, "not one")
		from("203.0.113.2:1").wantPage(t, http.StatusTooManyRequests, "wait")

		// One IPv6 customer is one address.
		time.Sleep(time.Hour)
		for i := range 10 {
			from(fmt.Sprintf("[2001:db8:1:2::%x]:1", i)).wantPage(t, http.StatusUnauthorized, "not one")
		}
		from("[2001:db8:1:2:ffff::1]:1").wantPage(t, http.StatusTooManyRequests, "wait")
		from("[2001:db8:1:3::1]:1").wantPage(t, http.StatusUnauthorized, "not one")
	})
}

func TestLoginPages(t *testing.T) {
	s := newSite(t, nil)
	b := newBrowser(t, s)
	b.do("GET", `/login?next=%22%3E%3Cscript%3E`).wantPage(t, http.StatusOK, "tidegate login-link")
	if a := b.do("GET", "/login/login.css"); a.StatusCode != 200 || a.Header.Get("Content-Type") != "text/css; charset=utf-8" {
		t.Errorf("the style: %d %v", a.StatusCode, a.Header)
	}
	none := newSite(t, func(_ *identity.SessionConfig, c *identity.LoginConfig) { c.LinkCaller = nil })
	newBrowser(t, none).do("GET", "/login").wantPage(t, http.StatusOK, "no way to sign in")
	link, _ := none.login.NewLink(time.Now())
	newBrowser(t, none).open(link).wantPage(t, http.StatusUnauthorized, "no login links")
	if _, err := identity.NewLogin(identity.LoginConfig{}); err == nil {
		t.Error("a login without sessions")
	}
}
