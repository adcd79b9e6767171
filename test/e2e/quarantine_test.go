package e2e

import (
	"bytes"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/tidegate/tidegate/consumer/quarantine"
	"github.com/tidegate/tidegate/consumer/stream"
	"github.com/tidegate/tidegate/events"
	"github.com/tidegate/tidegate/internal/testenv"
)

func (s *system) quarantined() []quarantine.Event {
	s.t.Helper()
	var list []quarantine.Event
	if err := s.ops.Quarantine(s.t.Context(), func(e quarantine.Event) bool {
		list = append(list, e)
		return true
	}); err != nil {
		s.t.Fatal(err)
	}
	return list
}

func (s *system) publishRaw(subject, body string) {
	s.t.Helper()
	if _, err := s.js.Publish(s.t.Context(), subject, []byte(body)); err != nil {
		s.t.Fatal(err)
	}
}

const plain = `"feature":"ocr","provider":"openai","model":"m","input_tokens":1`

// TestBatchWithBadEvents puts 7 bad events of different kinds among 5,000 before
// the consumer starts, so that they come in one batch.
func TestBatchWithBadEvents(t *testing.T) {
	t.Parallel()
	s := start(t, options{noRoles: true})
	ensureStreams(t, s.js)
	twice := events.NewUUIDv7(time.Now()).String()
	bad := []struct{ reason, subject, body string }{
		{"malformed", "ai.usage.p1", "\xff\x00 not JSON"},
		{"invalid_field", "ai.usage.p1", `{"feature":"ocr","provider":"openai","model":"m","input_tokens":-5}`},
		{"unknown_version", "ai.usage.p1", `{"v":2,` + plain + `}`},
		{"port_mismatch", "ai.usage.p1", `{"port_id":"p2",` + plain + `}`},
		{"time_in_future", "ai.usage.p1", `{"occurred_at":"` + time.Now().Add(time.Hour).UTC().Format(time.RFC3339) + `",` + plain + `}`},
		{"time_too_old", "ai.usage.p1", `{"occurred_at":"1999-12-31T23:59:59Z",` + plain + `}`},
		{"id_conflict", "ai.usage.p1", `{"id":"` + twice + `","feature":"another","provider":"openai","model":"m"}`},
	}
	var batch []events.Usage
	for i := range 4_993 {
		u := usage(fmt.Sprintf("p%d", i%7), int64(i))
		if i == 0 {
			u.ID, u.PortID = twice, "p1"
		}
		batch = append(batch, u)
	}
	if err := s.publisher.Publish(t.Context(), batch[:2500]); err != nil {
		t.Fatal(err)
	}
	for _, b := range bad {
		s.publishRaw(b.subject, b.body)
	}
	if err := s.publisher.Publish(t.Context(), batch[2500:]); err != nil {
		t.Fatal(err)
	}
	s.run()

	testenv.Eventually(s.t, "4,993 rows are booked", func() bool { return s.rows() == 4_993 })
	testenv.Eventually(s.t, "7 events are quarantined", func() bool { return len(s.quarantined()) == len(bad) })
	found := map[string]quarantine.Event{}
	for _, e := range s.quarantined() {
		whole, err := s.ops.QuarantineShow(t.Context(), e.Sequence)
		if err != nil {
			t.Fatal(err)
		}
		found[string(whole.Reason)] = whole
	}
	for _, b := range bad {
		e, ok := found[b.reason]
		if !ok {
			t.Errorf("nothing was quarantined as %s", b.reason)
			continue
		}
		if !bytes.Equal(e.Payload, []byte(b.body)) || e.Subject != b.subject || e.Origin.Sequence == 0 || !strings.HasPrefix(e.Error, b.reason) {
			t.Errorf("%s: %+v, want the raw bytes %q, its subject, where it came from and an error", b.reason, e, b.body)
		}
	}
	if !s.verified() {
		t.Error("verify finds differences")
	}
}

func (s *system) rows() (n int) {
	s.t.Helper()
	if err := s.db.QueryRow(s.t.Context(), "select count(*) from ai_usage_ledger").Scan(&n); err != nil {
		s.t.Fatal(err)
	}
	return n
}

func TestQuarantineReplayBooksWhatBecameValid(t *testing.T) {
	t.Parallel()
	s := start(t, options{ledger: ledgerOfKnownPorts})
	ahead := time.Now().Add(time.Hour)
	s.publishRaw("ai.usage.newcomer", `{`+plain+`}`)
	s.publishRaw("ai.usage.newcomer", `{"occurred_at":"`+ahead.UTC().Format(time.RFC3339)+`",`+plain+`}`)
	s.publishRaw("ai.usage.newcomer", `nonsense`)
	testenv.Eventually(s.t, "all three are quarantined", func() bool { return len(s.quarantined()) == 3 })

	s.setBudget("newcomer", -1, 1000, events.PeriodMonth) // registers the port
	for _, e := range s.quarantined() {
		if err := s.ops.QuarantineReplay(t.Context(), e.Sequence); err != nil {
			t.Fatal(err)
		}
	}
	testenv.Eventually(s.t, "the one whose port is known now is booked", func() bool { return s.rows() == 1 })
	testenv.Eventually(s.t, "the others are back", func() bool { return len(s.quarantined()) == 2 })

	// Sent back twice, an event without an id is still one event: its id comes from its first arrival.
	var id string
	if err := s.db.QueryRow(t.Context(), "select id::text from ai_usage_ledger").Scan(&id); err != nil {
		t.Fatal(err)
	}
	replayed := nats.NewMsg("ai.usage.newcomer")
	replayed.Data = []byte(`{` + plain + `}`)
	raw, err := testenv.Must(s.js.Stream(t.Context(), events.UsageStream)).GetMsg(t.Context(), 4)
	if err != nil {
		t.Fatal(err)
	}
	for name, values := range raw.Header {
		replayed.Header[name] = values
	}
	if _, err := s.js.PublishMsg(t.Context(), replayed); err != nil {
		t.Fatal(err)
	}
	s.spend("newcomer", 100, time.Time{}) // comes after it
	if n := s.rows(); n != 2 {
		t.Errorf("%d rows, want 2: the replayed event and the one after it", n)
	}
}

