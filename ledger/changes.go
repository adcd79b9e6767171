package ledger

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"math"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/tidegate/tidegate/budget"
	"github.com/tidegate/tidegate/events"
	"github.com/tidegate/tidegate/internal/reservation/hold"
)

// Changes of settings are kept in a stream beside this database. Here is what the database has to
// do with it: the outbox, how far it has the stream, and how it takes back what it lacks.

const (
	// portDeletedKey is the key of the change that deleted a port.
	portDeletedKey = "port.deleted"
	// PortNamedKey is the key of a change of a port's name. Its version is that of the port's budget at the time.
	PortNamedKey = "port.named"
)

// Change is one row of a port's audit log: of its budget, of its name, or that it was deleted.
type Change struct {
	ID         int64           `json:"id"`
	PortID     string          `json:"port_id"`
	Key        string          `json:"key"`
	Version    int64           `json:"version"`
	OldValue   json.RawMessage `json:"old_value"` // null: there was none
	NewValue   json.RawMessage `json:"new_value"` // null: deleted
	ChangedAt  time.Time       `json:"changed_at"`
	ChangedBy  string          `json:"changed_by"`
	RestoredAt *time.Time      `json:"restored_at,omitempty"` // when it was taken back from the stream; null: it was made here
}

// changeFields are those of a [Change], in their order.
const changeFields = "a.id, a.port_id, a.key, a.version, a.old_value, a.new_value, a.changed_at, a.changed_by, a.restored_at"

// Audit returns the port's changes, newest first, at most limit of them, older
// than the change before (0: from the newest).
func (l *Ledger) Audit(ctx context.Context, port string, before int64, limit int) ([]Change, error) {
	rows, _ := l.pool.Query(ctx, "select "+changeFields+` from system_settings_audit a
		where a.port_id = $1 and ($2 = 0 or a.id < $2) order by a.id desc limit $3`, port, before, limit)
	changes, err := pgx.CollectRows(rows, pgx.RowToStructByPos[Change])
	return changes, wrap(err, "read the audit log of %s", port)
}

// audit writes the change into the audit log, and into the outbox.
func audit(ctx context.Context, tx pgx.Tx, port, key string, version int64, before, after []byte, by string) error {
	_, err := tx.Exec(ctx, `with made as (
			insert into system_settings_audit (port_id, key, version, old_value, new_value, changed_by)
			values ($1, $2, $3, $4, $5, $6) returning id)
		insert into ai_unsent_changes select id from made`, port, key, version, before, after, by)
	return err
}

// auditAgain writes a change that this database lacked into the audit log as it was.
func auditAgain(ctx context.Context, tx pgx.Tx, c *Change) error {
	_, err := tx.Exec(ctx, `insert into system_settings_audit (port_id, key, version, old_value, new_value, changed_at, changed_by, restored_at)
		values ($1, $2, $3, $4, $5, $6, $7, now())`, c.PortID, c.Key, c.Version, c.OldValue, c.NewValue, c.ChangedAt, c.ChangedBy)
	return err
}

// ChangeStream is the stream of changes as this database knows it.
type ChangeStream struct {
	ID      uuid.UUID // nil before there was one
	Through uint64    // every change up to this sequence is here
	Unsent  int64     // changes here that the stream may not have; 10,000 stands for more
}

// ChangeStream reads it. settled waits for whoever is sending changes at the moment.
func (l *Ledger) ChangeStream(ctx context.Context, settled bool) (s ChangeStream, err error) {
	sql := "select coalesce(id, '00000000-0000-0000-0000-000000000000'), through, (select count(*) from (select from ai_unsent_changes limit 10000) u) from ai_change_stream"
	if settled {
		sql += " for share"
	}
	err = l.pool.QueryRow(ctx, sql).Scan(&s.ID, &s.Through, &s.Unsent)
	return s, wrap(err, "read how far it has the stream of changes")
}

