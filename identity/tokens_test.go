package identity_test

import (
	"bytes"
	"errors"
	"fmt"
	"hash/crc32"
	"log/slog"
	"net/http"
	"regexp"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/tidegate/tidegate/identity"
)

func createToken(t *testing.T, tokens *identity.Tokens, change func(*identity.TokenRequest)) (string, identity.Token) {
	t.Helper()
	req := identity.TokenRequest{Name: "ci", Permissions: []string{manage}, CreatedBy: "ada"}
	if change != nil {
		change(&req)
	}
	shown, token, err := tokens.Create(t.Context(), req)
	if err != nil {
		t.Fatal(err)
	}
	return shown, token
}

func TestAPITokens(t *testing.T) {
	store := newMemory()
	tokens := identity.NewTokens(store, quiet())
	api := guarded(&identity.Authenticator{Tokens: tokens, Log: quiet()})
	shown, token := createToken(t, tokens, nil)
	ask(t, api, "PUT", budget, withBearer(shown)...).wantHello(t, "ci (token:"+token.ID+")")

	limited, _ := createToken(t, tokens, func(r *identity.TokenRequest) { r.Ports = []string{"p2"} })
	ask(t, api, "GET", "/api/v1/ports/p2/ai-budget", withBearer(limited)...).wantHello(t, "ci (token:"+limited[3:15]+")")
	ask(t, api, "GET", budget, withBearer(limited)...).wantProblem(t, http.StatusForbidden, "port-not-allowed", `"p1"`)
	ask(t, api, "DELETE", "/api/v1/users/u1", withBearer(limited)...).wantProblem(t, http.StatusForbidden, "port-not-allowed", "every port")
	scanner, _ := createToken(t, tokens, func(r *identity.TokenRequest) { r.Permissions = []string{scan} })
	a := ask(t, api, "GET", budget, withBearer(scanner)...)
	a.wantProblem(t, http.StatusForbidden, "missing-permission", manage)
	if got := a.Header.Get("WWW-Authenticate"); !strings.Contains(got, `error="insufficient_scope", scope="`+manage+`"`) {
		t.Errorf("WWW-Authenticate: %s", got)
	}
	ask(t, api, "POST", "/api/v1/ports/p1/scan-receipt", withBearer(scanner)...).wantHello(t, "ci (token:"+scanner[3:15]+")")

	if err := tokens.Revoke(t.Context(), token.ID, "grace"); err != nil {
		t.Fatal(err)
	}
	ask(t, api, "PUT", budget, withBearer(shown)...).wantProblem(t, http.StatusUnauthorized, "invalid-token", "revoked at")
	ask(t, api, "GET", "/api/v1/ports/p2/ai-budget", withBearer(limited)...).wantHello(t, "ci (token:"+limited[3:15]+")")
	if err := tokens.Revoke(t.Context(), "zzzzzzzzzzzz", "grace"); !errors.Is(err, identity.ErrTokenNotFound) {
		t.Errorf("revoking an unknown token: %v", err)
	}

	list, err := tokens.List(t.Context(), "", 10)
	if err != nil || len(list) != 3 {
		t.Fatalf("the list: %v, %v", list, err)
	}
	if kept := fmt.Sprintf("%v %x", store.tokens, store.tokens); strings.Contains(kept, shown[16:68]) {
		t.Error("the store holds a secret")
	}
}

func TestAPITokensExpire(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tokens := identity.NewTokens(newMemory(), quiet())
		api := guarded(&identity.Authenticator{Tokens: tokens, Log: quiet()})
		shown, token := createToken(t, tokens, func(r *identity.TokenRequest) { r.ExpiresAt = time.Now().Add(time.Hour) })
		forever, _ := createToken(t, tokens, nil)
		time.Sleep(time.Hour - 1)
		ask(t, api, "GET", budget, withBearer(shown)...).wantHello(t, "ci (token:"+token.ID+")")
		time.Sleep(time.Nanosecond)
		ask(t, api, "GET", budget, withBearer(shown)...).wantProblem(t, http.StatusUnauthorized, "invalid-token", "expired at "+token.ExpiresAt.UTC().Format(time.RFC3339))
		time.Sleep(10 * 365 * 24 * time.Hour)
		ask(t, api, "GET", budget, withBearer(forever)...).wantHello(t, "ci (token:"+forever[3:15]+")")
	})
}

func TestTheLastUseOfATokenIsNotedOnceAnHour(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := newMemory()
		tokens := identity.NewTokens(store, quiet())
		shown, token := createToken(t, tokens, nil)
		for range 120 { // two hours
			if _, err := tokens.Verify(t.Context(), shown); err != nil {
				t.Fatal(err)
			}
			time.Sleep(time.Minute)
		}
		if store.touches != 2 || time.Since(store.tokens[token.ID].LastUsedAt) > time.Hour {
			t.Errorf("%d writes, the last use noted at %s, now %s", store.touches, store.tokens[token.ID].LastUsedAt, time.Now())
		}
	})
}

