package browser_test

import (
	"io"
	"net/http"
	"net/http/httptest"
	"testing"

	"go.uber.org/goleak"

	"github.com/tidegate/tidegate/internal/browser"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(browser.Tests{M: m}) }

// Who reads while the page goes elsewhere reads what is there then.
func TestEvalOutlivesANavigation(t *testing.T) {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "text/html")
	}))
	defer server.Close()
	p := browser.Start(t).Page(t)
	p.Open(server.URL + "/from")
	path := browser.Eval[string](p, "location.pathname == '/to' ? '/to' : new Promise(() => location = '/to')")
	if path != "/to" {
		t.Errorf("at %q", path)
	}
}

// What moves away under the mouse is clicked where it is then.
func TestClickReachesWhatMoves(t *testing.T) {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "text/html")
		_, _ = io.WriteString(w, `<button onclick="this.textContent = 'Done'">Do</button><script>
			addEventListener('mousedown', () => { document.body.style.paddingTop = '300px'; }, {once: true, capture: true});
		</script>`)
	}))
	defer server.Close()
	p := browser.Start(t).Page(t)
	p.Open(server.URL)
	p.Role("button", "Do").Click()
	p.Role("button", "Done").Wait()
}

func TestClickReachesWhatTakesItsPlace(t *testing.T) {
	for how, hide := range map[string]string{"it is hidden": "old.hidden = true", "it is removed": "old.remove()"} {
		t.Run(how, func(t *testing.T) {
			server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				w.Header().Set("Content-Type", "text/html")
				_, _ = io.WriteString(w, `<div style="height: 9999px"></div><button onclick="this.textContent = 'Done'">Do</button><script>
					addEventListener('scroll', () => {
						const old = document.querySelector('button');
						old.after(old.cloneNode(true));
						`+hide+`;
					}, {once: true});
				</script>`)
			}))
			defer server.Close()
			p := browser.Start(t).Page(t)
			p.Open(server.URL)
			p.Role("button", "Do").Click()
			p.Role("button", "Done").Wait()
		})
	}
}
