// Package layout keeps the packages in their order: imports point down only.
package layout

import (
	"encoding/json"
	"errors"
	"go/ast"
	"go/parser"
	"go/token"
	"io"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/tidegate/tidegate/internal/bus"
)

const module = "github.com/tidegate/tidegate/"

type listed struct {
	ImportPath string
	Imports    []string // without tests
	Deps       []string // all of them, transitively
}

func list(t *testing.T) []listed {
	t.Helper()
	cmd := exec.Command("go", "list", "-json=ImportPath,Imports,Deps", module+"...")
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("go list: %v", err)
	}
	var packages []listed
	for d := json.NewDecoder(strings.NewReader(string(out))); ; {
		var p listed
		if err := d.Decode(&p); errors.Is(err, io.EOF) {
			return packages
		} else if err != nil {
			t.Fatal(err)
		}
		packages = append(packages, p)
	}
}

// below says what a package of ours may import of ours, besides what stands below
// it: a package and its own sub-packages are one, unless they are listed themselves.
var below = map[string][]string{
	"budget":     {},
	"events":     {"budget", "internal/dsn"},
	"migrations": {},
	"identity":   {"internal/private"},
	"meter":      {"events"},
	"dev":        {"internal/private"},
	"ledger":     {"budget", "events", "internal/killpoint", "internal/reservation"},
	"consumer":   {"budget", "events", "ledger", "internal/bus", "internal/replication", "internal/killpoint", "internal/reservation/hold", "internal/tracing"},
	"gate":       {"budget", "events", "ledger", "internal/bus", "internal/replication", "internal/killpoint", "internal/service", "internal/changes", "internal/reservation", "internal/tracing"},
	"alert":      {"budget", "events", "ledger", "internal/killpoint"},
	"admin":      {"alert", "budget", "events", "ledger", "identity", "consumer/quarantine", "consumer/stream", "internal/bus", "internal/service", "internal/changes"},
	"edge":       {"budget", "consumer/arrival", "events", "identity", "internal/room"},
	"proxy":      {"events", "identity", "meter", "internal/room"},
	"receipt":    {"events", "meter", "identity"},
	"internal":   {"migrations", "dev", "events"},

	"internal/bus":                {"budget", "events", "ledger"},
	"internal/demo":               {"budget", "events"},
	"internal/changes":            {"budget", "events", "ledger", "internal/bus", "internal/replication"},
	"internal/reservation/broker": {"budget", "events"},
	"internal/reservation":        {"budget", "events"},
	"internal/reservation/hold":   {"budget", "events"},

	"internal/testenv/system": {"consumer", "events", "gate", "identity", "ledger"},
}

func TestImportsPointDown(t *testing.T) {
	packages := list(t)
	if len(packages) < 15 {
		t.Fatalf("only %d packages were found", len(packages))
	}
	for _, p := range packages {
		own := strings.TrimPrefix(p.ImportPath, module)
		top, _, _ := strings.Cut(own, "/")
		allowed, known := below[own]
		if !known {
			allowed, known = below[top]
		}
		if !known {
			if !slices.Contains([]string{"cmd", "bench", "test", "scripts", "examples", "clients"}, top) {
				t.Errorf("package %s is in no layer: name what it may import in layout_test.go", own)
			}
			continue
		}
		for _, imported := range p.Imports {
			their, ours := strings.CutPrefix(imported, module)
			if !ours || their == top || strings.HasPrefix(their, top+"/") {
				continue
			}
			if !slices.ContainsFunc(allowed, func(a string) bool { return their == a || strings.HasPrefix(their, a+"/") }) {
				t.Errorf("%s imports %s, which is not below it", own, their)
			}
		}
	}
}

