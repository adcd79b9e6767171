package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"time"

	"github.com/tidegate/tidegate/budget/document"
	"github.com/tidegate/tidegate/events"
)

type budgetCmd struct {
	Get    budgetGetCmd   `cmd:"" help:"Show a port's budget, or the default one."`
	Set    budgetSetCmd   `cmd:"" help:"Store a port's budget, or the default one. What is not given stays as it is."`
	Limits limitsCmd      `cmd:"" help:"List, set or remove the limits of a budget beside the port's own caps."`
	Unset  budgetUnsetCmd `cmd:"" help:"Give a port back to the default budget."`
	Apply  budgetApplyCmd `cmd:"" help:"Make the budgets of ports those of a file, and say what that changes."`

	Simulate budgetSimulateCmd `cmd:"" help:"Say what a budget would have done to the port's last period."`
}

// whose is the port of a command, or the default budget.
type whose struct {
	Port    string `arg:"" optional:"" help:"The port. One that is new is registered."`
	Default bool   `help:"Of the default budget, which binds every port that has none of its own."`
}

// Validate is what kong asks once it has read the command line.
func (w *whose) Validate() error {
	switch {
	case w.Default && w.Port != "":
		return fmt.Errorf("--default is for the budget of every port that has none of its own: name no port with it")
	case w.Default:
		w.Port = events.DefaultPort
	case w.Port == "":
		return errors.New("name a port, or say --default")
	}
	return nil
}

