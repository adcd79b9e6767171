package e2e

import (
	"bytes"
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/tidegate/tidegate/consumer"
	"github.com/tidegate/tidegate/consumer/stream"
	"github.com/tidegate/tidegate/events"
	"github.com/tidegate/tidegate/internal/testenv"
)

// manyHeaders are headers of that many bytes on the wire.
func manyHeaders(bytes int) nats.Header {
	h := nats.Header{}
	for n, left := 0, bytes-len("NATS/1.0\r\n\r\n"); left > 0; n++ {
		name := fmt.Sprintf("X-%d", n)
		line := min(left, 1000)
		h[name] = []string{strings.Repeat("y", max(line-len(name)-len(": \r\n"), 0))}
		left -= line
	}
	return h
}

// A message whose headers fill a stream of before to the last byte does not keep others from being
// booked: its copy fits, with all that it had.
func TestQuarantineOfLargestHeaders(t *testing.T) {
	t.Parallel()
	s := start(t, options{noRoles: true, gates: -1})
	ensureStreams(t, s.js)
	before := testenv.Must(s.js.Stream(t.Context(), events.UsageStream)).CachedInfo().Config
	before.MaxMsgSize = 64 << 10
	testenv.Must(s.js.UpdateStream(t.Context(), before))
	bad := &nats.Msg{Subject: "ai.usage.p1", Header: manyHeaders(65_300), Data: []byte("bad")}
	testenv.Must(s.js.PublishMsg(t.Context(), bad))
	s.publishRaw("ai.usage.p2", "{"+plain+"}")
	s.run()
	testenv.Eventually(s.t, "the neighbour's is booked", func() bool { return s.booked("p2") == 1 })
	s.publishRaw("ai.usage.p3", "{"+plain+"}")
	testenv.Eventually(s.t, "what comes later is booked", func() bool { return s.booked("p3") == 1 })
	testenv.Eventually(s.t, "the copy is there", func() bool { return len(s.quarantined()) == 1 })
	s.eventuallySettled()
	copied := testenv.Must(s.ops.QuarantineShow(t.Context(), s.quarantined()[0].Sequence))
	if !bytes.Equal(copied.Payload, bad.Data) || len(copied.Headers) != len(bad.Header) {
		t.Errorf("copied are %q and %d headers, want %q and %d", copied.Payload, len(copied.Headers), bad.Data, len(bad.Header))
	}
	for name, values := range bad.Header {
		if !slices.Equal(copied.Headers[name], values) {
			t.Errorf("header %s is %.80q, want %.80q", name, copied.Headers[name], values)
		}
	}

	// The stream takes what a message may be, and headers beside it, and no more.
	for size, fits := range map[int]bool{20 << 10: true, 20<<10 + 1: false} {
		filled := &nats.Msg{Subject: "ai.usage.p1", Header: manyHeaders(size - events.MaxPayloadBytes), Data: bytes.Repeat([]byte(" "), events.MaxPayloadBytes)}
		if _, err := s.js.PublishMsg(t.Context(), filled); (err == nil) != fits {
			t.Errorf("a message of %d bytes: %v", size, err)
		}
	}
	testenv.Eventually(s.t, "the largest is held too", func() bool { return len(s.quarantined()) == 2 })
	// What is sent back goes without headers that the stream would not take.
	if err := s.ops.QuarantineReplay(t.Context(), copied.Sequence); err != nil {
		t.Error(err)
	}
	testenv.Eventually(s.t, "it comes back", func() bool { return len(s.quarantined()) == 2 && s.quarantined()[1].Subject == "ai.usage.p1" })
}

// Messages of nothing but bad events make a copy each, and what is sent back has its
// events where they were.
func TestQuarantineOfManyBadEventsOfAMessage(t *testing.T) {
	t.Parallel()
	s := start(t, options{noRoles: true, gates: -1, ledger: ledgerOfKnownPorts})
	ensureStreams(t, s.js)
	const messages = 20
	both := `{"port_id":"newcomer",` + plain + `},{"port_id":"p1",` + plain + "}"
	array := "[" + strings.TrimSuffix(strings.Repeat(both+",", 60), ",") + "]"
	testenv.Must(s.db.Exec(t.Context(), "insert into ports (id, name) values ('p1', '') on conflict do nothing"))
	worst := "[" + strings.TrimSuffix(strings.Repeat("1,", 256), ",") + "]"
	for range messages {
		testenv.Must(s.js.PublishMsg(t.Context(), &nats.Msg{Subject: "ai.usage.p1", Header: manyHeaders(3000), Data: []byte(worst)}))
	}
	s.publishRaw("ai.usage", array)
	s.run()
	s.eventuallySettled()
	info := testenv.Must(testenv.Must(s.js.Stream(t.Context(), events.QuarantineStream)).Info(t.Context()))
	if n := info.State.Msgs; n != messages+1 {
		t.Fatalf("%d copies of %d messages", n, messages+1)
	}
	if n := info.State.Bytes; n > messages*6000+30_000 {
		t.Errorf("the copies take %d bytes", n)
	}
	held := s.quarantined()
	last := held[len(held)-1]
	if want := "60 events of the message, the first of them event 1: unknown_port"; !strings.HasPrefix(last.Error, want) || last.Origin.Place != 0 {
		t.Errorf("it is held as %q of %s, want %q", last.Error, last.Origin, want)
	}
	testenv.Must(s.db.Exec(t.Context(), "insert into ports (id, name) values ('newcomer', '')"))
	if err := s.ops.QuarantineReplay(t.Context(), last.Sequence); err != nil {
		t.Fatal(err)
	}
	testenv.Eventually(s.t, "its events are booked", func() bool { return s.booked("newcomer") == 60 })
	s.wantRows(120) // those that were booked at once bear no id, and are known all the same
	sent := testenv.Must(testenv.Must(s.js.Stream(t.Context(), events.UsageStream)).GetMsg(t.Context(), messages+2))
	testenv.Must(s.js.PublishMsg(t.Context(), &nats.Msg{Subject: sent.Subject, Header: sent.Header, Data: sent.Data}))
	s.eventuallySettled()
	s.wantRows(120)
}

