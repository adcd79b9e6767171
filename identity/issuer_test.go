package identity_test

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/golang-jwt/jwt/v5"
)

// issuer is a small OIDC provider: discovery, a key set, the authorization code
// flow with PKCE. It signs with golang-jwt, so that a bug in the library that
// verifies cannot hide in the one that signs.
type issuer struct {
	url    string
	client *http.Client

	mu      sync.Mutex
	down    bool
	visits  int // to the key set
	keys    map[string]signer
	hidden  map[string]bool // keys that sign and are not published
	extra   []any           // further entries of the key set
	named   string          // issuer in the discovery document, if another
	people  jwt.MapClaims   // claims of the ID tokens beside the usual
	granted map[string]grant
}

type signer struct {
	method jwt.SigningMethod
	key    crypto.Signer
}

type grant struct{ challenge, nonce, redirect string }

const (
	audience = "tidegate-api"
	clientID = "tidegate-web"
	secret   = "s3cret"
)

var (
	rsaKey   = sync.OnceValue(func() *rsa.PrivateKey { return must(rsa.GenerateKey(rand.Reader, 2048)) })
	otherRSA = sync.OnceValue(func() *rsa.PrivateKey { return must(rsa.GenerateKey(rand.Reader, 2048)) })
	smallRSA = sync.OnceValue(func() *rsa.PrivateKey { return must(rsa.GenerateKey(rand.Reader, 1024)) })
	ecKey    = sync.OnceValue(func() *ecdsa.PrivateKey { return must(ecdsa.GenerateKey(elliptic.P256(), rand.Reader)) })
	edKey    = sync.OnceValue(func() ed25519.PrivateKey { _, key, err := ed25519.GenerateKey(rand.Reader); must(0, err); return key })
)

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

func describeIssuer(url string) *issuer {
	return &issuer{url: url, granted: map[string]grant{}, hidden: map[string]bool{}, keys: map[string]signer{
		"rsa-1": {jwt.SigningMethodRS256, rsaKey()},
		"ec-1":  {jwt.SigningMethodES256, ecKey()},
		"ed-1":  {jwt.SigningMethodEdDSA, edKey()},
	}}
}

// newIssuer starts an issuer on loopback.
func newIssuer(t *testing.T) *issuer {
	i := describeIssuer("")
	server := httptest.NewServer(i)
	t.Cleanup(server.Close)
	i.url, i.client = server.URL, server.Client()
	return i
}

// newIssuerInside makes an issuer without a socket, for time that is not real.
func newIssuerInside() *issuer {
	i := describeIssuer("https://issuer.test")
	i.client = &http.Client{Transport: roundTrip(func(r *http.Request) (*http.Response, error) {
		w := httptest.NewRecorder()
		i.ServeHTTP(w, r)
		return w.Result(), nil
	})}
	return i
}

type roundTrip func(*http.Request) (*http.Response, error)

func (f roundTrip) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

// set changes the issuer while it serves.
func (i *issuer) set(change func()) {
	i.mu.Lock()
	defer i.mu.Unlock()
	change()
}

func (i *issuer) keySetVisits() int {
	i.mu.Lock()
	defer i.mu.Unlock()
	return i.visits
}

func (i *issuer) claims(change jwt.MapClaims) jwt.MapClaims {
	now := time.Now()
	claims := jwt.MapClaims{
		"iss": i.url, "aud": audience, "sub": "auth0|ada", "name": "Ada",
		"iat": now.Unix(), "exp": now.Add(time.Hour).Unix(), "permissions": []string{manage},
	}
	for name, value := range change {
		claims[name] = value
		if value == nil {
			delete(claims, name)
		}
	}
	return claims
}

// sign signs with one of the issuer's keys.
func (i *issuer) sign(kid string, change jwt.MapClaims) string {
	s := i.keys[kid]
	return mint(s.method, s.key, jwt.MapClaims{"kid": kid}, i.claims(change))
}

func mint(method jwt.SigningMethod, key any, header, claims jwt.MapClaims) string {
	token := jwt.NewWithClaims(method, claims)
	maps.Copy(token.Header, header)
	return must(token.SignedString(key))
}

func (i *issuer) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.down {
		http.Error(w, "down for maintenance", http.StatusServiceUnavailable)
		return
	}
	switch r.URL.Path {
	case "/.well-known/openid-configuration":
		named := i.url
		if i.named != "" {
			named = i.named
		}
		send(w, map[string]any{
			"issuer": named, "jwks_uri": i.url + "/keys", "authorization_endpoint": i.url + "/authorize", "token_endpoint": i.url + "/token",
			"id_token_signing_alg_values_supported": []string{"RS256", "ES256", "HS256", "none"}, // it may say so: we do not listen
		})
	case "/keys":
		i.visits++
		send(w, map[string]any{"keys": i.keySet()})
	case "/authorize":
		i.authorize(w, r)
	case "/token":
		i.token(w, r)
	default:
		http.NotFound(w, r)
	}
}

func (i *issuer) keySet() []any {
	set := slices.Clone(i.extra)
	for _, kid := range slices.Sorted(maps.Keys(i.keys)) {
		if !i.hidden[kid] {
			set = append(set, jose.JSONWebKey{KeyID: kid, Use: "sig", Algorithm: i.keys[kid].method.Alg(), Key: i.keys[kid].key.Public()})
		}
	}
	return set
}

// authorize signs everybody in, unasked.
func (i *issuer) authorize(w http.ResponseWriter, r *http.Request) {
	q := r.URL.Query()
	if q.Get("client_id") != clientID || q.Get("response_type") != "code" || q.Get("code_challenge_method") != "S256" {
		http.Error(w, "bad request", http.StatusBadRequest)
		return
	}
	code := rand.Text()
	i.granted[code] = grant{challenge: q.Get("code_challenge"), nonce: q.Get("nonce"), redirect: q.Get("redirect_uri")}
	back := url.Values{"code": {code}, "state": {q.Get("state")}, "iss": {i.url}}
	http.Redirect(w, r, q.Get("redirect_uri")+"?"+back.Encode(), http.StatusFound)
}

func (i *issuer) token(w http.ResponseWriter, r *http.Request) {
	_ = r.ParseForm()
	id, password, basic := r.BasicAuth()
	if !basic {
		id, password = r.PostForm.Get("client_id"), r.PostForm.Get("client_secret")
	}
	g, known := i.granted[r.PostForm.Get("code")]
	delete(i.granted, r.PostForm.Get("code"))
	challenge := sha256.Sum256([]byte(r.PostForm.Get("code_verifier")))
	if !known || id != clientID || password != secret || g.redirect != r.PostForm.Get("redirect_uri") ||
		g.challenge != base64.RawURLEncoding.EncodeToString(challenge[:]) {
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(http.StatusBadRequest)
		fmt.Fprint(w, `{"error":"invalid_grant"}`)
		return
	}
	claims := jwt.MapClaims{"aud": clientID, "nonce": g.nonce}
	maps.Copy(claims, i.people)
	send(w, map[string]any{"access_token": "opaque", "token_type": "Bearer", "expires_in": 300, "id_token": i.sign("ec-1", claims)})
}

func send(w http.ResponseWriter, v any) {
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(v)
}
