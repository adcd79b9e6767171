package safehttp_test

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/tidegate/tidegate/identity/safehttp"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestServerHasEveryTimeout(t *testing.T) {
	s := safehttp.Server("127.0.0.1:0", http.NotFoundHandler())
	for name, d := range map[string]time.Duration{"read header": s.ReadHeaderTimeout, "read": s.ReadTimeout, "write": s.WriteTimeout, "idle": s.IdleTimeout} {
		if d <= 0 || d > 5*time.Minute {
			t.Errorf("the %s timeout is %s", name, d)
		}
	}
	if s.MaxHeaderBytes <= 0 || s.MaxHeaderBytes > 1<<20 || s.Addr != "127.0.0.1:0" {
		t.Errorf("%d header bytes at %s", s.MaxHeaderBytes, s.Addr)
	}
}

// serve runs the handler until stop, which returns what Serve returned.
func serve(t *testing.T, handler http.Handler) (address string, stop func() error) {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	result := make(chan error, 1)
	go func() { result <- safehttp.Serve(ctx, listener, handler) }()
	t.Cleanup(cancel)
	return listener.Addr().String(), func() error {
		cancel()
		select {
		case err := <-result:
			return err
		case <-time.After(20 * time.Second):
			return errors.New("Serve does not return")
		}
	}
}

func TestServeAnswersWhatIsInFlight(t *testing.T) {
	started := make(chan struct{})
	address, stop := serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		close(started)
		<-safehttp.Stopping(r)
		time.Sleep(50 * time.Millisecond)
		if r.Context().Err() != nil {
			t.Error("the request in flight was cancelled")
		}
		fmt.Fprint(w, "to the end")
	}))
	got := make(chan string, 1)
	go func() {
		client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
		resp, err := client.Get("http://" + address)
		if err != nil {
			got <- err.Error()
			return
		}
		defer resp.Body.Close()
		body, _ := io.ReadAll(resp.Body)
		got <- string(body)
	}()
	<-started
	if err := stop(); err != nil {
		t.Error(err)
	}
	if body := <-got; body != "to the end" {
		t.Errorf("the request in flight got %q", body)
	}
	if _, err := net.Dial("tcp", address); err == nil {
		t.Error("it still accepts connections")
	}
}

func TestServeReportsAListenerThatFails(t *testing.T) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	listener.Close()
	if err := safehttp.Serve(t.Context(), listener, http.NotFoundHandler()); err == nil {
		t.Error("no error")
	}
}

func reader(limit int64) http.Handler {
	return safehttp.LimitBody(limit, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if p, large := safehttp.TooLarge(err); large {
			safehttp.WriteProblem(w, p)
			return
		}
		fmt.Fprintf(w, "read %d", len(body))
	}))
}

func TestOversizedBodies(t *testing.T) {
	address, stop := serve(t, reader(100))
	defer stop()
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	for name, c := range map[string]struct {
		body   io.Reader
		status int
	}{
		"as much as fits":         {bytes.NewReader(make([]byte, 100)), 200},
		"one byte more":           {bytes.NewReader(make([]byte, 101)), 413},
		"no announced size":       {io.MultiReader(bytes.NewReader(make([]byte, 101))), 413},
		"no announced size, fits": {io.MultiReader(bytes.NewReader(make([]byte, 100))), 200},
		"ten megabytes":           {bytes.NewReader(make([]byte, 10<<20)), 413},
	} {
		t.Run(name, func(t *testing.T) {
			resp, err := client.Post("http://"+address, "application/octet-stream", c.body)
			if err != nil {
				t.Fatal(err)
			}
			defer resp.Body.Close()
			body, _ := io.ReadAll(resp.Body)
			if resp.StatusCode != c.status {
				t.Fatalf("%d %s, want %d", resp.StatusCode, body, c.status)
			}
			if c.status != 413 {
				return
			}
			var p safehttp.Problem
			if err := json.Unmarshal(body, &p); err != nil || p.Status != 413 || p.Type != safehttp.ProblemDocs+"body-too-large" || !strings.Contains(p.Detail, "100 bytes") ||
				resp.Header.Get("Content-Type") != "application/problem+json" {
				t.Errorf("%s %v", body, resp.Header)
			}
		})
	}
}

// A client that announces a large body is refused before it sends any of it.
func TestAnAnnouncedBodyIsNotWaitedFor(t *testing.T) {
	address, stop := serve(t, reader(100))
	defer stop()
	conn, err := net.Dial("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(4 * time.Second))
	fmt.Fprint(conn, "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000\r\n\r\n")
	resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	if resp.StatusCode != 413 || !resp.Close {
		t.Errorf("%d, close %v", resp.StatusCode, resp.Close)
	}
	// A browser goes on sending meanwhile, and shows the answer only if it can.
	time.Sleep(700 * time.Millisecond)
	for range 10 {
		if _, err := conn.Write(make([]byte, 100_000)); err != nil {
			t.Fatalf("cut off while it sends: %v", err)
		}
		time.Sleep(5 * time.Millisecond)
	}
}

func TestSecurityHeaders(t *testing.T) {
	h := safehttp.SecureHeaders(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/card.js" {
			w.Header().Set("Cross-Origin-Resource-Policy", "cross-origin")
		}
	}))
	w := httptest.NewRecorder()
	h.ServeHTTP(w, httptest.NewRequest("GET", "/", nil))
	for name, want := range map[string]string{
		"Content-Security-Policy":      "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; form-action 'self'; frame-ancestors 'none'; base-uri 'none'",
		"X-Content-Type-Options":       "nosniff",
		"Referrer-Policy":              "no-referrer",
		"Cross-Origin-Opener-Policy":   "same-origin",
		"Cross-Origin-Resource-Policy": "same-origin",
	} {
		if got := w.Header().Get(name); got != want {
			t.Errorf("%s: %q, want %q", name, got, want)
		}
	}
	w = httptest.NewRecorder()
	h.ServeHTTP(w, httptest.NewRequest("GET", "/card.js", nil))
	if got := w.Header().Get("Cross-Origin-Resource-Policy"); got != "cross-origin" {
		t.Errorf("a handler cannot widen it: %q", got)
	}
}

