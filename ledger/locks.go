package ledger

import (
	"context"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"
)

// The advisory locks, beside those of ports (see the package reservation) and that of migrations,
// which is the number before. They are one list, so that no two have the same number: processes
// of different builds share them.
const (
	// bookLock is shared by all bookings, each for as long as its transaction. An erasure takes
	// it alone for the moment in which it makes itself known; who changes limits waits for those
	// that have it.
	bookLock = 0x71de6a7f + iota
	// limitsLock is held by who changes ai_limited_ports, so that versions become visible in
	// their order. With a port's hash, it is held by who adds to counters what was booked before.
	limitsLock
	// foldLock lets one process at a time fold what bookings noted.
	foldLock
	// partitionLock serialises processes that create or drop partitions.
	partitionLock
	// eraseLock is held by who erases a user, and shared by who keeps days of the ledger.
	eraseLock
)

// awaitHolders returns once every transaction has ended that had one of some advisory locks, or
// one that is none of them, as which says of the list $1.
func (l *Ledger) awaitHolders(ctx context.Context, which string, locks ...int64) error {
	under, err := l.holders(ctx, which, locks)
	for ; err == nil && len(under) > 0; time.Sleep(2 * time.Millisecond) {
		var now []string
		now, err = l.holders(ctx, which, locks)
		under = slices.DeleteFunc(under, func(b string) bool { return !slices.Contains(now, b) })
	}
	return err
}

func (l *Ledger) holders(ctx context.Context, which string, locks []int64) ([]string, error) {
	rows, _ := l.pool.Query(ctx, `select distinct pid || ' ' || virtualtransaction from pg_locks
		where locktype = 'advisory' and database = (select oid from pg_database where datname = current_database())
			and `+which+` and objsubid = 1 and granted`, locks)
	list, err := pgx.CollectRows(rows, pgx.RowTo[string])
	return list, wrap(err, "look for transactions under way")
}
