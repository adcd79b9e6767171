// Command check reads a file of Prometheus rules and a Grafana dashboard with Prometheus' own
// library. It is a module of its own, so that Tidegate does not depend on Prometheus.
package main

import (
	"encoding/json"
	"fmt"
	"log/slog"
	"os"
	"strings"

	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/rulefmt"
	"github.com/prometheus/prometheus/promql/parser"
)

func main() {
	if len(os.Args) != 3 {
		fail("usage: check RULES.yml DASHBOARD.json")
	}
	p := parser.NewParser(parser.Options{})
	if _, errs := rulefmt.ParseFile(os.Args[1], false, model.UTF8Validation, p, slog.Default()); errs != nil {
		fail(errs)
	}
	text, err := os.ReadFile(os.Args[2])
	if err != nil {
		fail(err)
	}
	var dashboard struct {
		Panels []struct {
			Title   string
			Targets []struct{ Expr string }
		}
	}
	if err := json.Unmarshal(text, &dashboard); err != nil {
		fail(err)
	}
	for _, panel := range dashboard.Panels {
		for _, target := range panel.Targets {
			if _, err := p.ParseExpr(strings.ReplaceAll(target.Expr, "$__rate_interval", "5m")); err != nil {
				fail(panel.Title, ": ", err)
			}
		}
	}
}

func fail(what ...any) {
	fmt.Fprintln(os.Stderr, what...)
	os.Exit(1)
}
