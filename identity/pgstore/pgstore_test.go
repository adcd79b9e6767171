package pgstore_test

import (
	"testing"

	"github.com/tidegate/tidegate/identity/pgstore"
	"github.com/tidegate/tidegate/identity/storetest"
	"github.com/tidegate/tidegate/internal/testenv"
)

func TestMain(m *testing.M) { testenv.Main(m) }

func TestTokenStore(t *testing.T) {
	t.Parallel()
	store, err := pgstore.Open(t.Context(), testenv.Database(t))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(store.Close)
	storetest.Run(t, store)
}
