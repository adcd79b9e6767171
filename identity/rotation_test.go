package identity_test

import (
	"context"
	"net/http"
	"strconv"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/golang-jwt/jwt/v5"

	"github.com/tidegate/tidegate/identity"
)

const ada = "Ada (oidc:auth0|ada)"

func TestAProcessStartsWhileTheIssuerIsDown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		i := newIssuerInside()
		i.down = true
		api := guarded(&identity.Authenticator{OIDC: newOIDC(t, i, nil), Log: quiet()})
		token := i.sign("rsa-1", nil)

		a := ask(t, api, "GET", budget, withBearer(token)...)
		a.wantProblem(t, http.StatusServiceUnavailable, "identity-unavailable", "issuer")
		wait, err := strconv.Atoi(a.Header.Get("Retry-After"))
		if err != nil || wait < 1 || wait > 10 {
			t.Errorf("Retry-After: %q", a.Header.Get("Retry-After"))
		}
		i.set(func() { i.down = false })
		// Between two visits to the issuer lie some seconds, however many ask.
		ask(t, api, "GET", budget, withBearer(token)...).wantProblem(t, http.StatusServiceUnavailable, "identity-unavailable", "")
		time.Sleep(time.Duration(wait) * time.Second)
		ask(t, api, "GET", budget, withBearer(token)...).wantHello(t, ada)

		i.set(func() { i.down = true })
		ask(t, api, "GET", budget, withBearer(token)...).wantHello(t, ada)
		time.Sleep(23 * time.Hour)
		ask(t, api, "GET", budget, withBearer(i.sign("rsa-1", nil))...).wantHello(t, ada)
		time.Sleep(2 * time.Hour)
		ask(t, api, "GET", budget, withBearer(i.sign("rsa-1", nil))...).wantProblem(t, http.StatusServiceUnavailable, "identity-unavailable", "")
		i.set(func() { i.down = false })
		time.Sleep(10 * time.Second)
		ask(t, api, "GET", budget, withBearer(i.sign("rsa-1", nil))...).wantHello(t, ada)
	})
}

func TestAnIssuerThatNamesItselfOtherwiseIsNotTrusted(t *testing.T) {
	i := newIssuer(t)
	i.named = "https://other.example"
	o := newOIDC(t, i, nil)
	api := guarded(&identity.Authenticator{OIDC: o, Log: quiet()})
	ask(t, api, "GET", budget, withBearer(i.sign("rsa-1", nil))...).wantProblem(t, http.StatusServiceUnavailable, "identity-unavailable", "")
	if err := o.Check(t.Context()); err == nil {
		t.Error("Check finds nothing wrong")
	}
}

func TestKeyRotation(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		i := newIssuerInside()
		api := guarded(&identity.Authenticator{OIDC: newOIDC(t, i, nil), Log: quiet()})
		old := i.sign("rsa-1", nil)
		ask(t, api, "GET", budget, withBearer(old)...).wantHello(t, ada)

		// A new key works at once, and the old one as long as it is published.
		time.Sleep(time.Minute)
		i.set(func() { i.keys["rsa-2"] = signer{jwt.SigningMethodRS256, otherRSA()} })
		ask(t, api, "GET", budget, withBearer(i.sign("rsa-2", nil))...).wantHello(t, ada)
		ask(t, api, "GET", budget, withBearer(old)...).wantHello(t, ada)

		// A key withdrawn, say because it was stolen, is refused a quarter of an hour later.
		i.set(func() { i.hidden["rsa-1"] = true })
		time.Sleep(15*time.Minute + time.Second)
		ask(t, api, "GET", budget, withBearer(old)...).wantProblem(t, http.StatusUnauthorized, "invalid-token", "signature")
		ask(t, api, "GET", budget, withBearer(i.sign("rsa-2", nil))...).wantHello(t, ada)
	})
}

