package identity_test

import (
	"net/http"
	"net/url"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/golang-jwt/jwt/v5"

	"github.com/tidegate/tidegate/identity"
)

func withProvider(t *testing.T, i *issuer) func(*identity.SessionConfig, *identity.LoginConfig) {
	return func(_ *identity.SessionConfig, c *identity.LoginConfig) {
		p, err := identity.NewProvider(identity.ProviderConfig{
			OIDC:     newOIDC(t, i, func(c *identity.OIDCConfig) { c.PortsClaim = "ports" }),
			ClientID: clientID, ClientSecret: secret, PublicURL: "http://127.0.0.1:8080/",
		})
		if err != nil {
			t.Fatal(err)
		}
		c.Provider = p
	}
}

// atProvider follows the browser to the provider and returns the way back.
func atProvider(t *testing.T, i *issuer, a answer) string {
	t.Helper()
	to := a.Header.Get("Location")
	if a.StatusCode != http.StatusSeeOther || !strings.HasPrefix(to, i.url+"/authorize?") {
		t.Fatalf("%d to %q", a.StatusCode, to)
	}
	client := *i.client
	client.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	resp, err := client.Get(to)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	back := resp.Header.Get("Location")
	if !strings.HasPrefix(back, "http://127.0.0.1:8080"+identity.CallbackPath+"?") {
		t.Fatalf("the provider leads to %q", back)
	}
	return strings.TrimPrefix(back, "http://127.0.0.1:8080")
}

func TestSigningInAtTheProvider(t *testing.T) {
	i := newIssuer(t)
	s := newSite(t, withProvider(t, i))
	b := newBrowser(t, s)
	i.people = jwt.MapClaims{"ports": []string{"p1"}}
	b.do("GET", "/login?next=%2Fapi").wantPage(t, http.StatusOK, `href="/login/oidc?next=%2fapi">Sign in with `+strings.TrimPrefix(i.url, "http://"))
	back := atProvider(t, i, b.do("GET", "/login/oidc?next="+url.QueryEscape(budget)))
	b.open(back).wantHello(t, ada)
	b.do("GET", "/api/v1/ports/p2/ai-budget").wantPage(t, http.StatusForbidden, "p2")
	b.do("PUT", "/api/v1/ports/p2/ai-budget").wantProblem(t, http.StatusForbidden, "port-not-allowed", "p2")
	if len(b.cookies) != 1 {
		t.Errorf("cookies left: %v", b.cookies)
	}
	newBrowser(t, s).open(back).wantPage(t, http.StatusUnauthorized, "another browser")
}

func TestLoginsAtTheProviderThatFail(t *testing.T) {
	i := newIssuer(t)
	s := newSite(t, withProvider(t, i))
	replace := func(name, value string) func(string) string {
		return func(back string) string {
			u := must(url.Parse(back))
			q := u.Query()
			q.Set(name, value)
			u.RawQuery = q.Encode()
			return u.String()
		}
	}
	for name, c := range map[string]struct {
		people jwt.MapClaims
		change func(back string) string
		text   string
	}{
		"another state":        {nil, replace("state", "guess"), "another browser or tab"},
		"no state":             {nil, replace("state", ""), "another browser or tab"},
		"another code":         {nil, replace("code", "guess"), "does not accept its own code"},
		"no code":              {nil, replace("code", ""), "does not accept its own code"},
		"another provider":     {nil, replace("iss", "https://evil.example"), "another provider"},
		"refused":              {nil, replace("error", "access_denied"), "access_denied"},
		"another nonce":        {jwt.MapClaims{"nonce": "guess"}, nil, "belongs to another login"},
		"another audience":     {jwt.MapClaims{"aud": audience}, nil, "audience"},
		"an expired ID token":  {jwt.MapClaims{"exp": 1}, nil, "expired"},
		"a claim out of shape": {jwt.MapClaims{"permissions": 7}, nil, "claim permissions"},
	} {
		t.Run(name, func(t *testing.T) {
			i.set(func() { i.people = c.people })
			b := newBrowser(t, s)
			b.from = "192.0.2." + string(rune('1'+len(name)%9)) + ":1"
			back := atProvider(t, i, b.do("GET", "/login/oidc"))
			if c.change != nil {
				back = c.change(back)
			}
			b.open(back).wantPage(t, http.StatusUnauthorized, c.text)
			if len(b.cookies) != 0 {
				t.Errorf("cookies left: %v", b.cookies)
			}
		})
	}
}

func TestTheVerifierBindsTheCodeToItsLogin(t *testing.T) {
	i := newIssuer(t)
	s := newSite(t, withProvider(t, i))
	thief, victim := newBrowser(t, s), newBrowser(t, s)
	stolen := must(url.Parse(atProvider(t, i, victim.do("GET", "/login/oidc")))).Query().Get("code")
	back := must(url.Parse(atProvider(t, i, thief.do("GET", "/login/oidc"))))
	q := back.Query()
	q.Set("code", stolen)
	thief.open(back.Path+"?"+q.Encode()).wantPage(t, http.StatusUnauthorized, "does not accept its own code")
}

func TestALoginAtTheProviderHasToEndInTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		i := newIssuerInside()
		s := newSite(t, withProvider(t, i))
		b := newBrowser(t, s)
		back := atProvider(t, i, b.do("GET", "/login/oidc"))
		time.Sleep(10 * time.Minute)
		b.open(back).wantPage(t, http.StatusUnauthorized, "longer than 10m0s")

		i.set(func() { i.down = true })
		back = atBack(b, i)
		b.open(back).wantPage(t, http.StatusServiceUnavailable, "does not answer")
		time.Sleep(25 * time.Hour)
		b.open("/login/oidc").wantPage(t, http.StatusServiceUnavailable, "issuer")
	})
}

// atBack begins a login that the provider, down, cannot finish.
func atBack(b *browser, i *issuer) string {
	to := must(url.Parse(b.do("GET", "/login/oidc").Header.Get("Location")))
	return identity.CallbackPath + "?code=x&state=" + to.Query().Get("state")
}

func TestProvidersThatAreRefused(t *testing.T) {
	o := must(identity.NewOIDC(identity.OIDCConfig{Issuer: "https://login.example.com", Audience: audience}))
	for name, cfg := range map[string]identity.ProviderConfig{
		"no issuer":     {ClientID: clientID, PublicURL: "https://tidegate.example"},
		"no client":     {OIDC: o, PublicURL: "https://tidegate.example"},
		"no address":    {OIDC: o, ClientID: clientID},
		"an unsafe one": {OIDC: o, ClientID: clientID, PublicURL: "http://tidegate.example"},
	} {
		if _, err := identity.NewProvider(cfg); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
	if _, err := identity.NewProvider(identity.ProviderConfig{OIDC: o, ClientID: clientID, PublicURL: "https://tidegate.example"}); err != nil {
		t.Error(err)
	}
}
