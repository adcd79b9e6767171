package events_test

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"go.uber.org/goleak"

	"github.com/tidegate/tidegate/consumer/arrival"
	"github.com/tidegate/tidegate/events"
	"github.com/tidegate/tidegate/internal/testenv"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m, testenv.AbandonedBatches()...) }

// bus is a real nats-server in this process, which keeps its data and its port
// through restarts.
type bus struct {
	t    testing.TB
	opts server.Options
	srv  *server.Server
}

func startBus(t testing.TB, change ...func(*server.Options)) *bus {
	t.Helper()
	b := &bus{t: t, opts: server.Options{
		Host: "127.0.0.1", Port: server.RANDOM_PORT, NoLog: true, NoSigs: true,
		JetStream: true, StoreDir: t.TempDir(), SyncAlways: true,
	}}
	for _, c := range change {
		c(&b.opts)
	}
	b.start()
	t.Cleanup(b.stop)
	return b
}

func (b *bus) start() {
	b.t.Helper()
	opts := b.opts
	srv, err := server.NewServer(&opts)
	if err != nil {
		b.t.Fatalf("nats-server: %v", err)
	}
	go srv.Start()
	if !srv.ReadyForConnections(10 * time.Second) {
		b.t.Fatal("nats-server: not ready after 10 s")
	}
	b.srv, b.opts.Port = srv, opts.Port
	if addr, ok := srv.Addr().(interface{ String() string }); ok {
		fmt.Sscanf(addr.String(), "127.0.0.1:%d", &b.opts.Port)
	}
}

func (b *bus) stop() {
	b.srv.Shutdown()
	b.srv.WaitForShutdown()
}

func (b *bus) url() string { return fmt.Sprintf("nats://127.0.0.1:%d", b.opts.Port) }

func (b *bus) connect(opts ...nats.Option) *nats.Conn {
	b.t.Helper()
	return connect(b.t, b.url(), opts...)
}

func connect(t testing.TB, url string, opts ...nats.Option) *nats.Conn {
	t.Helper()
	nc, err := events.Connect(url, opts...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(nc.Close)
	return nc
}

// usageStream is AI_USAGE as the consumer makes it.
func usageStream(t testing.TB, nc *nats.Conn, change ...func(*jetstream.StreamConfig)) jetstream.Stream {
	t.Helper()
	cfg := jetstream.StreamConfig{
		Name: events.UsageStream, Subjects: []string{events.SubjectUsage, events.SubjectUsage + ".*"},
		Storage: jetstream.FileStorage, Retention: jetstream.LimitsPolicy, Discard: jetstream.DiscardNew,
		AllowAtomicPublish: true, Duplicates: 100 * time.Millisecond, DenyPurge: true,
	}
	for _, c := range change {
		c(&cfg)
	}
	js, err := jetstream.New(nc)
	if err != nil {
		t.Fatal(err)
	}
	stream, err := js.CreateStream(within(t, 10*time.Second), cfg)
	if err != nil {
		t.Fatal(err)
	}
	return stream
}

// stored reads the whole stream, in order.
func stored(t testing.TB, nc *nats.Conn) []*jetstream.RawStreamMsg {
	t.Helper()
	ctx := within(t, 20*time.Second)
	js, err := jetstream.New(nc)
	if err != nil {
		t.Fatal(err)
	}
	stream, err := js.Stream(ctx, events.UsageStream)
	if err != nil {
		t.Fatal(err)
	}
	// Many at a time: to ask for one costs as much as to publish it did.
	reader, err := stream.CreateConsumer(ctx, jetstream.ConsumerConfig{AckPolicy: jetstream.AckNonePolicy, MemoryStorage: true})
	if err != nil {
		t.Fatal(err)
	}
	var all []*jetstream.RawStreamMsg
	for last := int(stream.CachedInfo().State.LastSeq); len(all) < last; {
		batch, err := reader.Fetch(min(last-len(all), 500), jetstream.FetchContext(ctx))
		if err != nil {
			t.Fatal(err)
		}
		for msg := range batch.Messages() {
			meta, err := msg.Metadata()
			if err != nil || meta.Sequence.Stream != uint64(len(all)+1) {
				t.Fatalf("message %d: %+v, %v", len(all)+1, meta, err)
			}
			all = append(all, &jetstream.RawStreamMsg{Subject: msg.Subject(), Sequence: meta.Sequence.Stream, Header: msg.Headers(), Data: msg.Data(), Time: meta.Timestamp})
		}
		if err := batch.Error(); err != nil {
			t.Fatalf("after message %d: %v", len(all), err)
		}
	}
	if err := stream.DeleteConsumer(ctx, reader.CachedInfo().Name); err != nil {
		t.Fatal(err)
	}
	return all
}

// storedUsages reads the whole stream as the consumer does.
func storedUsages(t testing.TB, nc *nats.Conn) []events.Usage {
	t.Helper()
	var all []events.Usage
	for _, msg := range stored(t, nc) {
		parts, err := arrival.Split(msg.Data)
		if err != nil {
			t.Fatalf("message %d: %v", msg.Sequence, err)
		}
		for _, part := range parts {
			u, err := events.DecodeUsage(msg.Subject, part)
			if err != nil {
				t.Fatalf("message %d: %v", msg.Sequence, err)
			}
			all = append(all, u)
		}
	}
	return all
}

func within(t testing.TB, d time.Duration) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), d)
	t.Cleanup(cancel)
	return ctx
}

func newPublisher(t testing.TB, nc *nats.Conn, cfg events.PublisherConfig) *events.Publisher {
	t.Helper()
	if cfg.AckTimeout == 0 {
		cfg.AckTimeout = time.Minute // a busy machine is no reason to publish again
	}
	p, err := events.NewPublisher(nc, cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { // ends it whatever the test did; a test that cares closes it first
		ctx, cancel := context.WithCancel(context.Background())
		cancel()
		_ = p.Close(ctx)
	})
	return p
}

// call is a valid usage, the i-th of its port.
func call(port string, i int) events.Usage {
	return events.Usage{
		PortID: port, UserID: "u1", Feature: "ocr", Provider: "anthropic", Model: "claude-sonnet",
		RequestID: fmt.Sprintf("req_%06d", i), InputTokens: 1500 + int64(i), OutputTokens: 33,
	}
}
