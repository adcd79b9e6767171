package e2e

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/tidegate/tidegate/consumer"
	quarantined "github.com/tidegate/tidegate/consumer/quarantine"
	"github.com/tidegate/tidegate/consumer/stream"
	"github.com/tidegate/tidegate/dev"
	"github.com/tidegate/tidegate/events"
	"github.com/tidegate/tidegate/internal/testenv"
	"github.com/tidegate/tidegate/ledger"
)

// Streams, durable or both go away under a running system: it says so, makes them again,
// and what publishers still have is booked.
func TestStreamsThatGoAwayAreMadeAgain(t *testing.T) {
	t.Parallel()
	var log testenv.Buffer
	s := start(t, options{consumer: func(c *consumer.Config) { c.Logger = slog.New(slog.NewTextHandler(&log, nil)) }})
	n := 0
	again := func(what string) {
		t.Helper()
		n++
		s.publisher.Record(usage("p1", 10))
		testenv.Eventually(s.t, "an event is booked after "+what, func() bool { return s.rows() == n })
		testenv.Eventually(s.t, "the consumer is well after "+what, func() bool { return s.consumer.Health() == nil })
		testenv.Eventually(s.t, "verify agrees after "+what, s.verified)
	}
	again("the start")
	// A durable that is made again does not begin from the start: the ledger knows what it has.
	for range 4 {
		again("some events")
	}
	tracked := testenv.Must(stream.Compare(t.Context(), s.js, s.ledger)).Stream
	testenv.Eventually(s.t, "the ledger has noted a message of the stream", func() bool {
		mark, err := s.ledger.Marks(t.Context(), tracked, 1)
		return err == nil && len(mark) == 1 && mark[0].Sequence == 5
	})
	if err := s.js.DeleteConsumer(t.Context(), events.UsageStream, events.ConsumerName); err != nil {
		t.Fatal(err)
	}
	again("the durable was removed")
	if info := testenv.Must(s.js.Consumer(t.Context(), events.UsageStream, events.ConsumerName)).CachedInfo(); info.Config.OptStartSeq != 6 {
		t.Errorf("the new durable begins at %d, want 6, after what is booked", info.Config.OptStartSeq)
	}
	durable := func() error { return s.js.DeleteConsumer(t.Context(), events.UsageStream, events.ConsumerName) }
	usageStream := func() error { return s.js.DeleteStream(t.Context(), events.UsageStream) }
	quarantine := func() error { return s.js.DeleteStream(t.Context(), events.QuarantineStream) }
	refused := func() error { // an event that the quarantine does not take, so that a writer has it in hand
		small := testenv.Must(s.js.Stream(t.Context(), events.QuarantineStream)).CachedInfo().Config
		small.MaxMsgSize = 1
		testenv.Must(s.js.UpdateStream(t.Context(), small))
		told := strings.Count(log.String(), "cannot be quarantined")
		s.publishRaw("ai.usage.p1", "refused")
		testenv.Eventually(s.t, "it cannot be quarantined", func() bool { return strings.Count(log.String(), "cannot be quarantined") > told })
		return nil
	}
	for _, c := range []struct {
		what   string
		remove []func() error
	}{
		{"the usage stream was removed", []func() error{usageStream}},
		{"the quarantine was removed", []func() error{quarantine}},
		{"the quarantine and the durable were removed", []func() error{quarantine, durable}},
		{"everything was removed", []func() error{usageStream, quarantine}},
		{"everything was removed while an event was refused", []func() error{refused, usageStream, quarantine}},
	} {
		lost := strings.Count(log.String(), "copies that it held are lost")
		for _, remove := range c.remove {
			if err := remove(); err != nil {
				t.Fatal(err)
			}
		}
		testenv.Eventually(s.t, "there is a usage stream after "+c.what, func() bool {
			_, err := s.js.Publish(t.Context(), "ai.usage.p1", []byte(c.what))
			return err == nil
		})
		testenv.Eventually(s.t, "an event is quarantined after "+c.what, func() bool {
			return slices.ContainsFunc(s.quarantined(), func(e quarantined.Event) bool { return e.Text == c.what })
		})
		again(c.what)
		if told := strings.Count(log.String(), "copies that it held are lost") - lost; told != strings.Count(c.what, "quarantine")+strings.Count(c.what, "everything") {
			t.Errorf("after %s the log says %d times that a quarantine is lost", c.what, told)
		}
	}
}

