package page_test

import (
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"go.uber.org/goleak"

	"github.com/tidegate/tidegate/internal/browser"
	"github.com/tidegate/tidegate/receipt/page"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(browser.Tests{M: m}) }

func TestFilesAreServed(t *testing.T) {
	handler := page.Handler()
	get := func(path string, header http.Header) *httptest.ResponseRecorder {
		r := httptest.NewRequest("GET", path, nil)
		r.Header = header
		w := httptest.NewRecorder()
		handler.ServeHTTP(w, r)
		return w
	}
	for path, kind := range map[string]string{
		"/": "text/html; charset=utf-8", "/static/page.js": "text/javascript; charset=utf-8", "/static/page.css": "text/css; charset=utf-8", "/static/icon.svg": "image/svg+xml",
	} {
		w := get(path, http.Header{})
		if w.Code != 200 || w.Header().Get("Content-Type") != kind || w.Header().Get("Cache-Control") != "no-cache" {
			t.Errorf("%s: %d %v", path, w.Code, w.Header())
		}
		if w := get(path, http.Header{"If-None-Match": {w.Header().Get("ETag")}}); w.Code != 304 {
			t.Errorf("%s again: %d", path, w.Code)
		}
	}
	for _, path := range []string{"/static/index.html", "/static/", "/elsewhere"} {
		if w := get(path, http.Header{}); w.Code != 404 {
			t.Errorf("%s: %d", path, w.Code)
		}
	}
}

// The policy of the page allows neither inline script and style nor other origins.
func TestFilesKeepThePolicy(t *testing.T) {
	inline := regexp.MustCompile(`<script>|<style|\sstyle="|\son[a-z]+="|javascript:|https?://[^w]|innerHTML|eval\(`)
	reference := regexp.MustCompile(`from '\./([^']+)'|(?:src|href)="/static/([^"]+)"`)
	names, err := filepath.Glob("static/*")
	if err != nil || len(names) < 8 {
		t.Fatalf("%d files, %v", len(names), err)
	}
	references := 0
	for _, name := range names {
		body, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		if found := inline.Find(body); found != nil {
			t.Errorf("%s: %q", name, found)
		}
		for _, m := range reference.FindAllStringSubmatch(string(body), -1) {
			references++
			if _, err := os.Stat("static/" + m[1] + m[2]); err != nil {
				t.Errorf("%s refers to what does not exist: %v", name, err)
			}
		}
		if n := strings.Count(string(body), "\n"); n > 300 {
			t.Errorf("%s has %d lines: split it by meaning", name, n)
		}
	}
	if references < 8 {
		t.Errorf("only %d references were found: this test looks for the wrong thing", references)
	}
}

// The types in the comments are checked, so that they can be believed.
func TestScriptTypes(t *testing.T) {
	tsc := filepath.Join(browser.NodeModules(t), "typescript", "bin", "tsc")
	cmd := exec.Command("node", tsc, "--noEmit", "--allowJs", "--checkJs", "--strict", "--noUnusedLocals", "--noUnusedParameters",
		"--target", "esnext", "--module", "esnext", "--moduleResolution", "bundler", "--lib", "esnext,dom,dom.iterable", "static/page.js")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Errorf("%v\n%s", err, out)
	}
}
