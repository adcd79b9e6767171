package e2e

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/tidegate/tidegate/consumer"
	"github.com/tidegate/tidegate/consumer/arrival"
	"github.com/tidegate/tidegate/dev"
	"github.com/tidegate/tidegate/events"
	"github.com/tidegate/tidegate/internal/testenv"
	"github.com/tidegate/tidegate/ledger"
	"github.com/tidegate/tidegate/migrations"
)

// TestKillNine kills the built binary at each of four lines, a seeded run each, 20 in `make chaos`,
// and compares after every run what JetStream acknowledged with what is booked
// or quarantined.
func TestKillNine(t *testing.T) {
	t.Parallel()
	binary := testenv.Killable(t)
	for _, point := range []string{"after-fetch", "during-insert", "after-commit", "during-ack"} {
		t.Run(point, func(t *testing.T) {
			t.Parallel()
			s := start(t, options{noRoles: true})
			ensureStreams(t, s.js)
			args := []string{"--nats-url", s.nats.ClientURL(), "--database-url", s.url, "--roles", "consumer", "--ack-wait", "1s"}
			for seed := range uint64(envInt(t, "KILL_RUNS", 1)) {
				random := rand.New(rand.NewPCG(seed, 0))
				s.publishSome(random)
				n := 1 + random.IntN(3)
				p := spawn(t, binary, []string{fmt.Sprintf("TIDEGATE_KILLPOINT=%s:%d", point, n)}, args...)
				// Events keep coming, so that the line is passed that often.
				for end := time.Now().Add(time.Minute); !p.wait(20 * time.Millisecond); {
					if time.Now().After(end) {
						t.Fatalf("seed %d: not killed at %s:%d within a minute:\n%s", seed, point, n, p.out)
					}
					s.publishSome(random)
				}
				if status := p.cmd.ProcessState.Sys().(syscall.WaitStatus); status.Signal() != syscall.SIGKILL {
					t.Fatalf("seed %d: the process was to be killed at %s, but: %v\n%s", seed, point, p.cmd.ProcessState, p.out)
				}
				s.drainWith(binary, args)
				s.compare(fmt.Sprintf("killed at %s:%d, seed %d", point, n, seed))
			}
		})
	}
}

// publishSome publishes some events, a few of them twice, a few of them bad.
func (s *system) publishSome(random *rand.Rand) {
	s.t.Helper()
	var batch []events.Usage
	for range 5 + random.IntN(40) {
		u := usage(fmt.Sprintf("p%d", random.IntN(5)), random.Int64N(1000))
		u.ID = events.NewUUIDv7(time.Now()).String()
		batch = append(batch, u)
	}
	if random.IntN(2) == 0 {
		s.publishTogether(random, batch)
	} else if err := s.publisher.Publish(s.t.Context(), batch); err != nil {
		s.t.Fatal(err)
	}
	// Again, as after an acknowledgement that was lost.
	for _, u := range batch[:random.IntN(3)] {
		s.publishRaw(events.Subject(events.SubjectUsage, u.PortID), string(u.AppendJSON(nil)))
	}
	for range random.IntN(2) {
		s.publishRaw("ai.usage.p1", fmt.Sprintf(`{"feature":"bad %d"}`, random.Int()))
	}
}

// publishTogether publishes events in one message, maybe a bad one among them.
func (s *system) publishTogether(random *rand.Rand, batch []events.Usage) {
	s.t.Helper()
	all := make([]string, len(batch), len(batch)+1)
	for i, u := range batch {
		all[i] = string(u.AppendJSON(nil))
	}
	for range random.IntN(2) {
		all = slices.Insert(all, random.IntN(len(all)+1), fmt.Sprintf(`{"port_id":"p1","feature":"bad %d"}`, random.Int()))
	}
	s.publishRaw("ai.usage", "["+strings.Join(all, ",")+"]")
}

// drainWith runs a whole process until the stream's backlog is empty.
func (s *system) drainWith(binary string, args []string) {
	s.t.Helper()
	p := spawn(s.t, binary, nil, args...)
	testenv.Eventually(s.t, "the backlog is empty", func() bool {
		n, err := testenv.Unsettled(s.t.Context(), s.js)
		return err == nil && n == 0
	})
	p.signal(syscall.SIGKILL) // everything is acknowledged: one more kill must not matter
	p.wait(10 * time.Second)
}

// compare checks the invariants: every event in the stream is in the ledger or
// in the quarantine, nothing else is, nothing twice, and all sums agree.
func (s *system) compare(when string) {
	s.t.Helper()
	want, bad := s.acknowledged()
	booked := s.bookedIDs()
	slices.Sort(want)
	slices.Sort(booked)
	if !slices.Equal(slices.Compact(want), booked) {
		s.t.Fatalf("%s: %d events were acknowledged, %d are booked", when, len(slices.Compact(want)), len(booked))
	}
	if held := testenv.Must(testenv.Must(s.js.Stream(s.t.Context(), events.QuarantineStream)).Info(s.t.Context())).State.Msgs; held != uint64(bad) {
		s.t.Fatalf("%s: %d bad events were acknowledged, %d are quarantined", when, bad, held)
	}
	v, err := s.ledger.Verify(s.t.Context(), time.Now(), nil)
	if err != nil {
		s.t.Fatal(err)
	}
	if len(v.Differences) > 0 {
		s.t.Fatalf("%s: verify finds %+v", when, v.Differences)
	}
}

