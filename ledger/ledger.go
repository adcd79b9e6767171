// Package ledger is Tidegate's memory: it books usage events exactly once, keeps
// the rollups that budgets and reports read, and stores budgets with their history.
// It knows Postgres and nothing else.
package ledger

import (
	"cmp"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"sync"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgtype"
	"github.com/jackc/pgx/v5/pgxpool"
	pgxuuid "github.com/vgarvardt/pgx-google-uuid/v5"

	"github.com/tidegate/tidegate/internal/reservation"
)

// DefaultRetentionMonths keeps seven years, what most bookkeeping law asks for.
const DefaultRetentionMonths = 84

// Config opens a [Ledger].
type Config struct {
	// URL of the database, whose schema migrations.Apply has brought up to date.
	URL string
	// RetentionMonths is how many whole months of ledger rows are kept beside the
	// current one. Older events are not booked, older partitions are dropped by
	// [Ledger.Maintain]. Default 84; at least 2.
	RetentionMonths int
	// KnownPortsOnly quarantines events of ports that nobody registered. By
	// default a port is registered by its first event or budget.
	KnownPortsOnly bool
	// Logger gets what an operator should know. Default slog.Default().
	Logger *slog.Logger
}

// Ledger is safe for concurrent use. Any number of processes may open the same database.
type Ledger struct {
	Reservations *reservation.Store // holds tokens of ports' budgets for calls under way

	pool        *pgxpool.Pool
	bookPool    *pgxpool.Pool // for Book
	reservePool *pgxpool.Pool // its own, so that nothing delays a reservation
	reportPool  *pgxpool.Pool // for what may read millions of rows, so that no change waits for it
	countPool   *pgxpool.Pool // for changes that must read as much
	cfg         Config
	log         *slog.Logger

	// Others in tests.
	keptCalls     int64
	keepFor       time.Duration
	stretchBlocks int64

	// expectDuplicates remembers that the last batch held known ids, so that the
	// next one skips the COPY that would fail.
	expectDuplicates atomic.Bool

	mu         sync.RWMutex
	ports      map[string]struct{}            // registered, as far as this process has seen
	partitions map[time.Time]struct{}         // months that have a partition
	dropped    time.Time                      // months before this one had one; see learnDropped
	erased     map[[sha256.Size]byte]struct{} // users whose events are booked without them
	limited    limited                        // ports with limits
}

// Open connects to the database. It fails when the database cannot be reached.
func Open(ctx context.Context, cfg Config) (*Ledger, error) {
	cfg.RetentionMonths = cmp.Or(cfg.RetentionMonths, DefaultRetentionMonths)
	cfg.Logger = cmp.Or(cfg.Logger, slog.Default())
	if cfg.RetentionMonths < 2 {
		return nil, fmt.Errorf("ledger: retention of %d months: must be at least 2", cfg.RetentionMonths)
	}
	l := &Ledger{cfg: cfg, log: cfg.Logger, keptCalls: keptCalls, keepFor: keepFor, stretchBlocks: stretchBlocks}
	// A process that was stopped inside a transaction must not hold its locks for long.
	patient := map[string]string{"idle_in_transaction_session_timeout": "10s"}
	hasty := map[string]string{"idle_in_transaction_session_timeout": "2s", "lock_timeout": "1s", "statement_timeout": "5s"}
	for _, p := range []struct {
		pool     **pgxpool.Pool
		conns    int32
		settings []map[string]string
	}{
		{&l.pool, otherConns, []map[string]string{patient}},
		{&l.bookPool, bookConns, []map[string]string{patient, keyed}},
		{&l.reservePool, reserveConns, []map[string]string{hasty, keyed}},
		{&l.reportPool, reportConns, []map[string]string{patient, {"jit": "off", "work_mem": "16MB"}}}, // to compile a report takes longer than the report
		{&l.countPool, countConns, []map[string]string{patient}},
	} {
		var err error
		if *p.pool, err = connect(ctx, cfg.URL, p.conns, p.settings...); err != nil {
			l.Close()
			return nil, err
		}
	}
	l.Reservations = reservation.NewStore(l.reservePool, l.pool, l.registerUnseen)
	l.forget()
	if err := l.learnDropped(ctx, l.pool); err != nil {
		l.Close()
		return nil, fmt.Errorf("ledger: %w", err)
	}
	return l, nil
}

