package e2e

import (
	"context"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/tidegate/tidegate/consumer"
	"github.com/tidegate/tidegate/consumer/quarantine"
	"github.com/tidegate/tidegate/consumer/stream"
	"github.com/tidegate/tidegate/events"
	"github.com/tidegate/tidegate/internal/testenv"
	"github.com/tidegate/tidegate/ledger"
)

// Rows that went missing in another way come back by hand, from a time on.
func TestRebook(t *testing.T) {
	t.Parallel()
	var log testenv.Buffer
	s := start(t, options{consumer: func(c *consumer.Config) { c.Logger = slog.New(slog.NewTextHandler(&log, nil)) }})
	s.spend("p1", 100, time.Now())
	since := time.Now()
	s.spend("p1", 200, time.Now())
	s.spend("p2", 300, time.Now())
	s.forget("ai_usage_ledger", "ai_usage_totals", "ai_usage_port_days")
	rebook := func(since time.Time, messages uint64) {
		t.Helper()
		at, err := s.ops.Rebook(t.Context(), since)
		if err != nil || at.Behind() != messages {
			t.Fatalf("rebook: %+v, %v, want %d messages behind", at, err, messages)
		}
		testenv.Eventually(s.t, "it is booked again", func() bool {
			at, err := s.ops.Position(t.Context())
			return err == nil && at.Behind() == 0
		})
	}
	rebook(since, 2)
	if p1, p2 := s.booked("p1"), s.booked("p2"); p1 != 200 || p2 != 300 {
		t.Errorf("p1 has %d and p2 %d tokens, want 200 and 300: what came after", p1, p2)
	}
	rebook(time.Time{}, 3)
	if p1, p2 := s.booked("p1"), s.booked("p2"); p1 != 300 || p2 != 300 {
		t.Errorf("p1 has %d and p2 %d tokens, want 300 each", p1, p2)
	}
	testenv.Eventually(s.t, "everything agrees", s.verified)

	// A copy of the database that is older than the stream does not know of it.
	s.forget("ai_usage_ledger", "ai_usage_totals", "ai_usage_port_days", "ai_usage_streams", "ai_booked_shares")
	testenv.Eventually(s.t, "all of the stream is booked again", func() bool { return s.booked("p1") == 300 && s.booked("p2") == 300 })
	testenv.Eventually(s.t, "everything agrees again", s.verified)
	if strings.Contains(log.String(), "had left the stream") {
		t.Error("the log says that messages had left the stream, which has all of them")
	}

	// By now the stream has dropped the first three by their age.
	usageStream := testenv.Must(s.js.Stream(t.Context(), events.UsageStream)).CachedInfo().Config
	for _, age := range []time.Duration{100 * time.Millisecond, usageStream.MaxAge} {
		usageStream.MaxAge = age
		testenv.Must(s.js.UpdateStream(t.Context(), usageStream))
		testenv.Eventually(s.t, "they have left the stream", func() bool {
			return testenv.Must(s.js.Stream(t.Context(), events.UsageStream)).CachedInfo().State.Msgs == 0
		})
	}
	s.spend("p3", 400, time.Now())
	rebook(time.Time{}, 1) // they may all be booked: only the stream cannot tell
	s.forget("ai_usage_ledger", "ai_usage_totals", "ai_usage_port_days", "ai_usage_streams", "ai_booked_shares")
	testenv.Eventually(s.t, "what the stream has left is booked again", func() bool { return s.booked("p3") == 400 })
	testenv.Eventually(s.t, "everything agrees", s.verified)
	if said := log.String(); strings.Count(said, "had left the stream") != 1 || !strings.Contains(said, "messages=3") {
		t.Error("the log does not say, once, that 3 messages had left the stream")
	}
}

// forget makes the database one that lacks all rows of some tables.
func (s *system) forget(tables ...string) {
	s.t.Helper()
	for _, table := range tables {
		if _, err := s.db.Exec(s.t.Context(), "delete from "+table); err != nil {
			s.t.Fatal(err)
		}
	}
}

// bookings is a ledger of which a test hears when something was committed.
type bookings struct {
	*ledger.Ledger
	mu        sync.Mutex
	committed func() // is called once
}

func (b *bookings) BookShare(ctx context.Context, share ledger.Share, entries []ledger.Entry) (ledger.Booking, error) {
	booking, err := b.Ledger.BookShare(ctx, share, entries)
	b.mu.Lock()
	defer b.mu.Unlock()
	if err == nil && b.committed != nil {
		b.committed()
		b.committed = nil
	}
	return booking, err
}

func (b *bookings) next(committed func()) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.committed = committed
}

// Booking again passes over nothing that the stream has: neither a message that does not
// arrive, nor a refused one that is in hand when the consumer ends.
func TestBookingAgainIsDisturbed(t *testing.T) {
	t.Parallel()
	s := start(t, options{noRoles: true})
	b := &bookings{Ledger: s.ledger}
	c := testenv.Must(consumer.New(consumer.Config{Conn: testenv.Connect(t, s.nats), Ledger: b, BatchSize: 2}))
	ctx, end := context.WithCancel(t.Context())
	defer end()
	ended := make(chan error, 1)
	go func() { ended <- c.Run(ctx) }()
	settled := func() bool { return c.Health() == nil && s.waiting() == 0 }
	testenv.Eventually(s.t, "it runs", func() bool { return c.Health() == nil })
	s.publishEach(s.publisher, 0, 1, 2, 3, 4, 5)
	testenv.Eventually(s.t, "all are booked", func() bool { return s.rows() == 6 && settled() })

	tracked := testenv.Must(stream.Compare(t.Context(), s.js, s.ledger)).Stream
	again := func(from uint64, meanwhile func()) {
		b.next(meanwhile)
		if err := s.ledger.Unbook(t.Context(), tracked, from); err != nil {
			t.Fatal(err)
		}
	}
	s.forget("ai_usage_ledger", "ai_usage_totals", "ai_usage_port_days")
	again(1, func() {
		testenv.Must(testenv.Must(s.js.Consumer(t.Context(), events.UsageStream, "ai-usage-rebook")).Next())
	})
	testenv.Eventually(s.t, "all are booked again, also the one that somebody else got", func() bool { return s.rows() == 6 })

	s.publishRaw("ai.usage.p1", "nonsense")
	s.eventuallyHeld("malformed nonsense")
	testenv.Eventually(s.t, "it is settled", settled)
	held := testenv.Must(quarantine.Open(s.js).List(t.Context(), 1, 1))
	if err := testenv.Must(s.js.Stream(t.Context(), events.QuarantineStream)).DeleteMsg(t.Context(), held[0].Sequence); err != nil {
		t.Fatal(err)
	}
	again(7, end)
	if err := testenv.Await(t, "the consumer ends", ended); err != nil {
		t.Fatal(err)
	}
	if _, err := s.db.Exec(t.Context(), "update ai_usage_streams set rebooking_until = null"); err != nil { // as after ten seconds
		t.Fatal(err)
	}
	s.runConsumer(s.ledger)
	s.eventuallyHeld("malformed nonsense")
}