// acknowledged reads the whole stream: the keys of good events, repeats included,
// and how many are bad.
func (s *system) acknowledged() (good []string, bad int) {
	s.t.Helper()
	stream := testenv.Must(s.js.Stream(s.t.Context(), events.UsageStream))
	reader := testenv.Must(stream.CreateConsumer(s.t.Context(), jetstream.ConsumerConfig{AckPolicy: jetstream.AckNonePolicy, InactiveThreshold: time.Minute}))
	for left := int(stream.CachedInfo().State.Msgs); left > 0; {
		batch := testenv.Must(reader.Fetch(min(left, 1000), jetstream.FetchMaxWait(5*time.Second)))
		for msg := range batch.Messages() {
			left--
			for _, payload := range testenv.Must(arrival.Split(msg.Data())) {
				if u, err := events.DecodeUsage(msg.Subject(), payload); err != nil {
					bad++
				} else {
					good = append(good, u.PortID+" "+u.ID)
				}
			}
		}
	}
	return good, bad
}

func (s *system) bookedIDs() (ids []string) {
	s.t.Helper()
	if err := s.db.QueryRow(s.t.Context(), "select coalesce(array_agg(port_id || ' ' || id), '{}') from ai_usage_ledger").Scan(&ids); err != nil {
		s.t.Fatal(err)
	}
	return ids
}

// TestPostgresStopsUnderLoad stops Postgres "immediate", as a crash would, four
// times (ten in `make chaos`) while events keep coming.
func TestPostgresStopsUnderLoad(t *testing.T) {
	t.Parallel()
	pg := testenv.PrivatePostgres(t)
	if err := migrations.Apply(t.Context(), pg.URL()); err != nil {
		t.Fatal(err)
	}
	s := &system{t: t, nats: testenv.NATS(t), url: pg.URL(), now: time.Now}
	s.nc = testenv.Connect(t, s.nats)
	s.js = testenv.Must(jetstream.New(s.nc))
	s.publisher = testenv.Must(events.NewPublisher(s.nc, events.PublisherConfig{}))
	s.ledger = testenv.Must(ledger.Open(t.Context(), ledger.Config{URL: s.url}))
	t.Cleanup(s.ledger.Close)
	s.db = testenv.Must(pgxpool.New(t.Context(), s.url))
	t.Cleanup(s.db.Close)
	s.background(testenv.Must(consumer.New(consumer.Config{Conn: testenv.Connect(t, s.nats), Ledger: s.ledger, AckWait: 2 * time.Second, BatchSize: 500})).Run)
	testenv.Eventually(s.t, "the streams exist", func() bool {
		_, err := s.js.Stream(t.Context(), events.QuarantineStream)
		return err == nil
	})
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var load sync.WaitGroup
	load.Go(func() {
		for i := 0; ctx.Err() == nil; i++ {
			u := usage(fmt.Sprintf("p%d", i%20), int64(i%100))
			u.ID = events.NewUUIDv7(time.Now()).String()
			s.publisher.Record(u)
			if i%5 == 0 {
				time.Sleep(time.Millisecond)
			}
		}
	})
	for i := range envInt(t, "POSTGRES_STOPS", 4) {
		time.Sleep(200 * time.Millisecond)
		if err := pg.Kill(); err != nil {
			t.Fatalf("stop %d: %v", i, err)
		}
		time.Sleep(100 * time.Millisecond)
		if err := pg.Restart(t.Context()); err != nil {
			t.Fatalf("start %d: %v", i, err)
		}
	}
	cancel()
	load.Wait()
	ending, giveUp := context.WithTimeout(t.Context(), time.Minute)
	defer giveUp()
	if err := s.publisher.Close(ending); err != nil {
		t.Fatal(err)
	}
	want := int(s.publisher.Stats().Published)
	testenv.Eventually(s.t, "everything acknowledged is booked", func() bool {
		var n int
		return s.db.QueryRow(t.Context(), "select count(*) from ai_usage_ledger").Scan(&n) == nil && n == want
	})
	s.compare("after the immediate stops")
	if want < 1000 {
		t.Errorf("only %d events were published: too few to mean anything", want)
	}
}

func TestNATSRestartsUnderLoad(t *testing.T) {
	t.Parallel()
	s := start(t, options{noRoles: true})
	binary := testenv.Binary(t, "cmd/tidegate")
	addr := testenv.FreeAddr(t)
	dir := t.TempDir()
	servers := spawnNATS(t, dir, addr)
	p := spawn(t, binary, nil, "--nats-url", servers.ClientURL(), "--database-url", s.url, "--ack-wait", "1s")
	p.awaitReady()
	nc := testenv.Must(events.Connect(servers.ClientURL()))
	defer nc.Close()
	publisher := testenv.Must(events.NewPublisher(nc, events.PublisherConfig{AckTimeout: time.Second}))
	for range 3 {
		for j := range 2_000 {
			u := usage(fmt.Sprintf("p%d", j%20), 5)
			u.ID = events.NewUUIDv7(time.Now()).String()
			publisher.Record(u)
			if j == 1_000 {
				servers.Shutdown()
				servers = spawnNATS(t, dir, addr)
			}
		}
	}
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	if err := publisher.Close(ctx); err != nil {
		t.Fatal(err)
	}
	testenv.Eventually(s.t, "all 6,000 are booked, once", func() bool { return s.rows() == 6_000 })
	v := testenv.Must(s.ledger.Verify(t.Context(), time.Now(), nil))
	if len(v.Differences) > 0 || v.InputTokens+v.OutputTokens != 30_000 {
		t.Errorf("verify: %+v, want 30,000 tokens and no difference", v)
	}
	servers.Shutdown()
}

func spawnNATS(t testing.TB, dir, addr string) *dev.NATS {
	t.Helper()
	n, err := dev.StartNATS(dev.NATSConfig{Dir: dir, Addr: addr})
	if err != nil {
		t.Fatal(err)
	}
	return n
}