func TestTokensThatAreNotWholeNeverReachTheStore(t *testing.T) {
	store := newMemory()
	tokens := identity.NewTokens(store, quiet())
	shown, _ := createToken(t, tokens, nil)
	store.fail = errors.New("the store was asked")
	api := guarded(&identity.Authenticator{Tokens: tokens, Log: quiet()})
	for i := len("tg_"); i < len(shown); i++ { // any one character changed
		other := byte('a')
		if shown[i] == other {
			other = 'b'
		}
		changed := shown[:i] + string(other) + shown[i+1:]
		ask(t, api, "GET", budget, withBearer(changed)...).wantProblem(t, http.StatusUnauthorized, "invalid-token", "not a whole API token")
	}
	for _, changed := range []string{shown[:len(shown)-1], shown + "0", "tg_", "tg_" + strings.Repeat("_", 73), strings.ToUpper(shown[3:])} {
		if _, err := tokens.Verify(t.Context(), changed); err == nil || strings.Contains(err.Error(), "the store was asked") {
			t.Errorf("%s: %v", changed, err)
		}
	}
	ask(t, api, "GET", budget, withBearer(shown)...).wantProblem(t, http.StatusServiceUnavailable, "identity-unavailable", "store of API tokens")
}

// A checksum is no secret: whoever forges one gets no further.
func TestAWellFormedTokenWithAnotherSecretIsRefused(t *testing.T) {
	tokens := identity.NewTokens(newMemory(), quiet())
	shown, token := createToken(t, tokens, nil)
	for name, body := range map[string]string{
		"our id":     shown[:16] + strings.Repeat("a", 52),
		"unknown id": "tg_aaaaaaaaaaaa_" + shown[16:68],
	} {
		forged := fmt.Sprintf("%s%08x", body, crc32.ChecksumIEEE([]byte(body)))
		_, err := tokens.Verify(t.Context(), forged)
		var refused *identity.Refusal
		if !errors.As(err, &refused) || refused.Detail != "there is no such API token" {
			t.Errorf("%s, %s of %s: %v", name, forged, token.ID, err)
		}
	}
}

func TestTokensLookAsDocumented(t *testing.T) {
	tokens := identity.NewTokens(newMemory(), quiet())
	pattern := regexp.MustCompile(`^tg_[a-z2-7]{12}_[a-z2-7]{52}[0-9a-f]{8}$`)
	seen := map[string]bool{}
	for range 100 {
		shown, token := createToken(t, tokens, nil)
		if !pattern.MatchString(shown) || seen[shown[16:]] || seen[token.ID] {
			t.Fatalf("%s", shown)
		}
		seen[shown[16:]], seen[token.ID] = true, true
	}
}

func TestTokenRequestsThatAreRefused(t *testing.T) {
	tokens := identity.NewTokens(newMemory(), quiet())
	for name, change := range map[string]func(*identity.TokenRequest){
		"no name":            func(r *identity.TokenRequest) { r.Name = "" },
		"a long name":        func(r *identity.TokenRequest) { r.Name = strings.Repeat("ä", 65) },
		"a name with a bell": func(r *identity.TokenRequest) { r.Name = "ci\a" },
		"no permission":      func(r *identity.TokenRequest) { r.Permissions = nil },
		"an empty one":       func(r *identity.TokenRequest) { r.Permissions = []string{""} },
		"two in one":         func(r *identity.TokenRequest) { r.Permissions = []string{"a b"} },
		"no port at all":     func(r *identity.TokenRequest) { r.Ports = []string{} },
		"a star for a port":  func(r *identity.TokenRequest) { r.Ports = []string{"*"} },
		"expired at once":    func(r *identity.TokenRequest) { r.ExpiresAt = time.Now() },
	} {
		req := identity.TokenRequest{Name: "ci", Permissions: []string{manage}}
		change(&req)
		if shown, _, err := tokens.Create(t.Context(), req); err == nil || shown != "" {
			t.Errorf("%s: accepted", name)
		}
	}
	if list, _ := tokens.List(t.Context(), "", 10); len(list) != 0 {
		t.Errorf("refused requests left %v", list)
	}
}

func TestAStoreThatFailsLetsNobodyInAndTellsOnlyTheLog(t *testing.T) {
	store := newMemory()
	var log bytes.Buffer
	logger := slog.New(slog.NewTextHandler(&log, nil))
	tokens := identity.NewTokens(store, logger)
	shown, _ := createToken(t, tokens, nil)
	api := guarded(&identity.Authenticator{Tokens: tokens, Log: logger})
	store.fail = errors.New("dial tcp 10.0.0.7:5432: connection refused")
	a := ask(t, api, "GET", budget, withBearer(shown)...)
	a.wantProblem(t, http.StatusServiceUnavailable, "identity-unavailable", "does not answer")
	if a.Header.Get("Retry-After") == "" || strings.Contains(a.body, "10.0.0.7") || !strings.Contains(log.String(), "10.0.0.7:5432") {
		t.Errorf("Retry-After %q, body %s, log %s", a.Header.Get("Retry-After"), a.body, log.String())
	}
	if strings.Contains(log.String(), shown) {
		t.Error("the log holds a token")
	}
	if _, _, err := tokens.Create(t.Context(), identity.TokenRequest{Name: "x", Permissions: []string{manage}}); err == nil {
		t.Error("a token was shown that was not stored")
	}
}
