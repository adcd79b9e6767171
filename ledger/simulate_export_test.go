package ledger

import (
	"context"
	"time"

	"github.com/tidegate/tidegate/budget"
)

// SimulateAtOnce is Simulate with another bound on the calls read one by one.
func (l *Ledger) SimulateAtOnce(ctx context.Context, port string, b budget.Budget, from, to time.Time, atOnce int64) (budget.Simulation, error) {
	return l.simulate(ctx, port, b, from, to, atOnce)
}
