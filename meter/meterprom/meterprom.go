// Package meterprom shows what a meter.Transport counts to Prometheus. It is a
// package of its own, so that meter needs no Prometheus.
package meterprom

import (
	"github.com/prometheus/client_golang/prometheus"

	"github.com/tidegate/tidegate/meter"
)

// NewCollector returns a collector of the transport's [meter.Stats], one counter
// each, all named tidegate_meter_…_total. Labels, which may be nil, tell several
// transports in one process apart.
//
//	prometheus.MustRegister(meterprom.NewCollector(transport, nil))
func NewCollector(t *meter.Transport, labels prometheus.Labels) prometheus.Collector {
	c := &collector{transport: t}
	for _, f := range figures {
		c.descs = append(c.descs, prometheus.NewDesc("tidegate_meter_"+f.name+"_total", f.help, nil, labels))
	}
	return c
}

type collector struct {
	transport *meter.Transport
	descs     []*prometheus.Desc // one for each of figures
}

var figures = []struct {
	name, help string
	of         func(meter.Stats) uint64
}{
	{"recorded", "Usage events handed to the recorder.", func(s meter.Stats) uint64 { return s.Recorded }},
	{"estimated", "Recorded events whose provider reported no usage.", func(s meter.Stats) uint64 { return s.Estimated }},
	{"partial", "Recorded events whose reply was cut short.", func(s meter.Stats) uint64 { return s.Partial }},
	{"unreadable", "Replies whose usage made no sense; they are recorded as if it were not there.", func(s meter.Stats) uint64 { return s.Unreadable }},
	{"unattributed", "Calls without a legal port, which were not recorded.", func(s meter.Stats) uint64 { return s.Unattributed }},
	{"refused", "Calls that were refused and streams that were stopped.", func(s meter.Stats) uint64 { return s.Refused }},
	{"passed", "Calls to AI services that nobody metered.", func(s meter.Stats) uint64 { return s.Passed }},
	{"gate_errors", "Questions to the gate that failed.", func(s meter.Stats) uint64 { return s.GateErrors }},
	{"failures", "Panics inside the metering; the calls were not harmed.", func(s meter.Stats) uint64 { return s.Failures }},
}

func (c *collector) Describe(to chan<- *prometheus.Desc) {
	for _, d := range c.descs {
		to <- d
	}
}

func (c *collector) Collect(to chan<- prometheus.Metric) {
	stats := c.transport.Stats()
	for i, f := range figures {
		to <- prometheus.MustNewConstMetric(c.descs[i], prometheus.CounterValue, float64(f.of(stats)))
	}
}
