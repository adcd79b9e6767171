package events_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/propagation"
	"go.opentelemetry.io/otel/trace"

	"github.com/tidegate/tidegate/consumer/arrival"
	"github.com/tidegate/tidegate/events"
	"github.com/tidegate/tidegate/internal/testenv"
)

func TestPublisher_StoresWhatIsRecorded(t *testing.T) {
	b := startBus(t)
	nc := b.connect()
	usageStream(t, nc)
	p := newPublisher(t, nc, events.PublisherConfig{})

	before := time.Now().Truncate(time.Millisecond)
	for i := range 1234 {
		p.Record(call(fmt.Sprintf("p%d", i%7), i))
	}
	if err := p.Close(within(t, 20*time.Second)); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(events.Stats{Recorded: 1234, Published: 1234}, p.Stats()); diff != "" {
		t.Error("stats (-want +got):\n", diff)
	}
	messages := stored(t, nc)
	if n := len(messages); n < 7 || n > 1234/10 {
		t.Errorf("1,234 events of 7 ports came in %d messages", n)
	}
	for _, msg := range messages {
		if len(msg.Data) > events.MaxPayloadBytes || msg.Header.Get(jetstream.MsgIDHeader) != "" {
			t.Errorf("a message of %d bytes with headers %v", len(msg.Data), msg.Header)
		}
	}
	got := storedUsages(t, nc) // decoding them finds events of another port than the subject's
	if len(got) != 1234 {
		t.Fatalf("stored %d of 1234", len(got))
	}
	next := map[string]int{}
	for i := range 7 {
		next[fmt.Sprintf("p%d", i)] = i
	}
	for _, u := range got {
		id, ok := events.ParseUUIDv7(u.ID)
		if !ok || u.OccurredAt.Before(before) || !events.UUIDv7Time(id).Equal(u.OccurredAt) {
			t.Fatalf("id %q, occurred_at %s: want a UUIDv7 of a time since %s", u.ID, u.OccurredAt, before)
		}
		want := call(u.PortID, next[u.PortID])
		next[u.PortID] += 7
		want.ID, want.OccurredAt = u.ID, u.OccurredAt
		want.MeasuredBy, want.Status = events.MeasuredByProvider, events.StatusOK
		if diff := cmp.Diff(want, u); diff != "" {
			t.Fatalf("%s, in the order recorded (-want +got):\n%s", u.PortID, diff)
		}
	}
}

func TestPublisher_OneEventIsAPlainObject(t *testing.T) {
	nc := startBus(t).connect()
	usageStream(t, nc)
	p := newPublisher(t, nc, events.PublisherConfig{})
	p.Record(call("p1", 1))
	if err := p.Flush(within(t, 10*time.Second)); err != nil {
		t.Fatal(err)
	}
	msg := stored(t, nc)[0]
	if _, err := events.DecodeUsage(msg.Subject, msg.Data); err != nil {
		t.Errorf("%s on %s: %v", msg.Data, msg.Subject, err)
	}
	if len(msg.Header) > 0 {
		t.Errorf("the message has headers: %v", msg.Header)
	}

	// A header names the callers' spans, if they are sampled: each once, eight at most, and nothing else.
	otel.SetTextMapPropagator(propagation.TraceContext{})
	span := func(id byte, flags trace.TraceFlags) context.Context {
		return trace.ContextWithRemoteSpanContext(within(t, 10*time.Second), trace.NewSpanContext(trace.SpanContextConfig{TraceID: trace.TraceID{1}, SpanID: trace.SpanID{id}, TraceFlags: flags}))
	}
	many := []events.Usage{call("p2", 3), call("p2", 4)}
	many[0].TraceParent = "00-\r\nNats-Msg-Id: x"
	for i := range byte(20) {
		many = append(many, call("p2", 5+int(i)), call("p2", 50+int(i)))
		many[len(many)-1].TraceParent = events.TraceParent(span(10+i, trace.FlagsSampled))
	}
	for ctx, usages := range map[context.Context][]events.Usage{span(1, trace.FlagsSampled): {call("p3", 1)}, span(2, 0): {call("p4", 2)}, t.Context(): many} {
		if err := p.Publish(ctx, usages); err != nil {
			t.Fatal(err)
		}
	}
	for _, msg := range stored(t, nc) {
		want := map[string]int{"ai.usage.p3": 1, "ai.usage.p2": events.MaxTraces}[msg.Subject]
		if got := msg.Header[events.TraceHeader]; len(got) != want || len(msg.Header) != min(want, 1) || want == 1 && got[0] != "00-01000000000000000000000000000000-0100000000000000-01" {
			t.Errorf("on %s there are the headers %v, want %d spans", msg.Subject, msg.Header, want)
		}
	}
}

