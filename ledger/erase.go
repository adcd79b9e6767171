package ledger

import (
	"context"
	"crypto/sha256"

	"github.com/jackc/pgx/v5"

	"github.com/tidegate/tidegate/budget"
	"github.com/tidegate/tidegate/events"
)

// EraseUser removes the user from every ledger row, and from every event of
// theirs that comes later. It returns how many rows it changed. Totals keep the
// tokens. Calling it again is harmless.
func (l *Ledger) EraseUser(ctx context.Context, user string) (rows int64, err error) {
	if user == "" {
		return 0, &events.FieldError{Reason: events.ReasonInvalidField, Field: "user_id", Value: `""`, Rule: "is required"}
	}
	hash := sha256.Sum256([]byte(user))
	// First make it known: once this commits no booking writes the user any more,
	// and those that did have committed, so the update sees their rows.
	var known pgx.Batch
	known.Queue("select pg_advisory_xact_lock($1)", bookLock)
	known.Queue("insert into ai_erased_users (user_hash) values ($1) on conflict do nothing", hash[:])
	err = l.inTx(ctx, func(tx pgx.Tx) error { return tx.SendBatch(ctx, &known).Close() })
	if err != nil {
		return 0, wrap(err, "erase a user")
	}
	err = l.inTx(ctx, func(tx pgx.Tx) error {
		var send pgx.Batch
		// Like a booking: who begins a limit waits for this one, or this one knows the limit.
		send.Queue("select pg_advisory_xact_lock_shared($1)", bookLock)
		// Holds and leases name a user for as long as they live, which is an hour at most, and a lease for any
		// user will. A lease for the calls of nobody knows whom counts in every value, until it ends. Bookings lock leases in this order.
		send.Queue(`with named as (
			select port_id, id from ai_budget_slices
			where jsonb_path_exists(calls, '$.of[*][*] ? (@ == $user)', jsonb_build_object('user', $1::text)) or calls->'each' ? 'user_id'
			order by port_id, id for update
		) update ai_budget_slices s set calls = null from named n where s.port_id = n.port_id and s.id = n.id`, user)
		send.Queue("update ai_budget_holds set asked = null, call = call - 'user_id' where asked->>'user_id' = $1 or call->>'user_id' = $1", user)
		if err := tx.SendBatch(ctx, &send).Close(); err != nil {
			return err
		}
		if err := uncount(ctx, tx, user); err != nil {
			return err
		}
		var last pgx.Batch
		// Of limits that may be gone. What is called like the user and is none may alert once more.
		last.Queue("delete from ai_alerts where counter <> 0 and limit_value = $1", user)
		// What is kept of days by user would keep the name. Waits for whoever keeps one now.
		last.Queue("select pg_advisory_xact_lock($1)", eraseLock)
		last.Queue(`with erased as (
				update ai_usage_ledger set user_id = null where user_id = $1 returning port_id, (created_at at time zone 'UTC')::date as day
			), gone as (
				delete from ai_usage_day_shares where dimension = 'user' and (port_id, day) in (select port_id, day from erased)
			)
			select count(*) from erased`, user).QueryRow(func(row pgx.Row) error { return row.Scan(&rows) })
		return tx.SendBatch(ctx, &last).Close()
	})
	return rows, wrap(err, "erase a user")
}

// uncount makes counters of limits what they will be once the user's rows are nobody's.
func uncount(ctx context.Context, tx pgx.Tx, user string) error {
	ports, err := limitedPorts(ctx, tx, `limits @? '$[*] ? (@.per == "user_id" || exists(@.match.user_id))'`)
	if err != nil {
		return err
	}
	if standard := ports[budget.DefaultPort]; standard != nil {
		delete(ports, budget.DefaultPort)
		rows, _ := tx.Query(ctx, `select distinct l.port_id from ai_usage_ledger l
			where l.user_id = $1 and not exists (select from ai_limited_ports p where p.port_id = l.port_id and p.limits is not null)`, user)
		var port string
		if _, err := pgx.ForEachRow(rows, []any{&port}, func() error { ports[port] = standard; return nil }); err != nil {
			return err
		}
	}
	var changes []addition
	for port, limits := range ports {
		for i := range limits {
			c := &limits[i]
			if !c.LooksAt(budget.PerUser) {
				continue
			}
			sums, _, err := sumLimit(ctx, tx, port, c, &user)
			if err != nil {
				return err
			}
			for _, a := range sums {
				took := a
				took.Used = -a.Used
				changes = append(changes, took)
				if c.Match.UserID == "" {
					a.Value = "" // where calls of nobody count
					changes = append(changes, a)
				}
			}
		}
	}
	if err := addCounters(ctx, tx, changes); err != nil {
		return err
	}
	var counters []int64
	for i := range changes {
		counters = append(counters, int64(changes[i].Counter.Counter))
	}
	_, err = tx.Exec(ctx, "delete from ai_limit_counters where counter = any($1) and value = $2 and used = 0", counters, user) // the name goes too
	return err
}

// learnErased reads who was erased.
func (l *Ledger) learnErased(ctx context.Context, tx pgx.Tx) error {
	rows, _ := tx.Query(ctx, "select user_hash from ai_erased_users")
	erased := map[[sha256.Size]byte]struct{}{}
	var hash []byte
	_, err := pgx.ForEachRow(rows, []any{&hash}, func() error {
		erased[[sha256.Size]byte(hash)] = struct{}{}
		return nil
	})
	if err != nil {
		return wrap(err, "read erased users")
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(erased) > len(l.erased) { // users are only ever added: a reading that came late knows less
		l.erased = erased
	}
	return nil
}

// userOf is the user to store: none for one that was erased.
func (l *Ledger) userOf(u *events.Usage) string {
	l.mu.RLock()
	defer l.mu.RUnlock()
	if u.UserID == "" || len(l.erased) == 0 {
		return u.UserID
	}
	if _, gone := l.erased[sha256.Sum256([]byte(u.UserID))]; gone {
		return ""
	}
	return u.UserID
}