// The usage stream is deleted with events in it that were acknowledged and not booked: their number
// is said as an error, by /readyz and as a metric. What publishers keep in hand meanwhile is booked, and what their
// outbox has, once they send it again.
func TestAStreamThatIsDeletedWithEventsInIt(t *testing.T) {
	t.Parallel()
	s := start(t, options{noRoles: true})
	p := spawn(t, testenv.Killable(t), nil, "--nats-url", s.nats.ClientURL(), "--database-url", s.url, "--roles", "consumer", "--log-format", "json")
	p.awaitReady()
	publisher := testenv.Must(events.NewPublisher(s.nc, events.PublisherConfig{Outbox: events.OutboxConfig{Path: filepath.Join(t.TempDir(), "outbox")}}))
	t.Cleanup(func() { _ = publisher.Close(context.Background()) })
	booked := func(what string, rows int) {
		t.Helper()
		testenv.Eventually(t, what, func() bool { return s.rows() == rows })
	}
	s.publishEach(publisher, 10, 10, 10)
	booked("what came before is booked", 3)
	testenv.Must(s.js.PauseConsumer(t.Context(), events.UsageStream, events.ConsumerName, time.Now().Add(time.Hour)))
	s.publishEach(publisher, 1, 1, 1, 1, 1)
	tracked := testenv.Must(stream.Compare(t.Context(), s.js, s.ledger)).Stream
	testenv.Eventually(t, "a consumer has seen the last of them", func() bool {
		marks, err := s.ledger.Marks(t.Context(), tracked, 1)
		return err == nil && len(marks) == 1 && marks[0].Sequence == 8
	})
	lost := 8 - s.rows()
	if lost < 4 { // the first may still be taken
		t.Fatalf("%d events wait in the stream, want 5 or 4", lost)
	}
	if err := s.js.DeleteStream(t.Context(), events.UsageStream); err != nil {
		t.Fatal(err)
	}
	publisher.Record(usage("p1", 100)) // nobody acknowledges it until there is a stream again
	booked("what the publisher had in hand is booked", 8-lost+1)
	testenv.Eventually(t, "it is ready again, and says what was lost", func() bool {
		said := p.readiness()
		return strings.Contains(said, `"ready":true`) && strings.Contains(said, fmt.Sprintf(`"lost_messages":%d`, lost))
	})
	if n := strings.Count(p.out.String(), fmt.Sprintf(`"unbooked_messages":%d}`, lost)); n != 1 || !strings.Contains(p.out.String(), `"level":"ERROR","msg":"this usage stream is not the one`) {
		t.Errorf("the log says %d times how many messages are lost:\n%s", n, p.out)
	}
	resp := testenv.Must(http.Get("http://" + p.http + "/metrics"))
	defer resp.Body.Close()
	if metrics := string(testenv.Must(io.ReadAll(resp.Body))); !strings.Contains(metrics, fmt.Sprintf("\ntidegate_stream_lost_messages %d\n", lost)) {
		t.Error("the metrics do not say how many messages are lost")
	}
	if sent, err := publisher.SendAgain(t.Context(), time.Now().Add(-time.Hour)); err != nil || sent < 5 {
		t.Errorf("%d events are sent again, %v, want those that were lost", sent, err)
	}
	booked("what was lost is booked, and nothing twice", 9)
	if v, err := s.ledger.Verify(t.Context(), time.Now(), nil); err != nil || len(v.Differences) > 0 || s.booked("p1") != 135 {
		t.Errorf("%d tokens are booked, want 135; verify: %+v, %v", s.booked("p1"), v, err)
	}
}