func TestTokensWithUnknownKeysDoNotHammerTheIssuer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		i := newIssuerInside()
		api := guarded(&identity.Authenticator{OIDC: newOIDC(t, i, nil), Log: quiet()})
		good := i.sign("rsa-1", nil)
		ask(t, api, "GET", budget, withBearer(good)...).wantHello(t, ada)
		for range 100 {
			ask(t, api, "GET", budget, withBearer(good)...).wantHello(t, ada)
		}
		if visits := i.keySetVisits(); visits != 1 {
			t.Errorf("101 good tokens fetched the keys %d times", visits)
		}
		// A key that we know needs no visit to tell that it did not sign.
		wrong := mint(jwt.SigningMethodRS256, otherRSA(), jwt.MapClaims{"kid": "rsa-1"}, i.claims(nil))
		for range 100 {
			ask(t, api, "GET", budget, withBearer(wrong)...).wantProblem(t, http.StatusUnauthorized, "invalid-token", "signature")
			time.Sleep(100 * time.Millisecond)
		}
		if visits := i.keySetVisits(); visits != 1 {
			t.Errorf("100 tokens that a stranger signed fetched the keys %d times", visits-1)
		}
		forged := mint(jwt.SigningMethodRS256, otherRSA(), jwt.MapClaims{"kid": "made-up"}, i.claims(nil))
		for range 100 { // ten seconds
			ask(t, api, "GET", budget, withBearer(forged)...).wantProblem(t, http.StatusUnauthorized, "invalid-token", "signature")
			time.Sleep(100 * time.Millisecond)
		}
		if visits := i.keySetVisits(); visits > 3 {
			t.Errorf("100 forged tokens in ten seconds fetched the keys %d times", visits-1)
		}
		ask(t, api, "GET", budget, withBearer(good)...).wantHello(t, ada)
	})
}

func TestOtherKindsOfKeysInTheSetAreLeftOut(t *testing.T) {
	i := newIssuer(t)
	small := jose.JSONWebKey{KeyID: "rsa-0", Key: smallRSA().Public(), Use: "sig", Algorithm: "RS256"}
	i.extra = []any{
		map[string]string{"kty": "OKP", "crv": "X448", "x": "AAAA", "kid": "x448"},
		map[string]string{"kty": "oct", "k": "c2VjcmV0", "kid": "shared"},
		map[string]string{"kty": "RSA", "kid": "broken"},
		jose.JSONWebKey{KeyID: "enc", Key: otherRSA().Public(), Use: "enc"},
		small,
	}
	api := guarded(&identity.Authenticator{OIDC: newOIDC(t, i, nil), Log: quiet()})
	ask(t, api, "GET", budget, withBearer(i.sign("rsa-1", nil))...).wantHello(t, ada)
	for name, token := range map[string]string{
		"a key for encryption": mint(jwt.SigningMethodRS256, otherRSA(), jwt.MapClaims{"kid": "enc"}, i.claims(nil)),
		"a key too short":      mint(jwt.SigningMethodRS256, smallRSA(), jwt.MapClaims{"kid": "rsa-0"}, i.claims(nil)),
		"a shared secret":      mint(jwt.SigningMethodHS256, []byte("secret"), jwt.MapClaims{"kid": "shared"}, i.claims(nil)),
	} {
		t.Run(name, func(t *testing.T) {
			ask(t, api, "GET", budget, withBearer(token)...).wantProblem(t, http.StatusUnauthorized, "invalid-token", "")
		})
	}
}

func TestManyCallersWaitForOneVisit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		i := newIssuerInside()
		inner := i.client.Transport
		i.client.Transport = roundTrip(func(r *http.Request) (*http.Response, error) {
			select {
			case <-time.After(time.Second):
			case <-r.Context().Done():
				return nil, r.Context().Err()
			}
			return inner.RoundTrip(r)
		})
		o := newOIDC(t, i, nil)
		token := i.sign("rsa-1", nil)

		// The first gives up, and what it began serves the others.
		impatient, cancel := context.WithTimeout(t.Context(), 500*time.Millisecond)
		defer cancel()
		var all sync.WaitGroup
		all.Go(func() { _, _ = o.Verify(impatient, token) })
		synctest.Wait()
		for range 20 {
			all.Go(func() {
				if _, err := o.Verify(t.Context(), token); err != nil {
					t.Error(err)
				}
			})
		}
		all.Wait()
		if visits := i.keySetVisits(); visits != 1 {
			t.Errorf("21 callers fetched the keys %d times", visits)
		}
	})
}
