package testenv

import (
	"context"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"syscall"
	"testing"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/tidegate/tidegate/dev"
	"github.com/tidegate/tidegate/events"
)

// NATS starts a nats-server with an empty store for this test alone, on a free
// port. It is gone after the test.
func NATS(t testing.TB) *dev.NATS {
	t.Helper()
	n, err := dev.StartNATS(dev.NATSConfig{Dir: filepath.Join(t.TempDir(), "nats"), Addr: "127.0.0.1:0"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(n.Shutdown)
	return n
}

// Connect connects to n over TCP, as a service would, for as long as the test
// runs. What the server tells about this connection later, such as a forbidden
// publish, goes to the test's output unless opts say otherwise.
func Connect(t testing.TB, n *dev.NATS, opts ...nats.Option) *nats.Conn {
	t.Helper()
	var mu sync.Mutex
	over := false // t takes no more output
	report := nats.ErrorHandler(func(_ *nats.Conn, _ *nats.Subscription, err error) {
		mu.Lock()
		defer mu.Unlock()
		if !over {
			t.Logf("nats: %v", err)
		}
	})
	nc, err := nats.Connect(n.ClientURL(), append([]nats.Option{report}, opts...)...)
	if err != nil {
		t.Fatalf("testenv: connect to %s: %v", n.ClientURL(), err)
	}
	t.Cleanup(func() {
		nc.Close()
		mu.Lock()
		defer mu.Unlock()
		over = true
	})
	return nc
}

// FreeAddr returns an address on loopback that nobody listens on, and that no other test is given until this one ends:
// a random one below those that the system gives to connections.
func FreeAddr(t testing.TB) string {
	t.Helper()
	dir := filepath.Join(os.TempDir(), "tidegate-ports")
	if err := os.MkdirAll(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	for {
		port := strconv.Itoa(10_000 + rand.IntN(20_000))
		ours, err := os.OpenFile(filepath.Join(dir, port), os.O_CREATE|os.O_RDWR, 0o600)
		if err != nil {
			t.Fatal(err)
		}
		if syscall.Flock(int(ours.Fd()), syscall.LOCK_EX|syscall.LOCK_NB) == nil {
			if l, err := net.Listen("tcp", "127.0.0.1:"+port); err == nil {
				_ = l.Close()
				t.Cleanup(func() { _ = ours.Close() })
				return "127.0.0.1:" + port
			}
		}
		_ = ours.Close()
	}
}

// Unsettled is how many messages of the stream AI_USAGE are not acknowledged by the ledger's
// consumer. NumPending of the consumer would not do: it may lack for a moment what the
// stream has already acknowledged to its publisher.
func Unsettled(ctx context.Context, js jetstream.JetStream) (int, error) {
	durable, err := js.Consumer(ctx, events.UsageStream, events.ConsumerName)
	if err != nil {
		return 0, err
	}
	stream, err := js.Stream(ctx, events.UsageStream) // after the consumer: it has all that was published before
	if err != nil {
		return 0, err
	}
	had, has := durable.CachedInfo(), stream.CachedInfo().State
	return max(0, int(has.LastSeq)-int(had.Delivered.Stream)) + had.NumAckPending, nil
}
