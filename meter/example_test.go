package meter_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"

	"github.com/anthropics/anthropic-sdk-go"
	"github.com/anthropics/anthropic-sdk-go/option"

	"github.com/tidegate/tidegate/events"
	"github.com/tidegate/tidegate/meter"
)

// printer stands where a service has its events.Publisher.
type printer struct{}

func (printer) Record(u events.Usage) {
	fmt.Printf("%s spent %d tokens on %s (%s)\n", u.PortID, u.TotalTokens(), u.Feature, u.Model)
}

// emptyPurse stands where a service has its events.Client.
type emptyPurse struct{}

func (emptyPurse) Check(context.Context, events.CheckRequest) (events.Verdict, error) {
	return events.Verdict{Reason: events.ReasonHardCapReached}, nil
}

// Metering an existing service takes a transport under the client that it has.
func Example() {
	provider := exampleProvider()
	defer provider.Close()

	transport := meter.NewTransport(meter.Config{Port: "p1", Feature: "reply_draft", Recorder: printer{}})
	ai := anthropic.NewClient(
		option.WithHTTPClient(&http.Client{Transport: transport}),
		option.WithBaseURL(provider.URL), option.WithAPIKey("…"))

	reply, err := ai.Messages.New(context.Background(), messageParams())
	fmt.Println(reply.Content[0].Text, err)
	// Output:
	// p1 spent 3260 tokens on reply_draft (claude-x)
	// A harbour. <nil>
}

// With a gate, a call that the budget does not allow never leaves the process.
func ExampleRefusedError() {
	provider := exampleProvider()
	defer provider.Close()

	transport := meter.NewTransport(meter.Config{Port: "p1", Feature: "reply_draft", Recorder: printer{}, Gate: emptyPurse{}})
	ai := anthropic.NewClient(
		option.WithHTTPClient(&http.Client{Transport: transport}),
		option.WithBaseURL(provider.URL), option.WithAPIKey("…"))

	_, err := ai.Messages.New(context.Background(), messageParams())
	if refused, ok := errors.AsType[*meter.RefusedError](err); ok {
		fmt.Println("fall back:", refused.Verdict.Reason)
	}
	// Output:
	// fall back: hard_cap_reached
}

// One transport may serve many ports: the context says for whom a call counts.
func ExampleWithPort() {
	provider := exampleProvider()
	defer provider.Close()

	client := &http.Client{Transport: meter.NewTransport(meter.Config{Feature: "summary", Recorder: printer{}})}
	for _, port := range []string{"marina-north", "marina-south"} {
		anthropicSays(meter.WithPort(context.Background(), port), client, provider.URL)
	}
	// Output:
	// marina-north spent 3260 tokens on summary (claude-x)
	// marina-south spent 3260 tokens on summary (claude-x)
}
