package bus

import (
	"context"
	"log/slog"

	"github.com/nats-io/nats.go"

	"github.com/tidegate/tidegate/budget"
	"github.com/tidegate/tidegate/ledger"
)

// StoreBudget is [ledger.Ledger.StoreBudget] with the gates told over nc: it returns once
// none of them makes holds by an older budget.
func StoreBudget(ctx context.Context, l *ledger.Ledger, nc *nats.Conn, port string, b budget.Budget, ifVersion *int64) (budget.Budget, error) {
	return l.StoreBudget(ctx, port, b, ifVersion, func(b budget.Budget) error { return Tell(nc, Budget{port, b}) })
}

// DeletePort is [ledger.Ledger.DeletePort] with the gates told over nc. It logs who did it.
func DeletePort(ctx context.Context, l *ledger.Ledger, nc *nats.Conn, log *slog.Logger, port, by string) (rows int64, err error) {
	if rows, err = l.DeletePort(ctx, port, by); err != nil {
		return 0, err
	}
	if err := Tell(nc, Totals{Deleted: []string{port}}); err != nil {
		log.Warn("a port is deleted; the gates do not hear of it before they read it themselves", "port_id", port, "error", err)
	}
	log.Info("port deleted", "port_id", port, "rows", rows, "by", by)
	return rows, nil
}
