package e2e

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/tidegate/tidegate/dev"
	"github.com/tidegate/tidegate/edge"
	"github.com/tidegate/tidegate/events"
	"github.com/tidegate/tidegate/internal/testenv"
)

// process is the built binary, running.
type process struct {
	t    testing.TB
	cmd  *exec.Cmd
	http string
	out  *testenv.Buffer
	done chan struct{} // closed when it has ended
}

// spawn starts `tidegate run` with args on a free HTTP port. It is gone after the test.
func spawn(t testing.TB, binary string, env []string, args ...string) *process {
	t.Helper()
	p := &process{t: t, http: testenv.FreeAddr(t), out: &testenv.Buffer{}, done: make(chan struct{})}
	// A later --data wins.
	p.cmd = exec.Command(binary, append([]string{"run", "--http", p.http, "--data", filepath.Join(testenv.TempDir(t), "data")}, args...)...)
	p.cmd.Env = append(os.Environ(), env...)
	p.cmd.Stdout, p.cmd.Stderr = p.out, p.out
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		_ = p.cmd.Wait()
		close(p.done)
	}()
	t.Cleanup(func() {
		p.signal(syscall.SIGKILL)
		<-p.done
		if strings.Contains(p.out.String(), "WARNING: DATA RACE") {
			t.Errorf("a data race in %v", p.cmd.Args)
		}
		if t.Failed() {
			t.Logf("the output of %v:\n%s", p.cmd.Args, p.out)
		}
	})
	return p
}

func (p *process) signal(s syscall.Signal) { _ = p.cmd.Process.Signal(s) }

// wait reports whether the process ends within the time.
func (p *process) wait(within time.Duration) bool {
	select {
	case <-p.done:
		return true
	case <-time.After(within):
		return false
	}
}

func (p *process) awaitReady() {
	p.t.Helper()
	for deadline := time.Now().Add(60 * time.Second); time.Now().Before(deadline); time.Sleep(50 * time.Millisecond) {
		resp, err := http.Get("http://" + p.http + "/readyz")
		if err == nil {
			resp.Body.Close()
			if resp.StatusCode == http.StatusOK {
				return
			}
		}
		if p.wait(0) {
			break
		}
	}
	p.t.Fatalf("the process did not get ready:\n%s", p.out)
}

// readiness is what /readyz says, "" if nothing.
func (p *process) readiness() string {
	resp, err := http.Get("http://" + p.http + "/readyz")
	if err != nil {
		return ""
	}
	defer resp.Body.Close()
	body, _ := io.ReadAll(resp.Body)
	return string(body)
}

// tidegate runs a client command and returns its output and exit code.
func tidegate(t testing.TB, binary, natsURL string, args ...string) (string, int) {
	t.Helper()
	cmd := exec.Command(binary, args...)
	cmd.Env = append(os.Environ(), "TIDEGATE_NATS_URL="+natsURL)
	out, err := cmd.CombinedOutput()
	if err != nil && cmd.ProcessState == nil {
		t.Fatal(err)
	}
	return string(out), cmd.ProcessState.ExitCode()
}

