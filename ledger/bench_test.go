package ledger_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/tidegate/tidegate/dev"
	"github.com/tidegate/tidegate/events"
	"github.com/tidegate/tidegate/ledger"
	"github.com/tidegate/tidegate/migrations"
)

// The benchmarks run on a Postgres of their own, with the settings that `tidegate
// run` gives it: unlike the tests' it syncs every commit. How to repeat them, and
// what they measured, is in docs/decisions/0002-copy-or-unnest.md.
//
// One operation is one batch. cpu-µs of Postgres are those of all its processes.

const benchPorts = 1000

func benchStore(b *testing.B) store {
	b.Helper()
	pg, err := dev.StartPostgres(b.Context(), dev.PostgresConfig{Dir: filepath.Join(b.TempDir(), "postgres")})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() {
		if err := pg.Stop(context.Background()); err != nil {
			b.Error(err)
		}
	})
	url := pg.DatabaseURL("tidegate")
	if err := migrations.Apply(b.Context(), url); err != nil {
		b.Fatal(err)
	}
	db, err := pgxpool.New(b.Context(), url)
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(db.Close)
	l, err := ledger.Open(b.Context(), ledger.Config{URL: url})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(l.Close)
	s := store{Ledger: l, url: url, db: db}
	// Each total has its row already, as after the first minutes of a day.
	var first []ledger.Entry
	for i := range benchPorts * len(features) * len(models) {
		first = append(first, busy(i%benchPorts, i/benchPorts%len(features), i/benchPorts/len(features)))
	}
	s.bookAll(b, first)
	return s
}

func (s store) bookAll(b *testing.B, entries []ledger.Entry) {
	if _, err := s.Book(b.Context(), entries); err != nil {
		b.Error(err)
	}
}

var (
	features = []string{"ocr", "summary", "embedding", "reply_draft"}
	models   = [][2]string{{"anthropic", "claude-sonnet-4-5"}, {"openai", "gpt-5-mini"}, {"google", "gemini-2.5-flash"}}
)

// traffic is n calls of now, of the ports from first on, equally busy, each with
// four features and three models: 5,000 calls of 1,000 ports touch some 4,100 totals.
func traffic(n, first, ports int) []ledger.Entry {
	all := make([]ledger.Entry, n)
	for i := range all {
		all[i] = busy(first+rand.IntN(ports), rand.IntN(len(features)), rand.IntN(len(models)))
	}
	return all
}

func busy(port, feature, model int) ledger.Entry {
	return call(fmt.Sprintf("port-%06d", port), time.Now(), func(u *events.Usage) {
		u.UserID = fmt.Sprintf("user-%04d", rand.IntN(5000))
		u.Feature, u.Provider, u.Model = features[feature], models[model][0], models[model][1]
		u.InputTokens, u.OutputTokens = rand.Int64N(8000)+100, rand.Int64N(900)
		u.Details = events.Details{}
	})
}

// measure runs work once per iteration on what prepare makes outside the clock, and
// reports what an event costs.
func (s store) measure(b *testing.B, perBatch int, prepare func() []ledger.Entry, work func([]ledger.Entry)) {
	b.Helper()
	postgres, self, n := time.Duration(0), time.Duration(0), 0
	for b.Loop() {
		b.StopTimer()
		batch := prepare()
		pg, own := s.postgresCPU(b), ownCPU(b)
		b.StartTimer()
		work(batch)
		b.StopTimer()
		self += ownCPU(b) - own // first: looking at Postgres costs something too
		postgres += s.postgresCPU(b) - pg
		n += perBatch
		b.StartTimer()
	}
	b.ReportMetric(float64(n)/b.Elapsed().Seconds(), "events/s")
	b.ReportMetric(float64(postgres.Microseconds())/float64(n), "postgres-cpu-µs/event")
	b.ReportMetric(float64(self.Microseconds())/float64(n), "own-cpu-µs/event")
}

