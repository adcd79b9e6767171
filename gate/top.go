package gate

import (
	"cmp"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/tidegate/tidegate/budget"
	"github.com/tidegate/tidegate/ledger"
)

const topEvery = 15 * time.Second // at most: it looks at every port

// topCollector shows the ports that are nearest to their own hard cap, by what is used.
type topCollector struct {
	gate             *Gate
	used, held, hard *prometheus.Desc

	mu   sync.Mutex
	at   time.Time
	last []topPort
}

type topPort struct {
	id         string
	used, hard int64
}

func newTopCollector(g *Gate) *topCollector {
	of := func(name, what string) *prometheus.Desc {
		return prometheus.NewDesc(name, what+" of those ports that are nearest to their own hard cap, in the current period.", []string{"port"}, nil)
	}
	return &topCollector{gate: g,
		used: of("tidegate_top_port_used_tokens", "Tokens used"),
		held: of("tidegate_top_port_held_tokens", "Tokens held"),
		hard: of("tidegate_top_port_hard_cap_tokens", "Hard cap"),
	}
}

// Describe implements [prometheus.Collector].
func (c *topCollector) Describe(to chan<- *prometheus.Desc) { to <- c.used; to <- c.held; to <- c.hard }

// Collect implements [prometheus.Collector].
func (c *topCollector) Collect(to chan<- prometheus.Metric) {
	c.mu.Lock()
	defer c.mu.Unlock()
	now := c.gate.now()
	if age := now.Sub(c.at); age < 0 || age >= topEvery {
		c.last, c.at = c.gate.memory.top(now, c.gate.cfg.TopPorts), now
	}
	for _, p := range c.last {
		_, count, _ := c.gate.reservations.Known(p.id, now)
		for desc, value := range map[*prometheus.Desc]int64{c.used: count.Used, c.held: count.Held, c.hard: p.hard} {
			to <- prometheus.MustNewConstMetric(desc, prometheus.GaugeValue, float64(value), p.id)
		}
	}
}

// top are so many ports that have used the most of their own hard cap.
func (m *memory) top(now time.Time, most int) (list []topPort) {
	fuller := func(a, b topPort) int {
		return cmp.Or(cmp.Compare(float64(b.used)/float64(b.hard), float64(a.used)/float64(a.hard)), strings.Compare(a.id, b.id))
	}
	m.ports.walk(m.mu.RLocker(), func(id string, p *port) {
		r := m.ruleOf(p)
		t := topPort{id: id, hard: r.HardAt(now)}
		if !r.Enabled || t.hard <= 0 || id == budget.DefaultPort {
			return
		}
		start, end := r.Period().Bounds(now)
		if t.used = p.between(ledger.DayOf(start), ledger.DayOf(end)); t.used == 0 {
			return
		}
		if at, _ := slices.BinarySearchFunc(list, t, fuller); at < most {
			t.id = strings.Clone(id) // it may be a part of a message
			list = slices.Insert(list, at, t)
			list = list[:min(len(list), most)]
		}
	})
	return list
}
