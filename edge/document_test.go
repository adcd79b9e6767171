package edge_test

import (
	"bytes"
	"flag"
	"os"
	"testing"

	"github.com/tidegate/tidegate/edge"
)

var update = flag.Bool("update", false, "write edge/openapi.json anew")

const documentPath = "openapi.json"

func TestAPIDocument(t *testing.T) {
	document, err := edge.Document()
	if err != nil {
		t.Fatal(err)
	}
	if *update {
		if err := os.WriteFile(documentPath, document, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	committed, err := os.ReadFile(documentPath)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(document, committed) {
		t.Error("edge/openapi.json is not what the routes say: run `go generate ./edge`")
	}
}