// TestFreshStart is the first bar: one command starts everything, and an event
// published with the nats CLI is in usage and in a check within a second.
func TestFreshStart(t *testing.T) {
	t.Parallel()
	binary, nats := testenv.Binary(t, "cmd/tidegate"), testenv.NATSCLI(t)
	addr := testenv.FreeAddr(t)
	url := "nats://" + addr
	dir := filepath.Join(testenv.TempDir(t), "data")
	traces := startCollector(t)
	p := spawn(t, binary, []string{"OTEL_EXPORTER_OTLP_ENDPOINT=" + traces.url}, "--data", dir, "--nats-addr", addr)
	p.awaitReady()
	for end := time.Now().Add(5 * time.Second); !strings.Contains(p.out.String(), "More:") && time.Now().Before(end); {
		time.Sleep(10 * time.Millisecond) // it is printed, and on its way through a pipe
	}
	if strings.Contains(p.out.String(), "Plaintext") || strings.Contains(p.out.String(), "operator:") {
		t.Errorf("the screen warns, or shows a password:\n%s", p.out)
	}
	for _, want := range []string{url, "http://" + p.http, "private cluster", "embedded", "budget set p1", "pub ai.usage.p1", "req ai.budget.check.p1"} {
		if !strings.Contains(p.out.String(), want) {
			t.Errorf("the screen lacks %q:\n%s", want, p.out)
		}
	}
	cli := func(wantCode int, args ...string) string {
		t.Helper()
		out, code := tidegate(t, binary, url, append(args, "--data", dir)...)
		if code != wantCode {
			t.Fatalf("tidegate %v: exit %d, want %d\n%s", args, code, wantCode, out)
		}
		return out
	}
	cli(0, "budget", "set", "p1", "--soft", "800", "--hard", "1k")
	cli(0, "budget", "set", "demo-capped", "--hard", "90k", "--period", "day") // as make run's demo has it
	readmeWorks(t, p, dir, url)
	anybody(t, binary, url)
	if out, err := exec.Command(nats, "-s", url, "pub", "ai.usage.p1", `{"feature":"ocr","provider":"openai","model":"gpt-5-mini","input_tokens":700,"output_tokens":200}`).CombinedOutput(); err != nil {
		t.Fatalf("nats pub: %v\n%s", err, out)
	}
	published := time.Now()
	var report struct {
		UsedTokens int64 `json:"used_tokens"`
		By         []struct {
			Key         string `json:"key"`
			TotalTokens int64  `json:"total_tokens"`
		} `json:"by"`
	}
	for report.UsedTokens != 900 {
		if time.Since(published) > 5*time.Second { // the bar is 1 s, on a machine that does nothing else
			t.Fatalf("not in usage after %s: %+v", time.Since(published), report)
		}
		if err := json.Unmarshal([]byte(cli(0, "usage", "p1", "--json")), &report); err != nil {
			t.Fatal(err)
		}
	}
	t.Logf("visible after %s, two processes of the race-built client included", time.Since(published))
	if len(report.By) != 1 || report.By[0].Key != "ocr" || report.By[0].TotalTokens != 900 {
		t.Errorf("usage by feature: %+v, want ocr with 900", report.By)
	}
	out, err := exec.Command(nats, "-s", url, "req", "--raw", "ai.budget.check.p1", `{"estimated_tokens":200}`).CombinedOutput()
	if err != nil || !strings.Contains(string(out), `"estimate_exceeds_hard_cap"`) {
		t.Errorf("nats req: %v\n%s\nwant a refusal", err, out)
	}
	operator := testenv.Must(dev.OperatorURL(filepath.Join(dir, "nats")))
	cli(3, "check", "p1", "--estimate", "200")
	cli(0, "check", "p1", "--estimate", "100")
	cli(0, "verify")
	var ports []struct {
		PortID      string `json:"port_id"`
		UsedTokens  int64  `json:"used_tokens"`
		TotalTokens int64  `json:"total_tokens"`
		Requests    int64  `json:"requests"`
	}
	if err := json.Unmarshal([]byte(cli(0, "port", "ls", "--json")), &ports); err != nil || len(ports) != 2 || ports[1].PortID != "p1" || ports[1].UsedTokens != 900 || ports[1].TotalTokens != 900 || ports[1].Requests != 1 {
		t.Errorf("port ls: %+v, %v", ports, err)
	}
	// What the page says to do first works as it stands there.
	if out, err := asPrinted(t, binary, dir, "http://"+p.http); err != nil || !strings.Contains(out, `"accepted":1`) {
		t.Errorf("the command that the empty page shows: %v\n%s", err, out)
	}
	for _, path := range []string{"/healthz", "/readyz", "/metrics"} {
		resp, err := http.Get("http://" + p.http + path)
		if err != nil || resp.StatusCode != http.StatusOK {
			t.Errorf("%s: %v %v", path, resp, err)
			continue
		}
		resp.Body.Close()
	}

	// A site whose name leads here suddenly gets nothing; probes may use any name.
	for path, want := range map[string]int{"/": http.StatusMisdirectedRequest, "/login": http.StatusMisdirectedRequest, "/readyz": http.StatusOK} {
		req := testenv.Must(http.NewRequest(http.MethodGet, "http://"+p.http+path, nil))
		req.Host = "rebound.example:8080"
		resp := testenv.Must(http.DefaultClient.Do(req))
		resp.Body.Close()
		if resp.StatusCode != want {
			t.Errorf("%s of another host: %s, want %d", path, resp.Status, want)
		}
	}

	// Whoever pauses the durable is told what comes of it.
	js := testenv.Must(jetstream.New(testenv.Must(events.Connect(operator))))
	defer js.Conn().Close()
	testenv.Must(js.PauseConsumer(t.Context(), events.UsageStream, events.ConsumerName, time.Now().Add(time.Hour)))
	for range 3 { // the first may still be taken
		testenv.Must(js.Publish(t.Context(), "ai.usage.p1", []byte(`{"feature":"ocr","provider":"openai","model":"gpt-5-mini"}`)))
	}
	var readyz struct {
		Ready    bool              `json:"ready"`
		Checks   map[string]string `json:"checks"`
		Messages int               `json:"backlog_messages"`
		OldestAt time.Time         `json:"backlog_oldest_at"`
	}
	for end := time.Now().Add(10 * time.Second); !strings.Contains(readyz.Checks["backlog"], "paused") || readyz.Messages < 2; time.Sleep(50 * time.Millisecond) {
		resp := testenv.Must(http.Get("http://" + p.http + "/readyz"))
		err := json.NewDecoder(resp.Body).Decode(&readyz)
		resp.Body.Close()
		if err != nil || time.Now().After(end) {
			t.Fatalf("/readyz with a paused durable: %+v, %v", readyz, err)
		}
	}
	if readyz.Ready || time.Since(readyz.OldestAt) > time.Minute {
		t.Errorf("/readyz with a paused durable: %+v", readyz)
	}
	if out := cli(0, "verify"); !strings.Contains(out, "wait to be booked, the oldest for") || strings.Contains(out, "gates agree\n") && !strings.Contains(out, "of what is booked") {
		t.Errorf("verify with a paused durable: %s", out)
	}
	testenv.Must(js.ResumeConsumer(t.Context(), events.UsageStream, events.ConsumerName))

	traced(t, p, cli(0, "token", "create", "test", "--permission", edge.PermissionReport, "--permission", edge.PermissionReserve, "--port", "traced"))

	// SIGTERM: a clean stop, and everything is there after the next start.
	p.signal(syscall.SIGTERM)
	if !p.wait(10 * time.Second) {
		t.Fatal("did not end within 10 s of SIGTERM")
	}
	if code := p.cmd.ProcessState.ExitCode(); code != 0 {
		t.Errorf("exit %d after SIGTERM, want 0", code)
	}
	traces.want(t)
	proxy := testenv.FreeAddr(t)
	again := spawn(t, binary, nil, "--data", dir, "--nats-addr", addr, "--roles", "consumer,gate,admin,edge,proxy", "--proxy-listen", proxy, "--proxy-upstream", "openai="+harbour(t))
	again.awaitReady()
	cli(3, "check", "p1", "--estimate", "200")
	pagesWork(t, again, dir, url, proxy)
	cli(1, "port", "rm", "p1")
	cli(0, "port", "rm", "p1", "--yes")
	cli(0, "check", "p1", "--estimate", "200")
	cli(0, "verify")
	again.signal(syscall.SIGKILL) // and kill -9 leaves nothing that hinders a start
	again.wait(10 * time.Second)
	third := spawn(t, binary, nil, "--data", dir, "--nats-addr", addr)
	third.awaitReady()
	cli(0, "verify")
}

