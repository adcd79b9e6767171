package e2e

import (
	"context"
	"fmt"
	"maps"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/tidegate/tidegate/consumer"
	"github.com/tidegate/tidegate/events"
	"github.com/tidegate/tidegate/internal/testenv"
	"github.com/tidegate/tidegate/ledger"
)

// Good and bad events in one message: each has a fate of its own.
func TestMessageOfManyEvents(t *testing.T) {
	t.Parallel()
	s := start(t, options{})
	twice := events.NewUUIDv7(time.Now()).String()
	s.publishRaw("ai.usage", `[
		{"port_id":"p1","id":"`+twice+`",`+plain+`},
		{"port_id":"p2",`+plain+`},
		{"port_id":"p2",`+plain+`},
		{"port_id":"p3","v":2,`+plain+`},
		"`+"\xff"+`",
		{"port_id":"p1","id":"`+twice+`",`+plain+`},
		{"port_id":"p1","id":"`+twice+`","feature":"another","provider":"openai","model":"m"},
		{`+plain+`},
		{"port_id":"p4",`+plain+`,"feature":"twice named"}
	]`)
	s.publishRaw("ai.usage.p5", `[{`+plain+`},{"port_id":"p6",`+plain+`}]`)
	s.publishRaw("ai.usage.p7", `[{`+plain+`},`)
	testenv.Eventually(s.t, "the good ones are booked", func() bool { return s.rows() == 4 })
	testenv.Eventually(s.t, "the bad ones are quarantined", func() bool { return len(s.quarantined()) == 7 })

	got := map[string]string{}
	for _, e := range s.quarantined() {
		whole, err := s.ops.QuarantineShow(t.Context(), e.Sequence)
		if err != nil {
			t.Fatal(err)
		}
		got[fmt.Sprintf("%s on %s", whole.Origin, whole.Subject)] = string(whole.Reason) + " " + string(whole.Payload)
	}
	want := map[string]string{
		"AI_USAGE #1, event 4 on ai.usage":    `unknown_version {"port_id":"p3","v":2,` + plain + `}`,
		"AI_USAGE #1, event 5 on ai.usage":    "malformed \"\xff\"",
		"AI_USAGE #1, event 7 on ai.usage":    `id_conflict {"port_id":"p1","id":"` + twice + `","feature":"another","provider":"openai","model":"m"}`,
		"AI_USAGE #1, event 8 on ai.usage":    `invalid_field {` + plain + `}`,
		"AI_USAGE #1, event 9 on ai.usage":    `malformed {"port_id":"p4",` + plain + `,"feature":"twice named"}`,
		"AI_USAGE #2, event 2 on ai.usage.p5": `port_mismatch {"port_id":"p6",` + plain + `}`,
		"AI_USAGE #3 on ai.usage.p7":          `malformed [{` + plain + `},`,
	}
	if !maps.Equal(got, want) {
		t.Errorf("quarantined:\n%q\nwant:\n%q", got, want)
	}
	for port, tokens := range map[string]int64{"p1": 1, "p2": 2, "p5": 1} {
		if n := s.booked(port); n != tokens {
			t.Errorf("%s has %d tokens, want %d", port, n, tokens)
		}
	}
	s.eventuallySettled()
	if !s.verified() {
		t.Error("verify finds differences")
	}
}

// The id of an event without one comes from its place in the stream, and in its message.
// It keeps that through quarantine and replay.
func TestEventsOfAMessageAreReplayedOnce(t *testing.T) {
	t.Parallel()
	s := start(t, options{ledger: ledgerOfKnownPorts})
	one := `{` + plain + `}`
	s.publishRaw("ai.usage.newcomer", `[`+one+`,`+one+`,`+one+`]`)
	testenv.Eventually(s.t, "all are quarantined", func() bool { return len(s.quarantined()) == 3 })
	s.setBudget("newcomer", -1, 1000, events.PeriodMonth) // registers the port
	for _, e := range s.quarantined() {
		if err := s.ops.QuarantineReplay(t.Context(), e.Sequence); err != nil {
			t.Fatal(err)
		}
	}
	testenv.Eventually(s.t, "they are booked, each by itself", func() bool { return s.rows() == 3 })
	stream := testenv.Must(s.js.Stream(t.Context(), events.UsageStream))
	for sequence := uint64(2); sequence <= 4; sequence++ {
		raw := testenv.Must(stream.GetMsg(t.Context(), sequence))
		again := &nats.Msg{Subject: raw.Subject, Data: raw.Data, Header: maps.Clone(raw.Header)}
		testenv.Must(s.js.PublishMsg(t.Context(), again))
	}
	s.spend("newcomer", 100, time.Time{}) // comes after them
	if n := s.rows(); n != 4 {
		t.Errorf("%d rows, want 4: the three, sent back twice, and the one after them", n)
	}
}

