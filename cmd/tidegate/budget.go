package main

import (
	"context"
	"fmt"
	"os"
	"strconv"

	"github.com/tidegate/tidegate/events"
)

type budgetCmd struct {
	Get budgetGetCmd `cmd:"" help:"Show a port's budget."`
	Set budgetSetCmd `cmd:"" help:"Store a port's budget. What is not given stays as it is."`

	Simulate budgetSimulateCmd `cmd:"" help:"Say what a budget would have done to the port's last period."`
}

type budgetGetCmd struct {
	remote
	Port string `arg:"" help:"The port."`
}

func (c *budgetGetCmd) Run(ctx context.Context) error {
	return c.ask(ctx, func(ctx context.Context, client *events.Client) error {
		b, err := client.Get(ctx, c.Port)
		if err != nil {
			return err
		}
		return c.print(c.Port, b)
	})
}

type budgetSetCmd struct {
	remote
	Port    string  `arg:"" help:"The port. One that is new is registered."`
	Soft    *tokens `help:"Soft cap: answers carry a warning from there on. A number such as 800000, 800k, 1.5M or 1,500,000, or none." placeholder:"N"`
	Hard    *tokens `help:"Hard cap: answers are refusals from there on. 0 refuses everything." placeholder:"N"`
	Period  *string `help:"day, week (from Monday) or month, in UTC." enum:"day,week,month" placeholder:"PERIOD"`
	Enabled *bool   `help:"Whether the budget binds. A new budget is enabled unless you say --no-enabled." negatable:""`
}

func (c *budgetSetCmd) Run(ctx context.Context) error {
	return c.ask(ctx, func(ctx context.Context, client *events.Client) error {
		b, err := client.Change(ctx, c.Port, c.edit)
		if err != nil {
			return err
		}
		return c.print(c.Port, b)
	})
}

func (c *budgetSetCmd) edit(b *events.Budget) {
	b.UpdatedBy = whoami()
	b.Enabled = b.Enabled || b.Version == 0
	if c.Soft != nil {
		b.SoftCapTokens = c.Soft.n
	}
	if c.Hard != nil {
		b.HardCapTokens = c.Hard.n
	}
	if c.Period != nil {
		b.Period = events.Period(*c.Period)
	}
	if c.Enabled != nil {
		b.Enabled = *c.Enabled
	}
}

func (r remote) print(port string, b events.Budget) error {
	if r.JSON {
		return printJSON(struct {
			PortID string `json:"port_id"`
			events.Budget
		}{port, b})
	}
	if b.Version == 0 {
		fmt.Printf("%s has no budget: nothing binds it, its usage is recorded all the same.\n", paint(bold, port))
		return nil
	}
	state := paint(good, "enabled")
	if !b.Enabled {
		state = paint(warn, "disabled")
	}
	grid(os.Stdout, []string{"port", "budget", "soft cap", "hard cap", "period", "version", "changed", "by"},
		[][]string{{port, state, capText(b.SoftCapTokens), capText(b.HardCapTokens), string(b.Period), strconv.FormatInt(b.Version, 10), when(b.UpdatedAt), b.UpdatedBy}}, 2, 3, 5)
	return nil
}
