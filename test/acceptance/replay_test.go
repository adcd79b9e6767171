//go:build acceptance

package acceptance

import (
	"encoding/csv"
	"encoding/json"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/tidegate/tidegate/consumer/arrival"
	"github.com/tidegate/tidegate/dev"
	"github.com/tidegate/tidegate/events"
	"github.com/tidegate/tidegate/internal/testenv"
)

// One hour of a code-completion service.
const (
	traceFile   = "data/azure_llm_inference_trace_code.csv"
	traceRows   = 8_819
	traceInput  = 18_059_974
	traceOutput = 245_896
)

// replayed is what `tidegate replay --json` prints.
type replayed struct {
	Start        string `json:"start"`
	Rows         int64  `json:"rows"`
	Published    int64  `json:"published"`
	Acknowledged int64  `json:"acknowledged"`
	InputTokens  int64  `json:"input_tokens"`
	OutputTokens int64  `json:"output_tokens"`
	Ports        []struct {
		PortID      string `json:"port_id"`
		Rows        int64  `json:"rows"`
		TotalTokens int64  `json:"total_tokens"`
	} `json:"ports"`
}

func (r replayed) accounts() map[string]account {
	all := map[string]account{}
	for _, p := range r.Ports {
		all[p.PortID] = account{p.PortID, p.TotalTokens, p.Rows}
	}
	return all
}

// readTrace sums the file up without any Tidegate code.
func readTrace(t *testing.T, path string) (rows, input, output int64) {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	records, err := csv.NewReader(f).ReadAll()
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range records[1:] {
		in, err := strconv.ParseInt(r[1], 10, 64)
		if err != nil {
			t.Fatal(err)
		}
		out, err := strconv.ParseInt(r[2], 10, 64)
		if err != nil {
			t.Fatal(err)
		}
		rows, input, output = rows+1, input+in, output+out
	}
	return rows, input, output
}

// checkTrace insists that the ledger holds the trace exactly once, and nothing else.
func checkTrace(t *testing.T, s *system, r replayed) {
	t.Helper()
	if diff := cmp.Diff(r.accounts(), s.booked(traceRows)); diff != "" {
		t.Errorf("ports' sums, replayed (-) against booked (+):\n%s", diff)
	}
	v := s.verify()
	if v.Rows != traceRows || v.InputTokens != traceInput || v.OutputTokens != traceOutput {
		t.Errorf("booked %d rows, %d input and %d output tokens, want %d, %d and %d",
			v.Rows, v.InputTokens, v.OutputTokens, traceRows, traceInput, traceOutput)
	}
	if n := s.quarantined(); n != 0 {
		t.Errorf("%d events are in quarantine", n)
	}
}

func checkReplay(t *testing.T, r replayed) {
	t.Helper()
	got := []int64{r.Rows, r.Published, r.Acknowledged, r.InputTokens, r.OutputTokens}
	if diff := cmp.Diff([]int64{traceRows, traceRows, traceRows, traceInput, traceOutput}, got); diff != "" {
		t.Errorf("rows, published, acknowledged, input and output tokens (-want +got):\n%s", diff)
	}
}

func TestReplayBooksTheTraceExactly(t *testing.T) {
	file := sharedFile(t, traceFile)
	rows, input, output := readTrace(t, file)
	if rows != traceRows || input != traceInput || output != traceOutput {
		t.Fatalf("the file has %d rows, %d and %d tokens", rows, input, output)
	}
	s := startSystem(t)

	var first, again replayed
	s.ask(&first, "replay", file)
	checkReplay(t, first)
	checkTrace(t, s, first)

	// The same rows at the same times are the same events.
	s.ask(&again, "replay", file, "--start", first.Start)
	if diff := cmp.Diff(first, again); diff != "" {
		t.Errorf("the second replay's summary (-first +second):\n%s", diff)
	}
	checkTrace(t, s, first)

	settled(t, s, 2*traceRows)
	checkTrace(t, s, first)

	// A replay that is not a repetition is booked.
	var other replayed
	s.ask(&other, "replay", file, "--start", first.Start, "--seed", "2")
	s.booked(2 * traceRows)
	if v := s.verify(); v.Rows != 2*traceRows || v.InputTokens != 2*traceInput || v.OutputTokens != 2*traceOutput {
		t.Errorf("with another seed: %+v, want everything twice", v)
	}
}

