package e2e

import (
	"encoding/json"
	"os"
	"os/exec"
	"regexp"
	"strings"
	"testing"

	"github.com/goccy/go-yaml"

	"github.com/tidegate/tidegate/internal/testenv"
)

// wantMonitored wants each metric that the rules of deploy/prometheus and the dashboard of
// deploy/grafana ask for in what processes show, with the labels that they ask for.
func wantMonitored(t *testing.T, metrics string) {
	t.Helper()
	var rules struct {
		Groups []struct {
			Name  string
			Rules []struct {
				Alert, Expr, For    string
				Labels, Annotations map[string]string
			}
		}
	}
	var dashboard struct {
		Panels []struct {
			Title   string
			Targets []struct{ Expr, LegendFormat string }
		}
	}
	if err := yaml.UnmarshalWithOptions(testenv.Must(os.ReadFile("../../deploy/prometheus/alerts.yml")), &rules, yaml.Strict()); err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(testenv.Must(os.ReadFile("../../deploy/grafana/tidegate.json")), &dashboard); err != nil {
		t.Fatal(err)
	}
	asked := map[string]string{} // by what
	for _, g := range rules.Groups {
		for _, r := range g.Rules {
			asked[r.Alert] = r.Expr
		}
	}
	for _, p := range dashboard.Panels {
		for _, target := range p.Targets {
			asked[p.Title+", "+target.LegendFormat] = target.Expr
		}
	}
	if len(asked) < 50 {
		t.Errorf("only %d expressions were found", len(asked))
	}
	labels := labelsOf(metrics)
	name, by := regexp.MustCompile(`\btidegate_\w+`), regexp.MustCompile(`\bby \(([a-z, ]+)\)[^"]*?(tidegate_\w+)`)
	word := regexp.MustCompile(`\w+`)
	for what, expr := range asked {
		for _, n := range name.FindAllString(expr, -1) {
			if labels[n] == nil {
				t.Errorf("%s: no process has the metric %s", what, n)
			}
		}
		for _, m := range by.FindAllStringSubmatch(expr, -1) {
			for _, label := range word.FindAllString(m[1], -1) {
				if label != "instance" && !labels[m[2]][label] {
					t.Errorf("%s: %s has no label %s", what, m[2], label)
				}
			}
		}
	}
}

// labelsOf are the names of the labels of each metric of ours that is shown.
func labelsOf(metrics string) map[string]map[string]bool {
	all, label := map[string]map[string]bool{}, regexp.MustCompile(`(\w+)="`)
	for line := range strings.Lines(metrics) {
		end := strings.IndexAny(line, "{ ")
		if !strings.HasPrefix(line, "tidegate_") || end < 0 {
			continue
		}
		name, in := line[:end], line[end:]
		if all[name] == nil {
			all[name] = map[string]bool{}
		}
		if in[0] == '{' {
			in, _, _ = strings.Cut(in, "}")
			for _, m := range label.FindAllStringSubmatch(in, -1) {
				all[name][m[1]] = true
			}
		}
	}
	return all
}

// Prometheus' own library, in a module of its own, reads the rules and each expression of the dashboard.
func TestPrometheusReadsItsRules(t *testing.T) {
	t.Parallel()
	check := exec.Command("go", "run", ".", "../alerts.yml", "../../grafana/tidegate.json")
	check.Dir = "../../deploy/prometheus/check"
	if out, err := check.CombinedOutput(); err != nil {
		t.Errorf("%v\n%s", err, out)
	}
}
