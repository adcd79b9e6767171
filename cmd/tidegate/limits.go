package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/tidegate/tidegate/admin/ops"
	"github.com/tidegate/tidegate/budget"
	"github.com/tidegate/tidegate/events"
)

type limitsCmd struct {
	Ls       limitsLsCmd       `cmd:"" help:"List a port's limits, its own caps first."`
	Set      limitsSetCmd      `cmd:"" help:"Add a limit, or change the one of that name. What is not given stays as it is."`
	Rm       limitsRmCmd       `cmd:"" help:"Remove limits."`
	Simulate limitsSimulateCmd `cmd:"" help:"Say what a limit, as set would make it, would have done to the port's last window: its last hours, a day; a total, the last month. Stores nothing."`
}

type limitsLsCmd struct {
	remote
	Port string `arg:"" help:"The port."`
}

func (c *limitsLsCmd) Run(ctx context.Context) error {
	return c.ask(ctx, func(ctx context.Context, client *events.Client) error {
		b, err := client.Get(ctx, c.Port)
		if err != nil {
			return err
		}
		if c.JSON {
			return printJSON(allLimits(b))
		}
		c.printAll(c.Port, b)
		return nil
	})
}

type limitsSetCmd struct {
	remote
	limitFlags
}

// limitFlags make a limit, or change one.
type limitFlags struct {
	Port string `arg:"" help:"The port. One that is new is registered if a limit is stored."`
	Name string `arg:"" help:"The limit: 1 to 64 of a-z 0-9 _ . -"`

	Match  []dimension `help:"Only calls of this feature, provider, model, user_id or run_id, such as model=gpt-5*, where * stands for anything; without a value, of any. May be given for each." placeholder:"DIMENSION=VALUE" sep:"none"`
	Per    *string     `help:"Count each feature, provider, model, user_id or run_id by itself; none: all together." enum:"feature,provider,model,user_id,run_id,none" placeholder:"DIMENSION"`
	Window *string     `help:"When the count starts anew: hour, day, week (from Monday) or month, in UTC; total: never. A new limit needs it." enum:"hour,day,week,month,total" placeholder:"WINDOW"`
	Unit   *string     `help:"tokens (if you do not say), requests, or weighted: tokens, each kind with a weight." enum:"tokens,requests,weighted" placeholder:"UNIT"`
	Weight []weight    `help:"What a token of input, cache_read, cache_write or output counts, such as output=4, with at most 3 decimals; 1 if you do not say. May be given for each." placeholder:"KIND=N" sep:"none"`
	Soft   *tokens     `help:"Soft cap, in the unit. A number such as 800000, 800k, 1.5M or 1,500,000, or none." placeholder:"N"`
	Hard   *tokens     `help:"Hard cap, in the unit. 0 refuses everything." placeholder:"N"`

	AlertAt []threshold `help:"Send an alert there too, beside soft and hard cap: a percentage of the hard cap such as 80%, or a number in the unit. At most 10, or none." placeholder:"N,…"`
}

func (c *limitsSetCmd) Run(ctx context.Context) error {
	if c.Name == budget.PortLimit {
		return fmt.Errorf("%s is the name of the port's own caps: tidegate budget set %s changes them", c.Name, c.Port)
	}
	return c.change(ctx, c.Port, c.edit)
}

type limitsSimulateCmd struct {
	remote
	limitFlags
	Lines int `help:"How many of the users, runs or other values that are counted by themselves to list, at most 100." default:"10" placeholder:"N"`
}

func (c *limitsSimulateCmd) Run(ctx context.Context) error {
	if c.Name == budget.PortLimit {
		return fmt.Errorf("%s is the name of the port's own caps: tidegate budget simulate %s tries them", c.Name, c.Port)
	}
	var l events.Limit
	err := c.ask(ctx, func(ctx context.Context, client *events.Client) error {
		b, err := client.Get(ctx, c.Port)
		if err == nil {
			err = c.edit(&b)
		}
		if err == nil {
			l = b.Limits[slices.IndexFunc(b.Limits, func(l events.Limit) bool { return l.Name == c.Name })]
		}
		return err
	})
	if err != nil {
		return err
	}
	c.Timeout = max(c.Timeout, simulateTimeout)
	return c.operate(ctx, func(ctx context.Context, client *ops.Client) error {
		s, err := client.SimulateLimit(ctx, ops.SimulateLimitRequest{PortID: c.Port, Limit: l})
		if err != nil {
			return err
		}
		if c.JSON {
			return printJSON(s)
		}
		c.print(l, s)
		return nil
	})
}

// simulateTimeout is as long as an answer may take.
const simulateTimeout = time.Minute

func (c *limitsSimulateCmd) print(l events.Limit, s budget.LimitSimulation) {
	fmt.Printf("with this limit, %s of %s calls that it matches from %s to %s would have been refused", paint(bold, count(s.RefusedCalls)), count(s.Calls),
		s.From.Format(time.DateOnly), s.To.Add(-time.Nanosecond).Format(time.DateOnly))
	if !s.FirstRefusedAt.IsZero() {
		fmt.Printf(", from %s on (%s %s)", when(s.FirstRefusedAt), count(s.RefusedTokens), unitWord(s.Unit))
	}
	fmt.Printf("; %s would have carried the soft cap's warning\n", count(s.WarnedCalls))
	shown := s.Refused[:min(max(c.Lines, 0), len(s.Refused))]
	if l.Per == "" || len(shown) == 0 {
		return
	}
	fmt.Printf("%s of %s values of %s would have had calls refused:\n\n", count(s.RefusedValues), count(s.Values), l.Per)
	rows := make([][]string, len(shown))
	for i, v := range shown {
		rows[i] = []string{cmp.Or(v.Value, "(none)"), count(v.RefusedCalls), count(v.RefusedTokens), when(v.FirstRefusedAt)}
	}
	grid(os.Stdout, []string{string(l.Per), "refused", unitWord(s.Unit), "first"}, rows, 1, 2)
	if more := s.RefusedValues - int64(len(shown)); more > 0 {
		fmt.Println(paint(faint, "and "+count(more)+" more"))
	}
}

