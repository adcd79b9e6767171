package ledger_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"net/url"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/tidegate/tidegate/internal/testenv"
	"github.com/tidegate/tidegate/ledger"
)

// wire stands between a ledger and Postgres and can lose the answer to a COMMIT.
type wire struct {
	listener net.Listener
	socket   string
	lose     atomic.Bool // the next answer, and its connection with it
	lost     atomic.Int64
	running  sync.WaitGroup
}

// newWire returns the wire and the database's URL through it.
func newWire(t testing.TB, database string) (*wire, string) {
	t.Helper()
	u, err := url.Parse(database)
	if err != nil {
		t.Fatal(err)
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	w := &wire{listener: listener, socket: u.Query().Get("host") + "/.s.PGSQL.5432"}
	w.running.Go(w.accept)
	t.Cleanup(func() {
		listener.Close()
		w.running.Wait()
	})
	u.Host, u.RawQuery = listener.Addr().String(), "sslmode=disable"
	return w, u.String()
}

func (w *wire) accept() {
	for {
		client, err := w.listener.Accept()
		if err != nil {
			return
		}
		server, err := net.Dial("unix", w.socket)
		if err != nil {
			client.Close()
			continue
		}
		w.running.Go(func() {
			defer server.Close()
			_, _ = io.Copy(server, client) // ends when either side is closed
		})
		w.running.Go(func() {
			defer client.Close()
			w.answers(client, server)
		})
	}
}

var committed = []byte("C\x00\x00\x00\x0bCOMMIT\x00")

func (w *wire) answers(client io.Writer, server net.Conn) {
	defer server.Close()
	buf := make([]byte, 1<<16)
	for {
		n, err := server.Read(buf)
		if bytes.Contains(buf[:n], committed) && w.lose.CompareAndSwap(true, false) {
			w.lost.Add(1)
			return
		}
		if _, err := client.Write(buf[:n]); err != nil {
			return
		}
		if err != nil {
			return
		}
	}
}

// The connection breaks after Postgres has committed and before it could say so:
// what happened is unknown, and booking again finds out without harm.
func TestAnswerToTheCommitIsLost(t *testing.T) {
	t.Parallel()
	database := testenv.Database(t)
	w, through := newWire(t, database)
	s := openStore(t, database)
	s.Ledger = open(t, through)
	s.book(t, manyCalls(9, 3)...) // ports and months are made in transactions of their own
	all := manyCalls(60, 3)
	var first ledger.Booking
	for i, batch := range [][]ledger.Entry{all[:20], all[20:40], all[10:60]} { // new; new; known ones among them
		before := one[int](t, s.db, "select count(*)::int from ai_usage_ledger")
		w.lose.Store(true)
		if b, err := s.Book(t.Context(), batch); err == nil {
			t.Fatalf("%d: booked without hearing of the commit: %v", i, fates(b))
		}
		if w.lost.Load() != int64(i+1) {
			t.Fatalf("%d: the wire lost %d answers: this test shows nothing", i, w.lost.Load())
		}
		if after := one[int](t, s.db, "select count(*)::int from ai_usage_ledger"); after == before {
			t.Fatalf("%d: nothing was committed: this test shows nothing", i)
		}
		first = s.book(t, batch...)
		if got := fates(first); slices.ContainsFunc(got, func(f string) bool { return f != "duplicate" }) {
			t.Errorf("%d: booked again: %v, want duplicates only", i, got)
		}
		s.wantSums(t)
	}
	// The days of that second call are what the gates are told: absolute, and complete.
	for _, d := range first.Days {
		got := one[int64](t, s.db, "select total_tokens from ai_usage_port_days where port_id = $1 and day = $2", d.PortID, d.Day.Time())
		if got != d.TotalTokens {
			t.Errorf("%s %s: told %d, the table says %d", d.PortID, d.Day.Time(), d.TotalTokens, got)
		}
	}
	s.wantVerified(t)
}

// The session is terminated while it has written rows and waits for the totals.
func TestSessionTerminatedWithinABooking(t *testing.T) {
	t.Parallel()
	s := newStore(t)
	known, fresh := call("p1", noon), call("p1", noon)
	s.book(t, known)
	for _, batch := range [][]ledger.Entry{{fresh}, {known, call("p1", noon)}} {
		result := make(chan error, 1)
		err := s.inTx(t, func(tx pgx.Tx) error {
			if _, err := tx.Exec(t.Context(), "select 1 from ai_usage_totals for update"); err != nil {
				return err
			}
			go func() {
				_, err := s.Book(t.Context(), batch)
				result <- err
			}()
			s.awaitLockWait(t, 1)
			if n := one[int](t, s.db, `select count(pg_terminate_backend(pid))::int from pg_stat_activity
				where datname = current_database() and wait_event_type = 'Lock'`); n != 1 {
				t.Errorf("%d sessions terminated, want 1", n)
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
		var pg *pgconn.PgError
		if err := <-result; !errors.As(err, &pg) || pg.Code != "57P01" {
			t.Errorf("Book says %v, want that it was terminated", err)
		}
		if got := fates(bookWithPatience(t, s.Ledger, batch)); got[len(got)-1] != "booked" {
			t.Errorf("the next try: %v, want the last one booked", got)
		}
		s.wantSums(t)
	}
	if n := one[int](t, s.db, "select count(*)::int from ai_usage_ledger"); n != 3 {
		t.Errorf("%d rows, want 3", n)
	}
}

func bookWithPatience(t testing.TB, l *ledger.Ledger, batch []ledger.Entry) ledger.Booking {
	t.Helper()
	for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(time.Millisecond) {
		b, err := l.Book(t.Context(), batch)
		if err == nil {
			return b
		}
		if time.Now().After(deadline) {
			t.Fatalf("still after 20 s: %v", err)
		}
	}
}

// Sessions are terminated at random while four writers book.
func TestSessionsTerminatedAtRandom(t *testing.T) {
	t.Parallel()
	s := newStore(t)
	ctx, cancel := context.WithCancel(t.Context())
	var all []ledger.Entry
	var errs, kills atomic.Int64
	var writers, killer sync.WaitGroup
	killer.Go(func() {
		for ctx.Err() == nil {
			if _, err := s.db.Exec(ctx, `select pg_terminate_backend(pid) from pg_stat_activity
				where datname = current_database() and application_name = 'tidegate' and state <> 'idle' order by random() limit 1`); err == nil {
				kills.Add(1)
			}
		}
	})
	for range 4 {
		mine := manyCalls(400, 5)
		all = append(all, mine...)
		writers.Go(func() {
			for batch := range slices.Chunk(mine, 40) {
				for {
					if _, err := s.Book(t.Context(), batch); err == nil {
						break
					}
					if errs.Add(1) > int64(testenv.Times(25)) {
						cancel() // enough of it: let them come to an end
					}
				}
			}
		})
	}
	writers.Wait()
	cancel()
	killer.Wait()
	if errs.Load() == 0 {
		t.Errorf("no booking failed in %d attempts to kill: this test shows nothing", kills.Load())
	}
	s.wantRows(t, all...)
	s.wantVerified(t)
}

func TestCancelledBooking(t *testing.T) {
	t.Parallel()
	s := newStore(t)
	s.book(t, call("p1", noon))
	batch := []ledger.Entry{call("p1", noon)}
	err := s.inTx(t, func(tx pgx.Tx) error {
		if _, err := tx.Exec(t.Context(), "select 1 from ai_usage_totals for update"); err != nil {
			return err
		}
		ctx, cancel := context.WithCancel(t.Context())
		result := make(chan error, 1)
		go func() {
			_, err := s.Book(ctx, batch)
			result <- err
		}()
		s.awaitLockWait(t, 1)
		cancel()
		if err := <-result; !errors.Is(err, context.Canceled) {
			t.Errorf("Book says %v, want that it was cancelled", err)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	wantFates(t, s.book(t, batch...), "booked")
	s.wantSums(t)
}