func TestQuarantineShowAndReplayOfNothing(t *testing.T) {
	t.Parallel()
	s := start(t, options{})
	if _, err := s.ops.QuarantineShow(t.Context(), 42); err == nil || !strings.Contains(err.Error(), "404") {
		t.Errorf("show of nothing: %v, want a 404", err)
	}
	if err := s.ops.QuarantineReplay(t.Context(), 42); err == nil || !strings.Contains(err.Error(), "404") {
		t.Errorf("replay of nothing: %v, want a 404", err)
	}
}

// A confused deputy: whoever publishes an event with a reply to another port's
// subject makes the server store its own acknowledgement there.
func TestAcknowledgementOnAnotherPortsSubjectIsQuarantined(t *testing.T) {
	t.Parallel()
	s := start(t, options{})
	if err := s.nc.PublishRequest("ai.usage.p1", "ai.usage.victim", []byte(`{`+plain+`}`)); err != nil {
		t.Fatal(err)
	}
	testenv.Eventually(s.t, "the acknowledgement is quarantined", func() bool {
		list := s.quarantined()
		return len(list) == 1 && list[0].Subject == "ai.usage.victim"
	})
	if n := s.booked("victim"); n != 0 {
		t.Errorf("the victim paid %d tokens", n)
	}
}

// A consumer is killed after its commit and before it copied what it refused, and then the
// durable goes away, which would have brought the message again: it does not count as booked.
// So it is with an event that only the ledger refuses.
func TestKilledBeforeWhatIsRefusedIsCopied(t *testing.T) {
	t.Parallel()
	binary := testenv.Killable(t)
	const id = `"id":"a","occurred_at":"2026-11-01T00:00:00Z","feature":"ocr","provider":"p","model":"m","input_tokens":`
	for name, message := range map[string]string{
		"refused before it is booked": `[{"port_id":"p1",` + plain + `},{"port_id":"p1","feature":"bad"}]`,
		"refused by the ledger":       `[{"port_id":"p1",` + id + `1},{"port_id":"p1",` + id + `2}]`,
	} {
		t.Run(name, func(t *testing.T) {
			s := start(t, options{noRoles: true})
			killed := spawn(t, binary, []string{"TIDEGATE_KILLPOINT=after-commit:2"}, "--nats-url", s.nats.ClientURL(), "--database-url", s.url, "--roles", "consumer")
			killed.awaitReady()
			s.publishRaw("ai.usage.p1", "{"+plain+"}")
			testenv.Eventually(s.t, "it is booked", func() bool { return s.rows() == 1 })
			s.publishRaw("ai.usage", message)
			if !killed.wait(time.Minute) {
				t.Fatalf("not killed:\n%s", killed.out)
			}
			// As another consumer does: a new durable begins after what is booked by then.
			at := testenv.Must(stream.Compare(t.Context(), s.js, s.ledger))
			if err := s.ledger.FoldBooked(t.Context(), at.Stream, at.Last); err != nil {
				t.Fatal(err)
			}
			if err := s.js.DeleteConsumer(t.Context(), events.UsageStream, events.ConsumerName); err != nil {
				t.Fatal(err)
			}
			s.run()
			testenv.Eventually(s.t, "the refused event is quarantined", func() bool { return len(s.quarantined()) == 1 })
			testenv.Eventually(s.t, "the other is booked, and nothing is behind", func() bool { return s.rows() == 2 && s.consumer.Health() == nil && s.verified() })
		})
	}
}

// While a refused event is copied, Postgres is put back to a copy from before its neighbour
// was booked.
func TestPutBackWhileWhatIsRefusedIsCopied(t *testing.T) {
	t.Parallel()
	s := start(t, options{})
	s.publishRaw("ai.usage.p1", "{"+plain+"}")
	testenv.Eventually(s.t, "it is booked", func() bool { return s.rows() == 1 })
	older := s.snapshot()
	if err := s.js.DeleteStream(t.Context(), events.QuarantineStream); err != nil {
		t.Fatal(err)
	}
	full := jetstream.StreamConfig{Name: "FULL", Subjects: []string{events.SubjectQuarantine + ".>"}, MaxBytes: 1, Discard: jetstream.DiscardNew}
	if _, err := s.js.CreateStream(t.Context(), full); err != nil {
		t.Fatal(err)
	}
	s.publishRaw("ai.usage", `[{"port_id":"p1",`+plain+`},{"port_id":"p1","feature":"bad"}]`)
	testenv.Eventually(s.t, "the good one is booked", func() bool { return s.rows() == 2 })
	older.restore(t, 0)
	s.reconnected()
	if n := s.rows(); n != 1 {
		t.Fatalf("%d events in the older copy, want 1", n)
	}
	if err := s.js.DeleteStream(t.Context(), full.Name); err != nil {
		t.Fatal(err)
	}
	testenv.Eventually(s.t, "the refused event is quarantined", func() bool { return len(s.quarantined()) == 1 })
	testenv.Eventually(s.t, "the other is booked, and nothing is behind", func() bool { return s.rows() == 2 && s.consumer.Health() == nil && s.verified() })
}
