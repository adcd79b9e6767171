package ledger

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/tidegate/tidegate/identity"
)

var _ identity.TokenStore = (*Ledger)(nil)

const tokenColumns = "id, name, hash, permissions, ports, created_at, created_by, expires_at, last_used_at, revoked_at, revoked_by"

// CreateToken stores a new API token, whole. Times are kept to the microsecond.
func (l *Ledger) CreateToken(ctx context.Context, t identity.Token) error {
	_, err := l.pool.Exec(ctx, "insert into api_tokens ("+tokenColumns+") values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11)",
		t.ID, t.Name, t.Hash[:], t.Permissions, t.Ports, t.CreatedAt, t.CreatedBy,
		timeOrNull(t.ExpiresAt), timeOrNull(t.LastUsedAt), timeOrNull(t.RevokedAt), t.RevokedBy)
	if err != nil {
		return fmt.Errorf("ledger: store the API token %s: %w", t.ID, err)
	}
	return nil
}

// TokenByID returns the token, revoked or not, or [identity.ErrTokenNotFound].
func (l *Ledger) TokenByID(ctx context.Context, id string) (identity.Token, error) {
	t, err := scanToken(l.pool.QueryRow(ctx, "select "+tokenColumns+" from api_tokens where id = $1", id))
	if errors.Is(err, pgx.ErrNoRows) {
		return identity.Token{}, identity.ErrTokenNotFound
	}
	if err != nil {
		return identity.Token{}, fmt.Errorf("ledger: read the API token %s: %w", id, err)
	}
	return t, nil
}

// RevokeToken ends the token, or returns [identity.ErrTokenNotFound]. A token
// that is revoked already stays as it is.
func (l *Ledger) RevokeToken(ctx context.Context, id, by string, at time.Time) error {
	tag, err := l.pool.Exec(ctx, `update api_tokens set revoked_by = case when revoked_at is null then $2 else revoked_by end,
		revoked_at = coalesce(revoked_at, $3) where id = $1`, id, by, at)
	if err != nil {
		return fmt.Errorf("ledger: revoke the API token %s: %w", id, err)
	}
	if tag.RowsAffected() == 0 {
		return identity.ErrTokenNotFound
	}
	return nil
}

// ListTokens returns at most limit tokens, revoked ones too, newest first: those after
// the one with the given id, "" for the first.
func (l *Ledger) ListTokens(ctx context.Context, after string, limit int) ([]identity.Token, error) {
	rows, err := l.pool.Query(ctx, "select "+tokenColumns+` from api_tokens
		where $1 = '' or (created_at, id) < (select created_at, id from api_tokens where id = $1)
		order by created_at desc, id desc limit $2`, after, limit)
	if err != nil {
		return nil, fmt.Errorf("ledger: list API tokens: %w", err)
	}
	tokens, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (identity.Token, error) { return scanToken(row) })
	if err != nil {
		return nil, fmt.Errorf("ledger: list API tokens: %w", err)
	}
	return tokens, nil
}

// TouchToken notes a use, unless a later one is noted already.
func (l *Ledger) TouchToken(ctx context.Context, id string, at time.Time) error {
	_, err := l.pool.Exec(ctx, "update api_tokens set last_used_at = $2 where id = $1 and (last_used_at is null or last_used_at < $2)", id, at)
	if err != nil {
		return fmt.Errorf("ledger: note the use of the API token %s: %w", id, err)
	}
	return nil
}

func scanToken(row pgx.Row) (identity.Token, error) {
	var t identity.Token
	var hash []byte
	var expires, used, revoked *time.Time
	err := row.Scan(&t.ID, &t.Name, &hash, &t.Permissions, &t.Ports, &t.CreatedAt, &t.CreatedBy, &expires, &used, &revoked, &t.RevokedBy)
	if err != nil {
		return identity.Token{}, err
	}
	copy(t.Hash[:], hash)
	t.CreatedAt = t.CreatedAt.UTC()
	t.ExpiresAt, t.LastUsedAt, t.RevokedAt = timeOrZero(expires), timeOrZero(used), timeOrZero(revoked)
	return t, nil
}

func timeOrNull(t time.Time) *time.Time {
	if t.IsZero() {
		return nil
	}
	return &t
}

func timeOrZero(t *time.Time) time.Time {
	if t == nil {
		return time.Time{}
	}
	return t.UTC()
}
