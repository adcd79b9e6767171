package node_test

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/nats-io/nats.go"
	"github.com/sourcegraph/conc/pool"

	"github.com/tidegate/tidegate/budget"
	"github.com/tidegate/tidegate/consumer"
	"github.com/tidegate/tidegate/dev"
	"github.com/tidegate/tidegate/events"
	"github.com/tidegate/tidegate/gate"
	"github.com/tidegate/tidegate/internal/testenv"
	"github.com/tidegate/tidegate/ledger"
)

func TestMain(m *testing.M) { testenv.Main(m) }

// tidegate runs the consumer and the gate, and returns the server's address and a
// client, once the gate answers.
func tidegate(t *testing.T) (url string, c *events.Client) {
	t.Helper()
	server := testenv.NATS(t)
	l, err := ledger.Open(t.Context(), ledger.Config{URL: testenv.Database(t)})
	if err != nil {
		t.Fatal(err)
	}
	connect := func() *nats.Conn {
		nc, err := events.Connect(server.ClientURL())
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(nc.Close)
		return nc
	}
	books, err := consumer.New(consumer.Config{Conn: connect(), Ledger: l})
	if err != nil {
		t.Fatal(err)
	}
	answers, err := gate.New(gate.Config{Conn: connect(), Ledger: l})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	group := pool.New().WithErrors().WithContext(ctx)
	group.Go(books.Run)
	group.Go(answers.Run)
	t.Cleanup(func() {
		cancel()
		if err := group.Wait(); err != nil {
			t.Error(err)
		}
		l.Close()
	})
	if c, err = events.NewClient(connect(), events.ClientConfig{WhenUnavailable: events.FailClosed}); err != nil {
		t.Fatal(err)
	}
	select {
	case <-answers.Ready():
	case <-time.After(20 * time.Second):
		t.Fatal("the gate is not ready")
	}
	return server.ServiceURL(), c
}

// install copies the example to where its packages may be installed.
func install(t *testing.T) (dir string) {
	t.Helper()
	for _, program := range []string{"node", "npm"} {
		if _, err := exec.LookPath(program); err != nil {
			t.Fatalf("%v: install Node.js 18 or newer with npm (on Debian: apt-get install nodejs npm)", err)
		}
	}
	dir = t.TempDir()
	for _, name := range []string{".npmrc", "package.json", "package-lock.json", "tidegate.mjs", "index.mjs"} {
		text, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, name), text, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	cmd := exec.Command("npm", "ci", "--no-audit", "--no-fund", "--prefer-offline")
	cmd.Dir = dir
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("npm ci: %v\n%s", err, out)
	}
	return dir
}

// line is what the example prints for each step.
type line struct {
	Step          string
	Allowed       bool
	Reason        string
	ID            string
	ReservationID string `json:"reservation_id"`
	UsedTokens    int64  `json:"used_tokens"`
	HeldTokens    int64  `json:"held_tokens"`
	Released      bool
}

func run(t *testing.T, dir, url, port string) []line {
	t.Helper()
	out := node(t, dir, url, "index.mjs", port)
	var lines []line
	for s := bufio.NewScanner(bytes.NewReader(out)); s.Scan(); {
		var l line
		if err := json.Unmarshal(s.Bytes(), &l); err != nil {
			t.Fatalf("%v: %s", err, s.Bytes())
		}
		lines = append(lines, l)
	}
	return lines
}

func node(t *testing.T, dir, url string, args ...string) []byte {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, "node", args...)
	cmd.Dir, cmd.Env = dir, append(os.Environ(), "NATS_URL="+url)
	var errs bytes.Buffer
	cmd.Stderr = &errs
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("node %q: %v\n%s%s", args, err, out, errs.Bytes())
	}
	return out
}

func steps(lines []line) (steps []string) {
	for _, l := range lines {
		steps = append(steps, l.Step)
	}
	return steps
}

// usage waits until the port's calls are booked.
func usage(t *testing.T, c *events.Client, port string, requests int64) events.Report {
	t.Helper()
	for end := time.Now().Add(20 * time.Second); ; time.Sleep(20 * time.Millisecond) {
		r, err := c.Usage(t.Context(), events.ReportRequest{PortID: port})
		if err != nil {
			t.Fatal(err)
		}
		if r.Requests == requests {
			return r
		}
		if r.Requests > requests || time.Now().After(end) {
			t.Fatalf("%d calls are booked, want %d", r.Requests, requests)
		}
	}
}

// Whatever the example does is found in the ledger, and it leaves no hold behind.
func TestExample(t *testing.T) {
	url, c := tidegate(t)
	dir := install(t)
	hard := int64(5000)
	if _, err := c.Set(t.Context(), events.SetRequest{PortID: "marina-7", Enabled: true, HardCapTokens: &hard}); err != nil {
		t.Fatal(err)
	}

	lines := run(t, dir, url, "marina-7")
	if diff := cmp.Diff([]string{"check", "report", "reserve", "settle", "reserve", "release"}, steps(lines)); diff != "" {
		t.Fatalf("steps (-want +got):\n%s", diff)
	}
	if hold := lines[2]; !lines[0].Allowed || !hold.Allowed || hold.ReservationID == "" || !lines[4].Allowed || !lines[5].Released {
		t.Errorf("answers %+v: want all allowed, and released", lines)
	}
	for _, at := range []int{1, 3} {
		if _, ok := events.ParseUUIDv7(lines[at].ID); !ok {
			t.Errorf("%s: id %q is no UUIDv7", lines[at].Step, lines[at].ID)
		}
	}
	report := usage(t, c, "marina-7", 2)
	want := []events.Share{{Key: "summary", Requests: 2, InputTokens: 2700, OutputTokens: 500, TotalTokens: 3200}}
	if diff := cmp.Diff(want, report.By); diff != "" {
		t.Errorf("booked (-want +got):\n%s", diff)
	}
	verdict := eventuallyFree(t, c)
	if verdict.UsedTokens != 3200 {
		t.Errorf("a check sees %d tokens, want 3200", verdict.UsedTokens)
	}

	// 1,800 tokens are left: too few for its calls, enough for what it gives back.
	lines = run(t, dir, url, "marina-7")
	if diff := cmp.Diff([]string{"check", "reserve", "reserve", "release"}, steps(lines)); diff != "" {
		t.Fatalf("steps near the cap (-want +got):\n%s", diff)
	}
	for _, at := range []int{0, 1} {
		if l := lines[at]; l.Allowed || l.Reason != string(events.ReasonEstimateExceedsHardCap) || l.UsedTokens != 3200 {
			t.Errorf("near the cap: %+v, want a refusal", l)
		}
	}
	usage(t, c, "marina-7", 2)

	testLimits(t, dir, url, c)
	testClient(t, dir, url, c)
	testStart(t, dir)
}

