package demo_test

import (
	"bytes"
	"context"
	"log/slog"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/tidegate/tidegate/consumer/arrival"
	"github.com/tidegate/tidegate/events"
	"github.com/tidegate/tidegate/internal/demo"
	"github.com/tidegate/tidegate/internal/testenv"
	"github.com/tidegate/tidegate/internal/testenv/system"
)

const quick = 4 * time.Millisecond // 250 times the demo's own pace

// start runs the demo; stop ends it and fails the test if it lost anything.
func start(t *testing.T, nc *nats.Conn) (stop func()) {
	t.Helper()
	return startLogging(t, nc, slog.New(slog.DiscardHandler))
}

func startLogging(t *testing.T, nc *nats.Conn, log *slog.Logger) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- demo.RunAt(ctx, demo.Config{Conn: nc, Logger: log}, quick, 0) }()
	t.Cleanup(cancel)
	return func() {
		t.Helper()
		cancel()
		select {
		case err := <-done:
			if err != nil {
				t.Error(err)
			}
		case <-time.After(10 * time.Second):
			t.Fatal("the demo does not end")
		}
	}
}

// used is what the ledger has booked for the demo's ports.
func used(t *testing.T, c *events.Client, by events.Dimension) map[string]events.Report {
	t.Helper()
	all := map[string]events.Report{}
	for _, port := range []string{demo.Roomy, demo.Warned, demo.Capped} {
		r, err := c.Usage(t.Context(), events.ReportRequest{PortID: port, By: by})
		if err != nil {
			t.Fatal(err)
		}
		all[port] = r
	}
	return all
}

// A newcomer sees all three answers, and finds every acknowledged call in the ledger.
func TestRun_ShowsEveryAnswer(t *testing.T) {
	server := testenv.NATS(t)
	system.Start(t, server.ClientURL())
	nc := connect(t, server.ClientURL())
	c := client(t, nc)
	alerts, err := nc.SubscribeSync("ai.alert." + demo.Capped)
	if err != nil {
		t.Fatal(err)
	}
	stop := start(t, nc)

	testenv.Eventually(t, demo.Capped+" is at its hard cap", func() bool {
		v := check(t, c, demo.Capped)
		return !v.Allowed && v.Reason == events.ReasonHardCapReached
	})
	testenv.Eventually(t, demo.Warned+" is allowed with a warning", func() bool {
		v := check(t, c, demo.Warned)
		return v.Allowed && v.SoftCapWarning
	})
	if v := check(t, c, demo.Roomy); !v.Allowed || v.SoftCapWarning || v.UsedTokens == 0 {
		t.Errorf("%s: %+v: want used tokens and allowed without a warning", demo.Roomy, v)
	}
	for _, cap := range []string{`"cap":"soft"`, `"cap":"hard"`} {
		msg, err := alerts.NextMsg(5 * time.Second)
		if err != nil || !strings.Contains(string(msg.Data), cap) {
			t.Errorf("alert %v, error %v: want %s", msg, err, cap)
		}
	}
	// Once the calls under way are counted, the capped port makes no more.
	advance := func(tokens int64) {
		t.Helper()
		from := check(t, c, demo.Roomy).UsedTokens
		testenv.Eventually(t, demo.Roomy+" goes on", func() bool { return check(t, c, demo.Roomy).UsedTokens > from+tokens })
	}
	advance(100_000)
	spent := check(t, c, demo.Capped).UsedTokens
	if spent != 90_000 {
		t.Errorf("%s has used %d tokens: want exactly its hard cap, 90,000", demo.Capped, spent)
	}
	advance(50_000)
	if now := check(t, c, demo.Capped).UsedTokens; now != spent {
		t.Errorf("%s went on from %d to %d tokens after it was refused", demo.Capped, spent, now)
	}
	stop()

	messages := stored(t, nc)
	tokens := map[string]int64{}
	for _, u := range messages {
		tokens[u.PortID] += u.TotalTokens()
	}
	testenv.Eventually(t, "what the demo reported is booked", func() bool {
		for port, r := range used(t, c, events.ByFeature) {
			if r.UsedTokens != tokens[port] {
				return false
			}
		}
		return true
	})
	features := []string{}
	for _, share := range used(t, c, events.ByFeature)[demo.Roomy].By {
		features = append(features, share.Key)
	}
	slices.Sort(features)
	if want := []string{"embedding", "ocr", "reply_draft", "summary", "translation"}; !slices.Equal(features, want) {
		t.Errorf("features %v, want %v", features, want)
	}
	for _, share := range used(t, c, events.ByModel)[demo.Roomy].By {
		if strings.Contains(share.Key, "embedding") != (share.OutputTokens == 0) {
			t.Errorf("model %s generated %d tokens", share.Key, share.OutputTokens)
		}
	}
}