// The disk of an external NATS is emptied, or put back to an older copy, while everything
// else runs on. Sequences that are used a second time take no event's place.
func TestANATSThatComesBackWithAnotherDisk(t *testing.T) {
	t.Parallel()
	var log testenv.Buffer
	addr, dir := testenv.FreeAddr(t), filepath.Join(t.TempDir(), "nats")
	var server *dev.NATS
	up := func() { server = testenv.Must(dev.StartNATS(dev.NATSConfig{Dir: dir, Addr: addr})) }
	up()
	t.Cleanup(func() { server.Shutdown() })
	connect := func() *nats.Conn {
		nc := testenv.Must(events.Connect(server.ClientURL(), nats.ReconnectWait(50*time.Millisecond)))
		t.Cleanup(nc.Close)
		return nc
	}
	s := start(t, options{noRoles: true})
	s.nc = connect()
	s.js = testenv.Must(jetstream.New(s.nc))
	publisher := testenv.Must(events.NewPublisher(s.nc, events.PublisherConfig{AckTimeout: time.Second}))
	t.Cleanup(func() { _ = publisher.Close(context.Background()) })
	s.consumer = testenv.Must(consumer.New(consumer.Config{Conn: connect(), Ledger: s.ledger, AckWait: time.Second, Logger: slog.New(slog.NewTextHandler(&log, nil))}))
	s.background(s.consumer.Run)
	t.Cleanup(func() {
		if t.Failed() {
			t.Log(log.String())
		}
	})
	booked := 0
	spend := func(when string, events int) {
		t.Helper()
		s.publishEach(publisher, slices.Repeat([]int64{10}, events)...)
		booked += events
		testenv.Eventually(s.t, "all is booked "+when, func() bool { return s.rows() == booked })
		testenv.Eventually(s.t, "all is acknowledged "+when, func() bool { return s.consumer.Health() == nil && s.waiting() == 0 })
	}
	exchange := func(from string) {
		t.Helper()
		server.Shutdown()
		disk := filepath.Join(dir, "jetstream") // beside it is the password that the clients have
		if err := os.RemoveAll(disk); err != nil {
			t.Fatal(err)
		}
		if from != "" {
			if err := os.CopyFS(disk, os.DirFS(filepath.Join(from, "jetstream"))); err != nil {
				t.Fatal(err)
			}
		}
		up()
		testenv.Eventually(s.t, "the client is back", s.nc.IsConnected)
	}
	spend("at first", 20)
	server.Shutdown()
	backup := filepath.Join(t.TempDir(), "backup")
	if err := os.CopyFS(backup, os.DirFS(dir)); err != nil {
		t.Fatal(err)
	}
	up()
	spend("after the backup", 30)

	exchange(backup)
	spend("after the stream came back older", 25) // in sequences that were used before
	if said := log.String(); !strings.Contains(said, "older copy") || !strings.Contains(said, "are lost") {
		t.Errorf("the log does not say what an older copy costs:\n%s", said)
	}
	if p := testenv.Must(stream.Compare(t.Context(), s.js, s.ledger)); p.Missing() > 0 || p.Through != 45 {
		t.Errorf("position %+v, want 45 booked of a stream that had 20 again", p)
	}

	// backupWith is a copy of the backup with the durable of another disk.
	backupWith := func(durable string) string {
		disk, obs := t.TempDir(), filepath.Join("jetstream", "TIDEGATE", "streams", events.UsageStream, "obs")
		if err := errors.Join(os.CopyFS(disk, os.DirFS(backup)), os.RemoveAll(filepath.Join(disk, obs)), os.CopyFS(filepath.Join(disk, obs), os.DirFS(filepath.Join(durable, obs)))); err != nil {
			t.Fatal(err)
		}
		return disk
	}
	none := t.TempDir()
	if err := os.MkdirAll(filepath.Join(none, "jetstream", "TIDEGATE", "streams", events.UsageStream, "obs"), 0o700); err != nil {
		t.Fatal(err)
	}
	exchange(backupWith(none))
	spend("after the stream came back older, without its durable", 15)

	server.Shutdown()
	ahead := backupWith(dir)
	up()
	exchange(ahead)
	spend("after the stream came back older, under a durable that is ahead", 5)

	exchange("")
	spend("after the disk was emptied", 10)
	if v, err := s.ledger.Verify(t.Context(), time.Now(), nil); err != nil || len(v.Differences) > 0 {
		t.Errorf("verify: %+v, %v", v, err)
	}
	if used := s.booked("p1"); used != int64(booked)*10 {
		t.Errorf("%d tokens are booked, want %s", used, fmt.Sprint(booked*10))
	}
}

// The ledger has booked more of the stream than it holds, so that an older copy of it was
// put back. That is acted upon before messages that came since are taken for those booked.
func TestAnOlderCopyThatGrewAgain(t *testing.T) {
	t.Parallel()
	s := start(t, options{gates: -1})
	s.publishEach(s.publisher, slices.Repeat([]int64{10}, 20)...)
	testenv.Eventually(s.t, "20 are booked", func() bool { return s.rows() == 20 && s.waiting() == 0 })
	tracked := testenv.Must(stream.Compare(t.Context(), s.js, s.ledger)).Stream
	marked := func(sequence uint64) func() bool {
		return func() bool {
			marks := testenv.Must(s.ledger.Marks(t.Context(), tracked, 1))
			return len(marks) == 1 && marks[0].Sequence == sequence
		}
	}
	testenv.Eventually(s.t, "the 20th is marked", marked(20))
	testenv.Must(s.js.PauseConsumer(t.Context(), events.UsageStream, events.ConsumerName, time.Now().Add(time.Hour)))
	ahead := ledger.Share{Stream: tracked, Batch: uuid.New(), Of: 1, Sequences: []ledger.Sequences{{First: 21, Last: 45}}}
	testenv.Must(s.ledger.BookShare(t.Context(), ahead, nil))
	s.publishEach(s.publisher, slices.Repeat([]int64{10}, 15)...)
	testenv.Eventually(s.t, "the 35th is marked", marked(35))
	if err := s.js.DeleteConsumer(t.Context(), events.UsageStream, events.ConsumerName); err != nil {
		t.Fatal(err)
	}
	testenv.Eventually(s.t, "35 are booked", func() bool { return s.rows() == 35 })
}
