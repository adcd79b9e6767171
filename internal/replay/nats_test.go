package replay_test

import (
	"context"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/tidegate/tidegate/consumer/arrival"
	"github.com/tidegate/tidegate/dev"
	"github.com/tidegate/tidegate/events"
	"github.com/tidegate/tidegate/internal/replay"
	"github.com/tidegate/tidegate/internal/testenv"
)

// usageStream is AI_USAGE as the consumer makes it.
func usageStream(t *testing.T, nc *nats.Conn) jetstream.Stream {
	t.Helper()
	js, err := jetstream.New(nc)
	if err != nil {
		t.Fatal(err)
	}
	stream, err := js.CreateStream(t.Context(), jetstream.StreamConfig{
		Name: events.UsageStream, Subjects: []string{events.SubjectUsage, events.SubjectUsage + ".*"},
		Storage: jetstream.FileStorage, Discard: jetstream.DiscardNew, DenyPurge: true, AllowAtomicPublish: true,
	})
	if err != nil {
		t.Fatal(err)
	}
	return stream
}

func publisher(t *testing.T, nc *nats.Conn) *events.Publisher {
	t.Helper()
	p, err := events.NewPublisher(nc, events.PublisherConfig{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := p.Close(context.Background()); err != nil {
			t.Error(err)
		}
	})
	return p
}

// tally counts what a stream holds: each id once.
func tally(t *testing.T, stream jetstream.Stream) (rows int, in, out int64) {
	t.Helper()
	info, err := stream.Info(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	seen := map[string]bool{}
	for seq := uint64(1); seq <= info.State.LastSeq; seq++ {
		msg, err := stream.GetMsg(t.Context(), seq)
		if err != nil {
			t.Fatal(err)
		}
		for _, payload := range testenv.Must(arrival.Split(msg.Data)) {
			u := testenv.Must(events.DecodeUsage(msg.Subject, payload))
			if !seen[u.PortID+u.ID] {
				seen[u.PortID+u.ID] = true
				rows, in, out = rows+1, in+u.InputTokens, out+u.OutputTokens
			}
		}
	}
	return rows, in, out
}

func TestRun_IntoJetStream(t *testing.T) {
	nc := testenv.Connect(t, testenv.NATS(t))
	stream := usageStream(t, nc)
	file := write(t, trace(slices.Repeat([]string{good}, 2500)...))

	for range 2 { // the same start: the same ids
		p := publisher(t, nc)
		sum, err := replay.Run(t.Context(), p, replay.Config{File: file, Start: start})
		if err != nil {
			t.Fatal(err)
		}
		if sum.Acknowledged != 2500 {
			t.Errorf("%d rows acknowledged", sum.Acknowledged)
		}
		if got, want := p.Stats(), (events.Stats{Recorded: 2500, Published: 2500}); got != want {
			t.Errorf("publisher's counts %+v, want %+v", got, want)
		}
		if rows, in, out := tally(t, stream); rows != 2500 || in != 2500*4808 || out != 2500*10 {
			t.Errorf("the stream holds %d rows, %d and %d tokens", rows, in, out)
		}
	}
}

// The server stops in the middle and comes back: nothing is lost.
func TestRun_RidesThroughARestartOfNATS(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "nats")
	server, err := dev.StartNATS(dev.NATSConfig{Dir: dir, Addr: "127.0.0.1:0"})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { server.Shutdown() }()
	url := server.ClientURL()
	nc, err := events.Connect(url)
	if err != nil {
		t.Fatal(err)
	}
	defer nc.Close()
	stream := usageStream(t, nc)
	p, err := events.NewPublisher(nc, events.PublisherConfig{})
	if err != nil {
		t.Fatal(err)
	}
	file := write(t, trace(slices.Repeat([]string{good}, 2500)...))

	restarted := make(chan error, 1)
	sum, err := replay.Run(t.Context(), p, replay.Config{File: file, BatchSize: 50, Progress: func(done, _ int) {
		if done != 1000 {
			return
		}
		server.Shutdown()
		go func() {
			time.Sleep(300 * time.Millisecond) // the next batch finds nobody
			var err error
			server, err = dev.StartNATS(dev.NATSConfig{Dir: dir, Addr: server.Addr()})
			restarted <- err
		}()
	}})
	if err := <-restarted; err != nil {
		t.Fatal(err)
	}
	if err != nil || sum.Acknowledged != 2500 {
		t.Fatalf("%d of 2500 rows acknowledged, error %v", sum.Acknowledged, err)
	}
	if p.Stats().Retries == 0 {
		t.Error("the replay did not notice that the server was away")
	}
	if rows, in, out := tally(t, stream); rows != 2500 || in != 2500*4808 || out != 2500*10 {
		t.Errorf("the stream holds %d rows, %d and %d tokens", rows, in, out)
	}
	if err := p.Close(t.Context()); err != nil {
		t.Error(err)
	}
}