func BenchmarkBook(b *testing.B) {
	for _, size := range []int{1000, 5000, 10000, 20000} {
		b.Run(fmt.Sprintf("new/batch=%d", size), func(b *testing.B) {
			s := benchStore(b)
			s.measure(b, size, func() []ledger.Entry { return traffic(size, 0, benchPorts) }, func(batch []ledger.Entry) { s.bookAll(b, batch) })
		})
	}
	b.Run("redelivered/batch=5000", func(b *testing.B) {
		s := benchStore(b)
		batch := traffic(5000, 0, benchPorts)
		s.bookAll(b, batch)
		s.measure(b, len(batch), func() []ledger.Entry { return batch }, func(batch []ledger.Entry) { s.bookAll(b, batch) })
	})
	// The idempotent statement on new rows: what a batch takes of which a few ids are known.
	b.Run("unnest/batch=5000", func(b *testing.B) {
		s := benchStore(b)
		s.measure(b, 5000, func() []ledger.Entry { return traffic(5000, 0, benchPorts) }, func(batch []ledger.Entry) {
			err := pgx.BeginFunc(b.Context(), s.db, func(tx pgx.Tx) error {
				_, err := s.BookTx(b.Context(), tx, batch)
				return err
			})
			if err != nil {
				b.Error(err)
			}
		})
	})
}

// BenchmarkCopy is the yardstick: the same rows into the same table by COPY alone,
// without totals.
func BenchmarkCopy(b *testing.B) {
	s := benchStore(b)
	s.measure(b, 5000, func() []ledger.Entry { return traffic(5000, 0, benchPorts) }, func(batch []ledger.Entry) {
		if err := s.CopyOnly(b.Context(), batch); err != nil {
			b.Error(err)
		}
	})
}

// BenchmarkTwoWriters books two batches of 5,000 at once: of the same ports, and
// each writer of its own half of them.
func BenchmarkTwoWriters(b *testing.B) {
	for name, first := range map[string]int{"same-ports": 0, "disjoint-ports": benchPorts / 2} {
		b.Run(name, func(b *testing.B) {
			s := benchStore(b)
			ports := benchPorts - first
			s.measure(b, 10000,
				func() []ledger.Entry { return append(traffic(5000, 0, ports), traffic(5000, first, ports)...) },
				func(batch []ledger.Entry) {
					var wg sync.WaitGroup
					wg.Go(func() { s.bookAll(b, batch[:5000]) })
					wg.Go(func() { s.bookAll(b, batch[5000:]) })
					wg.Wait()
				})
		})
	}
	b.Run("copy", func(b *testing.B) {
		s := benchStore(b)
		s.measure(b, 10000, func() []ledger.Entry { return traffic(10000, 0, benchPorts) }, func(batch []ledger.Entry) {
			var wg sync.WaitGroup
			for _, half := range [][]ledger.Entry{batch[:5000], batch[5000:]} {
				wg.Go(func() {
					if err := s.CopyOnly(b.Context(), half); err != nil {
						b.Error(err)
					}
				})
			}
			wg.Wait()
		})
	})
}

func ownCPU(b *testing.B) time.Duration {
	var r syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &r); err != nil {
		b.Fatal(err)
	}
	return time.Duration(r.Utime.Nano() + r.Stime.Nano())
}

// postgresCPU adds up what the server's processes have used so far: those that
// live, and what the postmaster waited for.
func (s store) postgresCPU(b *testing.B) time.Duration {
	backend := one[int](b, s.db, "select pg_backend_pid()")
	_, postmaster, _ := processTimes(b, strconv.Itoa(backend))
	all, err := os.ReadDir("/proc")
	if err != nil {
		b.Fatal(err)
	}
	var sum time.Duration
	for _, entry := range all {
		if _, err := strconv.Atoi(entry.Name()); err != nil {
			continue
		}
		self, parent, children := processTimes(b, entry.Name())
		switch {
		case entry.Name() == strconv.Itoa(postmaster):
			sum += self + children
		case parent == postmaster:
			sum += self
		}
	}
	return sum
}

// processTimes reads /proc/PID/stat; a process that has ended has none.
func processTimes(b *testing.B, pid string) (self time.Duration, parent int, children time.Duration) {
	stat, err := os.ReadFile("/proc/" + pid + "/stat")
	if err != nil {
		return 0, 0, 0
	}
	_, after, _ := strings.Cut(string(stat), ") ") // the name may hold anything
	fields := strings.Fields(after)
	ticks := func(i int) time.Duration {
		n, err := strconv.ParseInt(fields[i], 10, 64)
		if err != nil {
			b.Fatal(err)
		}
		return time.Duration(n) * 10 * time.Millisecond // USER_HZ is 100
	}
	parent, err = strconv.Atoi(fields[1])
	if err != nil {
		b.Fatal(err)
	}
	return ticks(11) + ticks(12), parent, ticks(13) + ticks(14)
}
