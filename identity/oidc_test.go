package identity_test

import (
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/golang-jwt/jwt/v5"

	"github.com/tidegate/tidegate/identity"
)

func TestOIDCTokensThatAreAccepted(t *testing.T) {
	i := newIssuer(t)
	api := guarded(&identity.Authenticator{OIDC: newOIDC(t, i, nil), Log: quiet()})
	for name, token := range map[string]string{
		"RS256":                       i.sign("rsa-1", nil),
		"ES256":                       i.sign("ec-1", nil),
		"EdDSA":                       i.sign("ed-1", nil),
		"without a key id":            mint(jwt.SigningMethodRS256, rsaKey(), nil, i.claims(nil)),
		"one audience of several":     i.sign("rsa-1", jwt.MapClaims{"aud": []string{"other", audience}}),
		"permissions with spaces":     i.sign("rsa-1", jwt.MapClaims{"permissions": "openid " + manage}),
		"nbf within a minute":         i.sign("rsa-1", jwt.MapClaims{"nbf": time.Now().Add(30 * time.Second).Unix()}),
		"nbf with a fraction, passed": i.sign("rsa-1", jwt.MapClaims{"nbf": float64(time.Now().Unix()) - 0.5}),
	} {
		t.Run(name, func(t *testing.T) {
			ask(t, api, "GET", budget, withBearer(token)...).wantHello(t, "Ada (oidc:auth0|ada)")
		})
	}
	ask(t, api, "GET", budget, "Authorization", "bearer  "+i.sign("rsa-1", nil)).wantHello(t, "Ada (oidc:auth0|ada)")
}

