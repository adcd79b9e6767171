package identity_test

import (
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/tidegate/tidegate/identity"
	"pgregory.net/rapid"
)

func TestWhatACallerCan(t *testing.T) {
	const p, q = "a.permission", "another"
	for name, c := range map[string]struct {
		caller           identity.Caller
		permission, port string
		can, has         bool
	}{
		"nobody":                         {identity.Caller{}, p, "p1", false, false},
		"nobody, the empty permission":   {identity.Caller{}, "", "", false, false},
		"the empty permission is none":   {identity.Caller{Permissions: []string{""}}, "", "p1", false, false},
		"unlimited":                      {identity.Caller{Permissions: []string{q, p}}, p, "p1", true, true},
		"unlimited, every port":          {identity.Caller{Permissions: []string{p}}, p, "", true, true},
		"limited, its port":              {identity.Caller{Permissions: []string{p}, Ports: []string{"p2", "p1"}}, p, "p1", true, true},
		"limited, another":               {identity.Caller{Permissions: []string{p}, Ports: []string{"p2"}}, p, "p1", false, true},
		"limited, every port":            {identity.Caller{Permissions: []string{p}, Ports: []string{"p1"}}, p, "", false, true},
		"limited to the nameless one":    {identity.Caller{Permissions: []string{p}, Ports: []string{""}}, p, "", false, true},
		"limited to none":                {identity.Caller{Permissions: []string{p}, Ports: []string{}}, p, "p1", false, true},
		"its port, without a permission": {identity.Caller{Permissions: []string{q}, Ports: []string{"p1"}}, p, "p1", false, false},
	} {
		if can, has := c.caller.Can(c.permission, c.port), c.caller.Has(c.permission); can != c.can || has != c.has {
			t.Errorf("%s: can %v, has %v", name, can, has)
		}
	}
}

func TestActors(t *testing.T) {
	for want, c := range map[string]identity.Caller{
		"Ada (oidc:auth0|5f1)": {Subject: "auth0|5f1", Name: "Ada", Via: identity.ViaOIDC},
		"token:abcdefghijkl":   {Subject: "abcdefghijkl", Via: identity.ViaToken},
		"root (x) (oidc:eve)":  {Subject: "eve", Name: "ro\not (x)", Via: identity.ViaOIDC}, // the proof comes last
	} {
		if got := c.Actor(); got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
	long := func(last string) string {
		return identity.Caller{Subject: strings.Repeat("s", 200) + last, Name: "Ada", Via: identity.ViaOIDC}.Actor()
	}
	if long("1") == long("2") {
		t.Errorf("two subjects are both %s", long("1"))
	}
}

func TestActorsFitTheAuditLog(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		c := identity.Caller{Subject: rapid.String().Draw(t, "subject"), Name: rapid.String().Draw(t, "name"), Via: identity.ViaOIDC}
		actor := c.Actor()
		if n := utf8.RuneCountInString(actor); n == 0 || n > 128 || !utf8.ValidString(actor) || strings.ContainsFunc(actor, func(r rune) bool { return r < ' ' || r == 0x7f }) {
			t.Fatalf("%d characters: %q", n, actor)
		}
		if !strings.Contains(actor, "oidc:") {
			t.Fatalf("%q does not say how", actor)
		}
	})
}

// Handlers see how long their caller may stay.
func TestCallersKnowWhenTheyEnd(t *testing.T) {
	i := newIssuer(t)
	tokens := identity.NewTokens(newMemory(), quiet())
	s := newSite(t, nil)
	a := &identity.Authenticator{OIDC: newOIDC(t, i, nil), Tokens: tokens, Sessions: s.sessions}
	ends := time.Now().Add(time.Hour)
	limited, _ := createToken(t, tokens, func(r *identity.TokenRequest) { r.ExpiresAt = ends })
	forever, _ := createToken(t, tokens, nil)
	for name, c := range map[string]struct {
		header []string
		want   time.Time
	}{
		"OIDC":    {withBearer(i.sign("ec-1", nil)), ends},
		"token":   {withBearer(limited), ends},
		"forever": {withBearer(forever), time.Time{}},
		"session": {[]string{"Cookie", signedIn(t, s).session().String()}, time.Now().Add(12 * time.Hour)},
	} {
		caller, err := a.Authenticate(request("GET", "/", c.header...))
		if err != nil || caller.ExpiresAt.Sub(c.want).Abs() > 5*time.Second {
			t.Errorf("%s: until %s, %v, want %s", name, caller.ExpiresAt, err, c.want)
		}
	}
}