// asPrinted runs the command that the page shows where there is no port yet, as a person does who
// has tidegate in the path, and copies it.
func asPrinted(t *testing.T, binary, data, origin string) (string, error) {
	t.Helper()
	dir := t.TempDir()
	modules := map[string][]byte{"package.json": []byte(`{"type":"module"}`)} // so that node takes them as a browser does
	for _, name := range []string{"empty.js", "dom.js"} {
		modules[name] = testenv.Must(os.ReadFile("../../admin/page/static/" + name))
	}
	for name, text := range modules {
		if err := os.WriteFile(filepath.Join(dir, name), text, 0o600); err != nil {
			return "", err
		}
	}
	script := fmt.Sprintf(`import(process.argv[1]).then((m) => process.stdout.write(m.publishCommand('marina-7', %q)))`, origin)
	command, err := exec.Command("node", "-e", script, filepath.Join(dir, "empty.js")).Output()
	if err != nil {
		return "", err
	}
	cmd := exec.Command("sh", "-c", string(command))
	cmd.Env = append(os.Environ(), "PATH="+filepath.Dir(binary)+string(os.PathListSeparator)+os.Getenv("PATH"), "TIDEGATE_DATA="+data)
	out, err := cmd.CombinedOutput()
	return string(out), err
}

// anybody on this machine, without the data directory, may ask and read, and is told at
// once what is for operators.
func anybody(t *testing.T, binary, url string) {
	t.Helper()
	none := []string{"--data", t.TempDir(), "--timeout", "1m"}
	for _, args := range []string{"check p1 --estimate 100", "usage p1"} {
		if out, code := tidegate(t, binary, url, append(strings.Fields(args), none...)...); code != 0 {
			t.Errorf("tidegate %s: exit %d\n%s", args, code, out)
		}
	}
	began := time.Now()
	for _, args := range []string{"budget set p1 --soft none --hard 1", "port rm p1 --yes", "token create evil", "login-link"} {
		out, code := tidegate(t, binary, url, append(strings.Fields(args), none...)...)
		if code != 1 || !strings.Contains(out, "for operators") || !strings.Contains(out, "--data") || strings.Count(out, "\n") != 1 {
			t.Errorf("tidegate %s: exit %d\n%s", args, code, out)
		}
	}
	if took := time.Since(began); took > 30*time.Second {
		t.Errorf("to be refused takes %s", took)
	}
}

