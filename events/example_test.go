package events_test

import (
	"context"
	"errors"
	"fmt"
	"log"
	"time"

	"github.com/tidegate/tidegate/events"
)

// A service reports each AI call after it has ended, and flushes before it exits.
func ExamplePublisher() {
	url, stop := exampleSystem()
	defer stop()

	nc, err := events.Connect(url)
	if err != nil {
		log.Fatal(err)
	}
	defer nc.Close()
	publisher, err := events.NewPublisher(nc, events.PublisherConfig{})
	if err != nil {
		log.Fatal(err)
	}

	publisher.Record(events.Usage{ // returns at once, whatever NATS does
		PortID: "marina-7", Feature: "ocr", Provider: "anthropic", Model: "claude-sonnet",
		InputTokens: 1532, OutputTokens: 33,
	})

	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	if err := publisher.Close(ctx); err != nil {
		log.Print(err) // says how many events were lost
	}
	fmt.Println("acknowledged:", publisher.Stats().Published)
	// Output: acknowledged: 1
}

// A tool that must know that everything arrived publishes and waits. With ids and times
// of its own, running it again counts nothing twice: the ledger books each once.
func ExamplePublisher_Publish() {
	url, stop := exampleSystem()
	defer stop()

	nc, err := events.Connect(url)
	if err != nil {
		log.Fatal(err)
	}
	defer nc.Close()
	publisher, err := events.NewPublisher(nc, events.PublisherConfig{})
	if err != nil {
		log.Fatal(err)
	}
	defer publisher.Close(context.Background())

	noon := time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC)
	rows := []events.Usage{
		{ID: "import-1", OccurredAt: noon, PortID: "marina-7", Feature: "summary", Provider: "openai", Model: "gpt", InputTokens: 900, OutputTokens: 120},
		{ID: "import-2", OccurredAt: noon, PortID: "marina-8", Feature: "summary", Provider: "openai", Model: "gpt", InputTokens: 700, OutputTokens: 80},
	}
	for range 2 {
		if err := publisher.Publish(context.Background(), rows); err != nil {
			log.Fatal(err)
		}
	}
	fmt.Println("acknowledged:", publisher.Stats().Published)
	// Output: acknowledged: 4
}

// Ask before the call. The verdict is right to act on whatever the error is.
func ExampleClient_Check() {
	url, stop := exampleSystem()
	defer stop()

	nc, err := events.Connect(url)
	if err != nil {
		log.Fatal(err)
	}
	defer nc.Close()
	client, err := events.NewClient(nc, events.ClientConfig{WhenUnavailable: events.FailOpen})
	if err != nil {
		log.Fatal(err)
	}

	verdict, err := client.Check(context.Background(), events.CheckRequest{
		PortID: "marina-7", Feature: "ocr", EstimatedTokens: 2000,
	})
	if err != nil {
		log.Print(err) // the verdict is the policy's: go on
	}
	if !verdict.Allowed {
		fmt.Printf("refused: %s, %d tokens left until %s\n",
			verdict.Reason, *verdict.RemainingTokens, verdict.ResetsAt.Format(time.DateOnly))
		return
	}
	fmt.Println("allowed")
	// Output: refused: estimate_exceeds_hard_cap, 1500 tokens left until 2026-12-01
}

// Without a gate the policy that the service chose decides.
func ExamplePolicy() {
	url, stop := exampleSystem()
	defer stop()

	nc, err := events.Connect(url)
	if err != nil {
		log.Fatal(err)
	}
	defer nc.Close()
	for _, policy := range []events.Policy{events.FailOpen, events.FailClosed} {
		client, err := events.NewClient(nc, events.ClientConfig{WhenUnavailable: policy})
		if err != nil {
			log.Fatal(err)
		}
		verdict, err := client.Check(context.Background(), events.CheckRequest{PortID: "nobody-answers-for-this-one"})
		fmt.Println("allowed:", verdict.Allowed, verdict.Reason, "| unavailable:", errors.Is(err, events.ErrUnavailable))
	}
	// Output:
	// allowed: true  | unavailable: true
	// allowed: false gate_unavailable | unavailable: true
}

// Change a budget only if nobody else did since it was read.
func ExampleClient_Set() {
	url, stop := exampleSystem()
	defer stop()

	nc, err := events.Connect(url)
	if err != nil {
		log.Fatal(err)
	}
	defer nc.Close()
	client, err := events.NewClient(nc, events.ClientConfig{WhenUnavailable: events.FailClosed})
	if err != nil {
		log.Fatal(err)
	}

	budget, err := client.Get(context.Background(), "marina-7")
	if err != nil {
		log.Fatal(err)
	}
	hard := *budget.HardCapTokens * 2
	for range 2 {
		stored, err := client.Set(context.Background(), events.SetRequest{
			PortID: "marina-7", Enabled: true, HardCapTokens: &hard, Period: budget.Period,
			IfVersion: &budget.Version, UpdatedBy: "ada",
		})
		switch {
		case errors.Is(err, events.ErrConflict):
			fmt.Println("somebody was faster: read it again")
		case err != nil:
			log.Fatal(err)
		default:
			fmt.Println("stored version", stored.Version, "with", *stored.HardCapTokens, "tokens a", stored.Period)
		}
	}
	// Output:
	// stored version 5 with 2000000 tokens a month
	// somebody was faster: read it again
}

// The wire form of an event, as any other NATS client may send it too.
func ExampleUsage_AppendJSON() {
	at := time.Date(2026, 11, 23, 15, 30, 6, 123e6, time.UTC)
	u := events.Usage{
		ID: "invoice-17", OccurredAt: at, PortID: "marina-7", Feature: "ocr",
		Provider: "anthropic", Model: "claude-sonnet", InputTokens: 1532, OutputTokens: 33,
	}
	fmt.Println(events.Subject(events.SubjectUsage, u.PortID))
	fmt.Printf("%s\n", u.AppendJSON(nil))
	// Output:
	// ai.usage.marina-7
	// {"v":1,"id":"invoice-17","occurred_at":"2026-11-23T15:30:06.123Z","port_id":"marina-7","feature":"ocr","provider":"anthropic","model":"claude-sonnet","input_tokens":1532,"output_tokens":33,"total_tokens":1565}
}

// A refusal names the field, its value and the rule.
func ExampleDecodeUsage() {
	_, err := events.DecodeUsage("ai.usage.marina-7", []byte(`{"feature":"ocr","provider":"anthropic","model":"claude-sonnet","input_tokens":-5}`))
	fmt.Println(err)
	// Output: invalid_field: input_tokens = -5: must be a whole number from 0 to 1099511627776
}

func ExamplePeriod_Bounds() {
	start, end := events.PeriodWeek.Bounds(time.Date(2027, 1, 1, 0, 0, 0, 0, time.UTC))
	fmt.Println(start.Format(time.DateOnly), "to", end.Format(time.DateOnly))
	// Output: 2026-12-28 to 2027-01-04
}
