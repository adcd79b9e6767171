package migrations

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

// ErrPooler says that something between this process and Postgres drops what is set for a
// session. Reservations would wait for locks without end, and locks of a session would be
// another's.
var ErrPooler = errors.New("a pooler stands before Postgres that does not pass on what a session sets as it begins, or shares sessions between statements: " +
	"connect directly, or through a pooler in session mode that passes startup parameters on")

// connect opens a session, and makes sure that it is one.
func connect(ctx context.Context, url string) (*pgx.Conn, error) {
	config, err := pgx.ParseConfig(url)
	if err != nil {
		return nil, err
	}
	if config.ConnectTimeout == 0 {
		config.ConnectTimeout = 5 * time.Second
	}
	const setting = "tidegate.session"
	mine := uuid.NewString()
	config.RuntimeParams[setting] = mine
	conn, err := pgx.ConnectConfig(ctx, config)
	if refused := (*pgconn.PgError)(nil); errors.As(err, &refused) && strings.Contains(refused.Message, setting) {
		return nil, fmt.Errorf("%w: %w", ErrPooler, err)
	}
	if err != nil {
		return nil, err
	}
	var have *string
	err = conn.QueryRow(ctx, "select current_setting($1, true)", setting).Scan(&have)
	if err == nil && (have == nil || *have != mine) {
		err = ErrPooler
	}
	if err != nil {
		conn.Close(context.WithoutCancel(ctx))
		return nil, err
	}
	return conn, nil
}