func TestOIDCTokensThatAreRefused(t *testing.T) {
	i := newIssuer(t)
	api := guarded(&identity.Authenticator{OIDC: newOIDC(t, i, nil), Log: quiet()})
	good := i.sign("rsa-1", nil)
	parts := strings.Split(good, ".")
	unsigned := mint(jwt.SigningMethodNone, jwt.UnsafeAllowNoneSignatureType, nil, i.claims(nil))
	head := func(json string) string { return base64.RawURLEncoding.EncodeToString([]byte(json)) }
	pkix := must(x509.MarshalPKIXPublicKey(rsaKey().Public()))
	hmacWith := func(secret []byte) string {
		return mint(jwt.SigningMethodHS256, secret, jwt.MapClaims{"kid": "rsa-1"}, i.claims(nil))
	}
	stranger := jose.JSONWebKey{Key: otherRSA().Public(), KeyID: "mine", Algorithm: "RS256", Use: "sig"}

	for name, c := range map[string]struct{ token, detail string }{
		"garbage":                      {"garbage", "malformed"},
		"nothing":                      {"", "one token"},
		"two tokens":                   {good + " " + good, "one token"},
		"JSON serialisation":           {`{"payload":"` + parts[1] + `","protected":"` + parts[0] + `","signature":"` + parts[2] + `"}`, "one token"},
		"far too long":                 {strings.Repeat("a", 17<<10), "one token"},
		"only a head":                  {parts[0] + "..", ""},
		"no signature":                 {parts[0] + "." + parts[1] + ".", "signature"},
		"another payload":              {parts[0] + "." + strings.Split(i.sign("rsa-1", jwt.MapClaims{"sub": "root"}), ".")[1] + "." + parts[2], "signature"},
		"alg none":                     {unsigned, "algorithm"},
		"alg nOnE":                     {head(`{"alg":"nOnE","typ":"JWT"}`) + "." + parts[1] + ".", "algorithm"},
		"alg none, signed":             {head(`{"alg":"none","kid":"rsa-1"}`) + "." + parts[1] + "." + parts[2], "algorithm"},
		"HMAC with the key as PEM":     {hmacWith(pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: pkix})), "algorithm"},
		"HMAC with the key as DER":     {hmacWith(pkix), "algorithm"},
		"HMAC with the modulus":        {hmacWith(rsaKey().N.Bytes()), "algorithm"},
		"HMAC with the key's JSON":     {hmacWith(must(json.Marshal(jose.JSONWebKey{Key: rsaKey().Public(), KeyID: "rsa-1"}))), "algorithm"},
		"HMAC with nothing":            {hmacWith([]byte{}), "algorithm"},
		"a stranger's key":             {mint(jwt.SigningMethodRS256, otherRSA(), jwt.MapClaims{"kid": "mine"}, i.claims(nil)), "signature"},
		"a stranger's key, our id":     {mint(jwt.SigningMethodRS256, otherRSA(), jwt.MapClaims{"kid": "rsa-1"}, i.claims(nil)), "signature"},
		"a stranger's key, no id":      {mint(jwt.SigningMethodRS256, otherRSA(), nil, i.claims(nil)), "signature"},
		"a stranger's key in the head": {mint(jwt.SigningMethodRS256, otherRSA(), jwt.MapClaims{"jwk": stranger}, i.claims(nil)), ""},
		"a stranger's key set":         {mint(jwt.SigningMethodRS256, otherRSA(), jwt.MapClaims{"jku": "https://evil.example/keys"}, i.claims(nil)), "signature"},
		"our key, another algorithm":   {mint(jwt.SigningMethodPS256, rsaKey(), jwt.MapClaims{"kid": "rsa-1"}, i.claims(nil)), "signature"},
		"a critical extension":         {mint(jwt.SigningMethodRS256, rsaKey(), jwt.MapClaims{"kid": "rsa-1", "crit": []string{"exp"}, "exp": 1}, i.claims(nil)), ""},
		"wrong audience":               {i.sign("rsa-1", jwt.MapClaims{"aud": "other-api"}), "audience"},
		"no audience":                  {i.sign("rsa-1", jwt.MapClaims{"aud": nil}), "audience"},
		"audience that begins alike":   {i.sign("rsa-1", jwt.MapClaims{"aud": audience + "-2"}), "audience"},
		"wrong issuer":                 {i.sign("rsa-1", jwt.MapClaims{"iss": "https://evil.example"}), "different provider"},
		"issuer with a slash":          {i.sign("rsa-1", jwt.MapClaims{"iss": i.url + "/"}), "different provider"},
		"no issuer":                    {i.sign("rsa-1", jwt.MapClaims{"iss": nil}), "different provider"},
		"expired":                      {i.sign("rsa-1", jwt.MapClaims{"exp": time.Now().Add(-time.Second).Unix()}), "expired at"},
		"no expiry":                    {i.sign("rsa-1", jwt.MapClaims{"exp": nil}), "expired at"},
		"not yet valid":                {i.sign("rsa-1", jwt.MapClaims{"nbf": time.Now().Add(2 * time.Minute).Unix()}), "not valid yet"},
		"not valid for ages":           {i.sign("rsa-1", jwt.MapClaims{"nbf": 1e300}), "not valid yet"},
		"nbf that is no time":          {i.sign("rsa-1", jwt.MapClaims{"nbf": "soon"}), ""},
		"no subject":                   {i.sign("rsa-1", jwt.MapClaims{"sub": nil}), "sub claim"},
		"a subject with a line break":  {i.sign("rsa-1", jwt.MapClaims{"sub": "ada\nroot"}), "sub claim"},
		"permissions as an object":     {i.sign("rsa-1", jwt.MapClaims{"permissions": map[string]bool{manage: true}}), "claim permissions"},
		"permissions of mixed kinds":   {i.sign("rsa-1", jwt.MapClaims{"permissions": []any{manage, nil}}), "claim permissions"},
		"an API token":                 {"tg_abcdefghijkl_x", "no API tokens"},
	} {
		t.Run(name, func(t *testing.T) {
			a := ask(t, api, "GET", budget, withBearer(c.token)...)
			a.wantProblem(t, http.StatusUnauthorized, "invalid-token", c.detail)
			if !strings.Contains(a.Header.Get("WWW-Authenticate"), `error="invalid_token"`) {
				t.Errorf("WWW-Authenticate: %s", a.Header.Get("WWW-Authenticate"))
			}
		})
	}
	t.Run("two headers", func(t *testing.T) {
		ask(t, api, "GET", budget, append(withBearer(good), withBearer(good)...)...).wantProblem(t, http.StatusUnauthorized, "invalid-token", "several")
	})
	t.Run("no token", func(t *testing.T) {
		a := ask(t, api, "GET", budget)
		a.wantProblem(t, http.StatusUnauthorized, "unauthenticated", "Authorization: Bearer")
		if got := a.Header.Get("WWW-Authenticate"); got != `Bearer realm="tidegate"` {
			t.Errorf("WWW-Authenticate: %s", got)
		}
	})
	t.Run("another scheme", func(t *testing.T) {
		ask(t, api, "GET", budget, "Authorization", "Basic "+good).wantProblem(t, http.StatusUnauthorized, "unauthenticated", "")
	})
	ask(t, api, "GET", budget, withBearer(good)...).wantHello(t, "Ada (oidc:auth0|ada)") // the table's good token is one
}

