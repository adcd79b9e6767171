package ledger

import (
	"context"
	"crypto/sha256"
	"fmt"

	"github.com/jackc/pgx/v5"

	"github.com/tidegate/tidegate/events"
)

// eraseLock keeps an erasure and bookings apart: bookings share it, the erasure
// takes it alone for the moment in which it makes itself known.
const eraseLock = 0x71de6a7f

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
	err = l.inTx(ctx, func(tx pgx.Tx) error {
		if _, err := tx.Exec(ctx, "select pg_advisory_xact_lock($1)", eraseLock); err != nil {
			return err
		}
		_, err := tx.Exec(ctx, "insert into ai_erased_users (user_hash) values ($1) on conflict do nothing", hash[:])
		return err
	})
	if err != nil {
		return 0, fmt.Errorf("ledger: erase a user: %w", err)
	}
	// Holds name a user for as long as they live, which is an hour at most.
	if _, err := l.pool.Exec(ctx, "update ai_budget_holds set asked = null where asked->>'user_id' = $1", user); err != nil {
		return 0, fmt.Errorf("ledger: erase a user: %w", err)
	}
	tag, err := l.pool.Exec(ctx, "update ai_usage_ledger set user_id = null where user_id = $1", user)
	if err != nil {
		return 0, fmt.Errorf("ledger: erase a user: %w", err)
	}
	return tag.RowsAffected(), nil
}

// learnErased reads who was erased.
func (l *Ledger) learnErased(ctx context.Context, tx pgx.Tx) error {
	rows, err := tx.Query(ctx, "select user_hash from ai_erased_users")
	if err != nil {
		return fmt.Errorf("ledger: read erased users: %w", err)
	}
	hashes, err := pgx.CollectRows(rows, pgx.RowTo[[]byte])
	if err != nil {
		return fmt.Errorf("ledger: read erased users: %w", err)
	}
	erased := make(map[[sha256.Size]byte]struct{}, len(hashes))
	for _, h := range hashes {
		erased[[sha256.Size]byte(h)] = struct{}{}
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