func TestPublisher_KeepsGivenIDsAndTimes(t *testing.T) {
	nc := startBus(t).connect()
	usageStream(t, nc)
	p := newPublisher(t, nc, events.PublisherConfig{})

	past := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	v7 := events.NewUUIDv7(past).String()
	given := []events.Usage{call("p1", 0), call("p1", 1), call("p1", 2)}
	given[0].ID = v7                                          // the id has the time
	given[1].ID, given[1].OccurredAt = "row-17", past         // both given
	given[2].OccurredAt = past.In(time.FixedZone("", 5*3600)) // needs an id of that time
	for _, u := range given {
		p.Record(u)
	}
	if err := p.Close(within(t, 10*time.Second)); err != nil {
		t.Fatal(err)
	}
	got := storedUsages(t, nc)
	if got[0].ID != v7 || !got[0].OccurredAt.IsZero() {
		t.Errorf("a UUIDv7 alone became id %q at %s", got[0].ID, got[0].OccurredAt)
	}
	if got[1].ID != "row-17" || !got[1].OccurredAt.Equal(past) {
		t.Errorf("an id and a time became id %q at %s", got[1].ID, got[1].OccurredAt)
	}
	if id, ok := events.ParseUUIDv7(got[2].ID); !ok || !events.UUIDv7Time(id).Equal(past) {
		t.Errorf("a time alone became id %q at %s", got[2].ID, got[2].OccurredAt)
	}
}

func TestPublisher_InvalidUsage(t *testing.T) {
	nc := startBus(t).connect()
	usageStream(t, nc, func(c *jetstream.StreamConfig) { c.MaxMsgSize = 64 << 10 })
	log := &logBook{}
	p := newPublisher(t, nc, events.PublisherConfig{Logger: log.logger()})

	badFeature, badID, badUTF8, huge, noPort, wildPort := call("p1", 1), call("p1", 2), call("p1", 3), call("p1", 4), call("", 5), call("p1.*", 6)
	longID := call("p1", 8)
	longID.ID = strings.Repeat("x", 40_000) // travels once, not in a header too
	badFeature.Feature = ""
	badID.ID = "x\r\nNats-Rollup: all\r\n\r\n" + strings.Repeat("y", 300)
	noTime := call("p1", 9)
	noTime.ID = "row-18" // what was recorded again would be another event by any time of ours
	badUTF8.Model = "gpt\xff"
	huge.UserID = strings.Repeat("u", 20_000)
	for _, u := range []events.Usage{badFeature, badID, badUTF8, huge, noPort, wildPort, call("p1", 7), longID, noTime, noTime} {
		p.Record(u)
	}
	if err := p.Close(within(t, 10*time.Second)); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(events.Stats{Recorded: 10, Published: 8, Dropped: 2, Invalid: 9}, p.Stats()); diff != "" {
		t.Error("stats (-want +got):\n", diff)
	}
	var reasons []string
	for _, msg := range stored(t, nc) {
		parts, err := arrival.Split(msg.Data)
		if err != nil {
			t.Fatal(err)
		}
		for _, part := range parts {
			_, err := events.DecodeUsage(msg.Subject, part)
			var field *events.FieldError
			if errors.As(err, &field) {
				reasons = append(reasons, string(field.Reason)+" "+field.Field)
			} else {
				reasons = append(reasons, "ok")
			}
		}
		if msg.Header.Get("Nats-Rollup") != "" {
			t.Error("an id smuggled in a header")
		}
	}
	// U+FFFD stands for the bytes that JSON cannot carry, so that event can be booked.
	want := []string{"invalid_field feature", "invalid_field id", "ok", "too_large payload bytes", "ok", "too_large payload bytes",
		"invalid_field occurred_at", "invalid_field occurred_at"}
	if diff := cmp.Diff(want, reasons); diff != "" {
		t.Error("what the consumer will say (-want +got):\n", diff)
	}
	if got := log.String(); !strings.Contains(got, "feature") || !strings.Contains(got, "is required") {
		t.Errorf("the log names no field and rule:\n%s", got)
	}
}

func TestPublisher_ManyCallers(t *testing.T) {
	nc := startBus(t).connect()
	usageStream(t, nc)
	p := newPublisher(t, nc, events.PublisherConfig{})
	var callers sync.WaitGroup
	for c := range 8 {
		callers.Go(func() {
			port := fmt.Sprintf("p%d", c)
			for i := range 500 {
				if i%100 == 50 {
					if err := p.Publish(within(t, 20*time.Second), []events.Usage{call(port, i)}); err != nil {
						t.Error(err)
					}
					continue
				}
				p.Record(call(port, i))
			}
			if err := p.Flush(within(t, 20*time.Second)); err != nil {
				t.Error(err)
			}
		})
	}
	callers.Wait()
	if diff := cmp.Diff(events.Stats{Recorded: 4000, Published: 4000}, p.Stats()); diff != "" {
		t.Error("stats (-want +got):\n", diff)
	}
	perPort := map[string][]int64{}
	for _, u := range storedUsages(t, nc) {
		if u.RequestID != "req_000050" && !strings.HasSuffix(u.RequestID, "50") {
			perPort[u.PortID] = append(perPort[u.PortID], u.InputTokens)
		}
	}
	for port, seen := range perPort {
		if !slices.IsSorted(seen) {
			t.Errorf("port %s: recorded by one goroutine, stored in another order", port)
		}
	}
}