// What cannot be copied waits by itself. Others are booked meanwhile, before and behind it; the process
// says so, and copies it as soon as it can.
func TestWhatCannotBeCopiedIsSetAside(t *testing.T) {
	t.Parallel()
	metrics := prometheus.NewRegistry()
	s := start(t, options{gates: -1, consumer: func(c *consumer.Config) { c.Registerer = metrics }})
	setAside := func() float64 {
		for _, family := range testenv.Must(metrics.Gather()) {
			if family.GetName() == "tidegate_quarantine_set_aside_messages" {
				return family.GetMetric()[0].GetGauge().GetValue()
			}
		}
		return -1
	}
	s.publishRaw("ai.usage.p1", "{"+plain+"}")
	testenv.Eventually(s.t, "it is booked", func() bool { return s.rows() == 1 })
	quarantine := testenv.Must(s.js.Stream(t.Context(), events.QuarantineStream)).CachedInfo().Config
	full := quarantine
	full.MaxBytes = 1
	testenv.Must(s.js.UpdateStream(t.Context(), full))
	const mixed = `[{"port_id":"p2",` + plain + `},{"port_id":"p2","feature":"bad"}]`
	for range 3 {
		s.publishRaw("ai.usage", mixed)
	}
	testenv.Eventually(s.t, "the good ones are booked", func() bool { return s.booked("p2") == 3 })
	for n := range 20 { // each in a batch of its own
		s.publishRaw("ai.usage.p3", "{"+plain+"}")
		testenv.Eventually(s.t, "others are booked", func() bool { return s.booked("p3") == int64(n+1) })
	}
	s.publishRaw("ai.usage", mixed)
	testenv.Eventually(s.t, "the good one is booked", func() bool { return s.booked("p2") == 4 })
	durable := testenv.Must(s.js.Consumer(t.Context(), events.UsageStream, events.ConsumerName))
	testenv.Eventually(s.t, "four wait", func() bool {
		info := testenv.Must(durable.Info(t.Context()))
		return info.NumAckPending == 4 && info.NumPending == 0
	})
	testenv.Eventually(s.t, "the consumer says so", func() bool {
		err := s.consumer.Health()
		return err != nil && strings.HasPrefix(err.Error(), "4 messages are set aside, since events of them cannot be copied to the quarantine: ") && strings.Contains(err.Error(), "maximum bytes exceeded")
	})
	if got := setAside(); got != 4 {
		t.Errorf("the metric says %v, want 4", got)
	}
	if redelivered := testenv.Must(durable.Info(t.Context())).NumRedelivered; redelivered > 0 {
		t.Errorf("%d of them were delivered again meanwhile", redelivered)
	}
	testenv.Must(s.js.UpdateStream(t.Context(), quarantine))
	testenv.Eventually(s.t, "they are copied", func() bool { return len(s.quarantined()) == 4 })
	s.eventuallySettled()
	testenv.Eventually(s.t, "all is well", func() bool { return s.consumer.Health() == nil })
	s.wantRows(25)
	if got := setAside(); got != 0 {
		t.Errorf("the metric says %v, want 0", got)
	}
}

// What was set aside is not lost when the consumer ends, and does not count as booked: it comes
// again even under a new durable.
func TestWhatIsSetAsideIsHandedBack(t *testing.T) {
	t.Parallel()
	s := start(t, options{noRoles: true, gates: -1})
	ensureStreams(t, s.js)
	quarantine := testenv.Must(s.js.Stream(t.Context(), events.QuarantineStream)).CachedInfo().Config
	full := quarantine
	full.MaxBytes = 1
	testenv.Must(s.js.UpdateStream(t.Context(), full))
	first := testenv.Must(consumer.New(consumer.Config{Conn: testenv.Connect(t, s.nats), Ledger: s.ledger, AckWait: time.Minute}))
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- first.Run(ctx) }()
	for n := range 3 {
		s.publishRaw("ai.usage.p1", fmt.Sprintf("bad %d", n))
		s.publishRaw("ai.usage.p1", "{"+plain+"}")
	}
	testenv.Eventually(s.t, "the others are booked, and the bad ones set aside", func() bool { return s.rows() == 3 && s.waiting() == 3 })
	stop()
	if err := testenv.Await(t, "the consumer ends", ended); err != nil {
		t.Errorf("the consumer ended with %v", err)
	}
	if p := testenv.Must(stream.Compare(t.Context(), s.js, s.ledger)); p.Through != 0 || p.Missing() > 0 {
		t.Errorf("position %+v, want nothing booked up to the first, which was set aside", p)
	}
	if err := s.js.DeleteConsumer(t.Context(), events.UsageStream, events.ConsumerName); err != nil {
		t.Fatal(err)
	}
	testenv.Must(s.js.UpdateStream(t.Context(), quarantine))
	s.run()
	s.eventuallyHeld("malformed bad 0", "malformed bad 1", "malformed bad 2")
	s.eventuallySettled()
	s.wantRows(3)
	if p := testenv.Must(stream.Compare(t.Context(), s.js, s.ledger)); p.Through != 6 {
		t.Errorf("position %+v, want 6 booked", p)
	}
}