// What Tidegate's processes tell each other is none of the services' business: the package
// that they import knows neither the messages nor where they go.
func TestEventsHasNoInternalMessages(t *testing.T) {
	internal := []string{bus.SubjectTotals, bus.SubjectHolds, bus.SubjectBudgets, bus.SubjectUsed, "ai.admin"}
	files, err := filepath.Glob("../../events/*.go")
	if err != nil {
		t.Fatal(err)
	}
	subjects := 0
	look := func(n ast.Node) bool {
		literal, ok := n.(*ast.BasicLit)
		if !ok || literal.Kind != token.STRING {
			return true
		}
		if text, _ := strconv.Unquote(literal.Value); slices.Contains(internal, text) {
			t.Errorf("events names the subject %s, which belongs to internal/bus or to operators", text)
		} else if strings.HasPrefix(text, "ai.") {
			subjects++
		}
		return true
	}
	for _, file := range files {
		if strings.HasSuffix(file, "_test.go") {
			continue
		}
		parsed, err := parser.ParseFile(token.NewFileSet(), file, nil, 0)
		if err != nil {
			t.Fatal(err)
		}
		ast.Inspect(parsed, look)
	}
	if subjects < 8 {
		t.Errorf("found only %d subjects: are they still written as this test reads them?", subjects)
	}
}

// TestReach checks what packages must never reach, however indirectly.
func TestReach(t *testing.T) {
	never := map[string][]string{
		"github.com/jackc/pgx/v5":              {"events", "meter", "identity", "edge", "proxy", "receipt", "internal/replay", "internal/demo", "cmd/receipt"},
		"net/http/httptest":                    {"events", "ledger", "consumer", "gate", "alert", "admin", "identity", "meter", "edge", "proxy", "receipt", "cmd"},
		"github.com/nats-io/nats-server/v2":    {"events", "ledger", "consumer", "gate", "alert", "admin", "identity", "meter", "edge", "proxy", "receipt", "internal/replay", "internal/demo", "cmd/receipt"},
		"github.com/nats-io/nats.go":           {"identity", "migrations"},
		"context":                              {"budget"}, // what does input or output takes one
		module + "internal/bus":                {"budget", "events", "meter", "identity", "edge", "proxy", "receipt", "ledger"},
		module + "ledger":                      {"edge", "proxy", "receipt", "cmd/receipt", "events", "meter", "identity"},
		module + "internal/reservation/broker": {"ledger", "consumer"}, // a gate's memory
		module + "identity":                    {"budget", "events", "ledger", "consumer", "gate"},
		module + "dev":                         {"edge", "proxy", "receipt", "cmd/receipt", "gate", "consumer", "admin"},
		"github.com/prometheus/client_golang":  {"events", "ledger", "identity"},
		"github.com/danielgtaylor/huma/v2":     {"events", "ledger", "consumer", "gate"},
	}
	for _, p := range list(t) {
		own := strings.TrimPrefix(p.ImportPath, module)
		for reached, whom := range never {
			if own == "identity/pgstore" && reached == "github.com/jackc/pgx/v5" {
				continue // it is there for that
			}
			if !slices.ContainsFunc(whom, func(w string) bool { return own == w || strings.HasPrefix(own, w+"/") }) {
				continue
			}
			for _, dep := range p.Deps {
				if dep == reached || strings.HasPrefix(dep, reached+"/") {
					t.Errorf("%s reaches %s", own, dep)
				}
			}
		}
	}
}

// conc's groups and pools hold a panic until somebody waits for them. Who waits for a
// loop of this system does so when the process ends: it would live on, look well, and do
// nothing. sync.WaitGroup and errgroup let the panic end the process. (conc/stream is
// waited for after each batch.)
func TestNobodyHoldsAPanic(t *testing.T) {
	for _, p := range list(t) {
		for _, imported := range p.Imports {
			if imported == "github.com/sourcegraph/conc" || imported == "github.com/sourcegraph/conc/pool" {
				t.Errorf("%s imports %s: start goroutines with sync.WaitGroup or errgroup", strings.TrimPrefix(p.ImportPath, module), imported)
			}
		}
	}
}
