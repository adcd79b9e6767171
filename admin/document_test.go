package admin_test

import (
	"testing"

	"github.com/tidegate/tidegate/admin"
	"github.com/tidegate/tidegate/internal/openapi/contract"
)

const documentPath = "openapi.json"

func TestAPIDocument(t *testing.T) { contract.Committed(t, documentPath, admin.Document) }