func unitWord(u budget.Unit) string {
	switch u {
	case budget.Requests:
		return "calls"
	case budget.Weighted:
		return "weighted tokens"
	}
	return "tokens"
}

func (c *limitFlags) edit(b *events.Budget) error {
	i := slices.IndexFunc(b.Limits, func(l events.Limit) bool { return l.Name == c.Name })
	if i < 0 {
		if c.Window == nil {
			return fmt.Errorf("%s has no limit named %s yet, and a new one needs a --window", c.Port, c.Name)
		}
		i, b.Limits = len(b.Limits), append(b.Limits, events.Limit{Name: c.Name})
	}
	l := &b.Limits[i]
	for _, m := range c.Match {
		*m.in(&l.Match) = m.pattern
	}
	switch {
	case c.Per != nil && *c.Per == "none":
		l.Per = ""
	case c.Per != nil:
		l.Per = budget.Per(*c.Per)
	}
	if c.Window != nil {
		l.Window = events.Period(*c.Window)
	}
	if c.Unit != nil {
		if l.Unit = budget.Unit(*c.Unit); l.Unit != budget.Weighted {
			l.Weights = budget.Weights{} // they mean nothing any more
		}
	}
	for _, w := range c.Weight {
		*w.in(&l.Weights) = new(w.weight)
	}
	if c.Soft != nil {
		l.Soft = c.Soft.n
	}
	if c.Hard != nil {
		l.Hard = c.Hard.n
	}
	if c.AlertAt != nil {
		l.AlertAt = nil
	}
	for _, t := range c.AlertAt {
		if t.Threshold != (budget.Threshold{}) { // none
			l.AlertAt = append(l.AlertAt, t.Threshold)
		}
	}
	return nil
}

type limitsRmCmd struct {
	remote
	Port string   `arg:"" help:"The port."`
	Name []string `arg:"" help:"The limits."`
}

func (c *limitsRmCmd) Run(ctx context.Context) error {
	return c.change(ctx, c.Port, func(b *events.Budget) error {
		for _, name := range c.Name {
			if !slices.ContainsFunc(b.Limits, func(l events.Limit) bool { return l.Name == name }) {
				return fmt.Errorf("%s has no limit named %s; %s", c.Port, name, known(b.Limits))
			}
		}
		b.Limits = slices.DeleteFunc(b.Limits, func(l events.Limit) bool { return slices.Contains(c.Name, l.Name) })
		return nil
	})
}

func known(limits []events.Limit) string {
	if len(limits) == 0 {
		return "it has none beside its own caps"
	}
	names := make([]string, len(limits))
	for i, l := range limits {
		names[i] = l.Name
	}
	return "it has " + strings.Join(names, ", ")
}

// change changes a budget and prints what its limits are then. If edit fails, nothing is
// stored: the context ends before anything is sent.
func (r remote) change(ctx context.Context, port string, edit func(*events.Budget) error) error {
	r.Timeout = max(r.Timeout, limitsTimeout)
	return r.ask(ctx, func(ctx context.Context, client *events.Client) error {
		editing, giveUp := context.WithCancelCause(ctx)
		defer giveUp(nil)
		b, err := client.Change(editing, port, func(b *events.Budget) {
			begin(b)
			if err := edit(b); err != nil {
				giveUp(err)
			}
		})
		if errors.Is(err, context.Canceled) {
			return context.Cause(editing)
		}
		if err != nil {
			return err
		}
		if r.JSON {
			return r.print(port, b)
		}
		r.printAll(port, b)
		return nil
	})
}

// allLimits begins with the port's own caps, in the form of a limit.
func allLimits(b events.Budget) []events.Limit {
	if b.Version == 0 && !b.Default {
		return []events.Limit{}
	}
	own := events.Limit{Name: budget.PortLimit, Window: b.Period, Unit: budget.Tokens, Soft: b.SoftCapTokens, Hard: b.HardCapTokens}
	return append([]events.Limit{own}, b.Limits...)
}

func (r remote) printAll(port string, b events.Budget) {
	if b.Version == 0 && !b.Default {
		printNoBudget(port)
		return
	}
	printLimits(allLimits(b))
	if b.Default {
		fmt.Println(port + " has no budget of its own: these are the limits of the default budget.")
	}
	if !b.Enabled {
		fmt.Println(paint(warn, "The budget of "+named(port)+" is disabled: none of them binds."))
	}
}

func printLimits(limits []events.Limit) {
	head := []string{"limit", "match", "per", "window", "unit", "soft cap", "hard cap"}
	alerts := slices.ContainsFunc(limits, func(l events.Limit) bool { return len(l.AlertAt) > 0 })
	if alerts {
		head = append(head, "alert at")
	}
	rows := make([][]string, len(limits))
	for i, l := range limits {
		rows[i] = []string{paint(accent, l.Name), matchText(l.Match), perText(l.Per), string(l.Window), unitText(l), capText(l.Soft), capText(l.Hard)}
		if alerts {
			rows[i] = append(rows[i], alertText(l.AlertAt))
		}
	}
	grid(os.Stdout, head, rows, 5, 6)
}
