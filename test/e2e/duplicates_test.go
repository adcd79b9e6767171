package e2e

import (
	"context"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/tidegate/tidegate/consumer/quarantine"
	"github.com/tidegate/tidegate/events"
	"github.com/tidegate/tidegate/internal/testenv"
)

// storeAs publishes with a message id until JetStream stores it: that long the id may be
// of a message before.
func (s *system) storeAs(id, subject, body string) {
	s.t.Helper()
	testenv.Eventually(s.t, "JetStream stores "+body, func() bool {
		return !testenv.Must(s.js.PublishMsg(s.t.Context(), &nats.Msg{Subject: subject, Data: []byte(body), Header: nats.Header{jetstream.MsgIDHeader: {id}}})).Duplicate
	})
}

// inQuarantine are the payloads in the quarantine, sorted, with the reasons.
func (s *system) inQuarantine() (all []string) {
	s.t.Helper()
	for _, e := range testenv.Must(quarantine.Open(s.js).List(s.t.Context(), 0, 100)) {
		all = append(all, string(e.Reason)+" "+string(e.Payload))
	}
	slices.Sort(all)
	return all
}

func (s *system) eventuallyHeld(want ...string) {
	s.t.Helper()
	slices.Sort(want)
	var got []string
	for end := time.Now().Add(20 * time.Second); !slices.Equal(got, want); time.Sleep(5 * time.Millisecond) {
		if got = s.inQuarantine(); time.Now().After(end) {
			s.t.Fatalf("the quarantine holds\n%q\nwant\n%q", got, want)
		}
	}
}

func (s *system) eventuallySettled() {
	s.t.Helper()
	testenv.Eventually(s.t, "nothing waits in the stream", func() bool { return s.waiting() == 0 })
}

func (s *system) wantRows(n int) {
	s.t.Helper()
	if v := testenv.Must(s.ledger.Verify(s.t.Context(), time.Now(), nil)); s.rows() != n || len(v.Differences) > 0 {
		s.t.Errorf("%d rows, want %d, and no differences: %+v", s.rows(), n, v.Differences)
	}
}

// Whether an event is known is for the ledger to say, which compares, whatever its senders
// put into Nats-Msg-Id, and however soon it comes again.
func TestLedgerDecidesWhatIsADuplicate(t *testing.T) {
	t.Parallel()
	s := start(t, options{gates: -1})
	today := time.Now()
	calls := func(port string) (list []events.Usage) {
		for _, c := range []struct{ hour, tokens int64 }{{0, 100}, {0, 100}, {0, 900}, {1, 7000}} {
			list = append(list, events.Usage{ID: "call-1", OccurredAt: today.Add(time.Duration(c.hour-24) * time.Hour),
				PortID: port, Feature: "f", Provider: "p", Model: "m", InputTokens: c.tokens})
		}
		return list
	}
	body := func(u events.Usage) string { return string(u.AppendJSON(nil)) }
	for _, u := range calls("a") {
		s.storeAs("a:call-1", "ai.usage.a", body(u))
	}
	for _, u := range calls("b") {
		s.publisher.Record(u)
	}
	s.flush()
	s.eventuallyHeld("id_conflict "+body(calls("a")[2]), "id_conflict "+body(calls("b")[2]))
	s.eventuallySettled()
	for _, port := range []string{"a", "b"} {
		if n := s.booked(port); n != 7100 {
			t.Errorf("port %s has %d tokens, want 100 and 7,000", port, n)
		}
	}
	s.wantRows(4)
}

