package e2e

import (
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/tidegate/tidegate/events"
	"github.com/tidegate/tidegate/internal/testenv"
)

// awaitServing returns once the process answers over HTTP.
func (p *process) awaitServing() {
	p.t.Helper()
	for deadline := time.Now().Add(20 * time.Second); time.Now().Before(deadline) && !p.wait(10*time.Millisecond); {
		if status, _ := p.get("/healthz"); status == http.StatusOK {
			return
		}
	}
	p.t.Fatalf("/healthz does not answer:\n%s", p.out)
}

func (p *process) get(path string) (status int, body string) {
	resp, err := http.Get("http://" + p.http + path)
	if err != nil {
		return 0, ""
	}
	defer resp.Body.Close()
	text, _ := io.ReadAll(resp.Body)
	return resp.StatusCode, string(text)
}

// checks is what /readyz says.
func (p *process) checks() (status int, checks map[string]string) {
	p.t.Helper()
	status, body := p.get("/readyz")
	var answer struct{ Checks map[string]string }
	if err := json.Unmarshal([]byte(body), &answer); err != nil {
		p.t.Fatalf("/readyz: %d %q: %v", status, body, err)
	}
	return status, answer.Checks
}

// TestStartErrors is everything that can keep a role from starting: the process says so,
// and ends with exit code 1 and nothing left behind.
func TestStartErrors(t *testing.T) {
	t.Parallel()
	binary := testenv.Binary(t, "cmd/tidegate")
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { taken.Close() })
	s := start(t, options{noRoles: true})
	external := []string{"--nats-url", s.nats.ClientURL(), "--database-url", s.url}
	embedded := []string{"--nats-addr", "127.0.0.1:0", "--database-url", s.url}
	broken := t.TempDir()
	if err := os.MkdirAll(filepath.Join(broken, "identity"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(broken, "identity", "session.key"), []byte("short"), 0o600); err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	wrong := filepath.Join(t.TempDir(), "alerts.yaml")
	if err := os.WriteFile(wrong, []byte("receivers:\n  - name: a\n    kind: pigeon\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	lossy := testenv.NATS(t)
	if _, err := testenv.Must(jetstream.New(testenv.Connect(t, lossy))).CreateStream(t.Context(), jetstream.StreamConfig{Name: events.UsageStream,
		Subjects: []string{"ai.usage", "ai.usage.*"}, Storage: jetstream.MemoryStorage}); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name string
		args []string
		env  string
		want string // words of what is printed
	}{
		{"http", append([]string{"--http", taken.Addr().String()}, external...), "", "admin page --http"},
		{"receipts", append([]string{"--receipts", taken.Addr().String()}, external...), "", "receipt scan --receipts"},
		{"alerts", append([]string{"--alerts", wrong}, external...), "", "--alerts alerts.yaml line 3 kind pigeon"},
		{"nats", []string{"--nats-addr", taken.Addr().String(), "--database-url", s.url}, "", "--nats-addr"},
		{"nats or nats", append([]string{"--nats-addr", "127.0.0.1:0"}, external[2:]...), "TIDEGATE_NATS_URL=" + s.nats.ClientURL(), "--nats-addr TIDEGATE_NATS_URL"},
		{"nats url", append([]string{"--nats-url", "nats://u:pa/ss@127.0.0.1"}, external[2:]...), "", "--nats-url %2F"},
		{"no audience", append([]string{"--oidc-issuer", "https://issuer.example"}, external...), "", "admin audience"},
		{"no issuer", append([]string{"--oidc-audience", "tidegate"}, external...), "", "--oidc-audience --oidc-issuer"},
		{"no public url", append([]string{"--oidc-issuer", "https://issuer.example", "--oidc-audience", "a", "--oidc-client-id", "c"}, external...), "", "admin public address"},
		{"session key", append([]string{"--data", broken}, external...), "", "session.key delete"},
		{"data", append([]string{"--data", file}, embedded...), "", "file"},
		{"retention", append([]string{"--retention-months", "1"}, embedded...), "", "retention 2"},
		{"database url", []string{"--database-url", "postgres://127.0.0.1:port/db", "--nats-addr", "127.0.0.1:0"}, "", "parse"},
		{"replicas", append([]string{"--replicas", "3"}, external...), "", "consumer AI_QUARANTINE 3 lone server --replicas"},
		{"lossy stream", []string{"--nats-url", lossy.ClientURL(), "--database-url", s.url}, "", "consumer AI_USAGE"},
		{"postgres", []string{"--nats-addr", "127.0.0.1:0", "--retention-months", "1"}, "", "retention 2"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			dir := filepath.Join(testenv.TempDir(t), "data")
			p := spawn(t, binary, []string{c.env}, append([]string{"--data", dir}, c.args...)...)
			if !p.wait(30 * time.Second) {
				t.Fatal("it stays")
			}
			if code := p.cmd.ProcessState.ExitCode(); code != 1 {
				t.Errorf("exit %d, want 1", code)
			}
			for _, want := range strings.Fields("tidegate: " + c.want) {
				if !strings.Contains(p.out.String(), want) {
					t.Errorf("it does not say %s:\n%s", want, p.out)
				}
			}
			if strings.Contains(p.out.String(), "pa/ss") || strings.Contains(p.out.String(), "panic") {
				t.Errorf("it says:\n%s", p.out)
			}
			if left, _ := filepath.Glob(filepath.Join(dir, "postgres", "data", "postmaster.pid")); len(left) > 0 {
				t.Errorf("Postgres was not stopped: %s", left)
			}
		})
	}
}

