package identity_test

import (
	"context"
	"net/http/httptest"
	"os/exec"
	"strings"
	"testing"
	"time"

	realbrowser "github.com/tidegate/tidegate/internal/browser"
)

// A real browser has the last word on what a __Host- cookie over plain http is
// worth. Only loopback counts as secure; elsewhere the page says what to do.
func TestChromiumSignsInWithALoginLink(t *testing.T) {
	s := newSite(t, nil)
	server := httptest.NewServer(s)
	defer server.Close()
	port := server.URL[strings.LastIndex(server.URL, ":"):]
	for host, want := range map[string]string{
		"127.0.0.1":        "hello " + local,
		"localhost":        "hello " + local,
		"tidegate.example": "This address is not secure",
	} {
		t.Run(host, func(t *testing.T) {
			link, _ := s.login.NewLink(time.Now())
			if page := chromium(t, "http://"+host+port+link); !strings.Contains(page, want) {
				t.Errorf("no %q in\n%s", want, page)
			}
		})
	}
	// Without the session the same page asks for a login.
	if page := chromium(t, server.URL); !strings.Contains(page, "tidegate login-link") {
		t.Errorf("no login page:\n%s", page)
	}
}

// chromium opens the address in a browser of its own and returns the page.
func chromium(t *testing.T, address string) string {
	t.Helper()
	program, err := realbrowser.Path()
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	out, err := exec.CommandContext(ctx, program, "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
		"--disable-background-networking", "--disable-component-update", "--disable-sync", "--user-data-dir="+t.TempDir(),
		"--host-resolver-rules=MAP tidegate.example 127.0.0.1", "--dump-dom", address).Output()
	if err != nil {
		t.Fatalf("chromium: %v", err)
	}
	return string(out)
}