func TestSameOrigin(t *testing.T) {
	h := safehttp.SameOrigin(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {}))
	for name, c := range map[string]struct {
		method string
		header http.Header
		status int
	}{
		"a program":        {"PUT", nil, 200},
		"our page":         {"PUT", http.Header{"Sec-Fetch-Site": {"same-origin"}}, 200},
		"another site":     {"POST", http.Header{"Sec-Fetch-Site": {"cross-site"}}, 403},
		"another port":     {"POST", http.Header{"Sec-Fetch-Site": {"same-site"}}, 403},
		"an old browser":   {"DELETE", http.Header{"Origin": {"https://evil.example"}}, 403},
		"a link from afar": {"GET", http.Header{"Sec-Fetch-Site": {"cross-site"}}, 200},
		"our page, old":    {"POST", http.Header{"Origin": {"http://example.com"}}, 200},
	} {
		r := httptest.NewRequest(c.method, "http://example.com/", nil)
		r.Header = c.header
		if r.Header == nil {
			r.Header = http.Header{}
		}
		w := httptest.NewRecorder()
		h.ServeHTTP(w, r)
		var p safehttp.Problem
		if w.Code != c.status || c.status == 403 && (json.Unmarshal(w.Body.Bytes(), &p) != nil || p.Type != safehttp.ProblemDocs+"cross-origin") {
			t.Errorf("%s: %d %s, want %d", name, w.Code, w.Body, c.status)
		}
	}
}

func TestKnownHosts(t *testing.T) {
	h := safehttp.KnownHosts(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {}), "admin.internal:8080", "https://Tidegate.example.com/page", "")
	for host, known := range map[string]bool{
		"127.0.0.1:8080": true, "[::1]:8080": true, "localhost:8080": true, "LOCALHOST": true, "a.localhost": true, "192.168.1.5": true,
		"admin.internal:1": true, "tidegate.example.com": true, "tidegate.example.com.:443": true,
		"evil.example": false, "127.0.0.1.evil.example:8080": false, "localhost.evil.example": false, "example.com": false, "notlocalhost": false,
	} {
		for _, token := range []bool{false, true} {
			r := httptest.NewRequest("GET", "/", nil)
			if r.Host = host; token {
				r.Header.Set("Authorization", "Bearer tg_x")
			}
			w := httptest.NewRecorder()
			h.ServeHTTP(w, r)
			var p safehttp.Problem
			if passed := w.Code == http.StatusOK; passed != (known || token) || !passed && (w.Code != http.StatusMisdirectedRequest || json.Unmarshal(w.Body.Bytes(), &p) != nil || !strings.Contains(p.Detail, "TIDEGATE_PUBLIC_URL")) {
				t.Errorf("%s, token %t: %d %s", host, token, w.Code, w.Body)
			}
		}
	}
}

func TestPrefersHTML(t *testing.T) {
	for accept, want := range map[string]bool{
		"text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,image/webp,image/apng,*/*;q=0.8,application/signed-exchange;v=b3;q=0.7": true,
		"text/html": true,
		"text/*":    true,
		"text/html;q=0.5, application/json;q=0.1": true,
		"":                                  false,
		"*/*":                               false,
		"application/json":                  false,
		"application/json, text/html":       false,
		"application/json, text/html;q=0.9": false,
		"text/html;q=0":                     false,
		"text/html;q=0, text/*":             false,
		"text/html;q=2":                     false,
		"text/html;q=NaN":                   false,
		"text/html;q=x":                     false,
		"text/html;;;, ,":                   false,
		"text/plain":                        false,
	} {
		r := httptest.NewRequest("GET", "/", nil)
		r.Header.Set("Accept", accept)
		if got := safehttp.PrefersHTML(r); got != want {
			t.Errorf("%q: %v, want %v", accept, got, want)
		}
	}
}

func FuzzPrefersHTML(f *testing.F) {
	f.Add("text/html;q=0.5, */*")
	f.Fuzz(func(t *testing.T, accept string) {
		r := httptest.NewRequest("GET", "/", nil)
		r.Header.Set("Accept", accept)
		if safehttp.PrefersHTML(r) && !strings.Contains(strings.ToLower(accept), "text/") {
			t.Errorf("%q", accept)
		}
	})
}