// FollowChanges follows another stream of changes from its beginning, or the same one again: it may
// have nothing of what is here. known is what was read before; if that is not so any more, somebody else did it.
func (l *Ledger) FollowChanges(ctx context.Context, known ChangeStream, stream uuid.UUID) error {
	err := l.inTx(ctx, func(tx pgx.Tx) error {
		followed, err := tx.Exec(ctx, `update ai_change_stream set id = $1, through = 0
			where coalesce(id, '00000000-0000-0000-0000-000000000000') = $2 and through = $3`, stream, known.ID, int64(known.Through))
		if err != nil || followed.RowsAffected() == 0 {
			return err
		}
		_, err = tx.Exec(ctx, "insert into ai_unsent_changes select id from system_settings_audit on conflict do nothing")
		return err
	})
	return wrap(err, "follow a stream of changes")
}

// HasChangesThrough notes that every change of the stream up to a sequence is here.
func (l *Ledger) HasChangesThrough(ctx context.Context, stream uuid.UUID, sequence uint64) error {
	_, err := l.pool.Exec(ctx, "update ai_change_stream set through = greatest(through, $2) where id = $1", stream, int64(sequence))
	return wrap(err, "note how far it has the stream of changes")
}

// ErrNotFollowed says that nothing is sent before a gate has noted which stream of changes there is, which the
// first one does as soon as it starts.
var ErrNotFollowed = errors.New("no gate has seen to the stream of changes yet")

// SendChanges takes changes out of the outbox, the newest first and at most so many. send has the
// stream store one, as the next after a sequence, and returns its own; it must not take longer than
// some seconds in all. What was sent before an error of it stays sent. Of two that are called at
// once, the second waits.
func (l *Ledger) SendChanges(ctx context.Context, most int, send func(c *Change, after uint64) (sequence uint64, err error)) (sent int, err error) {
	var failed error
	err = l.inTx(ctx, func(tx pgx.Tx) error {
		var through uint64
		var followed bool
		if err := tx.QueryRow(ctx, "select through, id is not null from ai_change_stream for update").Scan(&through, &followed); err != nil {
			return err
		}
		if !followed { // sequences mean nothing yet: whoever follows the stream would begin again
			failed = ErrNotFollowed
			return nil
		}
		rows, _ := tx.Query(ctx, "select "+changeFields+" from ai_unsent_changes u join system_settings_audit a on a.id = u.change order by u.change desc limit $1", most)
		list, err := pgx.CollectRows(rows, pgx.RowToStructByPos[Change])
		if err != nil || len(list) == 0 {
			return err
		}
		var done []int64
		for i := range list {
			var sequence uint64
			if sequence, failed = send(&list[i], through); failed != nil {
				break
			}
			through, done = sequence, append(done, list[i].ID)
		}
		sent = len(done)
		var send pgx.Batch
		send.Queue("delete from ai_unsent_changes where change = any($1)", done)
		send.Queue("update ai_change_stream set through = $1", int64(through))
		return tx.SendBatch(ctx, &send).Close()
	})
	return sent, wrap(cmp.Or(err, failed), "send changes")
}

// Restored is what became of a change that the stream has.
type Restored struct {
	Known  bool           // it was here
	Stored *budget.Budget // it binds the port from now on; nil: what is stored is of a higher version, or nothing is
}

// RestoreChange takes back a change, unless it is here: it is added to the audit log, and binds if
// its version is higher than the stored one. A name is the port's again if it is the latest. A deleted port loses
// its own budget again, and nothing else. A change that is none is a [*events.FieldError].
func (l *Ledger) RestoreChange(ctx context.Context, c Change) (Restored, error) {
	if c.Key == PortNamedKey {
		return l.restoreName(ctx, &c)
	}
	b, err := c.budget()
	if err != nil {
		return Restored{}, err
	}
	for {
		binds := false
		r, err := l.restoreIntoAudit(ctx, &c, func(tx pgx.Tx) (done bool, err error) {
			var version int64
			err = tx.QueryRow(ctx, "select coalesce(max(version), 0) from system_settings where port_id = $1 and key = $2", c.PortID, BudgetKey).Scan(&version)
			binds = c.supersedes(version)
			return !binds, err
		})
		if err != nil || !binds {
			return r, err
		}
		b, err := l.storeCounted(ctx, c.PortID, b, storing{lost: &c})
		if errors.Is(err, errSuperseded) { // another process is restoring it, or somebody has changed it meanwhile
			continue
		}
		return Restored{Stored: &b}, err
	}
}

// errSuperseded: what is stored by now is of a higher version.
var errSuperseded = errors.New("what is stored is of a higher version")

