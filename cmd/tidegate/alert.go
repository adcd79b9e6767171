package main

import (
	"cmp"
	"context"
	"fmt"
	"os"
	"time"

	"github.com/tidegate/tidegate/admin/ops"
	"github.com/tidegate/tidegate/alert"
	"github.com/tidegate/tidegate/budget"
)

// prepareAlerts reads the file of receivers: what is wrong with it ends the start.
func (s *system) prepareAlerts() (err error) {
	if s.cmd.Alerts == "" {
		return nil
	}
	if s.receivers, err = alert.ReadFile(s.cmd.Alerts); err != nil {
		return fmt.Errorf("--alerts: %w", err)
	}
	return nil
}

type alertCmd struct {
	Ls    alertLsCmd    `cmd:"" help:"List alerts, newest first, and what became of them at each receiver."`
	Test  alertTestCmd  `cmd:"" help:"Send a test alert to a receiver now, and print what it answers."`
	Retry alertRetryCmd `cmd:"" help:"Try once more, for a day, what was given up of a receiver."`
}

type alertLsCmd struct {
	remote
	Port   string `help:"Only of this port." placeholder:"PORT"`
	Failed bool   `help:"Only what a receiver did not take: what is given up, and what is tried again."`
	Lines  int    `help:"How many to list; 0: all." default:"100" placeholder:"N"`
}

func (c *alertLsCmd) Run(ctx context.Context) error {
	return c.operate(ctx, func(ctx context.Context, client *ops.Client) error {
		list := []ops.AlertLine{}
		more := false
		err := client.Alerts(ctx, ops.AlertFilter{PortID: c.Port, Failed: c.Failed}, func(a ops.AlertLine) bool {
			if more = c.Lines > 0 && len(list) == c.Lines; !more {
				list = append(list, a)
			}
			return !more
		})
		if err != nil {
			return err
		}
		if c.JSON {
			return printJSON(list)
		}
		if len(list) == 0 {
			fmt.Println("there are none")
			return nil
		}
		rows := make([][]string, len(list))
		for i, a := range list {
			what := a.Cap
			if a.Threshold != nil {
				what = a.Threshold.String()
			}
			if a.Limit != budget.PortLimit {
				what += " of " + a.Limit
			}
			if a.LimitValue != "" {
				what += fmt.Sprintf(" for %q", a.LimitValue)
			}
			rows[i] = []string{when(a.At), a.PortID, what, count(a.UsedTokens), count(a.CapTokens), cmp.Or(a.Receiver, "-"), becameOf(a)}
		}
		grid(os.Stdout, []string{"at", "port", "reached", "used", "cap", "receiver", "what became of it"}, rows, 3, 4)
		if more {
			fmt.Println(paint(faint, fmt.Sprintf("there are more than %d: --lines", c.Lines)))
		}
		return nil
	})
}

// alertTestTimeout is longer than the slowest receiver may take to answer.
const alertTestTimeout = 30 * time.Second

// becameOf says where an alert is.
func becameOf(a ops.AlertLine) string {
	switch {
	case a.Receiver == "" && a.PublishedAt == nil:
		return paint(warn, "not published yet")
	case a.Receiver == "":
		return "published"
	case a.DeliveredAt != nil:
		return paint(good, "delivered "+when(*a.DeliveredAt))
	case a.GivenUpAt != nil:
		return paint(bad, fmt.Sprintf("given up after %d attempts: %s", a.Attempts, a.LastError))
	case a.LastError != "":
		return paint(warn, fmt.Sprintf("failed %d times, again %s: %s", a.Attempts, when(*a.NextAttempt), a.LastError))
	}
	return "under way"
}

type alertTestCmd struct {
	remote
	Receiver string `arg:"" help:"The receiver's name in the file of --alerts."`
}

func (c *alertTestCmd) Run(ctx context.Context) error {
	c.Timeout = max(c.Timeout, alertTestTimeout)
	return c.operate(ctx, func(ctx context.Context, client *ops.Client) error {
		t, err := client.TestAlert(ctx, c.Receiver)
		if err != nil {
			return err
		}
		if c.JSON {
			return printJSON(t)
		}
		fmt.Printf("%s took it: %s\n", c.Receiver, t.Said)
		return nil
	})
}

type alertRetryCmd struct {
	remote
	Receiver string `arg:"" help:"The receiver's name in the file of --alerts."`
}

func (c *alertRetryCmd) Run(ctx context.Context) error {
	return c.operate(ctx, func(ctx context.Context, client *ops.Client) error {
		r, err := client.RetryAlerts(ctx, c.Receiver)
		if err != nil {
			return err
		}
		if c.JSON {
			return printJSON(r)
		}
		fmt.Printf("%s deliveries are tried once more: tidegate alert ls --failed\n", count(r.Deliveries))
		return nil
	})
}