// What is published again, alone, in a batch, in one message or in other company, is stored
// again and booked once.
func TestEventsPublishedAgainAreBookedOnce(t *testing.T) {
	t.Parallel()
	s := start(t, options{gates: -1})
	shared := testenv.Must(events.NewPublisher(s.nc, events.PublisherConfig{SharedSubject: true}))
	defer shared.Close(context.Background())
	all := make([]events.Usage, 400)
	for i := range all {
		all[i] = usage([]string{"p1", "p2", "p3"}[i%3], 10)
	}
	for _, p := range []*events.Publisher{s.publisher, s.publisher, shared, shared} { // the ids are in the slice from the first on
		for _, usages := range [][]events.Usage{all, all[:1], all[10:300]} {
			if err := p.Publish(t.Context(), usages); err != nil {
				t.Fatal(err)
			}
		}
	}
	s.publisher.Record(all[0])
	s.publisher.Record(all[0])
	s.flush()
	testenv.Eventually(s.t, "all are booked", func() bool { return s.rows() >= len(all) })
	s.eventuallySettled()
	s.wantRows(len(all))
	s.eventuallyHeld()
}

// A text id without a time is no identity. What is recorded so is not lost, and counts once
// it was mended, not once for each time it was sent.
func TestTextIDWithoutATimeIsQuarantined(t *testing.T) {
	t.Parallel()
	s := start(t, options{gates: -1})
	u := events.Usage{ID: "row-17", PortID: "p1", Feature: "f", Provider: "p", Model: "m", InputTokens: 100}
	s.publisher.Record(u)
	s.publisher.Record(u)
	s.flush()
	bad := "invalid_field " + string(u.AppendJSON(nil))
	s.eventuallyHeld(bad, bad)
	if n := s.rows(); n != 0 {
		t.Errorf("%d rows, want none", n)
	}
	if n := s.publisher.Stats().Invalid; n != 2 {
		t.Errorf("%d events are counted as invalid, want 2", n)
	}
}

// A stream of before remembers message ids for ten minutes. It is mended, together with
// what it remembers, when a consumer starts.
func TestOlderStreamForgetsMessageIDs(t *testing.T) {
	t.Parallel()
	s := start(t, options{noRoles: true})
	ensureStreams(t, s.js)
	cfg := testenv.Must(s.js.Stream(t.Context(), events.UsageStream)).CachedInfo().Config
	cfg.Duplicates, cfg.MaxAge, cfg.Description = 10*time.Minute, 90*24*time.Hour, "ours"
	testenv.Must(s.js.UpdateStream(t.Context(), cfg))
	s.storeAs("x", "ai.usage.p1", `{"id":"1","occurred_at":"`+time.Now().UTC().Format(time.RFC3339)+`",`+plain+`}`)
	s.options.gates = -1
	s.run()
	s.storeAs("x", "ai.usage.p1", `{"id":"2","occurred_at":"`+time.Now().UTC().Format(time.RFC3339)+`",`+plain+`}`)
	testenv.Eventually(s.t, "both are booked", func() bool { return s.rows() == 2 })
	now := testenv.Must(s.js.Stream(t.Context(), events.UsageStream)).CachedInfo().Config
	cfg.Duplicates, cfg.Metadata, now.Metadata = 100*time.Millisecond, nil, nil
	if now.Duplicates != cfg.Duplicates || now.MaxAge != cfg.MaxAge || now.Description != cfg.Description || !now.DenyPurge || !slices.Equal(now.Subjects, cfg.Subjects) {
		t.Errorf("the stream is now %+v, want only its window changed: %+v", now, cfg)
	}
}

// Two events that had the same place in two streams are two events.
func TestQuarantineKnowsOneStreamFromTheNext(t *testing.T) {
	t.Parallel()
	s := start(t, options{gates: -1})
	wide := "x" + strings.Repeat("ä", 150) // the list shows its first 200 bytes, which end amid a character
	s.publishRaw("ai.usage.p1", wide)
	s.eventuallyHeld("malformed " + wide)
	if shown := s.quarantined()[0].Text; shown != wide[:199] {
		t.Errorf("the list shows %q, want %q", shown, wide[:199])
	}
	s.eventuallySettled()
	if err := s.js.DeleteStream(t.Context(), events.UsageStream); err != nil {
		t.Fatal(err)
	}
	testenv.Eventually(s.t, "the stream is there again", func() bool {
		_, err := s.js.Consumer(t.Context(), events.UsageStream, events.ConsumerName)
		return err == nil
	})
	s.publishRaw("ai.usage.p1", "another")
	s.eventuallyHeld("malformed "+wide, "malformed another")
	s.publishRaw("ai.usage.p1", wide) // the same bytes, and not the same event
	s.eventuallyHeld("malformed "+wide, "malformed another", "malformed "+wide)
}

