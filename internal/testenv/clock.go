package testenv

import (
	"context"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
)

// Clock is a database's clock that a test sets, and a machine's that goes with it.
type Clock struct {
	t    testing.TB
	conn *pgx.Conn

	mu    sync.Mutex
	still time.Time     // what it says, unless that is zero
	ahead time.Duration // of the real one, while it goes
}

// NewClock gives the database at url a clock of its own, the real time until it is set:
// for sessions that begin from then on, clock_timestamp() and now() are found in a schema
// that comes before Postgres's.
func NewClock(t testing.TB, url string) *Clock {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), url)
	if err != nil {
		t.Fatalf("testenv: %v", err)
	}
	t.Cleanup(func() { _ = conn.Close(context.Background()) })
	_, err = conn.Exec(t.Context(), `
		create schema clock;
		create table clock.says (still timestamptz, ahead interval not null);
		insert into clock.says values (null, '0');
		create function clock.clock_timestamp() returns timestamptz language sql volatile
			as 'select coalesce(still, pg_catalog.clock_timestamp() + ahead) from clock.says';
		create function clock.now() returns timestamptz language sql volatile as 'select clock.clock_timestamp()';
		do $$ begin execute format('alter database %I set search_path = clock, pg_catalog, public', current_database()); end $$`)
	if err != nil {
		t.Fatalf("testenv: %v", err)
	}
	return &Clock{t: t, conn: conn}
}

// Stop lets both clocks stand still at a time, in microseconds as Postgres has it.
func (c *Clock) Stop(at time.Time) { c.set(at, 0) }

// Start lets both go on from a time.
func (c *Clock) Start(from time.Time) { c.set(time.Time{}, time.Until(from)) }

// set changes both in one moment for whoever reads the machine's before and after the
// database's.
func (c *Clock) set(still time.Time, ahead time.Duration) {
	c.t.Helper()
	c.mu.Lock()
	defer c.mu.Unlock()
	var at *time.Time
	if !still.IsZero() {
		at = &still
	}
	if _, err := c.conn.Exec(c.t.Context(), "update clock.says set still = $1, ahead = $2", at, ahead); err != nil {
		c.t.Fatalf("testenv: set the clock: %v", err)
	}
	c.still, c.ahead = still, ahead
}

// Now is what a machine's clock says that is right.
func (c *Clock) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.still.IsZero() {
		return c.still
	}
	return time.Now().Add(c.ahead)
}
