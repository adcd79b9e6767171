package e2e

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/tidegate/tidegate/admin/ops"
	"github.com/tidegate/tidegate/dev"
	"github.com/tidegate/tidegate/events"
	"github.com/tidegate/tidegate/identity"
	"github.com/tidegate/tidegate/internal/testenv"
)

const (
	booksFor   = 2 * time.Second
	booksPorts = 24
)

// booksCap is a port's hard cap; its soft cap is half of it. They are reached one after the
// other while the history lasts.
func booksCap(p int) int64 { return 20 + 10*int64(p) }

// TestChaosOfBooks reports usage, well and badly, once and twice, alone and together, to two
// processes of the built binary, consumer and gate in each, that kill themselves at a line
// that is drawn anew each time. Beside that, a seed in three puts Postgres back to an older
// copy, one empties NATS' disk, and one has nothing but the kills. Then every event that
// was acknowledged must be booked or quarantined once, every cap that was reached must have
// had its alert, and no answer may have claimed an as_of by which more was booked than it counts.
func TestChaosOfBooks(t *testing.T) {
	t.Parallel() // it mostly waits
	seed, runs := envInt(t, "CHAOS_SEED", 1), envInt(t, "CHAOS_RUNS", 3)
	for i := range runs {
		t.Run(fmt.Sprintf("seed=%d", seed+i), func(t *testing.T) { newBooks(t, seed+i).run() })
	}
}

type books struct {
	*system
	random *rand.Rand
	server *dev.NATS
	dir    string // NATS' disk
	addr   string
	heard  *alerts

	restores, emptied bool // what this history has beside its kills

	mu    sync.Mutex
	acked map[string]bool // events
	disk  int             // which one NATS has
	lost  map[string]bool // acknowledged events that may be on no disk but the one that was emptied
	bad   map[string]stored

	looking  sync.RWMutex // who compares answers with the ledger reads, who puts that back writes
	restored atomic.Int64 // how often it was
	compared int
}

// counted is how often each alert was heard.
func (a *alerts) counted() map[string]int {
	a.mu.Lock()
	defer a.mu.Unlock()
	heard := map[string]int{}
	for _, alert := range a.all {
		heard[fmt.Sprint(alert.PortID, " ", alert.Cap, " ", alert.CapTokens)]++
	}
	return heard
}

// stored is what is known of a bad event: how often it may be on the disk that there is, and
// whether it is at all.
type stored struct {
	most   int
	surely bool
}

func newBooks(t *testing.T, seed int) *books {
	b := &books{system: start(t, options{noRoles: true}), random: rand.New(rand.NewPCG(uint64(seed), 2)),
		addr: testenv.FreeAddr(t), dir: filepath.Join(t.TempDir(), "nats"), acked: map[string]bool{}, lost: map[string]bool{}, bad: map[string]stored{},
		restores: seed%3 == 0, emptied: seed%3 == 1}
	b.up()
	t.Cleanup(func() { b.server.Shutdown() })
	b.nc = b.connect()
	b.js = testenv.Must(jetstream.New(b.nc))
	b.client = testenv.Must(events.NewClient(b.nc, events.ClientConfig{WhenUnavailable: events.FailClosed, Timeout: 500 * time.Millisecond}))
	b.ops = ops.NewClient(b.nc, 30*time.Second)
	b.background(testenv.Must(ops.New(ops.Config{Conn: b.connect(), Ledger: b.ledger, Tokens: identity.NewTokens(b.tokens, nil)})).Run)
	b.heard = b.watchAlerts()
	for p := range booksPorts {
		hard := booksCap(p)
		soft := hard / 2
		budget := events.Budget{Enabled: true, Period: events.PeriodMonth, SoftCapTokens: &soft, HardCapTokens: &hard}
		testenv.Must(b.ledger.StoreBudget(t.Context(), chaosPort(p), budget, nil, tellNobody)) // there is no gate yet
	}
	return b
}

func (b *books) up() {
	b.server = testenv.Must(dev.StartNATS(dev.NATSConfig{Dir: b.dir, Addr: b.addr}))
}

func (b *books) connect() *nats.Conn {
	nc := testenv.Must(events.Connect(b.server.ClientURL(), nats.ReconnectWait(20*time.Millisecond)))
	b.t.Cleanup(nc.Close)
	return nc
}

func (b *books) args() []string {
	return []string{"--nats-url", b.server.ClientURL(), "--database-url", b.url, "--roles", "consumer,gate", "--ack-wait", "1s"}
}

