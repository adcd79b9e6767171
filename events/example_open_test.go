package events_test

import (
	"context"
	"errors"
	"fmt"
	"log"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/tidegate/tidegate/events"
)

// What README.md, docs/integrations/go.md and docs/wire.md show stands here, where it is compiled,
// checked and run: TestDocs_GoIsCompiled compares.

func refused(v events.Verdict, err error) error {
	return fmt.Errorf("refused: %s (%v), resets %s", v.Reason, err, v.ResetsAt.Format(time.DateOnly))
}

// A service opens once, holds the tokens that a call may take, and reports what it took.
func ExampleOpen() {
	url, stop := exampleSystem()
	defer stop()

	readReceipt := func(ctx context.Context) error {
		tidegate, err := events.Open(url, events.FailClosed) // such as nats://127.0.0.1:4222
		if err != nil {
			return err
		}
		defer tidegate.Close() // waits for the acknowledgements; the log says what is lost

		hold, err := tidegate.Reserve(ctx, events.ReserveRequest{PortID: "p1", Feature: "ocr", EstimatedTokens: 2000})
		if !hold.Allowed {
			return refused(hold.Verdict, err) // why, how much is left, and when the period rolls over
		}
		// … the AI call, limited to hold.GrantedTokens …
		hold.Settle(events.Usage{Provider: "openai", Model: "gpt-5-mini", InputTokens: 1532, OutputTokens: 33})
		return nil
	}
	fmt.Println(readReceipt(context.Background()))
	// Output: refused: estimate_exceeds_hard_cap (<nil>), resets 2026-12-01
}

// A call is named to the limits, and takes no more than was granted.
func ExampleClient_Reserve() {
	url, stop := exampleSystem()
	defer stop()
	tidegate, err := events.Open(url, events.FailClosed)
	must(err)
	type answer struct {
		Model         string
		Input, Output int64
	}
	summarise := func(_ context.Context, _ string, most int64) (answer, error) { // which calls a model
		return answer{"gpt-5-mini-2025-08-07", 900, min(most-900, 50)}, nil
	}

	handle := func(ctx context.Context, port, user, run, text string) error {
		hold, err := tidegate.Reserve(ctx, events.ReserveRequest{
			PortID: port, Feature: "summary", Provider: "openai", Model: "gpt-5-mini", UserID: user, RunID: run, // limits look at these
			EstimatedInputTokens: 1000, EstimatedOutputTokens: 400, AcceptLess: true, // less output, if no more fits
		})
		if !hold.Allowed { // right whatever err is
			return refused(hold.Verdict, err)
		}
		reply, err := summarise(ctx, text, hold.GrantedTokens)
		if err != nil {
			return errors.Join(err, hold.Release(ctx)) // nothing was spent
		}
		hold.Settle(events.Usage{Provider: "openai", Model: reply.Model, InputTokens: reply.Input, OutputTokens: reply.Output})
		return nil
	}
	fmt.Println(handle(context.Background(), "marina-7", "ada", "run-42", "A marina is …"))
	must(tidegate.Close())
	fmt.Println(exampleStored(url))
	// Output:
	// <nil>
	// 1
}

// What JetStream acknowledged and lost is sent again.
func ExamplePublisher_SendAgain() {
	_ = func(ctx context.Context, nc *nats.Conn) error {
		publisher, err := events.NewPublisher(nc, events.PublisherConfig{
			Outbox: events.OutboxConfig{Path: "/var/lib/scan/outbox"},
		})
		if err != nil {
			return err
		}
		defer publisher.Close(ctx)

		// Once the stream was lost, and a consumer has made it again:
		sent, err := publisher.SendAgain(ctx, time.Now().Add(-6*time.Hour)) // what was acknowledged since then
		fmt.Println(sent, err)
		return err
	}
}

// What is recorded is in the stream once Close returns.
func ExampleConnection_Close() {
	url, stop := exampleSystem()
	defer stop()

	report := func() error {
		tidegate, err := events.Open(url, events.FailOpen) // reconnects for ever
		if err != nil {
			return err
		}
		defer tidegate.Close() // waits, at most 10 s, for the acknowledgements

		tidegate.Record(events.Usage{
			PortID: "marina-7", Feature: "ocr", Provider: "anthropic", Model: "claude-sonnet",
			InputTokens: 1532, OutputTokens: 33,
		})
		return nil
	}
	fmt.Println(report(), exampleStored(url))
	// Output: <nil> 1
}

// One user of one port opens with its own inbox. Then: ask, or hold.
func ExamplePortInbox() {
	url, stop := exampleSystem()
	defer stop()
	ctx, password := context.Background(), "secret"
	usage := events.Usage{Provider: "anthropic", Model: "claude-sonnet", InputTokens: 1200, OutputTokens: 33}

	check := func() error {
		tidegate, err := events.Open(url, events.FailClosed, nats.UserInfo("marina-7", password), events.PortInbox("marina-7"))
		if err != nil {
			return err
		}
		defer tidegate.Close()

		verdict, err := tidegate.Check(ctx, events.CheckRequest{PortID: "marina-7", Feature: "ocr", EstimatedTokens: 2000})
		if err != nil {
			log.Print(err) // errors.Is(err, events.ErrUnavailable): no gate, not ready, too slow, no NATS
		}
		if !verdict.Allowed { // right whatever err is
			return refused(verdict, err)
		}
		return nil
	}
	reserve := func() error {
		tidegate, err := events.Open(url, events.FailClosed)
		if err != nil {
			return err
		}
		defer tidegate.Close()

		reservation, err := tidegate.Reserve(ctx, events.ReserveRequest{PortID: "marina-7", Feature: "ocr", EstimatedTokens: 1400})
		if !reservation.Allowed {
			return refused(reservation.Verdict, err)
		}
		reservation.Settle(usage) // after the call: reports it and ends the hold
		// or reservation.Release(ctx): the call did not happen
		return nil
	}
	fmt.Println(check())
	fmt.Println(reserve(), exampleStored(url))
	// Output:
	// refused: estimate_exceeds_hard_cap (<nil>), resets 2026-12-01
	// <nil> 1
}