type budgetGetCmd struct {
	remote
	whose
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

// budgetUnsetCmd stores that a port has no budget of its own.
type budgetUnsetCmd struct {
	remote
	Port string `arg:"" help:"The port."`
}

func (c *budgetUnsetCmd) Run(ctx context.Context) error {
	c.Timeout = max(c.Timeout, limitsTimeout)
	return c.ask(ctx, func(ctx context.Context, client *events.Client) error {
		b, err := client.Set(ctx, events.SetRequest{PortID: c.Port, Default: true, UpdatedBy: whoami()})
		if err != nil {
			return err
		}
		return c.print(c.Port, b)
	})
}

type budgetSetCmd struct {
	remote
	whose
	Soft    *tokens `help:"Soft cap: answers carry a warning from there on. A number such as 800000, 800k, 1.5M or 1,500,000, or none." placeholder:"N" xor:"soft"`
	Hard    *tokens `help:"Hard cap: answers are refusals from there on. 0 refuses everything." placeholder:"N" xor:"hard"`
	Period  *string `help:"day, week (from Monday) or month, in UTC." enum:"day,week,month" placeholder:"PERIOD" xor:"period"`
	Enabled *bool   `help:"Whether the budget binds. A new budget is enabled unless you say --no-enabled." negatable:"" xor:"enabled"`

	Extra *tokens    `help:"Tokens on top of the hard cap until --until; 0 takes them away." placeholder:"N" xor:"extra"`
	Until *untilTime `help:"When the extra tokens end: a time such as 2026-11-30T18:00:00Z, or from now, such as 6h. Default: with the running period." placeholder:"TIME" xor:"until"`

	File string `help:"Store the whole budget that is in this file, as get --json prints it; - is standard input. With a version in it, only if that one is stored." placeholder:"FILE" xor:"soft,hard,period,enabled,extra,until"`
}

func (c *budgetSetCmd) Run(ctx context.Context) error {
	change := func(ctx context.Context, client *events.Client) (events.Budget, error) {
		return client.Change(ctx, c.Port, c.edit)
	}
	if c.File != "" {
		text, err := readFile(c.File)
		if err != nil {
			return err
		}
		d, err := document.Parse(text)
		if err != nil {
			return fmt.Errorf("%s: %w", c.File, err)
		}
		if d.PortID != "" && d.PortID != c.Port {
			return fmt.Errorf("%s: port_id: it is the budget of %s; leave port_id and version out to store it for %s", c.File, d.PortID, c.Port)
		}
		c.Timeout = max(c.Timeout, limitsTimeout)
		change = func(ctx context.Context, client *events.Client) (events.Budget, error) {
			return storeDocument(ctx, client, c.Port, d)
		}
	}
	return c.ask(ctx, func(ctx context.Context, client *events.Client) error {
		b, err := change(ctx, client)
		if err != nil {
			return err
		}
		return c.print(c.Port, b)
	})
}

func (c *budgetSetCmd) edit(b *events.Budget) {
	begin(b)
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
	if c.Extra != nil {
		b.ExtraTokens, b.ExtraUntil = c.Extra.n, time.Time{}
		if c.Extra.n != nil && *c.Extra.n > 0 {
			_, b.ExtraUntil = b.Period.Bounds(time.Now())
		}
	}
	if c.Until != nil {
		b.ExtraUntil = c.Until.Time
	}
}

// untilTime is a time to come, as people type it.
type untilTime struct{ time.Time }

func (u *untilTime) UnmarshalText(text []byte) error {
	now := time.Now()
	if in, err := time.ParseDuration(string(text)); err == nil {
		u.Time = now.Add(in).UTC().Truncate(time.Second)
	} else if u.Time, err = time.Parse(time.RFC3339, string(text)); err != nil {
		return fmt.Errorf("%q is no time: try 2026-11-30T18:00:00Z, or 6h for six hours from now", text)
	}
	if !u.After(now) {
		return fmt.Errorf("%q is over: extra tokens end at a time to come", text)
	}
	return nil
}

// limitsTimeout is for the largest ledgers, which are read for a limit that counts something
// new; nobody waits that long in vain, since a system that is not there answers at once.
const limitsTimeout = 5 * time.Minute

// begin is how every edit begins: whoever stores a port's first budget wants it to bind.
func begin(b *events.Budget) {
	b.UpdatedBy = whoami()
	b.Enabled = b.Enabled || b.Version == 0 || b.Default
}

// storeDocument stores a whole budget, if it is of a version only where that one is stored.
func storeDocument(ctx context.Context, client *events.Client, port string, d document.Document) (events.Budget, error) {
	b, err := client.Set(ctx, setWhole(port, d.Budget, d.Version))
	if !errors.Is(err, events.ErrConflict) {
		return b, err
	}
	stored, err := client.Get(ctx, port)
	if err != nil {
		return b, err
	}
	return b, otherVersion(d, stored)
}

func otherVersion(d document.Document, stored events.Budget) error {
	return fmt.Errorf("version: it is of version %d and version %d is stored, so nothing is; get the budget again, or leave version out to store this one whatever is stored",
		*d.Version, stored.Version)
}

// setWhole is a request that says of limits and extra tokens, too, that there are none.
func setWhole(port string, b events.Budget, ifVersion *int64) events.SetRequest {
	if b.Default {
		return events.SetRequest{PortID: port, Default: true, IfVersion: ifVersion, UpdatedBy: whoami()}
	}
	if b.Limits == nil {
		b.Limits = []events.Limit{}
	}
	if b.ExtraTokens == nil {
		b.ExtraTokens = new(int64)
	}
	return events.SetRequest{PortID: port, Enabled: b.Enabled, SoftCapTokens: b.SoftCapTokens, HardCapTokens: b.HardCapTokens, Period: b.Period,
		ExtraTokens: b.ExtraTokens, ExtraUntil: b.ExtraUntil, Limits: b.Limits, IfVersion: ifVersion, UpdatedBy: whoami()}
}

// readFile reads a file, or what is piped in.
func readFile(name string) ([]byte, error) {
	if name == "-" {
		return io.ReadAll(os.Stdin)
	}
	return os.ReadFile(name)
}

func (r remote) print(port string, b events.Budget) error {
	if r.JSON {
		return printJSON(document.Of(port, b))
	}
	if b.Version == 0 && !b.Default {
		printNoBudget(port)
		return nil
	}
	state := paint(good, "enabled")
	if !b.Enabled {
		state = paint(warn, "disabled")
	}
	grid(os.Stdout, []string{"port", "budget", "soft cap", "hard cap", "period", "version", "changed", "by"},
		[][]string{{named(port), state, capText(b.SoftCapTokens), capText(b.HardCapTokens), string(b.Period), versionText(b), when(b.UpdatedAt), b.UpdatedBy}}, 2, 3, 5)
	if b.Default {
		fmt.Printf("\n%s has no budget of its own: this is the default budget.\n", paint(bold, port))
	}
	if b.ExtraTokens != nil && time.Now().Before(b.ExtraUntil) {
		fmt.Printf("\n%s tokens on top of the hard cap until %s\n", paint(bold, count(*b.ExtraTokens)), when(b.ExtraUntil))
	}
	if len(b.Limits) > 0 {
		fmt.Println()
		printLimits(b.Limits)
	}
	return nil
}

// versionText is that of the port's own budget.
func versionText(b events.Budget) string {
	if b.Version == 0 {
		return "none"
	}
	return strconv.FormatInt(b.Version, 10)
}

// named is a port as people read it.
func named(port string) string {
	if port == events.DefaultPort {
		return "(default)"
	}
	return port
}

func printNoBudget(port string) {
	if port == events.DefaultPort {
		fmt.Println("There is no default budget: nothing binds ports that have none of their own.")
		return
	}
	fmt.Printf("%s has no budget: nothing binds it, its usage is recorded all the same.\n", paint(bold, port))
}
