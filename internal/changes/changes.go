// Package changes is how budgets and names change and ports go: in the ledger first, then the gates are told,
// and the change is kept in the stream [Stream] beside the ledger. A database that was put back to
// an older copy takes back from there what it lacks: see [Keeper].
package changes

import (
	"context"
	"errors"
	"log/slog"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/tidegate/tidegate/budget"
	"github.com/tidegate/tidegate/internal/bus"
	"github.com/tidegate/tidegate/ledger"
)

// StoreBudget is [ledger.Ledger.StoreBudget] with the gates told over nc: it returns once none of
// them makes holds by an older budget, and once the change is in the stream or [sendTimeout] has
// passed: then a [Keeper] sends it later.
func StoreBudget(ctx context.Context, l *ledger.Ledger, nc *nats.Conn, log *slog.Logger, port string, b budget.Budget, ifVersion *int64) (budget.Budget, error) {
	b, err := l.StoreBudget(ctx, port, b, ifVersion, func(b budget.Budget) error { return bus.Tell(nc, bus.Budget{PortID: port, Budget: b}) })
	if err == nil {
		sendNow(ctx, l, nc, log, port)
	}
	return b, err
}

// NamePort is [ledger.Ledger.RenamePort], kept in the same way. It logs who did it.
func NamePort(ctx context.Context, l *ledger.Ledger, nc *nats.Conn, log *slog.Logger, port, name, by string) error {
	if err := l.RenamePort(ctx, port, name, by); err != nil {
		return err
	}
	log.Info("port named", "port_id", port, "name", name, "by", by)
	sendNow(ctx, l, nc, log, port)
	return nil
}

// DeletePort is [ledger.Ledger.DeletePort], told and kept in the same way. It logs who did it.
func DeletePort(ctx context.Context, l *ledger.Ledger, nc *nats.Conn, log *slog.Logger, port, by string) (rows int64, err error) {
	if rows, err = l.DeletePort(ctx, port, by); err != nil {
		return 0, err
	}
	if err := bus.Tell(nc, bus.Totals{Deleted: []string{port}}); err != nil {
		log.Warn("a port is deleted; the gates do not hear of it before they read it themselves", "port_id", port, "error", err)
	}
	log.Info("port deleted", "port_id", port, "rows", rows, "by", by)
	sendNow(ctx, l, nc, log, port)
	return rows, nil
}

// sendTimeout is how long a change waits for the stream to have it.
const sendTimeout = 2 * time.Second

// sendNow has the stream keep a change that was just made, although nobody may wait for it any more.
func sendNow(ctx context.Context, l *ledger.Ledger, nc *nats.Conn, log *slog.Logger, port string) {
	js, err := jetstream.New(nc)
	if err == nil {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 2*sendTimeout)
		defer cancel()
		_, err = send(ctx, js, l)
	}
	if err != nil {
		level := slog.LevelWarn
		if errors.Is(err, ledger.ErrNotFollowed) {
			level = slog.LevelDebug // a new installation: nothing is wrong
		}
		log.Log(ctx, level, "a change of a budget is stored; the stream of changes does not have it yet, so an older copy of the database could not be told of it", "port_id", port, "error", err)
	}
}
