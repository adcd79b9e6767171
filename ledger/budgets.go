package ledger

import (
	"context"
	"encoding/json"
	"errors"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/tidegate/tidegate/budget"
	"github.com/tidegate/tidegate/internal/reservation/hold"
)

// BudgetKey is the key in system_settings under which budgets are stored.
const BudgetKey = "ai.budget"

// ErrConflict: somebody else changed the budget since the caller read it.
var ErrConflict = errors.New("the budget was changed by somebody else in the meantime: read it again")

// storedBudget is the value in system_settings. Who changed it, when and how
// often stands in columns beside it.
type storedBudget struct {
	Enabled       bool           `json:"enabled"`
	SoftCapTokens *int64         `json:"soft_cap_tokens"`
	HardCapTokens *int64         `json:"hard_cap_tokens"`
	Period        budget.Period  `json:"period"`
	ExtraTokens   *int64         `json:"extra_tokens,omitempty"`
	ExtraUntil    time.Time      `json:"extra_until,omitzero"`
	Limits        []budget.Limit `json:"limits,omitempty"`
}

// byDefault is the value in system_settings of a port that was given back to the default budget.
const byDefault = `{"default": true}`

// Budget returns what binds the port: its own budget, or else the default one. Version is 0 when
// none was ever stored for the port. [budget.DefaultPort] names the default budget.
func (l *Ledger) Budget(ctx context.Context, port string) (budget.Budget, error) {
	rows, _ := l.pool.Query(ctx, "select port_id, value, version, updated_at, updated_by from system_settings where port_id in ($1, $2) and key = $3", port, budget.DefaultPort, BudgetKey)
	budgets, err := readBudgets(rows)
	if err != nil {
		return budget.Budget{}, wrap(err, "read the budget of %s", port)
	}
	own, ok := budgets[port]
	if !ok {
		own = budget.None()
	}
	if port == budget.DefaultPort {
		return own, nil
	}
	return own.Or(budgets[budget.DefaultPort]), nil
}

// readBudgets reads stored budgets by port; the default one is among them, whether it is stored or not.
func readBudgets(rows pgx.Rows) (map[string]budget.Budget, error) {
	budgets := map[string]budget.Budget{budget.DefaultPort: budget.None()}
	var port string
	var value []byte
	var row budget.Budget // without its value
	_, err := pgx.ForEachRow(rows, []any{&port, &value, &row.Version, &row.UpdatedAt, &row.UpdatedBy}, func() error {
		b := row
		err := b.Complete(value)
		budgets[port] = b
		return err
	})
	return budgets, err
}

const (
	storeTimeout = 10 * time.Second // of a change
	countTimeout = 5 * time.Minute  // of a change with limits that count anew: the ledger is read
)

// StoreBudget stores b and an audit row, registering the port if it is new, tells the
// gates by announce, and returns once none of them makes holds by an older budget. With
// ifVersion it does so only while the stored version is that one (0: none stored) and
// returns [ErrConflict] otherwise. An invalid budget is a [*events.FieldError]. Without
// Limits (nil) those that are stored stay, and so do extra tokens while there is a hard cap. A limit that counts something new begins with
// what the ledger has of its present window.
//
// The budget of [budget.DefaultPort] is the default one, and binds every port that has none of
// its own; one with Default gives a port back to it.
//
// It is finished, within 10 s, or 5 minutes where the ledger has to be read for a new limit,
// although nobody may wait for it any more: gates must hear of
// a budget that is stored. If they cannot be told, or one does not answer, that is logged:
// they find the budget when they next read all of them.
func (l *Ledger) StoreBudget(ctx context.Context, port string, b budget.Budget, ifVersion *int64, announce func(budget.Budget) error) (budget.Budget, error) {
	if err := ctx.Err(); err != nil {
		return budget.Budget{}, err
	}
	ctx = context.WithoutCancel(ctx)
	b, err := l.storeCounted(ctx, port, b, storing{ifVersion: ifVersion})
	if err != nil {
		return budget.Budget{}, err
	}
	stored := b.UpdatedAt
	if port == budget.DefaultPort {
		if stored, err = l.awaitDecisions(ctx); err != nil {
			l.log.Warn("the default budget is stored; a reservation under way may go by the old one", "error", err)
			stored = b.UpdatedAt
		}
	}
	if err := announce(b); err != nil {
		l.log.Warn("a budget is stored; the gates do not hear of it before they read it themselves", "port_id", port, "error", err)
	}
	if err := l.Reservations.AwaitReturns(ctx, port, stored); err != nil {
		l.log.Warn("a budget is stored; a gate that does not answer may go by the old one for some seconds", "port_id", port, "error", err)
	}
	if b.Default {
		return l.Budget(ctx, port)
	}
	return b, nil
}