// run lets reporters, kills and calamities loose, and looks at what is left of it.
func (b *books) run() {
	lines := []line{{"after-commit", 20}, {"notice-sent", 20}, {"after-fetch", 20}, {"during-insert", 20}, {"during-ack", 20},
		{"alert-noticed", 4}, {"alert-claimed", 4}, {"alert-sent", 4}, {"alert-flushed", 4}, {"alert-noted", 4}}
	b.random.Shuffle(len(lines), func(i, j int) { lines[i], lines[j] = lines[j], lines[i] })
	one := startKilling(b.t, rand.New(rand.NewPCG(b.random.Uint64(), 3)), lines, b.args()...)
	two := startKilling(b.t, rand.New(rand.NewPCG(b.random.Uint64(), 3)), slices.Concat(lines[5:], lines[:5]), b.args()...)
	ctx, cancel := context.WithTimeout(b.t.Context(), booksFor)
	defer cancel()
	var group sync.WaitGroup
	for i := range 6 {
		random := rand.New(rand.NewPCG(b.random.Uint64(), uint64(i)))
		group.Go(func() { b.report(ctx, random) })
	}
	group.Go(func() { b.ask(ctx) })
	group.Go(func() { b.calamity(ctx) })
	group.Wait()
	killed := [...]map[string]int{one.end(), two.end()}
	for range 2 {
		spawn(b.t, one.binary, nil, b.args()...).awaitReady()
	}
	b.compareBooks()
	again := len(killed) // by end, wherever they were
	for _, lines := range killed {
		again += lines["alert-sent"] + lines["alert-flushed"]
	}
	b.compareAlerts(again)
	b.t.Logf("%d events, %d bad, %d answers compared with the ledger, killed %v", len(b.acked), len(b.bad), b.compared, killed)
}

// report publishes until ctx ends, each message until it is acknowledged.
func (b *books) report(ctx context.Context, random *rand.Rand) {
	for ctx.Err() == nil {
		var keys, payloads []string
		for range 1 + random.IntN(3) {
			u := usage(chaosPort(random.IntN(booksPorts)), 1+random.Int64N(3))
			u.ID = events.NewUUIDv7(time.Now()).String()
			keys, payloads = append(keys, u.PortID+" "+u.ID), append(payloads, string(u.AppendJSON(nil)))
		}
		if random.IntN(20) == 0 {
			payloads = append(payloads, fmt.Sprintf(`{"port_id":"port-1","feature":"bad %d"}`, random.Int()))
		}
		for range 1 + random.IntN(8)/7 { // some twice
			b.store(keys, payloads)
		}
		time.Sleep(time.Duration(random.IntN(8)) * time.Millisecond)
	}
}

// store returns when a message with these payloads is acknowledged. The last of them is
// bad if it has no key.
func (b *books) store(keys, payloads []string) {
	body := []byte("[" + strings.Join(payloads, ",") + "]")
	for begin := time.Now(); ; {
		b.mu.Lock()
		disk := b.disk
		b.mu.Unlock()
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		_, err := b.js.Publish(ctx, events.SubjectUsage, body)
		cancel()
		b.mu.Lock()
		same := b.disk == disk
		if len(payloads) > len(keys) {
			bad := b.bad[payloads[len(keys)]]
			b.bad[payloads[len(keys)]] = stored{bad.most + 1, bad.surely || same && err == nil}
		}
		for _, key := range keys {
			if err == nil {
				b.acked[key] = true
				b.lost[key] = !same
			}
		}
		b.mu.Unlock()
		if err == nil {
			return
		}
		if time.Since(begin) > time.Minute {
			b.t.Errorf("not stored within a minute: %v", err)
			return
		}
	}
}

// ask compares answers with what was booked, until ctx ends: what the ledger had before
// an answer's as_of must be counted in it.
func (b *books) ask(ctx context.Context) {
	type sample struct {
		at   time.Time // the ledger had it by then
		used int64
	}
	samples := make([][]sample, booksPorts)
	restored := b.restored.Load()
	for p := 0; ctx.Err() == nil; p = (p + 1) % booksPorts {
		b.looking.RLock()
		if n := b.restored.Load(); n != restored { // what it had is not what it has
			restored = n
			clear(samples)
		}
		var used int64
		err := b.db.QueryRow(ctx, "select coalesce(sum(total_tokens), 0)::bigint from ai_usage_ledger where port_id = $1", chaosPort(p)).Scan(&used)
		if err == nil {
			samples[p] = append(samples[p], sample{time.Now(), used})
		}
		v, err := b.client.Check(ctx, events.CheckRequest{PortID: chaosPort(p)})
		for _, s := range samples[p] {
			if err == nil && v.AsOf.After(s.at) && v.UsedTokens < s.used {
				b.t.Errorf("%s: %d tokens as of %s, but %d were booked by %s", chaosPort(p), v.UsedTokens, v.AsOf, s.used, s.at)
			}
			if err == nil && v.AsOf.After(s.at) {
				b.compared++
			}
		}
		b.looking.RUnlock()
	}
}

