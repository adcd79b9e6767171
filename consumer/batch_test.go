package consumer

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/tidegate/tidegate/consumer/stream"
	"github.com/tidegate/tidegate/internal/testenv"
	"github.com/tidegate/tidegate/ledger"
)

// halfBooked is a ledger that books the first half of a batch and does not get to the second.
type halfBooked struct {
	*ledger.Ledger
	first chan struct{} // closed when the first half is booked
}

func (l halfBooked) BookShare(ctx context.Context, share ledger.Share, entries []ledger.Entry) (ledger.Booking, error) {
	if share.Number == 1 {
		<-ctx.Done()
		return ledger.Booking{}, ctx.Err()
	}
	defer close(l.first)
	return l.Ledger.BookShare(ctx, share, entries)
}

// Two writers book a large batch, and one of them may take long. What the other has booked is not
// acknowledged before: the ledger would seem to lack it, and gates would refuse.
func TestNothingIsAcknowledgedBeforeItsWholeBatchIsBooked(t *testing.T) {
	t.Parallel()
	n := testenv.NATS(t)
	l := testenv.Must(ledger.Open(t.Context(), ledger.Config{URL: testenv.Database(t)}))
	t.Cleanup(l.Close)
	js := testenv.Must(jetstream.New(testenv.Connect(t, n)))
	half := halfBooked{l, make(chan struct{})}
	c := testenv.Must(New(Config{Conn: testenv.Connect(t, n), Ledger: half}))
	if err := c.prepare(t.Context()); err != nil {
		t.Fatal(err)
	}
	ports := []string{"a", "a", "b"} // a's writer is the first
	for _, port := range ports {
		event := fmt.Sprintf(`{"v":1,"id":%q,"feature":"ocr","provider":"p","model":"m","input_tokens":1}`, testenv.Must(uuid.NewV7()))
		testenv.Must(js.Publish(t.Context(), "ai.usage."+port, []byte(event)))
	}
	missing := func() uint64 { return testenv.Must(stream.Compare(t.Context(), js, l)).Missing() }

	ctx, stop := context.WithCancel(t.Context())
	queues := []chan part{make(chan part), make(chan part)}
	var writing sync.WaitGroup
	for i, queue := range queues {
		writing.Go(func() { c.write(ctx, i, queue) })
	}
	from := c.current()
	in := newIntake(len(queues), time.Time{})
	in.flight = c.inFlight.begin()
	if err := in.takeAll(from.durable.Fetch(len(ports))); err != nil || in.finish() != len(ports) {
		t.Fatalf("%d events were fetched, %v", in.n, err)
	}
	c.handOver(in.shareOut(from.stream, false), false, queues)
	<-half.first
	for begin := time.Now(); time.Since(begin) < 200*time.Millisecond; time.Sleep(10 * time.Millisecond) {
		if m := missing(); m > 0 {
			t.Fatalf("%d messages are acknowledged whose batch is not booked", m)
		}
	}
	stop() // the second half is handed back
	for _, queue := range queues {
		close(queue)
	}
	writing.Wait()
	if m := missing(); m > 0 {
		t.Errorf("%d messages of a batch that is handed back are acknowledged", m)
	}

	testenv.Background(t, testenv.Must(New(Config{Conn: testenv.Connect(t, n), Ledger: l})).Run)
	testenv.Eventually(t, "another consumer settles everything", func() bool {
		return testenv.Must(testenv.Unsettled(t.Context(), js)) == 0
	})
	if rows := testenv.Must(l.Verify(t.Context(), time.Now(), nil)).Rows; rows != int64(len(ports)) || missing() > 0 {
		t.Errorf("%d events are booked, want %d; %d messages seem to be missing", rows, len(ports), missing())
	}
}