// budget is what the change stored. One that deleted the port has left it to the default budget.
func (c *Change) budget() (b budget.Budget, err error) {
	switch {
	case c.Key != BudgetKey && c.Key != portDeletedKey:
		return b, budget.Refuse(budget.ReasonInvalidField, "key", c.Key, "must be "+BudgetKey+", "+PortNamedKey+" or "+portDeletedKey)
	case c.Version < 0 || c.Version > math.MaxInt32:
		return b, budget.Refuse(budget.ReasonInvalidField, "version", c.Version, "is no version of a budget")
	case !events.ValidPort(c.PortID) && (c.PortID != budget.DefaultPort || c.Key == portDeletedKey):
		return b, budget.Refuse(budget.ReasonInvalidField, "port_id", c.PortID, "is no port")
	case c.Key == portDeletedKey:
		return budget.Budget{Default: true, Period: budget.Month, UpdatedBy: c.ChangedBy}, nil
	}
	if err := b.Complete(c.NewValue); err != nil {
		return b, budget.Refuse(budget.ReasonInvalidField, "new_value", string(c.NewValue), "is no budget")
	}
	b.UpdatedBy = c.ChangedBy
	if !b.Default { // nothing of what is stored stays
		if b.Limits == nil {
			b.Limits = []budget.Limit{}
		}
		if b.ExtraTokens == nil && b.HardCapTokens != nil {
			b.ExtraTokens = new(int64(0))
		}
	}
	return b, b.ValidateFor(c.PortID)
}

// supersedes reports whether the change comes after the stored version.
func (c *Change) supersedes(version int64) bool {
	if c.Key == portDeletedKey { // which has the version of the budget that went
		return version > 0 && version <= c.Version
	}
	return version < c.Version
}

// restoreIntoAudit adds a change to the audit log, unless it is here, once apply has done what goes with that.
// It does not where apply says that this is not all.
func (l *Ledger) restoreIntoAudit(ctx context.Context, c *Change, apply func(pgx.Tx) (done bool, err error)) (r Restored, err error) {
	err = l.inTx(ctx, func(tx pgx.Tx) (err error) {
		if _, err = tx.Exec(ctx, "select pg_advisory_xact_lock($1)", hold.PortLocks(c.PortID)[0]); err != nil {
			return err
		}
		if r.Known, err = c.known(ctx, tx); err != nil || r.Known {
			return err
		}
		if done, err := apply(tx); err != nil || !done {
			return err
		}
		return auditAgain(ctx, tx, c)
	})
	return r, wrap(err, "restore a change of %s", c.PortID)
}

// known reports whether the change is here. If so, the stream has it, too.
func (c *Change) known(ctx context.Context, tx pgx.Tx) (bool, error) {
	var id int64
	err := tx.QueryRow(ctx, `select id from system_settings_audit where port_id = $1 and key = $2 and version = $3 and changed_at = $4`,
		c.PortID, c.Key, c.Version, c.ChangedAt).Scan(&id)
	if errors.Is(err, pgx.ErrNoRows) {
		return false, nil
	}
	if err == nil {
		_, err = tx.Exec(ctx, "delete from ai_unsent_changes where change = $1", id)
	}
	return err == nil, err
}

// restoreName takes back a port's name, unless it was changed later, or the port was deleted later.
func (l *Ledger) restoreName(ctx context.Context, c *Change) (r Restored, err error) {
	var to named
	switch err := json.Unmarshal(c.NewValue, &to); {
	case !events.ValidPort(c.PortID):
		return r, budget.Refuse(budget.ReasonInvalidField, "port_id", c.PortID, "is no port")
	case err != nil || validName(to.Name) != nil:
		return r, budget.Refuse(budget.ReasonInvalidField, "new_value", string(c.NewValue), "is no name")
	}
	return l.restoreIntoAudit(ctx, c, func(tx pgx.Tx) (done bool, err error) {
		_, err = tx.Exec(ctx, `insert into ports as p (id, name) select $1, $2
			where not exists (select from system_settings_audit where port_id = $1 and key in ($3, $4) and changed_at > $5)
			on conflict (id) do update set name = excluded.name`, c.PortID, to.Name, PortNamedKey, portDeletedKey, c.ChangedAt)
		return true, err
	})
}