// calamity is what this history has beside its kills.
func (b *books) calamity(ctx context.Context) {
	moment := func() {
		pause(ctx, time.Duration(100+b.random.IntN(int(booksFor/4/time.Millisecond)))*time.Millisecond)
	}
	moment()
	switch {
	case b.restores:
		older := b.snapshot()
		moment()
		b.looking.Lock()
		defer b.looking.Unlock()
		older.restore(b.t, 0)
		b.restored.Add(1)
		b.reconnected()
	case b.emptied:
		moment()
		b.server.Shutdown()
		booked := map[string]bool{}
		for _, key := range b.bookedIDs() {
			booked[key] = true
		}
		b.mu.Lock()
		for key := range b.acked {
			if !booked[key] {
				b.lost[key] = true
			}
		}
		clear(b.bad) // as the quarantine is
		b.disk++
		b.mu.Unlock()
		if err := os.RemoveAll(filepath.Join(b.dir, "jetstream")); err != nil {
			b.t.Error(err)
		}
		b.up()
	}
}

func pause(ctx context.Context, d time.Duration) {
	select {
	case <-ctx.Done():
	case <-time.After(d):
	}
}

// compareBooks waits until nothing waits, and wants all that was acknowledged in the ledger
// or in the quarantine, once.
func (b *books) compareBooks() {
	testenv.Eventually(b.t, "nothing waits, and verify agrees", func() bool {
		v, err := b.ops.Verify(b.t.Context(), nil)
		return err == nil && v.OK && v.Messages == 0 && b.waiting() == 0
	})
	booked := map[string]int{}
	for _, key := range b.bookedIDs() {
		booked[key]++
	}
	for key := range b.acked {
		if booked[key] != 1 && !b.lost[key] || booked[key] > 1 {
			b.t.Errorf("%s was acknowledged and is booked %d times", key, booked[key])
		}
		delete(booked, key)
	}
	for key := range booked {
		b.t.Errorf("%s is booked, and nobody was told that it was stored", key)
	}
	copies := map[string]int{}
	for _, e := range b.quarantined() {
		copies[e.Text]++
	}
	for payload, stored := range b.bad {
		if n := copies[payload]; n > stored.most || n == 0 && stored.surely {
			b.t.Errorf("%s was stored %+v and is quarantined %d times", payload, stored, n)
		}
	}
	if v, err := b.ledger.Verify(b.t.Context(), time.Now(), nil); err != nil || len(v.Differences) > 0 {
		b.t.Errorf("verify: %+v, %v", v.Differences, err)
	}
}

// compareAlerts wants an alert for each cap that is reached. Each gate killed between
// sending and noting some may have sent each of those in vain once more, and so may what an older
// copy forgets.
func (b *books) compareAlerts(again int) {
	// Nobody waits here for the claims of killed gates to run out.
	b.exec("update ai_alerts set claimed_until = now() where published_at is null")
	want := map[string]bool{}
	for p := range booksPorts {
		hard, used := booksCap(p), b.booked(chaosPort(p))
		for name, tokens := range map[string]int64{"soft": hard / 2, "hard": hard} {
			if used >= tokens {
				want[fmt.Sprint(chaosPort(p), " ", name, " ", tokens)] = true
			}
		}
	}
	testenv.Eventually(b.t, "every alert is noted as published", func() bool {
		var noted int
		err := b.db.QueryRow(b.t.Context(), "select count(*) from ai_alerts where published_at is not null").Scan(&noted)
		return err == nil && noted == len(want)
	})
	if err := b.nc.Flush(); err != nil {
		b.t.Fatal(err)
	}
	var heard map[string]int
	for deadline := time.Now().Add(5 * time.Second); ; time.Sleep(20 * time.Millisecond) { // what has come may not be read yet
		heard = b.heard.counted()
		missing := false
		for alert := range want {
			missing = missing || heard[alert] == 0
		}
		if !missing || time.Now().After(deadline) {
			break
		}
	}
	for alert, n := range heard {
		if !want[alert] {
			b.t.Errorf("an alert that nothing calls for: %s", alert)
		}
		if n-1 > again && !b.restores && !b.emptied {
			b.t.Errorf("%s was heard %d times, and %d gates were killed while they published", alert, n, again)
		}
	}
	for alert := range want {
		if heard[alert] == 0 && !b.emptied { // what NATS is away for is not heard
			b.t.Errorf("no alert was heard: %s", alert)
		}
	}
}
