package main

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"time"

	"github.com/tidegate/tidegate/budget"
	"github.com/tidegate/tidegate/events"
)

const refused = exitCode(3)

type checkCmd struct {
	remote
	Port     string `arg:"" help:"The port."`
	Estimate int64  `help:"Tokens that the call may take." default:"0" placeholder:"N"`
	Input    int64  `help:"Of these, tokens of input: with --output instead of --estimate, for limits that weigh them." default:"0" placeholder:"N"`
	Output   int64  `help:"Of these, tokens of output." default:"0" placeholder:"N"`
	Feature  string `help:"The feature that asks."`
	Provider string `help:"The provider that would be called."`
	Model    string `help:"The model that would be called."`
	UserID   string `help:"The user that asks." name:"user"`
	RunID    string `help:"The run that the call belongs to." name:"run"`
	Explain  bool   `help:"Show what each limit says that matches the call, the port's own caps first."`
}

func (c *checkCmd) request() events.CheckRequest {
	return events.CheckRequest{PortID: c.Port, Feature: c.Feature, Provider: c.Provider, Model: c.Model, UserID: c.UserID, RunID: c.RunID,
		EstimatedTokens: c.Estimate, EstimatedInputTokens: c.Input, EstimatedOutputTokens: c.Output, Explain: c.Explain}
}

func (c *checkCmd) Run(ctx context.Context) error {
	return c.ask(ctx, func(ctx context.Context, client *events.Client) error {
		v, err := client.Check(ctx, c.request())
		if err != nil {
			return err
		}
		if c.JSON {
			err = printWire(v)
		} else {
			printVerdict(c.Port, v)
		}
		if err == nil && !v.Allowed {
			return refused
		}
		return err
	})
}

// printWire prints what the gate answered: what never resets is null there.
func printWire(v events.Verdict) error {
	var text bytes.Buffer
	if err := json.Indent(&text, v.AppendJSON(nil), "", "  "); err != nil {
		return err
	}
	_, err := fmt.Println(text.String())
	return err
}

func printVerdict(port string, v events.Verdict) {
	switch {
	case !v.Allowed:
		fmt.Printf("%s: %s\n", paint(bad, "refused"), v.Reason)
	case v.SoftCapWarning:
		fmt.Printf("%s, past a soft cap\n", paint(warn, "allowed"))
	case !v.Enabled:
		fmt.Printf("%s, no budget binds %s\n", paint(good, "allowed"), port)
	default:
		fmt.Println(paint(good, "allowed"))
	}
	used := count(v.UsedTokens)
	if v.HardCapTokens != nil {
		used += " of " + count(*v.HardCapTokens) + "  " + paint(accent, bar(v.UsedTokens+v.HeldTokens, *v.HardCapTokens))
	}
	rows := [][]string{{"limit", ofLimit(v.Limit, v.LimitValue, v.Unit, v.Period)}, {"used", used}}
	if v.HeldTokens > 0 {
		rows = append(rows, []string{"held", count(v.HeldTokens)})
	}
	if v.RemainingTokens != nil {
		rows = append(rows, []string{"remaining", count(*v.RemainingTokens)})
	}
	rows = append(rows, []string{"soft cap", capText(v.SoftCapTokens)}, []string{"hard cap", capText(v.HardCapTokens)},
		[]string{"resets", resetText(&v.ResetsAt)}, []string{"as of", when(v.AsOf)})
	if v.Messages > 0 {
		rows = append(rows, []string{"not yet", v.Describe(time.Now())})
	}
	for _, r := range rows {
		fmt.Printf("  %-10s %s\n", r[0], r[1])
	}
	if len(v.Limits) > 0 {
		fmt.Println()
		printLimitVerdicts(v.Limits)
	}
}

// ofLimit says which limit the figures are of, for what, and what they count: each-user
// (u1), tokens per hour.
func ofLimit(name, value string, unit budget.Unit, window events.Period) string {
	text := paint(bold, name)
	if value != "" {
		text += " (" + value + ")"
	}
	return text + ", " + unitOr(unit) + windowText(window)
}

func unitOr(u budget.Unit) string { return string(cmp.Or(u, budget.Tokens)) }

func windowText(w events.Period) string {
	if w == budget.Total {
		return " in total"
	}
	return " per " + string(w)
}

func resetText(t *time.Time) string {
	if t == nil || t.IsZero() {
		return "never"
	}
	return when(*t)
}

func printLimitVerdicts(limits []events.LimitVerdict) {
	rows := make([][]string, len(limits))
	for i, l := range limits {
		answer := paint(good, "allows")
		switch {
		case !l.Allowed:
			answer = paint(bad, string(l.Reason))
		case l.SoftCapWarning:
			answer = paint(warn, "warns")
		}
		rows[i] = []string{l.Limit, l.LimitValue, answer, count(l.UsedTokens), count(l.HeldTokens), capText(l.SoftCapTokens), capText(l.HardCapTokens),
			capText(l.RemainingTokens), string(l.Period), string(l.Unit), resetText(l.ResetsAt)}
	}
	grid(os.Stdout, []string{"limit", "value", "answer", "used", "held", "soft cap", "hard cap", "remaining", "window", "unit", "resets"}, rows, 3, 4, 5, 6, 7)
}