func TestPublisher_BufferOverflowIsCounted(t *testing.T) {
	log := &logBook{}
	p := newPublisher(t, connect(t, deadURL(t)), events.PublisherConfig{Buffer: 100, Logger: log.logger()})
	for i := range 100 {
		p.Record(call("p1", i))
	}
	testenv.Eventually(t, "some are in the loop's hands", func() bool { return p.Stats().Retries > 0 })
	for i := range 50 {
		p.Record(call("p1", i))
	}
	if diff := cmp.Diff(events.Stats{Recorded: 150, Dropped: 50, Pending: 100}, p.Stats(), ignoreRetries); diff != "" {
		t.Error("stats (-want +got):\n", diff)
	}
	testenv.Eventually(t, "the log says what was dropped", func() bool { return strings.Contains(log.String(), "dropped=50") })
}

// Close ends what waits for an answer, however long the AckTimeout.
func TestPublisher_CloseCutsAWaitShort(t *testing.T) {
	nc := startBus(t).connect()
	if _, err := nc.Subscribe("ai.usage.*", func(*nats.Msg) {}); err != nil { // somebody listens, nobody answers
		t.Fatal(err)
	}
	for _, n := range []int{1, 3} { // a single, a batch
		p := newPublisher(t, nc, events.PublisherConfig{AckTimeout: time.Hour})
		stuck := make(chan error, 1)
		usages := make([]events.Usage, n)
		for i := range usages {
			usages[i] = call("p1", i)
			p.Record(usages[i])
		}
		go func() { stuck <- p.Publish(context.Background(), usages) }()
		testenv.Eventually(t, "both wait", func() bool { return p.Stats().Pending == uint64(2*n) })
		began := time.Now()
		if err := p.Close(within(t, 200*time.Millisecond)); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("Close: %v", err)
		}
		if err := <-stuck; !errors.Is(err, events.ErrPublisherClosed) {
			t.Errorf("Publish: %v", err)
		}
		if took := time.Since(began); took > 1500*time.Millisecond {
			t.Errorf("Close of %d events took %s", n, took)
		}
	}
}

func TestPublisher_CloseSaysWhatIsLeft(t *testing.T) {
	p := newPublisher(t, connect(t, deadURL(t)), events.PublisherConfig{})
	for i := range 70 {
		p.Record(call("p1", i))
	}
	began := time.Now()
	if err := p.Flush(within(t, 100*time.Millisecond)); !errors.Is(err, context.DeadlineExceeded) || !strings.Contains(err.Error(), "70 events") {
		t.Errorf("Flush: %v", err)
	}
	err := p.Close(within(t, 100*time.Millisecond))
	if !errors.Is(err, context.DeadlineExceeded) || !strings.Contains(err.Error(), "70 events") {
		t.Errorf("Close: %v", err)
	}
	if took := time.Since(began); took > 2*time.Second {
		t.Errorf("Flush and Close took %s for 100 ms each", took)
	}
	p.Record(call("p1", 1))
	if diff := cmp.Diff(events.Stats{Recorded: 71, Dropped: 71}, p.Stats(), ignoreRetries); diff != "" {
		t.Error("stats (-want +got):\n", diff)
	}
	if err := p.Publish(t.Context(), []events.Usage{call("p1", 1)}); !errors.Is(err, events.ErrPublisherClosed) {
		t.Errorf("Publish after Close: %v", err)
	}
}

func TestPublisher_CloseEndsWhenTheConnectionIsClosed(t *testing.T) {
	nc := connect(t, deadURL(t))
	p := newPublisher(t, nc, events.PublisherConfig{})
	p.Record(call("p1", 1))
	nc.Close()
	if err := p.Close(within(t, time.Minute)); !errors.Is(err, nats.ErrConnectionClosed) || !strings.Contains(err.Error(), "1 events") {
		t.Errorf("Close: %v", err)
	}
}

