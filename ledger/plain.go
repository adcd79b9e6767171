package ledger

import (
	"errors"
	"net"
	"strings"

	"github.com/jackc/pgx/v5/pgconn"
)

// Plain says what an error of Postgres, or of the way to it, means, for whoever need not
// know the names and addresses of databases, servers and users. The log has all of it.
func Plain(err error) string {
	text := err.Error()
	hide := func(secret error, instead string) {
		text = strings.ReplaceAll(text, secret.Error(), instead)
	}
	var answered *pgconn.PgError
	state := ""
	if errors.As(err, &answered) {
		state = " (SQLSTATE " + answered.Code + ")"
	}
	var connect *pgconn.ConnectError
	var parse *pgconn.ParseConfigError
	var network *net.OpError
	switch {
	case errors.As(err, &connect):
		hide(connect, "Postgres cannot be reached"+state)
	case errors.As(err, &parse):
		hide(parse, "the address of Postgres cannot be read")
	case answered != nil:
		hide(answered, "Postgres refuses"+state)
	case errors.As(err, &network):
		hide(network, "the connection to Postgres is broken")
	}
	return text
}
