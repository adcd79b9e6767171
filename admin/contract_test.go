package admin_test

import (
	"sync"

	"github.com/tidegate/tidegate/internal/openapi/contract"
	"github.com/tidegate/tidegate/internal/testenv"
)

// description is admin/openapi.json, which every answer in these tests is held against.
var description = sync.OnceValues(func() (*contract.Contract, error) { return contract.Read(documentPath) })

func (w *world) checkContract(a answer) {
	w.Helper()
	testenv.Must(description()).Check(w, a.Response, a.text)
}