// settled returns when the consumer has dealt with all the events of the stream, which
// are so many.
func settled(t *testing.T, s *system, want int) {
	t.Helper()
	nc, err := events.Connect(testenv.Must(dev.OperatorURL(filepath.Join(s.data, "nats"))))
	if err != nil {
		t.Fatal(err)
	}
	defer nc.Close()
	js := testenv.Must(jetstream.New(nc))
	stream := testenv.Must(js.Stream(t.Context(), events.UsageStream))
	messages := stream.CachedInfo().State.LastSeq
	reader := testenv.Must(stream.CreateConsumer(t.Context(), jetstream.ConsumerConfig{AckPolicy: jetstream.AckNonePolicy, InactiveThreshold: time.Minute}))
	held := 0
	for msg := range testenv.Must(reader.Fetch(int(messages), jetstream.FetchMaxWait(10*time.Second))).Messages() {
		held += len(testenv.Must(arrival.Split(msg.Data())))
	}
	if held != want {
		t.Fatalf("the stream holds %d events, want %d", held, want)
	}
	testenv.Eventually(t, "the consumer has acknowledged all", func() bool {
		return testenv.Must(stream.Consumer(t.Context(), events.ConsumerName)).CachedInfo().AckFloor.Stream == messages
	})
}

// NATS, with the rest of the system, is killed and later stopped while a replay
// runs. The replay rides through both.
func TestReplayLosesNothingThroughRestarts(t *testing.T) {
	s := startSystem(t)
	file := sharedFile(t, traceFile)
	// An hour in twenty seconds: what became due during a restart is published at once after it.
	replay := s.command("replay", file, "--speed", "180", "--json")
	var out, errs strings.Builder
	replay.Stdout, replay.Stderr = &out, &errs
	if err := replay.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- replay.Wait() }()
	for i, signal := range []syscall.Signal{syscall.SIGKILL, syscall.SIGTERM} {
		_, before := s.accounts()
		for requests := before; requests < before+traceRows/5; time.Sleep(20 * time.Millisecond) {
			_, requests = s.accounts()
			select {
			case err := <-ended:
				t.Fatalf("the replay ended with %v before restart %d, with %d booked: this test proves nothing\n%s", err, i+1, requests, errs.String())
			default:
			}
		}
		s.stop(signal)
		time.Sleep(500 * time.Millisecond)
		s.start()
	}
	select {
	case err := <-ended:
		if err != nil {
			t.Fatalf("replay: %v\n%s", err, errs.String())
		}
	case <-time.After(2 * time.Minute):
		_ = replay.Process.Kill()
		t.Fatal("the replay does not end")
	}
	var r replayed
	if err := json.Unmarshal([]byte(out.String()), &r); err != nil {
		t.Fatal(err)
	}
	checkReplay(t, r)
	checkTrace(t, s, r)
}

// A file with one bad line publishes nothing.
func TestReplayRefusesABadFile(t *testing.T) {
	s := startSystem(t)
	text, err := os.ReadFile(sharedFile(t, traceFile))
	if err != nil {
		t.Fatal(err)
	}
	bad := t.TempDir() + "/bad.csv"
	if err := os.WriteFile(bad, append(text, "\r\n2023-11-16 20:00:00,12,-1"...), 0o600); err != nil {
		t.Fatal(err)
	}
	out, err := s.command("replay", bad).CombinedOutput()
	if want := bad + `:8821: GeneratedTokens = "-1": must be a whole number from 0 to`; err == nil || !strings.Contains(string(out), want) {
		t.Errorf("%s, printed\n%s\nwant a failure with %s", explain(err), out, want)
	}
	if _, requests := s.accounts(); requests != 0 {
		t.Errorf("%d rows of a bad file are booked", requests)
	}
}