func TestClientWithoutAServer(t *testing.T) {
	t.Parallel()
	binary := testenv.Binary(t, "cmd/tidegate")
	out, code := tidegate(t, binary, "nats://"+testenv.FreeAddr(t), "check", "p1")
	if code != 1 || !strings.Contains(out, "is the system running") {
		t.Errorf("exit %d, output %q, want 1 and a hint", code, out)
	}
	for _, args := range [][]string{{"budget", "set", "p1", "--hard", "many"}, {"check"}, {"usage", "p1", "--by", "moon"}, {"replay", "missing.csv"}} {
		if out, code := tidegate(t, binary, "nats://127.0.0.1:1", args...); code == 0 || len(out) == 0 {
			t.Errorf("tidegate %v: exit %d, %q, want an error that says what is wrong", args, code, out)
		}
	}
}

func TestSIGTERMUnderLoadDrains(t *testing.T) {
	t.Parallel()
	s := start(t, options{noRoles: true})
	binary := testenv.Binary(t, "cmd/tidegate")
	p := spawn(t, binary, nil, "--nats-url", s.nats.ClientURL(), "--database-url", s.url, "--ack-wait", "1m")
	p.awaitReady()
	ctx, cancel := context.WithCancel(t.Context())
	var load sync.WaitGroup
	load.Go(func() {
		for i := 0; ctx.Err() == nil; i++ {
			s.publisher.Record(usage(fmt.Sprintf("p%d", i%50), 3))
			if i%20 == 0 {
				time.Sleep(time.Millisecond)
			}
		}
	})
	testenv.Eventually(s.t, "events are being booked", func() bool { return s.rows() > 2_000 })
	p.signal(syscall.SIGTERM)
	ended := p.wait(10 * time.Second)
	cancel()
	load.Wait()
	if !ended {
		t.Fatal("did not end within 10 s of SIGTERM under load")
	}
	// What it had fetched was booked or handed back: the next process finds all the
	// rest at once, although an event that it had kept would come only after a minute.
	s.flush()
	next := spawn(t, binary, nil, "--nats-url", s.nats.ClientURL(), "--database-url", s.url, "--ack-wait", "1m")
	next.awaitReady()
	want := int(s.publisher.Stats().Published)
	testenv.Eventually(s.t, "everything acknowledged is booked", func() bool { return s.rows() == want })
	if !s.verified() {
		t.Error("verify finds differences")
	}
}
