package gate

import (
	"context"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/tidegate/tidegate/events"
	"github.com/tidegate/tidegate/internal/testenv"
	"github.com/tidegate/tidegate/ledger"
)

func TestHealthIsAFactOfNow(t *testing.T) {
	t.Parallel()
	l, err := ledger.Open(t.Context(), ledger.Config{URL: testenv.Database(t)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(l.Close)
	var ahead atomic.Int64 // of the gate's clock
	g, err := New(Config{Conn: testenv.Connect(t, testenv.NATS(t)), Ledger: l, Now: func() time.Time { return time.Now().Add(time.Duration(ahead.Load())) }})
	if err != nil {
		t.Fatal(err)
	}
	wants(t, g, "not loaded")
	ctx, cancel := context.WithCancel(context.Background())
	var group sync.WaitGroup
	group.Go(func() {
		if err := g.Run(ctx); err != nil {
			t.Error(err)
		}
	})
	t.Cleanup(func() { cancel(); group.Wait() })
	select {
	case <-g.Ready():
	case <-time.After(20 * time.Second):
		t.Fatal("it does not get ready")
	}
	wants(t, g, "")
	ahead.Store(int64(3 * time.Minute)) // as if it had learnt nothing for so long
	wants(t, g, "older than 2m0s")
	g.cfg.MaxStale = 10 * time.Second
	ahead.Store(int64(20 * time.Second))
	wants(t, g, "older than 10s")
	ahead.Store(0)
	wants(t, g, "")
	for try := 0; ; try++ { // they may be read just then
		read := g.heldRead.Swap(time.Now().Add(-time.Minute).UnixNano())
		err := g.Health()
		g.heldRead.Store(read)
		if err != nil && strings.Contains(err.Error(), "what is held") {
			break
		}
		if try == 10 {
			t.Fatalf("health, when holds were read a minute ago: %v", err)
		}
	}
	wants(t, g, "")
	if err := g.subs[0].Unsubscribe(); err != nil {
		t.Fatal(err)
	}
	wants(t, g, "does not hear")
	g.cfg.Conn.Close()
	wants(t, g, "does not answer any more")
}

// wants checks that Health says so; empty: that it is nil.
func wants(t *testing.T, g *Gate, words string) {
	t.Helper()
	err := g.Health()
	if (err != nil) != (words != "") || err != nil && !strings.Contains(err.Error(), words) {
		t.Errorf("health: %v, want %q", err, words)
	}
}

// A gate that starts before NATS waits for it: it gave up after 10 s.
func TestFlushWaitsForNATS(t *testing.T) {
	t.Parallel()
	nc, err := events.Connect("nats://" + testenv.FreeAddr(t))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(nc.Close)
	g, err := New(Config{Conn: nc, Ledger: &ledger.Ledger{}})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 1500*time.Millisecond) // a flush ends after 1 s
	defer cancel()
	if err := g.Run(ctx); err != nil || ctx.Err() == nil {
		t.Errorf("without NATS it ends with %v before it is told to", err)
	}
}
