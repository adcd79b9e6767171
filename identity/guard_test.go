package identity_test

import (
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"go.uber.org/goleak"

	"github.com/tidegate/tidegate/identity"
	"github.com/tidegate/tidegate/identity/safehttp"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// The permissions of the tests: identity knows none of its own.
const (
	manage = "admin.manage_settings"
	scan   = "expenses.scan"
)

// guarded is a service as the admin API will be one: each route says who its
// caller is.
func guarded(a *identity.Authenticator) http.Handler {
	hello := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		caller, ok := identity.CallerFrom(r.Context())
		if _, err := io.Copy(io.Discard, r.Body); err != nil {
			p, large := safehttp.TooLarge(err)
			if !large {
				panic(err)
			}
			safehttp.WriteProblem(w, p)
			return
		}
		fmt.Fprintf(w, "hello %s %v", caller.Actor(), ok)
	})
	mux := http.NewServeMux()
	mux.Handle("/api/v1/ports/{port}/ai-budget", a.Require(manage, identity.PathPort("port"), hello))
	mux.Handle("GET /api/v1/ports", a.RequireSomePort(manage, hello))
	mux.Handle("DELETE /api/v1/users/{user}", a.Require(manage, nil, hello))
	mux.Handle("POST /api/v1/ports/{port}/scan-receipt", a.Require(scan, identity.PathPort("port"), hello))
	mux.Handle("GET /{$}", a.Require(manage, nil, hello))
	return safehttp.LimitBody(1<<10, mux)
}

const budget = "/api/v1/ports/p1/ai-budget"

// answer is what a caller sees.
type answer struct {
	*http.Response
	body    string
	problem safehttp.Problem
}

// ask sends a request to the handler, over a real connection's worth of parsing
// but no socket, so that it works inside virtual time too.
func ask(t *testing.T, h http.Handler, method, path string, header ...string) answer {
	t.Helper()
	return exchange(t, h, request(method, path, header...))
}

func request(method, path string, header ...string) *http.Request {
	r := httptest.NewRequest(method, "http://127.0.0.1:8080"+path, nil)
	r.Host = "127.0.0.1:8080"
	for i := 0; i < len(header); i += 2 {
		r.Header.Add(header[i], header[i+1])
	}
	return r
}

func exchange(t *testing.T, h http.Handler, r *http.Request) answer {
	t.Helper()
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	a := answer{Response: w.Result()}
	body, err := io.ReadAll(a.Body)
	if err != nil {
		t.Fatal(err)
	}
	a.body = string(body)
	if a.Header.Get("Content-Type") == "application/problem+json" {
		if err := json.Unmarshal(body, &a.problem); err != nil {
			t.Fatalf("the problem document %s: %v", body, err)
		}
		if a.problem.Status != a.StatusCode || a.problem.Title == "" || a.problem.Detail == "" || a.Header.Get("Cache-Control") != "no-store" {
			t.Errorf("an incomplete problem document, or one that a cache may keep: %s", body)
		}
	}
	return a
}

func withBearer(token string) []string { return []string{"Authorization", "Bearer " + token} }

func (a answer) wantHello(t *testing.T, who string) {
	t.Helper()
	if a.StatusCode != http.StatusOK || a.body != "hello "+who+" true" {
		t.Errorf("got %d %s, want 200 for %s", a.StatusCode, a.body, who)
	}
}

// wantProblem wants a problem document of the kind, whose detail contains the text.
func (a answer) wantProblem(t *testing.T, status int, kind, detail string) {
	t.Helper()
	if a.StatusCode != status || a.problem.Type != safehttp.ProblemDocs+kind || !strings.Contains(a.problem.Detail, detail) {
		t.Errorf("got %d %s\nwant %d, %s, with %q", a.StatusCode, a.body, status, kind, detail)
	}
	challenge := a.Header.Get("WWW-Authenticate")
	if status == http.StatusUnauthorized && !strings.HasPrefix(challenge, `Bearer realm="tidegate"`) {
		t.Errorf("a 401 with WWW-Authenticate %q", challenge)
	}
}

func quiet() *slog.Logger { return slog.New(slog.DiscardHandler) }

func newOIDC(t *testing.T, i *issuer, change func(*identity.OIDCConfig)) *identity.OIDC {
	t.Helper()
	cfg := identity.OIDCConfig{Issuer: i.url, Audience: audience, Client: i.client, Log: quiet()}
	if change != nil {
		change(&cfg)
	}
	o, err := identity.NewOIDC(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return o
}
