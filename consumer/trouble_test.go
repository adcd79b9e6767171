package consumer

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/tidegate/tidegate/consumer/quarantine"
	"github.com/tidegate/tidegate/internal/testenv"
	"github.com/tidegate/tidegate/ledger"
)

func TestMain(m *testing.M) { testenv.Main(m) }

// readOnly is a ledger whose way to Postgres ends at a standby while it is on.
type readOnly struct {
	*ledger.Ledger
	on    atomic.Bool
	tried atomic.Int64 // entries in the first booking that it refused
}

func (l *readOnly) BookShare(ctx context.Context, share ledger.Share, entries []ledger.Entry) (ledger.Booking, error) {
	if l.on.Load() {
		l.tried.CompareAndSwap(0, int64(len(entries)))
		return ledger.Booking{}, &pgconn.PgError{Code: "25006", Message: "cannot execute INSERT in a read-only transaction"}
	}
	return l.Ledger.BookShare(ctx, share, entries)
}

// A consumer whose Postgres takes nothing leaves to others what it has fetched, and fetches no
// more. Once it can book again, nothing is there twice, in the ledger or in the quarantine.
func TestAConsumerInTroubleLeavesItsEventsToOthers(t *testing.T) {
	t.Parallel()
	n, url := testenv.NATS(t), testenv.Database(t)
	l := testenv.Must(ledger.Open(t.Context(), ledger.Config{URL: url}))
	t.Cleanup(l.Close)
	ctx, stop := context.WithCancel(t.Context())
	var running sync.WaitGroup
	t.Cleanup(func() { stop(); running.Wait() })
	start := func(l Ledger) *Consumer {
		c := testenv.Must(New(Config{Conn: testenv.Connect(t, n), Ledger: l}))
		running.Go(func() {
			if err := c.Run(ctx); err != nil {
				t.Error(err)
			}
		})
		testenv.Eventually(t, "it is well", func() bool { return c.Health() == nil })
		return c
	}
	troubled := &readOnly{Ledger: l}
	first := start(troubled)
	js := testenv.Must(jetstream.New(testenv.Connect(t, n)))
	// As after an outage that is longer than JetStream remembers copies.
	short := testenv.Must(js.Stream(t.Context(), "AI_QUARANTINE")).CachedInfo().Config
	short.Duplicates = 100 * time.Millisecond
	testenv.Must(js.UpdateStream(t.Context(), short))
	const batch = 20
	publish := func() {
		for range batch {
			event := fmt.Sprintf(`{"v":1,"id":%q,"feature":"ocr","provider":"p","model":"m","input_tokens":1}`, testenv.Must(uuid.NewV7()))
			if _, err := js.PublishAsync("ai.usage.p1", []byte(event)); err != nil {
				t.Fatal(err)
			}
		}
		if _, err := js.PublishAsync("ai.usage.p1", []byte("nonsense")); err != nil {
			t.Fatal(err)
		}
		<-js.PublishAsyncComplete()
	}
	booked := func() int64 { return testenv.Must(l.Verify(t.Context(), time.Now(), nil)).Rows }

	troubled.on.Store(true)
	publish()
	testenv.Eventually(t, "the first has some of them in hand", func() bool { return troubled.tried.Load() > 0 })
	second := start(l)
	publish()
	testenv.Eventually(t, "the second books all", func() bool { return booked() == 2*batch })
	if err := first.Health(); err == nil || !strings.Contains(err.Error(), "events cannot be booked since") {
		t.Errorf("the first says of itself: %v", err)
	}
	if at := testutil.ToFloat64(second.metrics.lastBooking); time.Since(time.Unix(int64(at), 0)) > time.Minute || testutil.ToFloat64(first.metrics.lastBooking) != 0 {
		t.Errorf("the second last booked at %f", at)
	}
	troubled.on.Store(false)
	testenv.Eventually(t, "the first is well again", func() bool { return first.Health() == nil })
	publish()
	testenv.Eventually(t, "everything is settled", func() bool {
		return testenv.Must(testenv.Unsettled(t.Context(), js)) == 0
	})
	held := testenv.Must(quarantine.Open(js).List(t.Context(), 0, 100))
	if rows := booked(); rows != 3*batch || len(held) != 3 {
		t.Errorf("%d events booked and %d in quarantine, want %d and 3", rows, len(held), 3*batch)
	}
}