// stored reads what JetStream has acknowledged, and insists that it is valid.
func stored(t *testing.T, nc *nats.Conn) []events.Usage {
	t.Helper()
	js, err := jetstream.New(nc)
	if err != nil {
		t.Fatal(err)
	}
	stream, err := js.Stream(t.Context(), events.UsageStream)
	if err != nil {
		t.Fatal(err)
	}
	var all []events.Usage
	for seq := uint64(1); seq <= stream.CachedInfo().State.LastSeq; seq++ {
		msg, err := stream.GetMsg(t.Context(), seq)
		if err != nil {
			t.Fatal(err)
		}
		for _, payload := range testenv.Must(arrival.Split(msg.Data)) {
			all = append(all, testenv.Must(events.DecodeUsage(msg.Subject, payload)))
		}
	}
	return all
}

// What somebody has set stays, also when the demo starts again.
func TestRun_LeavesStoredBudgetsAlone(t *testing.T) {
	server := testenv.NATS(t)
	system.Start(t, server.ClientURL())
	nc := connect(t, server.ClientURL())
	c := client(t, nc)
	check(t, c, demo.Warned) // the gate answers
	mine, err := c.Set(t.Context(), events.SetRequest{PortID: demo.Warned, Enabled: false, Period: events.PeriodWeek, UpdatedBy: "me"})
	if err != nil {
		t.Fatal(err)
	}
	for run := range 2 {
		stop := start(t, nc)
		testenv.Eventually(t, "calls are counted", func() bool { return check(t, c, demo.Warned).UsedTokens > int64(run)*5000 })
		stop()
		budget, err := c.Get(t.Context(), demo.Warned)
		if err != nil || budget.Version != mine.Version || budget.UpdatedBy != "me" {
			t.Errorf("run %d: the budget is %+v (error %v), want mine, version %d", run, budget, err, mine.Version)
		}
		budget, err = c.Get(t.Context(), demo.Roomy)
		if err != nil || budget.Version != 1 || budget.UpdatedBy != "demo" || !budget.Enabled {
			t.Errorf("run %d: the budget of %s is %+v (error %v), want version 1 by demo", run, demo.Roomy, budget, err)
		}
	}
}

// Two demos that start at the same time store one budget.
func TestRun_StoresEachBudgetOnce(t *testing.T) {
	server := testenv.NATS(t)
	system.Start(t, server.ClientURL())
	c := client(t, connect(t, server.ClientURL()))
	check(t, c, demo.Roomy) // the gate answers
	for range 4 {
		defer start(t, connect(t, server.ClientURL()))()
	}
	for _, port := range []string{demo.Roomy, demo.Warned, demo.Capped} {
		testenv.Eventually(t, port+" is called", func() bool { return check(t, c, port).UsedTokens > 5000 })
		if b, err := c.Get(t.Context(), port); err != nil || b.Version != 1 {
			t.Errorf("%s: budget %+v, error %v: want version 1", port, b, err)
		}
	}
}

// The demo starts before NATS and the gate do, and NATS is killed under it.
func TestRun_WaitsForWhatIsAway(t *testing.T) {
	server := newProcess(t)
	server.stop()
	nc := connect(t, server.url)
	stop := start(t, nc)
	time.Sleep(50 * time.Millisecond) // it asks, and nobody is there
	server.start()
	system.Start(t, server.url)
	c := client(t, nc)
	testenv.Eventually(t, "calls are counted", func() bool { return check(t, c, demo.Roomy).UsedTokens > 10_000 })

	server.stop()
	time.Sleep(50 * time.Millisecond)
	server.start()
	before := check(t, c, demo.Roomy).UsedTokens
	testenv.Eventually(t, "calls are counted again", func() bool { return check(t, c, demo.Roomy).UsedTokens > before+10_000 })
	stop()
}

// Without a gate nothing is spent, the log says so once it is no mere start, and
// the demo ends when it is told to.
func TestRun_EndsWithoutAGate(t *testing.T) {
	t.Parallel() // mostly it waits
	nc := connect(t, testenv.NATS(t).ClientURL())
	sub, err := nc.SubscribeSync("ai.usage.>")
	if err != nil {
		t.Fatal(err)
	}
	var log bytes.Buffer
	began := time.Now()
	stop := startLogging(t, nc, slog.New(slog.NewTextHandler(&log, nil)))
	time.Sleep(7500 * time.Millisecond)
	stop()
	for _, port := range []string{demo.Roomy, demo.Warned, demo.Capped} {
		if n := strings.Count(log.String(), `msg="the demo waits for the budget gate" port_id=`+port); n != 1 {
			t.Errorf("in %s the log told %d times that %s waits, want once:\n%s", time.Since(began), n, port, log.String())
		}
	}
	if n, _, err := sub.Pending(); err != nil || n != 0 {
		t.Errorf("%d calls were reported, error %v", n, err)
	}
}
