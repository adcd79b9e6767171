// Package pgstore keeps API tokens in Postgres, in the table api_tokens of package
// migrations.
package pgstore

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/tidegate/tidegate/identity"
)

// Store is an [identity.TokenStore]. It is safe for concurrent use, by any number of
// processes on the same database.
type Store struct {
	pool *pgxpool.Pool
}

var _ identity.TokenStore = (*Store)(nil)

// conns is how many requests are looked up at once: each is one row by its key.
const conns = 4

// Open makes a store on the database at url, whose schema migrations.Apply has brought up
// to date. It connects when it is first used.
func Open(ctx context.Context, url string) (*Store, error) {
	cfg, err := pgxpool.ParseConfig(url)
	if err != nil {
		return nil, fmt.Errorf("pgstore: database URL: %w", err)
	}
	cfg.MaxConns = conns
	cfg.ConnConfig.ConnectTimeout = 5 * time.Second
	cfg.ConnConfig.RuntimeParams["application_name"] = "tidegate"
	pool, err := pgxpool.NewWithConfig(ctx, cfg)
	if err != nil {
		return nil, fmt.Errorf("pgstore: %w", err)
	}
	return &Store{pool}, nil
}

// Close waits for running calls and closes the connections.
func (s *Store) Close() { s.pool.Close() }

const tokenColumns = "id, name, hash, permissions, ports, created_at, created_by, expires_at, last_used_at, revoked_at, revoked_by"

// CreateToken stores a new API token, whole. Times are kept to the microsecond.
func (s *Store) CreateToken(ctx context.Context, t identity.Token) error {
	_, err := s.pool.Exec(ctx, "insert into api_tokens ("+tokenColumns+") values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11)",
		t.ID, t.Name, t.Hash[:], t.Permissions, t.Ports, t.CreatedAt, t.CreatedBy,
		timeOrNull(t.ExpiresAt), timeOrNull(t.LastUsedAt), timeOrNull(t.RevokedAt), t.RevokedBy)
	if err != nil {
		return fmt.Errorf("pgstore: store the API token %s: %w", t.ID, err)
	}
	return nil
}

// TokenByID returns the token, revoked or not, or [identity.ErrTokenNotFound].
func (s *Store) TokenByID(ctx context.Context, id string) (identity.Token, error) {
	t, err := scanToken(s.pool.QueryRow(ctx, "select "+tokenColumns+" from api_tokens where id = $1", id))
	if errors.Is(err, pgx.ErrNoRows) {
		return identity.Token{}, identity.ErrTokenNotFound
	}
	if err != nil {
		return identity.Token{}, fmt.Errorf("pgstore: read the API token %s: %w", id, err)
	}
	return t, nil
}

// RevokeToken ends the token, or returns [identity.ErrTokenNotFound]. A token
// that is revoked already stays as it is.
func (s *Store) RevokeToken(ctx context.Context, id, by string, at time.Time) error {
	tag, err := s.pool.Exec(ctx, `update api_tokens set revoked_by = case when revoked_at is null then $2 else revoked_by end,
		revoked_at = coalesce(revoked_at, $3) where id = $1`, id, by, at)
	if err != nil {
		return fmt.Errorf("pgstore: revoke the API token %s: %w", id, err)
	}
	if tag.RowsAffected() == 0 {
		return identity.ErrTokenNotFound
	}
	return nil
}

// ListTokens returns at most limit tokens, revoked ones too, newest first: those after
// the one with the given id, "" for the first.
func (s *Store) ListTokens(ctx context.Context, after string, limit int) ([]identity.Token, error) {
	rows, _ := s.pool.Query(ctx, "select "+tokenColumns+` from api_tokens
		where $1 = '' or (created_at, id) < (select created_at, id from api_tokens where id = $1)
		order by created_at desc, id desc limit $2`, after, limit)
	tokens, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (identity.Token, error) { return scanToken(row) })
	if err != nil {
		return nil, fmt.Errorf("pgstore: list API tokens: %w", err)
	}
	return tokens, nil
}

// TouchToken notes a use, unless a later one is noted already.
func (s *Store) TouchToken(ctx context.Context, id string, at time.Time) error {
	_, err := s.pool.Exec(ctx, "update api_tokens set last_used_at = $2 where id = $1 and (last_used_at is null or last_used_at < $2)", id, at)
	if err != nil {
		return fmt.Errorf("pgstore: note the use of the API token %s: %w", id, err)
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
