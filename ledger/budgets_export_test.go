package ledger

import (
	"context"

	"github.com/tidegate/tidegate/budget"
)

// SetBudget is the first step of StoreBudget, for tests without gates.
func (l *Ledger) SetBudget(ctx context.Context, port string, b budget.Budget, ifVersion *int64) (budget.Budget, error) {
	return l.storeCounted(ctx, port, b, storing{ifVersion: ifVersion})
}