// An array within an array is no event. Sent back by itself it is a message of several
// events, none of which is one of its former neighbours.
func TestNestedEventsAreNotTheirNeighbours(t *testing.T) {
	t.Parallel()
	s := start(t, options{})
	one := `{` + plain + `}`
	s.publishRaw("ai.usage.p1", `[[`+one+`,`+one+`],`+one+`,`+one+`]`)
	testenv.Eventually(s.t, "the others are booked", func() bool { return s.rows() == 2 })
	testenv.Eventually(s.t, "it is quarantined", func() bool { return len(s.quarantined()) == 1 })
	if err := s.ops.QuarantineReplay(t.Context(), s.quarantined()[0].Sequence); err != nil {
		t.Fatal(err)
	}
	testenv.Eventually(s.t, "its events are booked beside them", func() bool { return s.rows() == 4 })
}

// A message whose events are booked by two writers, of which one does not come to it
// before the drain deadline, goes back to the stream.
func TestMessageIsHandedBackIfPartOfItIsNotBooked(t *testing.T) {
	t.Parallel()
	s := start(t, options{noRoles: true})
	ensureStreams(t, s.js)
	const ports, each = 40, 300 // more than one writer books
	var all []events.Usage
	for i := range ports * each {
		all = append(all, usage(fmt.Sprintf("port-%d", i%ports), 10))
	}
	first := usage("port-0", 10) // makes the row that is locked below
	id := events.NewUUIDv7(time.Now())
	first.ID = id.String()
	testenv.Must(s.ledger.Book(t.Context(), []ledger.Entry{{ID: id, At: events.UUIDv7Time(id), Usage: first}}))
	shared := testenv.Must(events.NewPublisher(s.nc, events.PublisherConfig{SharedSubject: true}))
	defer shared.Close(context.Background())
	if err := shared.Publish(t.Context(), all); err != nil {
		t.Fatal(err)
	}
	stream := testenv.Must(s.js.Stream(t.Context(), events.UsageStream))
	if n := testenv.Must(stream.Info(t.Context())).State.Msgs; n > ports*each/10 {
		t.Fatalf("%d events came in %d messages: the test proves nothing", len(all), n)
	}
	busy := testenv.Must(s.db.Begin(t.Context()))
	testenv.Must(busy.Exec(t.Context(), "select from ai_usage_port_days where port_id = 'port-0' for update"))

	run := func(ctx context.Context) error {
		return testenv.Must(consumer.New(consumer.Config{Conn: testenv.Connect(t, s.nats), Ledger: s.ledger, AckWait: time.Minute, DrainTimeout: 500 * time.Millisecond})).Run(ctx)
	}
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- run(ctx) }()
	testenv.Eventually(s.t, "one writer has booked", func() bool { return s.rows() > 1 })
	stop()
	if err := testenv.Await(t, "the consumer ends", ended); err != nil {
		t.Errorf("the consumer ended with %v", err)
	}
	if n := s.rows(); n > ports*each {
		t.Fatalf("all %d events are booked although a total was locked", n)
	}
	if err := busy.Rollback(t.Context()); err != nil {
		t.Fatal(err)
	}
	s.background(run)
	testenv.Eventually(s.t, "the next consumer has booked the rest", func() bool { return s.rows() == ports*each+1 })
	s.eventuallySettled()
	if v := testenv.Must(s.ledger.Verify(t.Context(), time.Now(), nil)); len(v.Differences) > 0 {
		t.Errorf("verify finds %+v", v.Differences)
	}
}
