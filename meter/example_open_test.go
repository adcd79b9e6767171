package meter_test

import (
	"net/http"

	"github.com/openai/openai-go/v3"
	"github.com/openai/openai-go/v3/option"

	"github.com/tidegate/tidegate/events"
	"github.com/tidegate/tidegate/meter"
)

// What README.md and docs/meter.md show: events.TestDocs_GoIsCompiled compares.
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

func work(openai.Client) error { return nil }