func TestWhatAnOIDCCallerMayDo(t *testing.T) {
	i := newIssuer(t)
	limited := func(c *identity.OIDCConfig) { c.PortsClaim = "https://tidegate.example/ports" }
	roles := func(c *identity.OIDCConfig) { c.PermissionsClaim = "realm_access.roles" }
	ports := func(v any) jwt.MapClaims { return jwt.MapClaims{"https://tidegate.example/ports": v} }
	const forbidden = http.StatusForbidden

	for name, c := range map[string]struct {
		change       func(*identity.OIDCConfig)
		claims       jwt.MapClaims
		method, path string
		status       int
		kind         string
	}{
		"the permission":                 {nil, nil, "PUT", budget, 200, ""},
		"no permission":                  {nil, jwt.MapClaims{"permissions": nil}, "GET", budget, forbidden, "missing-permission"},
		"an empty permission":            {nil, jwt.MapClaims{"permissions": []string{""}}, "GET", budget, forbidden, "missing-permission"},
		"null":                           {nil, jwt.MapClaims{"permissions": json.RawMessage("null")}, "GET", budget, forbidden, "missing-permission"},
		"another permission":             {nil, jwt.MapClaims{"permissions": []string{scan}}, "GET", budget, forbidden, "missing-permission"},
		"a permission that begins so":    {nil, jwt.MapClaims{"permissions": []string{manage + "_too"}}, "GET", budget, forbidden, "missing-permission"},
		"another case":                   {nil, jwt.MapClaims{"permissions": []string{strings.ToUpper(manage)}}, "GET", budget, forbidden, "missing-permission"},
		"no star":                        {nil, jwt.MapClaims{"permissions": []string{"*"}}, "GET", budget, forbidden, "missing-permission"},
		"a nested claim":                 {roles, jwt.MapClaims{"realm_access": map[string]any{"roles": []string{manage}}}, "GET", budget, 200, ""},
		"not the default claim":          {roles, nil, "GET", budget, forbidden, "missing-permission"},
		"nested in nothing":              {roles, jwt.MapClaims{"realm_access": "roles"}, "GET", budget, forbidden, "missing-permission"},
		"unlimited: every port":          {nil, nil, "DELETE", "/api/v1/users/u1", 200, ""},
		"limited: its port":              {limited, ports([]string{"p2", "p1"}), "PUT", budget, 200, ""},
		"limited: its port, one text":    {limited, ports("p2 p1"), "PUT", budget, 200, ""},
		"limited: another port":          {limited, ports([]string{"p2"}), "GET", budget, forbidden, "port-not-allowed"},
		"limited: a port that begins so": {limited, ports([]string{"p11", "p"}), "GET", budget, forbidden, "port-not-allowed"},
		"limited: the list":              {limited, ports([]string{"p2"}), "GET", "/api/v1/ports", 200, ""},
		"limited: not every port":        {limited, ports([]string{"p1", "p2", ""}), "DELETE", "/api/v1/users/u1", forbidden, "port-not-allowed"},
		"no ports claim: no port":        {limited, nil, "GET", budget, forbidden, "port-not-allowed"},
		"no ports claim: no list":        {limited, nil, "GET", "/api/v1/ports", forbidden, "port-not-allowed"},
		"an empty list: no port":         {limited, ports([]string{}), "GET", budget, forbidden, "port-not-allowed"},
		"an empty text: no port":         {limited, ports(" "), "GET", budget, forbidden, "port-not-allowed"},
		"null: no port":                  {limited, ports(json.RawMessage("null")), "GET", budget, forbidden, "port-not-allowed"},
		"a number: nobody":               {limited, ports(7), "GET", budget, http.StatusUnauthorized, "invalid-token"},
		"a star: every port":             {limited, ports("*"), "DELETE", "/api/v1/users/u1", 200, ""},
	} {
		t.Run(name, func(t *testing.T) {
			api := guarded(&identity.Authenticator{OIDC: newOIDC(t, i, c.change), Log: quiet()})
			a := ask(t, api, c.method, c.path, withBearer(i.sign("ec-1", c.claims))...)
			if c.status == 200 {
				a.wantHello(t, "Ada (oidc:auth0|ada)")
				return
			}
			a.wantProblem(t, c.status, c.kind, "")
		})
	}
}

func TestOIDCConfigurationsThatAreRefused(t *testing.T) {
	for name, cfg := range map[string]identity.OIDCConfig{
		"no issuer":               {Audience: audience},
		"no audience":             {Issuer: "https://login.example.com"},
		"plain http":              {Issuer: "http://login.example.com", Audience: audience},
		"http on a private host":  {Issuer: "http://10.0.0.1", Audience: audience},
		"a host that looks local": {Issuer: "http://127.0.0.1.example.com", Audience: audience},
		"no address":              {Issuer: "login.example.com", Audience: audience},
		"user and password":       {Issuer: "https://a:b@login.example.com", Audience: audience},
	} {
		if _, err := identity.NewOIDC(cfg); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}
