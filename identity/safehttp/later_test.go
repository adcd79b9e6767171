package safehttp_test

import (
	"bytes"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/tidegate/tidegate/identity/safehttp"
)

func TestLater(t *testing.T) {
	var l safehttp.Later
	w := httptest.NewRecorder()
	l.ServeHTTP(w, httptest.NewRequest("GET", "/", nil))
	if w.Code != 503 || w.Header().Get("Retry-After") == "" || !strings.Contains(w.Body.String(), "is starting") {
		t.Errorf("before there is a handler: %d %v %s", w.Code, w.Header(), w.Body)
	}
	l.Set(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "page") }))
	w = httptest.NewRecorder()
	l.ServeHTTP(w, httptest.NewRequest("GET", "/", nil))
	if w.Code != 200 || w.Body.String() != "page" {
		t.Errorf("with a handler: %d %s", w.Code, w.Body)
	}
}

// A handler that panics costs its request; the stack is an error in the log, where
// net/http by itself would make it a notice.
func TestAHandlerThatPanics(t *testing.T) {
	var log bytes.Buffer
	before := slog.Default()
	slog.SetDefault(slog.New(slog.NewTextHandler(&log, &slog.HandlerOptions{Level: slog.LevelError})))
	defer slog.SetDefault(before)
	address, stop := serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/bad" {
			panic("a bug in this handler")
		}
	}))
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	if resp, err := client.Get("http://" + address + "/bad"); err == nil {
		resp.Body.Close()
		t.Errorf("a handler that panicked answered %d", resp.StatusCode)
	}
	resp, err := client.Get("http://" + address + "/good")
	if err != nil || resp.StatusCode != 200 {
		t.Errorf("the next request: %v %v", resp, err)
	} else {
		resp.Body.Close()
	}
	if err := stop(); err != nil {
		t.Error(err)
	}
	if !strings.Contains(log.String(), "a bug in this handler") || !strings.Contains(log.String(), "later_test.go") {
		t.Errorf("no stack at the level error:\n%s", &log)
	}
}
