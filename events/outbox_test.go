package events_test

import (
	"context"
	"fmt"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/tidegate/tidegate/events"
	"github.com/tidegate/tidegate/internal/testenv"
)

// lose makes the stream anew, empty.
func lose(t *testing.T, nc *nats.Conn) {
	t.Helper()
	if err := testenv.Must(jetstream.New(nc)).DeleteStream(t.Context(), events.UsageStream); err != nil {
		t.Fatal(err)
	}
	usageStream(t, nc)
}

// byID are the usages of the stream.
func byID(t *testing.T, nc *nats.Conn) map[string]events.Usage {
	t.Helper()
	all := map[string]events.Usage{}
	for _, u := range storedUsages(t, nc) {
		all[u.ID] = u
	}
	return all
}

// What JetStream acknowledged and then lost is sent again, unchanged, by this process or the next.
func TestOutbox(t *testing.T) {
	b := startBus(t)
	nc := b.connect()
	usageStream(t, nc)
	path := filepath.Join(t.TempDir(), "outbox")
	cfg := events.PublisherConfig{Outbox: events.OutboxConfig{Path: path}}
	again := func(p *events.Publisher, since time.Time, want int) {
		t.Helper()
		if n, err := p.SendAgain(within(t, 20*time.Second), since); err != nil || n != want {
			t.Errorf("%d events were sent again, %v, want %d", n, err, want)
		}
	}
	first := newPublisher(t, nc, cfg)
	for i := range 1500 {
		first.Record(call(fmt.Sprintf("p%d", i%3), i))
	}
	if err := first.Flush(within(t, 20*time.Second)); err != nil {
		t.Fatal(err)
	}
	time.Sleep(2 * time.Millisecond) // times are in milliseconds
	later := time.Now()
	if err := first.Publish(t.Context(), []events.Usage{call("p9", 1), call("p9", 2)}); err != nil {
		t.Fatal(err)
	}
	sent := byID(t, nc)
	lose(t, nc)
	again(first, later, 2)
	if got := byID(t, nc); len(got) != 2 || slices.ContainsFunc(slices.Collect(maps.Values(got)), func(u events.Usage) bool { return u.PortID != "p9" }) {
		t.Errorf("of what was sent since then the stream has %v", got)
	}
	again(first, time.Time{}, 1502)
	if diff := cmp.Diff(sent, byID(t, nc)); diff != "" {
		t.Errorf("what is sent again (-want +got):\n%s", diff)
	}
	if err := first.Close(within(t, 20*time.Second)); err != nil {
		t.Fatal(err)
	}
	if _, err := first.SendAgain(t.Context(), time.Time{}); err == nil {
		t.Error("a publisher that is closed sends again")
	}
	if info := testenv.Must(os.Stat(path)); info.Mode().Perm() != 0o600 {
		t.Errorf("the outbox has mode %s", info.Mode())
	}

	// Its process died within a line. The next one has all but that.
	f := testenv.Must(os.OpenFile(path, os.O_APPEND|os.O_WRONLY, 0))
	fmt.Fprintf(f, `%d {"v":1,"id":"0199c0de-0000-7000-8000-000000000001","port_id":"p1","details":{}`, time.Now().UnixMilli())
	f.Close()
	second := newPublisher(t, nc, cfg)
	second.Record(call("p1", 7))
	if err := second.Flush(within(t, 20*time.Second)); err != nil {
		t.Fatal(err)
	}
	again(second, time.Time{}, 1503)
}

// The file is bounded: the oldest events go. What cannot be kept is published all the same.
func TestOutboxIsBounded(t *testing.T) {
	b := startBus(t)
	nc := b.connect()
	usageStream(t, nc)
	var log testenv.Buffer
	dir := filepath.Join(t.TempDir(), "kept")
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, "outbox")
	p := newPublisher(t, nc, events.PublisherConfig{Logger: slog.New(slog.NewTextHandler(&log, nil)),
		Outbox: events.OutboxConfig{Path: path, MaxBytes: 20_000, Keep: time.Hour}})
	publish := func(port string) {
		t.Helper()
		if err := p.Publish(within(t, 20*time.Second), []events.Usage{call(port, 1)}); err != nil {
			t.Fatal(err)
		}
	}
	for i := range 100 {
		publish(fmt.Sprintf("p%d", i))
	}
	size := testenv.Must(os.Stat(path)).Size() + testenv.Must(os.Stat(path+".1")).Size()
	if size > 20_000 || size < 10_000 {
		t.Errorf("the outbox has %d bytes, want at most 20,000 and half of it at least", size)
	}
	lose(t, nc)
	n := testenv.Must(p.SendAgain(within(t, 20*time.Second), time.Time{}))
	ports := map[string]bool{}
	for _, u := range storedUsages(t, nc) {
		ports[u.PortID] = true
	}
	if n >= 100 || n < 20 || !ports["p99"] || ports["p0"] || len(ports) != n {
		t.Errorf("%d events are sent again: %v", n, ports)
	}

	if err := os.RemoveAll(dir); err != nil {
		t.Fatal(err)
	}
	for range 60 { // some file is full by then
		publish("late")
	}
	if said := log.String(); !strings.Contains(said, "cannot be kept in the outbox") {
		t.Errorf("it says %q", said)
	}
	for _, wrong := range []events.OutboxConfig{{Path: path}, {Path: filepath.Join(t.TempDir(), "x"), MaxBytes: -1}, {Path: filepath.Join(t.TempDir(), "x"), Keep: -1}} {
		if _, err := events.NewPublisher(nc, events.PublisherConfig{Outbox: wrong}); err == nil {
			t.Errorf("%+v is taken", wrong)
		}
	}
	if _, err := newPublisher(t, nc, events.PublisherConfig{}).SendAgain(context.Background(), time.Time{}); err == nil {
		t.Error("a publisher without an outbox sends again")
	}
}
