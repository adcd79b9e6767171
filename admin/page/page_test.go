package page

import (
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/tidegate/tidegate/identity/safehttp"
	"github.com/tidegate/tidegate/internal/browser"
)

func get(h http.Handler, path string, headers ...string) *http.Response {
	r := httptest.NewRequest(http.MethodGet, path, nil)
	for i := 0; i+1 < len(headers); i += 2 {
		r.Header.Set(headers[i], headers[i+1])
	}
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	return w.Result()
}

func TestHandler_ServesEveryFile(t *testing.T) {
	h := Handler()
	for pattern, a := range assets() {
		address := strings.TrimSuffix(pattern, "{$}")
		first := get(h, address)
		if first.StatusCode != http.StatusOK || first.Header.Get("Content-Type") != kinds[path.Ext(a.name)] || first.ContentLength != int64(len(a.body)) {
			t.Errorf("GET %s: %s, %s, %d bytes", address, first.Status, first.Header.Get("Content-Type"), first.ContentLength)
		}
		if got := first.Header.Get("Content-Security-Policy"); got != safehttp.ContentSecurityPolicy {
			t.Errorf("GET %s: policy %q", address, got)
		}
		if got := first.Header.Get("Cache-Control"); got != "no-cache" {
			t.Errorf("GET %s: Cache-Control %q: old and new files could mix", address, got)
		}
		again := get(h, address, "If-None-Match", first.Header.Get("ETag"))
		if again.StatusCode != http.StatusNotModified {
			t.Errorf("GET %s again: %s", address, again.Status)
		}
	}
	if got := get(h, "/ports"); got.StatusCode != http.StatusOK || got.Header.Get("Content-Type") != kinds[".html"] {
		t.Errorf("GET /ports: %s", got.Status)
	}
	for _, address := range []string{"/static/", "/static/index.html", "/nothing", "/ports/p1", "/static/nothing.js"} {
		for accept, kind := range map[string]string{"text/html,*/*;q=0.8": kinds[".html"], "*/*": "text/plain; charset=utf-8"} {
			got := get(h, address, "Accept", accept)
			if got.StatusCode != http.StatusNotFound || got.Header.Get("Content-Type") != kind || got.Header.Get("Content-Security-Policy") != safehttp.ContentSecurityPolicy {
				t.Errorf("GET %s for %s: %s, %s", address, accept, got.Status, got.Header.Get("Content-Type"))
			}
		}
	}
	if got := get(h, "/static/../page.go").StatusCode; got == http.StatusOK {
		t.Errorf("GET /static/../page.go: %d", got)
	}
}

// The policy allows only code and style in files of their own, from here.
func TestFiles_KeepToThePolicy(t *testing.T) {
	inline := regexp.MustCompile(`(?i)\sstyle\s*=|<style|<script(?:[^>]*src=)?[^>]*>[^<]|[\s"]on[a-z]+="|javascript:|\beval\(|new Function|setAttribute\('style'`)
	elsewhere := regexp.MustCompile(`(?:https?:)?//[a-z0-9-]+\.[a-z]`)
	for _, a := range assets() {
		for i, line := range strings.Split(string(a.body), "\n") {
			if strings.Contains(line, "http://www.w3.org/2000/svg") || strings.HasPrefix(strings.TrimSpace(line), "*") {
				continue
			}
			if found := inline.FindString(line); found != "" {
				t.Errorf("%s:%d: %q", a.name, i+1, found)
			}
			if found := elsewhere.FindString(line); found != "" {
				t.Errorf("%s:%d: %q is not ours", a.name, i+1, found)
			}
		}
		if n := strings.Count(string(a.body), "\n"); n > 300 {
			t.Errorf("%s has %d lines: split it by meaning", a.name, n)
		}
	}
}

func TestFiles_NameOnlyFilesThatExist(t *testing.T) {
	all := assets()
	reference := regexp.MustCompile(`from '\./([^']+)'|import '\./([^']+)'|(?:src|href)="/static/([^"]+)"|'([a-z]+\.css)'`)
	found := 0
	for _, a := range all {
		for _, m := range reference.FindAllStringSubmatch(string(a.body), -1) {
			found++
			name := strings.Join(m[1:], "")
			if _, ok := all["/static/"+name]; !ok {
				t.Errorf("%s refers to %s, which does not exist", a.name, name)
			}
		}
	}
	if found < 40 {
		t.Errorf("only %d references were found: this test looks for the wrong thing", found)
	}
}

// The types in the comments are checked, so that they can be believed.
func TestScripts_Types(t *testing.T) {
	tsc := filepath.Join(browser.NodeModules(t), "typescript", "bin", "tsc")
	cmd := exec.Command("node", tsc, "--noEmit", "--allowJs", "--checkJs", "--strict", "--noUnusedLocals", "--noUnusedParameters",
		"--target", "esnext", "--module", "esnext", "--moduleResolution", "bundler", "--lib", "esnext,dom,dom.iterable", "static/page.js")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Errorf("%v\n%s", err, out)
	}
}

// The page reads numbers of tokens as the command line does, whatever the locale.
func TestParseTokens(t *testing.T) {
	module := filepath.Join(t.TempDir(), "format.mjs") // what node takes for a module by its name
	source, err := os.ReadFile("static/format.js")
	if err == nil {
		err = os.WriteFile(module, source, 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
	const script = `
		const {parseTokens, typed} = await import(process.argv[1]);
		const {cases} = JSON.parse(require('fs').readFileSync('testdata/tokens.json', 'utf8'));
		let wrong = cases.length < 70 ? ['only ' + cases.length + ' cases'] : [];
		const check = (text, want) => {
			const got = JSON.stringify(parseTokens(text));
			if (got !== JSON.stringify(want)) wrong.push(JSON.stringify(text) + ': ' + got + ', want ' + JSON.stringify(want));
		};
		for (const c of cases) {
			check(c.text, c.rule ? {problem: c.rule} : {value: c.value});
			if (c.value) check(typed(c.value), {value: c.value}); // what the page writes into its fields
		}
		console.log(new Intl.NumberFormat().format(1234.5), wrong.join('\n'));
		process.exit(wrong.length);`
	for locale, sample := range map[string]string{"en_US": "1,234.5", "de_DE": "1.234,5"} {
		cmd := exec.Command("node", "--eval", "(async () => {"+script+"})()", module)
		cmd.Env = append(os.Environ(), "LC_ALL="+locale+".UTF-8")
		out, err := cmd.CombinedOutput()
		if err != nil || !strings.HasPrefix(string(out), sample) {
			t.Errorf("%s: %v\n%s", locale, err, out)
		}
	}
}
