package e2e

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/cookiejar"
	"regexp"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/tidegate/tidegate/edge"
	"github.com/tidegate/tidegate/events"
	"github.com/tidegate/tidegate/identity"
	"github.com/tidegate/tidegate/internal/testenv"
)

// TestEdgeKilled kills the process that serves HTTP for services under load: every event
// that it answered for is booked, and none twice, though its callers send again what was not
// answered.
func TestEdgeKilled(t *testing.T) {
	t.Parallel()
	const callers, requests, each = 4, 15, 20
	s := start(t, options{})
	token, _, err := identity.NewTokens(s.tokens, nil).Create(t.Context(), identity.TokenRequest{Name: "test", Permissions: []string{edge.PermissionReport}, CreatedBy: "test"})
	if err != nil {
		t.Fatal(err)
	}
	binary := testenv.Binary(t, "cmd/tidegate")
	var running atomic.Pointer[process]
	begin := func(roles string) {
		p := spawn(t, binary, nil, "--nats-url", s.nats.ClientURL(), "--database-url", s.url, "--roles", roles)
		p.awaitReady()
		running.Store(p)
	}
	begin("edge,admin")
	s.sessionOpensNothing(running.Load())
	t.Cleanup(http.DefaultClient.CloseIdleConnections)

	answered, cut := make(chan struct{}, callers*requests), atomic.Int64{}
	var load sync.WaitGroup
	for c := range callers {
		load.Go(func() {
			for n := range requests {
				var batch []string
				for i := range each {
					u := usage(fmt.Sprintf("p%d", i%3), 1)
					if c%2 == 0 {
						u.ID = events.NewUUIDv7(time.Now()).String()
					}
					batch = append(batch, string(u.AppendJSON(nil)))
				}
				key := events.NewUUIDv7(time.Now()).String()
				for end := time.Now().Add(2 * time.Minute); !report(t, running.Load(), token, key, "["+strings.Join(batch, ",")+"]", each); {
					cut.Add(1)
					if t.Context().Err() != nil || time.Now().After(end) {
						t.Errorf("caller %d: request %d was never answered", c, n)
						return
					}
					time.Sleep(5 * time.Millisecond)
				}
				answered <- struct{}{}
			}
		})
	}
	for range 2 {
		for range callers * requests / 4 {
			testenv.Await(t, "a request is answered", answered)
		}
		p := running.Load()
		p.signal(syscall.SIGKILL)
		p.wait(10 * time.Second)
		begin("edge")
	}
	load.Wait()
	testenv.Eventually(t, "everything answered is booked, once", func() bool { return s.rows() == callers*requests*each && s.verified() })
	s.compare("after two kills of the edge")
	if cut.Load() == 0 {
		t.Error("no request was cut off: the kills tested nothing")
	}
}

// report says whether all events of a request are answered for.
func report(t *testing.T, p *process, token, key, body string, want int) bool {
	req := testenv.Must(http.NewRequest(http.MethodPost, "http://"+p.http+"/v1/usage", strings.NewReader(body)))
	req.Header.Set("Authorization", "Bearer "+token)
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("Idempotency-Key", key)
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return false
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode == http.StatusServiceUnavailable {
		return false
	}
	var reply struct{ Accepted int }
	if err := json.Unmarshal(text, &reply); err != nil || resp.StatusCode != http.StatusOK || reply.Accepted != want {
		t.Errorf("got %d: %s", resp.StatusCode, text)
	}
	return true
}

// sessionOpensNothing signs in as the local admin, on the same address, and finds that the
// cookie alone is good for nothing of what services use.
func (s *system) sessionOpensNothing(p *process) {
	s.t.Helper()
	testenv.Eventually(s.t, "the screen has a login link", func() bool { return strings.Contains(p.out.String(), "/login?code=") })
	link := regexp.MustCompile(`/login\?code=\S+`).FindString(p.out.String())
	client := &http.Client{Jar: testenv.Must(cookiejar.New(nil))}
	defer client.CloseIdleConnections()
	for _, r := range []struct {
		method, path string
		want         int
	}{
		{"GET", link, 200}, {"GET", "/api/v1/session", 200},
		{"POST", "/v1/usage", 401}, {"POST", "/v1/ports/p1/check", 401}, {"POST", "/v1/ports/p1/reserve", 401}, {"GET", "/v1/ports/p1/budget", 401},
		{"POST", "/v1/ports/p1/reservations/x/settle", 401}, {"DELETE", "/v1/ports/p1/reservations/x", 401},
	} {
		resp, err := client.Do(testenv.Must(http.NewRequest(r.method, "http://"+p.http+r.path, nil)))
		if err != nil {
			s.t.Fatal(err)
		}
		resp.Body.Close()
		if resp.StatusCode != r.want {
			s.t.Errorf("%s %s with a session: %d, want %d", r.method, r.path, resp.StatusCode, r.want)
		}
	}
}
