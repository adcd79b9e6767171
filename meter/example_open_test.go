package meter_test

import (
	"expvar"
	"fmt"
	"net/http"

	"github.com/openai/openai-go/v3"
	"github.com/openai/openai-go/v3/option"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/tidegate/tidegate/events"
	"github.com/tidegate/tidegate/meter"
	"github.com/tidegate/tidegate/meter/meterprom"
)

// What docs/meter.md shows: events.TestDocs_GoIsCompiled compares.
func ExampleNewTransport() {
	summarise := func(url string) error {
		tidegate, err := events.Open(url, events.FailClosed)
		if err != nil {
			return err
		}
		defer tidegate.Close()
		transport := meter.NewTransport(meter.Config{Port: "p1", Feature: "summary", Recorder: tidegate, Gate: tidegate})
		ai := openai.NewClient(option.WithHTTPClient(&http.Client{Transport: transport}))
		return work(ai)
	}
	_ = summarise
}

func ExampleTransport_Stats() {
	transport := meter.NewTransport(meter.Config{})
	prometheus.MustRegister(meterprom.NewCollector(transport, nil))
	expvar.Publish("meter", expvar.Func(func() any { return transport.Stats() })) // or without Prometheus
	fmt.Println(expvar.Get("meter"))
	// Output: {"Recorded":0,"Estimated":0,"Partial":0,"Unreadable":0,"Unattributed":0,"Refused":0,"Passed":0,"GateErrors":0,"Failures":0}
}

func work(openai.Client) error { return nil }