// How many transactions may be under way at once in this process.
const (
	bookConns    = 4
	reserveConns = 8  // reservations, releases, the gate's readings, and leases that are returned
	reportConns  = 4  // usage, lists, simulations, verifications: of these two at once (package ops), with two each
	countConns   = 2  // what limits that begin have to count: a change of a budget waits for no report
	otherConns   = 10 // budgets, and what else is short
)

// keyed is for statements that look up, by primary key, whatever arrays they are
// given. Postgres would plan them anew for each array, at more than a small batch
// costs; and a plan that is kept must not be one that was good while the tables
// were empty, which is to read them whole.
var keyed = map[string]string{"plan_cache_mode": "force_generic_plan",
	"enable_seqscan": "off", "enable_hashjoin": "off", "enable_mergejoin": "off"}

// Nobody looks at the error of a pool's or a transaction's Query: pgx.CollectRows and pgx.ForEachRow, to which its
// rows go, return it.

// connect makes a pool, which connects when it is first used.
func connect(ctx context.Context, url string, conns int32, settings ...map[string]string) (*pgxpool.Pool, error) {
	pc, err := pgxpool.ParseConfig(url)
	if err != nil {
		return nil, wrap(err, "database URL")
	}
	pc.MaxConns = conns
	pc.ConnConfig.ConnectTimeout = 5 * time.Second
	pc.ConnConfig.RuntimeParams["application_name"] = "tidegate"
	for _, s := range settings {
		maps.Copy(pc.ConnConfig.RuntimeParams, s)
	}
	pc.AfterConnect = func(_ context.Context, conn *pgx.Conn) error {
		pgxuuid.Register(conn.TypeMap()) // pgx itself sends a uuid.UUID by way of text: 20 allocations each
		// Every time that is read is in UTC.
		conn.TypeMap().RegisterType(&pgtype.Type{Name: "timestamptz", OID: pgtype.TimestamptzOID, Codec: &pgtype.TimestamptzCodec{ScanLocation: time.UTC}})
		return nil
	}
	pool, err := pgxpool.NewWithConfig(ctx, pc)
	if err != nil {
		return nil, fmt.Errorf("ledger: %w", err)
	}
	return pool, nil
}

// Close waits for running calls and closes the connections.
func (l *Ledger) Close() {
	for _, pool := range []*pgxpool.Pool{l.countPool, l.reportPool, l.reservePool, l.bookPool, l.pool} {
		if pool != nil { // nil: Open failed before
			pool.Close()
		}
	}
}

// Ping reports whether the database answers.
func (l *Ledger) Ping(ctx context.Context) error { return l.pool.Ping(ctx) }

// Oldest is the time from which on events are kept, given that it is now: the retention's
// beginning, or a later one where months were dropped under a shorter retention.
func (l *Ledger) Oldest(now time.Time) time.Time {
	oldest := monthOf(now).AddDate(0, -l.cfg.RetentionMonths, 0)
	if dropped := l.droppedBefore(); dropped.After(oldest) {
		return dropped
	}
	return oldest
}

// forget drops what this process believes about ports and partitions, after
// another one changed them.
func (l *Ledger) forget() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.ports = map[string]struct{}{}
	l.partitions = map[time.Time]struct{}{}
	l.limited = limited{}
}

func (l *Ledger) inTx(ctx context.Context, f func(pgx.Tx) error) error {
	return pgx.BeginFunc(ctx, l.pool, f)
}

// wrap says of an error, if there is one, what failed.
func wrap(err error, what string, args ...any) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("ledger: %s: %w", fmt.Sprintf(what, args...), err)
}

// sqlState is the Postgres error code in err, "" if there is none.
func sqlState(err error) string {
	var pg *pgconn.PgError
	if errors.As(err, &pg) {
		return pg.Code
	}
	return ""
}

// The error codes that booking knows how to mend.
const (
	codeUniqueViolation     = "23505" // a known id
	codeForeignKeyViolation = "23503" // the port was deleted
	codeCheckViolation      = "23514" // also: no partition for the row
	codeSerialization       = "40001"
	codeDeadlock            = "40P01"
	codeLockNotAvailable    = "55P03"
)