func TestPublisher_PublishAcknowledgesInOrder(t *testing.T) {
	nc := startBus(t).connect()
	usageStream(t, nc)
	p := newPublisher(t, nc, events.PublisherConfig{})
	usages := make([]events.Usage, 1050)
	for i := range usages {
		usages[i] = call("p1", i)
	}
	if err := p.Publish(t.Context(), usages); err != nil {
		t.Fatal(err)
	}
	if err := p.Publish(t.Context(), usages); err != nil { // again: the ids are in the slice now
		t.Fatal(err)
	}
	got := storedUsages(t, nc)
	if len(got) != 2*len(usages) {
		t.Fatalf("stored %d, want %d twice", len(got), len(usages))
	}
	for i := range got {
		if want := usages[i%len(usages)]; got[i].ID != want.ID || !got[i].OccurredAt.Equal(want.OccurredAt.Truncate(time.Millisecond)) || got[i].RequestID != want.RequestID {
			t.Fatalf("place %d holds %s with id %s, want %s with %s", i, got[i].RequestID, got[i].ID, want.RequestID, want.ID)
		}
	}
	if diff := cmp.Diff(events.Stats{Recorded: 2100, Published: 2100}, p.Stats()); diff != "" {
		t.Error("stats (-want +got):\n", diff)
	}
	noTime := call("p1", 2)
	noTime.ID = "row-18"
	for what, bad := range map[string]events.Usage{"feature": {PortID: "p1"}, "occurred_at": noTime} {
		var field *events.FieldError
		err := p.Publish(t.Context(), []events.Usage{call("p1", 1), bad})
		if !errors.As(err, &field) || field.Field != what || !strings.Contains(err.Error(), "usage 2 of 2") {
			t.Errorf("a usage with an invalid %s: %v", what, err)
		}
	}
	if n := len(storedUsages(t, nc)); n != 2*len(usages) {
		t.Errorf("refused calls of Publish stored %d events", n-2*len(usages))
	}
}

func TestPublisher_PublishEndsWithItsContext(t *testing.T) {
	p := newPublisher(t, connect(t, deadURL(t)), events.PublisherConfig{})
	err := p.Publish(within(t, 100*time.Millisecond), []events.Usage{call("p1", 1), call("p1", 2)})
	if !errors.Is(err, context.DeadlineExceeded) || !strings.Contains(err.Error(), "2 of 2 usages") {
		t.Errorf("Publish: %v", err)
	}
	if s := p.Stats(); s.Pending != 0 || s.Dropped != 2 {
		t.Errorf("stats: %+v", s)
	}
	stuck := make(chan error, 1)
	go func() { stuck <- p.Publish(context.Background(), []events.Usage{call("p1", 1)}) }()
	testenv.Eventually(t, "the call runs", func() bool { return p.Stats().Pending == 1 })
	_ = p.Close(within(t, 50*time.Millisecond))
	if err := <-stuck; !errors.Is(err, events.ErrPublisherClosed) {
		t.Errorf("Publish during Close: %v", err)
	}
}

func TestPublisher_ConfigIsChecked(t *testing.T) {
	nc := connect(t, deadURL(t))
	for _, cfg := range []events.PublisherConfig{{Buffer: -1}, {Linger: -1}, {AckTimeout: -1}} {
		if _, err := events.NewPublisher(nc, cfg); err == nil {
			t.Errorf("%+v was accepted", cfg)
		}
	}
	if _, err := events.NewPublisher(nil, events.PublisherConfig{}); err == nil {
		t.Error("no connection was accepted")
	}
}

func TestPublisher_LingersForOthers(t *testing.T) {
	nc := startBus(t).connect()
	usageStream(t, nc)
	p := newPublisher(t, nc, events.PublisherConfig{Linger: time.Hour})
	for i := range 20 {
		p.Record(call("p1", i))
	}
	time.Sleep(50 * time.Millisecond)
	if n := p.Stats().Published; n != 0 {
		t.Fatalf("%d published; they should linger", n)
	}
	if err := p.Flush(within(t, 5*time.Second)); err != nil { // Flush does not wait for the linger
		t.Fatal(err)
	}
	if n := len(stored(t, nc)); n != 1 {
		t.Errorf("20 events came in %d messages", n)
	}
	for i := range 1000 { // so many do not linger
		p.Record(call("p1", i))
	}
	testenv.Eventually(t, "they are out", func() bool { return p.Stats().Published >= 1000 })
}

// Two events that are 10 ms apart do not wait for each other: gathering adds no more to
// the way of an event.
func TestPublisher_LingersBriefly(t *testing.T) {
	nc := startBus(t).connect()
	usageStream(t, nc)
	p := newPublisher(t, nc, events.PublisherConfig{})
	for i := range 50 {
		p.Record(call("p1", i))
		time.Sleep(10 * time.Millisecond)
	}
	if err := p.Close(within(t, 10*time.Second)); err != nil {
		t.Fatal(err)
	}
	if n := len(stored(t, nc)); n < 25 {
		t.Errorf("50 events, 10 ms apart, came in %d messages", n)
	}
}
