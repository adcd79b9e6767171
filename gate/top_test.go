package gate

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/tidegate/tidegate/budget"
	"github.com/tidegate/tidegate/events"
	"github.com/tidegate/tidegate/internal/testenv"
	"github.com/tidegate/tidegate/ledger"
)

// However many ports there are, metrics name 20: those that have used most of their hard cap.
func TestMetricsNameTheFullestPorts(t *testing.T) {
	t.Parallel()
	registry := prometheus.NewRegistry()
	g := bare(Config{TopPorts: 20, Now: func() time.Time { return noon }}, registry)
	day := ledger.DayOf(noon)
	for i := range 1000 {
		port := fmt.Sprintf("p%03d", i)
		b := events.Budget{Enabled: i != 999, Period: events.PeriodMonth, HardCapTokens: n(int64(10_000)), Version: 1}
		if i == 998 {
			b.HardCapTokens = nil
		}
		g.memory.applyBudget(port, b)
		g.memory.applyTotals(notice(port, day, int64(i)), day, noon)
	}
	g.memory.applyBudget(budget.DefaultPort, events.Budget{Enabled: true, Period: events.PeriodDay, HardCapTokens: n(10), Version: 1})
	g.memory.applyTotals(notice("newcomer", day, 9), day, noon)
	used := map[string]float64{}
	series := 0
	for _, f := range testenv.Must(registry.Gather()) {
		if !strings.HasPrefix(f.GetName(), "tidegate_top_port_") {
			continue
		}
		for _, m := range f.GetMetric() {
			series++
			if f.GetName() == "tidegate_top_port_used_tokens" {
				used[m.GetLabel()[0].GetValue()] = m.GetGauge().GetValue()
			}
		}
	}
	if series != 60 || len(used) != 20 || used["p997"] != 997 || used["p979"] != 979 || used["newcomer"] != 9 || used["p998"]+used["p999"] > 0 {
		t.Errorf("%d series, used %v", series, used)
	}
}
