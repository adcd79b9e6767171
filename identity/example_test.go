package identity_test

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"

	"github.com/tidegate/tidegate/identity"
)

// A token is made on the command line and guards a route per port.
func Example() {
	tokens := identity.NewTokens(newMemory(), nil)
	shown, token, err := tokens.Create(context.Background(), identity.TokenRequest{
		Name: "nightly report", Permissions: []string{"reports.read"}, Ports: []string{"p1"}, CreatedBy: "ada",
	})
	if err != nil {
		panic(err)
	}

	who := &identity.Authenticator{Tokens: tokens}
	mux := http.NewServeMux()
	mux.Handle("GET /ports/{port}/report", who.Require("reports.read", identity.PathPort("port"),
		http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			caller, _ := identity.CallerFrom(r.Context())
			fmt.Fprintf(w, "for %s", caller.Name)
		})))

	get := func(path string) {
		r := httptest.NewRequest("GET", path, nil)
		r.Header.Set("Authorization", "Bearer "+shown)
		w := httptest.NewRecorder()
		mux.ServeHTTP(w, r)
		fmt.Println(w.Code, w.Header().Get("Content-Type"))
	}
	get("/ports/p1/report")
	get("/ports/p2/report")
	if err := tokens.Revoke(context.Background(), token.ID, "ada"); err != nil {
		panic(err)
	}
	get("/ports/p1/report")
	// Output:
	// 200 text/plain; charset=utf-8
	// 403 application/problem+json
	// 401 application/problem+json
}