// eventuallyFree waits until nothing of the port is held.
func eventuallyFree(t *testing.T, c *events.Client) events.Verdict {
	t.Helper()
	for end := time.Now().Add(20 * time.Second); ; time.Sleep(20 * time.Millisecond) {
		v, err := c.Check(t.Context(), events.CheckRequest{PortID: "marina-7"})
		if err != nil {
			t.Fatal(err)
		}
		if v.HeldTokens == 0 {
			return v
		}
		if time.Now().After(end) {
			t.Fatalf("%d tokens are still held", v.HeldTokens)
		}
	}
}

// What the example says about its calls is what limits look at.
func testLimits(t *testing.T, dir, url string, c *events.Client) {
	for _, limit := range []events.Limit{
		{Match: budget.Match{Provider: "openai"}}, {Match: budget.Match{Model: "gpt-5*"}}, {Match: budget.Match{UserID: "ada"}}, {Match: budget.Match{RunID: "run-42"}},
		{Unit: budget.Weighted, Weights: budget.Weights{Output: new(budget.Weight(2 * budget.WeightScale))}},
	} {
		limit.Name, limit.Window, limit.Hard = "tight", budget.Day, new(int64(2_100)) // 2,000 tokens fit, 1,600 + 2 × 400 do not
		if limit.Unit == "" {
			limit.Hard = new(int64(1_900))
		}
		if _, err := c.Set(t.Context(), events.SetRequest{PortID: "marina-10", Enabled: true, Limits: []events.Limit{limit}}); err != nil {
			t.Fatal(err)
		}
		out := node(t, dir, url, "index.mjs", "marina-10")
		var refused int
		for s := bufio.NewScanner(bytes.NewReader(out)); s.Scan(); {
			var l struct {
				Step, Limit string
				Allowed     bool
			}
			if err := json.Unmarshal(s.Bytes(), &l); err != nil {
				t.Fatalf("%v: %s", err, s.Bytes())
			}
			if l.Step == "reserve" && !l.Allowed && l.Limit == "tight" {
				refused++
			}
		}
		if refused != 1 {
			t.Errorf("%+v refused %d reservations, want the first:\n%s", limit, refused, out)
		}
	}
}

// A fault throws, in the gate's words; an event that is sent twice is booked once.
func testClient(t *testing.T, dir, url string, c *events.Client) {
	out := node(t, dir, url, "--input-type=module", "--eval", `
		import { open } from "./tidegate.mjs";
		const tidegate = await open(process.env.NATS_URL, "marina-8");
		for (const question of [{ estimated_tokens: -1 }, { port_id: "marina-7" }])
			console.log(await tidegate.check(question).catch((err) => err.message));
		const usage = { feature: "ocr", provider: "openai", model: "gpt-5", input_tokens: 7 };
		const id = await tidegate.report(usage);
		await tidegate.report({ ...usage, id });
		await tidegate.close();
		console.log(await tidegate.check({}).catch((err) => "closed: " + (err instanceof Error)));`)
	want := `ai.budget.check: 400 invalid_field: estimated_tokens = -1: must be a whole number from 0 to 1099511627776
ai.budget.check: 400 port_mismatch: port_id = "marina-7": the subject names port marina-8
closed: true
`
	if diff := cmp.Diff(want, string(out)); diff != "" {
		t.Errorf("printed (-want +got):\n%s", diff)
	}
	if r := usage(t, c, "marina-8", 1); r.UsedTokens != 7 {
		t.Errorf("%d tokens are booked for an event that was sent twice, want 7", r.UsedTokens)
	}
}

// A service that starts before NATS waits for it.
func testStart(t *testing.T, dir string) {
	gone, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	addr := gone.Addr().String()
	up := make(chan *dev.NATS, 1)
	go func() {
		defer close(up)
		if nc, err := gone.Accept(); err == nil { // its first attempt
			nc.Close()
		}
		gone.Close()
		n, err := dev.StartNATS(dev.NATSConfig{Dir: t.TempDir(), Addr: addr})
		if err != nil {
			t.Error(err)
			return
		}
		up <- n
	}()
	out := node(t, dir, "nats://"+addr, "--input-type=module", "--eval", `
		import { open } from "./tidegate.mjs";
		const tidegate = await open(process.env.NATS_URL, "marina-9");
		console.log(await tidegate.check({}).catch((err) => "no gate: " + (err instanceof Error)));
		await tidegate.close();`)
	if string(out) != "no gate: true\n" {
		t.Errorf("it printed %q", out)
	}
	if n := <-up; n != nil {
		n.Shutdown()
	}
}
