package ledger_test

import (
	"testing"

	"github.com/tidegate/tidegate/identity/storetest"
)

func TestTokenStore(t *testing.T) {
	t.Parallel()
	storetest.Run(t, newStore(t).Ledger)
}