// JetStream's word that it has a copy already is proven before the event leaves the stream.
func TestQuarantineProvesWhatIsCalledADuplicate(t *testing.T) {
	t.Parallel()
	s := start(t, options{noRoles: true, gates: -1})
	ensureStreams(t, s.js)
	for _, body := range []string{"taken", "gone", "copied"} {
		s.publishRaw("ai.usage.p1", body)
	}
	reader := testenv.Must(s.js.OrderedConsumer(t.Context(), events.UsageStream, jetstream.OrderedConsumerConfig{}))
	copies := map[string]*nats.Msg{} // as a consumer sends them that dies before it says so
	for range 3 {
		msg := testenv.Must(reader.Next())
		copies[string(msg.Data())] = testenv.Must(quarantine.Copy(msg, msg.Data(), 0, &events.FieldError{Reason: events.ReasonMalformed}))
	}
	foreign := &nats.Msg{Subject: "ai.quarantine.x", Data: []byte("foreign"), Header: maps.Clone(copies["taken"].Header)}
	testenv.Must(s.js.PublishMsg(t.Context(), foreign))
	gone := testenv.Must(s.js.PublishMsg(t.Context(), copies["gone"]))
	if err := testenv.Must(s.js.Stream(t.Context(), events.QuarantineStream)).DeleteMsg(t.Context(), gone.Sequence); err != nil { // it was replayed
		t.Fatal(err)
	}
	testenv.Must(s.js.PublishMsg(t.Context(), copies["copied"]))
	s.run()
	s.eventuallySettled()
	s.eventuallyHeld("malformed foreign", "malformed taken", "malformed gone", "malformed copied")
}

// An event is taken out of the quarantine only once the usage stream has it.
func TestReplayIsProven(t *testing.T) {
	t.Parallel()
	s := start(t, options{gates: -1, ledger: ledgerOfKnownPorts})
	s.publishRaw("ai.usage.p1", `{`+plain+`}`)
	s.eventuallyHeld("unknown_port {" + plain + "}")
	testenv.Must(s.db.Exec(t.Context(), "insert into ports (id, name) values ('p1', 'p1')"))
	s.storeAs("r:1", "ai.usage.p1", `{`+plain+`,"model":"twice named"}`) // whatever id a replay may have
	testenv.Eventually(s.t, "that one is held too", func() bool { return len(s.inQuarantine()) == 2 })
	if err := s.ops.QuarantineReplay(t.Context(), 1); err != nil {
		t.Fatal(err)
	}
	testenv.Eventually(s.t, "what was sent back is booked", func() bool { return s.rows() == 1 })
	sent := testenv.Must(testenv.Must(s.js.Stream(t.Context(), events.UsageStream)).GetMsg(t.Context(), 3))
	if id := sent.Header.Get(jetstream.MsgIDHeader); id != "" {
		t.Errorf("it was sent back with message id %q", id)
	}

	// Another stream takes what was published elsewhere, for all it says.
	testenv.Must(s.js.CreateStream(t.Context(), jetstream.StreamConfig{Name: "ELSEWHERE", Subjects: []string{"elsewhere"}}))
	astray := testenv.Must(s.js.PublishMsg(t.Context(), &nats.Msg{Subject: "ai.quarantine.x", Data: []byte("astray"),
		Header: nats.Header{"Tidegate-Subject": {"elsewhere"}, "Tidegate-Time": {time.Now().UTC().Format(time.RFC3339Nano)}}}))
	if err := s.ops.QuarantineReplay(t.Context(), astray.Sequence); err == nil || !strings.Contains(err.Error(), "it stays") {
		t.Errorf("an event that no usage stream takes was sent back: %v", err)
	}
	s.eventuallyHeld(" astray", `malformed {`+plain+`,"model":"twice named"}`)
}