// awaitDecisions returns once every transaction has ended that may decide reservations by the
// default budget before, and when that was, by the database's clock. A port's own budget is
// changed under the port's lock; there is none that all ports share, since each reservation
// would pay for it. But each transaction that decides has its ports' locks before it reads.
func (l *Ledger) awaitDecisions(ctx context.Context) (at time.Time, err error) {
	ctx, cancel := context.WithTimeout(ctx, storeTimeout) // one that was stopped is ended before that: see Open
	defer cancel()
	if err := l.awaitHolders(ctx, "not (classid = 0 and objid = any($1::bigint[]::oid[]))", bookLock, eraseLock); err != nil {
		return at, err
	}
	err = l.pool.QueryRow(ctx, "select clock_timestamp()").Scan(&at)
	return at, err
}

// storing says how to store a budget.
type storing struct {
	ifVersion *int64  // only while the stored version is that one; nil: whatever it is
	lost      *Change // it is this change, taken back; nil: a new one
}

// storeBudget stores a budget. begun has what was counted for limits that count something
// new; those for which it has nothing are returned instead, and nothing is stored.
func (l *Ledger) storeBudget(ctx context.Context, port string, b budget.Budget, how storing, begun []counted) (stored budget.Budget, missing []counted, err error) {
	ctx, cancel := context.WithTimeout(ctx, storeTimeout)
	defer cancel()
	err = l.inTx(ctx, func(tx pgx.Tx) error {
		old, err := lockSetting(ctx, tx, port)
		if err != nil {
			return err
		}
		if how.ifVersion != nil && *how.ifVersion != old.version {
			return ErrConflict
		}
		if how.lost != nil && !how.lost.supersedes(old.version) {
			return errSuperseded
		}
		var before budget.Budget
		if err := before.Complete(old.value); err != nil {
			return err
		}
		if b.Limits == nil && !b.Default {
			b.Limits = before.Limits
		}
		if b.ExtraTokens == nil && b.HardCapTokens != nil {
			b.ExtraTokens, b.ExtraUntil = before.ExtraTokens, before.ExtraUntil
		}
		if b.ExtraTokens != nil && *b.ExtraTokens == 0 {
			b.ExtraTokens, b.ExtraUntil = nil, time.Time{}
		}
		b.ExtraUntil = b.ExtraUntil.UTC()
		if b.Default {
			missing, err = dropOwnLimits(ctx, tx, port, begun)
		} else {
			missing, err = storeLimits(ctx, tx, port, b.Limits, before.Limits, begun)
		}
		if err != nil || len(missing) > 0 {
			return err
		}
		b.Version = old.last + 1
		var changedAt *time.Time
		if how.lost != nil {
			b.Version, changedAt = how.lost.Version, &how.lost.ChangedAt
		}
		value, err := json.Marshal(storedBudget{b.Enabled, b.SoftCapTokens, b.HardCapTokens, b.Period, b.ExtraTokens, b.ExtraUntil, b.Limits})
		if err != nil {
			return err
		}
		if b.Default {
			value = []byte(byDefault)
		}
		err = tx.QueryRow(ctx, `insert into system_settings (port_id, key, value, version, updated_at, updated_by)
			values ($1, $2, $3, $4, coalesce($6, clock_timestamp()), $5) -- not now(): that was before the lock
			on conflict (port_id, key) do update set value = excluded.value, version = excluded.version,
				updated_at = excluded.updated_at, updated_by = excluded.updated_by
			returning updated_at`, port, BudgetKey, value, b.Version, b.UpdatedBy, changedAt).Scan(&b.UpdatedAt)
		if err != nil {
			return err
		}
		if how.lost != nil {
			return auditAgain(ctx, tx, how.lost)
		}
		return audit(ctx, tx, port, BudgetKey, b.Version, old.value, value, b.UpdatedBy)
	})
	if !errors.Is(err, ErrConflict) && !errors.Is(err, errSuperseded) {
		err = wrap(err, "store the budget of %s", port)
	}
	return b, missing, err
}

type setting struct {
	value   []byte
	version int64 // 0: nothing is stored
	last    int64 // the highest that there ever was: versions go on when a port comes back
}

// lockSetting registers the port and holds its row, so that two changes of one
// port's settings come one after the other, the first one included.
func lockSetting(ctx context.Context, tx pgx.Tx, port string) (setting, error) {
	// No reservation is decided by the old cap and committed under the new one.
	if _, err := tx.Exec(ctx, "select pg_advisory_xact_lock($1)", hold.PortLocks(port)[0]); err != nil {
		return setting{}, err
	}
	// One statement, which changes nothing but locks: between two the port could go.
	if port != budget.DefaultPort {
		if _, err := tx.Exec(ctx, "insert into ports as p (id) values ($1) on conflict (id) do update set name = p.name", port); err != nil {
			return setting{}, err
		}
	}
	var s setting
	err := tx.QueryRow(ctx, "select value, version from system_settings where port_id = $1 and key = $2 for update", port, BudgetKey).Scan(&s.value, &s.version)
	if errors.Is(err, pgx.ErrNoRows) {
		err = tx.QueryRow(ctx, "select coalesce(max(version), 0) from system_settings_audit where port_id = $1", port).Scan(&s.last)
		return s, err
	}
	s.last = s.version
	return s, err
}