// A command line that cannot be meant ends the process with exit code 1, says what is wrong
// with it and where to read on, and prints nothing where a script looks for an answer.
func TestAWrongCommandLine(t *testing.T) {
	t.Parallel()
	binary := testenv.Binary(t, "cmd/tidegate")
	for _, c := range []struct{ args, env, want string }{
		{"run --nats-adr 127.0.0.1:0", "", "unknown flag --nats-adr did you mean --nats-addr tidegate run --help"},
		{"run --replicas three", "", "--replicas three tidegate run --help"},
		{"run", "TIDEGATE_REPLICAS=three", "TIDEGATE_REPLICAS three tidegate run --help"},
		{"run --roles consumer,gates", "", `--roles gates "consumer","gate","admin","edge" tidegate run --help`},
		{"run now", "", "unexpected argument now tidegate run --help"},
		{"budget set p1 --hard", "", "--hard tidegate budget set --help"},
		{"check", "", "<port> tidegate check --help"},
		{"chek p1", "", "unexpected argument chek did you mean check tidegate --help"},
		{"", "", "run budget check tidegate --help"},
	} {
		t.Run(c.args+c.env, func(t *testing.T) {
			cmd := exec.Command(binary, strings.Fields(c.args)...)
			cmd.Dir, cmd.Env = t.TempDir(), append(os.Environ(), strings.Fields(c.env)...)
			var stdout, stderr strings.Builder
			cmd.Stdout, cmd.Stderr = &stdout, &stderr
			_ = cmd.Run()
			if code := cmd.ProcessState.ExitCode(); code != 1 || stdout.Len() > 0 {
				t.Errorf("exit %d, want 1, and nothing on standard output:\n%s", code, &stdout)
			}
			if lines := strings.Count(stderr.String(), "\n"); lines > 2 {
				t.Errorf("it says it in %d lines", lines)
			}
			for _, want := range strings.Fields("tidegate: " + c.want) {
				if !strings.Contains(stderr.String(), want) {
					t.Errorf("it does not say %s:\n%s", want, &stderr)
				}
			}
		})
	}
}

func TestAWrongCommandLineOfReceipt(t *testing.T) {
	t.Parallel()
	out, err := exec.Command(testenv.Binary(t, "cmd/receipt"), "--htp", "127.0.0.1:0").CombinedOutput()
	if exit := (*exec.ExitError)(nil); !errors.As(err, &exit) || exit.ExitCode() != 1 || !strings.Contains(string(out), "unknown flag --htp") {
		t.Errorf("%v, want exit code 1 and what is wrong:\n%s", err, out)
	}
}

