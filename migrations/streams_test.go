package migrations_test

import (
	"testing"

	"github.com/tidegate/tidegate/internal/testenv"
	"github.com/tidegate/tidegate/migrations"
)

// A ledger with events from before it followed streams has booked what its stream says is
// acknowledged; an empty one has not.
func TestALedgerKnowsWhetherItIsOlderThanItsStreams(t *testing.T) {
	t.Parallel()
	for _, older := range []bool{false, true} {
		url := testenv.EmptyDatabase(t)
		conn := connect(t, url)
		applyBefore(t, conn, "streams")
		if older {
			run(t, conn, "insert into ports (id) values ('p1')")
			run(t, conn, "insert into ai_usage_totals values ('p1', '2026-11-23', 'f', 'p', 'm', 1, 1, 2, 3, 0, 0, 0)")
		}
		if err := migrations.Apply(t.Context(), url); err != nil {
			t.Fatal(err)
		}
		if got := one[bool](t, conn, "select predates_streams from ai_ledger"); got != older {
			t.Errorf("predates its streams: %t, want %t", got, older)
		}
	}
}