// TestStartBeforeTheServers starts everything before NATS and Postgres are there: the
// process is alive and says what it waits for, and gets ready once they come.
func TestStartBeforeTheServers(t *testing.T) {
	t.Parallel()
	binary := testenv.Binary(t, "cmd/tidegate")
	postgres := testenv.PrivatePostgres(t)
	natsDir, natsAddr := filepath.Join(t.TempDir(), "nats"), testenv.FreeAddr(t)
	// The server will have the password that is there already.
	natsURL := "nats://operator:" + strings.Repeat("secret", 8) + "@" + natsAddr
	if err := errors.Join(os.MkdirAll(natsDir, 0o700), os.WriteFile(filepath.Join(natsDir, "operator.url"), []byte(natsURL), 0o600), postgres.Kill()); err != nil {
		t.Fatal(err)
	}
	receipts := testenv.FreeAddr(t)
	// Postgres is reached through a socket, which ignores the password.
	url := strings.Replace(postgres.DatabaseURL("postgres"), "@", ":secret@", 1)
	p := spawn(t, binary, nil, "--nats-url", natsURL, "--database-url", url, "--receipts", receipts)
	p.awaitServing()
	waits := func(part, reason string) func() bool {
		return func() bool {
			status, checks := p.checks()
			return status == http.StatusServiceUnavailable && strings.Contains(checks[part], reason)
		}
	}
	testenv.Eventually(t, "/readyz says that Postgres cannot be used", waits("postgres", "cannot be used yet: "))
	if status, _ := p.get("/"); status != http.StatusServiceUnavailable {
		t.Errorf("the page answers %d before it has started, want 503", status)
	}
	if err := postgres.Restart(t.Context()); err != nil {
		t.Fatal(err)
	}
	testenv.Eventually(t, "/readyz says that NATS is not connected", waits("nats gate", "not connected"))
	if _, checks := p.checks(); checks["postgres"] != "ok" {
		t.Errorf("Postgres is there, and /readyz says %v", checks)
	}
	if strings.Contains(p.out.String(), "budget set p1") {
		t.Errorf("the screen is printed before anything is ready:\n%s", p.out)
	}
	t.Cleanup(spawnNATS(t, natsDir, natsAddr).Shutdown)
	p.awaitReady()
	if out := p.out.String(); !strings.Contains(out, "budget set p1") || strings.Contains(out, "secret") {
		t.Errorf("want the screen, and no password:\n%s", out)
	}
	for _, page := range []string{p.http, receipts} {
		if resp, err := http.Get("http://" + page + "/"); err != nil || resp.StatusCode != http.StatusOK {
			t.Errorf("the page at %s: %v %v", page, resp, err)
		} else {
			resp.Body.Close()
		}
	}
	p.signal(syscall.SIGTERM)
	if !p.wait(10*time.Second) || p.cmd.ProcessState.ExitCode() != 0 {
		t.Errorf("SIGTERM: %v", p.cmd.ProcessState)
	}
}

// TestAConnectionThatIsClosedForGood: nats.go comes back from everything but an error of
// the server's that it does not know. Whoever restarts the process mends that, nothing else.
func TestAConnectionThatIsClosedForGood(t *testing.T) {
	t.Parallel()
	s := start(t, options{noRoles: true})
	proxy, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { proxy.Close() })
	clients := make(chan net.Conn, 10)
	go func() {
		for {
			client, err := proxy.Accept()
			if err != nil {
				return
			}
			server, err := net.Dial("tcp", s.nats.Addr())
			if err != nil {
				return
			}
			go func() { _, _ = io.Copy(server, client); server.Close() }()
			go func() { _, _ = io.Copy(client, server); client.Close() }()
			clients <- client
		}
	}()
	p := spawn(t, testenv.Binary(t, "cmd/tidegate"), nil, "--nats-url", strings.Replace(s.nats.ClientURL(), s.nats.Addr(), proxy.Addr().String(), 1), "--database-url", s.url, "--roles", "gate")
	p.awaitReady()
	testenv.Await(t, "somebody connects", clients) // what watches the ledger and its stream connects first
	if _, err := testenv.Await(t, "the gate connects", clients).Write([]byte("-ERR 'A Server Of The Future'\r\n")); err != nil {
		t.Fatal(err)
	}
	if !p.wait(10*time.Second) || p.cmd.ProcessState.ExitCode() != 1 || !strings.Contains(p.out.String(), "gate: NATS has closed the connection for good: nats: A Server Of The Future") {
		t.Errorf("%v:\n%s\nwant exit 1 and the reason", p.cmd.ProcessState, p.out)
	}
}
