package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/schollz/progressbar/v3"

	"github.com/tidegate/tidegate/admin/ops"
	"github.com/tidegate/tidegate/consumer/quarantine"
	"github.com/tidegate/tidegate/ledger"
)

type portCmd struct {
	Ls   portLsCmd   `cmd:"" help:"List all ports with what they have spent."`
	Name portNameCmd `cmd:"" help:"Name a port, for people."`
	Rm   portRmCmd   `cmd:"" help:"Delete a port with its ledger rows, totals and budget. Only the audit log keeps it."`
}

type portLsCmd struct{ remote }

func (c *portLsCmd) Run(ctx context.Context) error {
	return c.operate(ctx, func(ctx context.Context, client *ops.Client) error {
		return listPorts(os.Stdout, c.JSON, func(each func(ledger.Port) bool) error { return client.Ports(ctx, each) })
	})
}

// portsTogether are a table, and are printed as soon as they are there: of a million ports the
// last come minutes after the first.
const portsTogether = 500

func listPorts(w io.Writer, asJSON bool, ports func(each func(ledger.Port) bool) error) error {
	var failed error
	list, rows, tables := jsonList{w: w}, [][]string(nil), 0
	print := func() {
		if tables > 0 && len(rows) > 0 {
			fmt.Fprintln(w)
		}
		if len(rows) > 0 || tables == 0 {
			grid(w, []string{"port", "name", "this period", "soft / hard cap", "all time", "calls"}, rows, 2, 4, 5)
		}
		rows, tables = nil, tables+1
	}
	err := ports(func(p ledger.Port) bool {
		if asJSON {
			failed = list.add(p)
		} else if rows = append(rows, portRow(p)); len(rows) == portsTogether {
			print()
		}
		return failed == nil
	})
	if asJSON {
		if err = errors.Join(err, failed); err == nil { // otherwise nobody shall take it for the whole list
			err = list.end()
		}
		return err
	}
	if err == nil || len(rows) > 0 {
		print()
	}
	return err
}

func portRow(p ledger.Port) []string {
	budget := "none"
	if p.Budget.Version > 0 || p.Budget.Default {
		budget = fmt.Sprintf("%s / %s a %s", capText(p.Budget.SoftCapTokens), capText(p.Budget.HardCapTokens), p.Budget.Period)
		if !p.Budget.Enabled {
			budget += " (disabled)"
		}
		if p.Budget.Default {
			budget += " (default)"
		}
	}
	return []string{p.PortID, p.Name, count(p.UsedTokens), budget, count(p.TotalTokens), count(p.Requests)}
}

type portNameCmd struct {
	remote
	Port string `arg:"" help:"The port. One that nobody knows yet is registered."`
	Name string `arg:"" help:"What people see instead of its id, at most 100 characters; '' takes the name away."`
}

func (c *portNameCmd) Run(ctx context.Context) error {
	return c.operate(ctx, func(ctx context.Context, client *ops.Client) error {
		if err := client.NamePort(ctx, c.Port, c.Name, whoami()); err != nil {
			return err
		}
		if c.JSON {
			return printJSON(map[string]any{"port_id": c.Port, "name": c.Name})
		}
		if c.Name == "" {
			fmt.Printf("%s has no name any more\n", c.Port)
			return nil
		}
		fmt.Printf("%s is called %s\n", c.Port, visible(c.Name, ""))
		return nil
	})
}

type portRmCmd struct {
	remote
	Port string `arg:"" help:"The port."`
	Yes  bool   `help:"Do it. Without, the command only says what would go." short:"y"`
}

func (c *portRmCmd) Run(ctx context.Context) error {
	if !c.Yes {
		return fmt.Errorf("this deletes port %s with its whole ledger, for ever: say --yes to do it", c.Port)
	}
	return c.operate(ctx, func(ctx context.Context, client *ops.Client) error {
		d, err := client.DeletePort(ctx, c.Port, whoami())
		if err != nil {
			return err
		}
		if c.JSON {
			return printJSON(map[string]any{"port_id": c.Port, "deleted_rows": d.Rows})
		}
		fmt.Printf("deleted %s with %s ledger rows\n", c.Port, count(d.Rows))
		return nil
	})
}

type userCmd struct {
	Erase userEraseCmd `cmd:"" help:"Take a user's name off every ledger row and every later event. The tokens stay."`
}

type userEraseCmd struct {
	remote
	User string `arg:"" help:"The user id."`
}

func (c *userEraseCmd) Run(ctx context.Context) error {
	return c.operate(ctx, func(ctx context.Context, client *ops.Client) error {
		d, err := client.EraseUser(ctx, c.User)
		if err != nil {
			return err
		}
		if c.JSON {
			return printJSON(map[string]any{"erased_rows": d.Rows})
		}
		fmt.Printf("erased the user from %s ledger rows\n", count(d.Rows))
		return nil
	})
}

type quarantineCmd struct {
	Ls     quarantineLsCmd     `cmd:"" help:"List quarantined events, oldest first."`
	Show   quarantineShowCmd   `cmd:"" help:"Show one whole, with the reason and its raw bytes."`
	Replay quarantineReplayCmd `cmd:"" help:"Send events back to be booked. Those that still cannot be come back."`
}

type quarantineLsCmd struct{ remote }

func (c *quarantineLsCmd) Run(ctx context.Context) error {
	return c.operate(ctx, func(ctx context.Context, client *ops.Client) error {
		list, err := allQuarantined(ctx, client)
		if err != nil {
			return err
		}
		if c.JSON {
			return printJSON(list)
		}
		if len(list) == 0 {
			fmt.Println("the quarantine is empty")
			return nil
		}
		rows := make([][]string, len(list))
		for i, e := range list {
			rows[i] = []string{strconv.FormatUint(e.Sequence, 10), when(e.Held), string(e.Reason), visible(e.Subject, ""), visible(strings.TrimPrefix(e.Error, string(e.Reason)+": "), "")}
		}
		grid(os.Stdout, []string{"#", "since", "reason", "subject", "error"}, rows, 0)
		return nil
	})
}

func allQuarantined(ctx context.Context, client *ops.Client) ([]quarantine.Event, error) {
	list := []quarantine.Event{}
	err := client.Quarantine(ctx, func(e quarantine.Event) bool {
		list = append(list, e)
		return true
	})
	return list, err
}

type quarantineShowCmd struct {
	remote
	Sequence uint64 `arg:"" help:"The number that ls shows."`
}

func (c *quarantineShowCmd) Run(ctx context.Context) error {
	return c.operate(ctx, func(ctx context.Context, client *ops.Client) error {
		e, err := client.QuarantineShow(ctx, c.Sequence)
		if err != nil {
			return err
		}
		if c.JSON {
			return printJSON(e)
		}
		fmt.Printf("%s\n\n", paint(bad, visible(e.Error, "")))
		for _, r := range [][2]string{{"subject", visible(e.Subject, "")}, {"arrived", when(e.Arrived)}, {"quarantined", when(e.Held)},
			{"from", visible(e.Origin.String(), "")}} {
			fmt.Printf("  %-12s %s\n", r[0], r[1])
		}
		for name, values := range e.Headers {
			fmt.Printf("  %-12s %q: %q\n", "header", name, values)
		}
		fmt.Println()
		if e.Text != "" {
			fmt.Println(visible(e.Text, "\t\n"))
			return nil
		}
		fmt.Printf("%q\n", e.Payload)
		return nil
	})
}

type quarantineReplayCmd struct {
	remote
	Sequence []uint64 `arg:"" optional:"" help:"The numbers that ls shows."`
	All      bool     `help:"Send all of them back."`
}

func (c *quarantineReplayCmd) Run(ctx context.Context) error {
	if c.All == (len(c.Sequence) > 0) {
		return fmt.Errorf("say which events to send back: their numbers, or --all")
	}
	return c.operate(ctx, func(ctx context.Context, client *ops.Client) error {
		if c.All {
			list, err := allQuarantined(ctx, client)
			if err != nil {
				return err
			}
			for _, e := range list {
				c.Sequence = append(c.Sequence, e.Sequence)
			}
		}
		for i, sequence := range c.Sequence {
			if err := client.QuarantineReplay(ctx, sequence); err != nil {
				return fmt.Errorf("event %d: %w (%d of %d were sent back)", sequence, err, i, len(c.Sequence))
			}
		}
		if c.JSON {
			return printJSON(map[string]any{"sent_back": len(c.Sequence)})
		}
		fmt.Printf("sent %d events back; those that still cannot be booked will be listed again\n", len(c.Sequence))
		return nil
	})
}

type verifyCmd struct{ remote }

func (c *verifyCmd) Run(ctx context.Context) error {
	c.Timeout = max(c.Timeout, verifyTimeout)
	return c.operate(ctx, func(ctx context.Context, client *ops.Client) error {
		v, err := client.Verify(ctx, verifyProgress())
		if err != nil {
			return err
		}
		if c.JSON {
			err = printJSON(v)
		} else {
			printVerification(v)
		}
		if err == nil && !v.OK {
			return exitCode(1)
		}
		return err
	})
}

// verifyTimeout is for the largest ledgers; nobody waits that long in vain, since
// a system that is not there answers at once.
const verifyTimeout = time.Hour

// verifyProgress shows on a terminal how far a verification is.
func verifyProgress() func(ops.Progress) {
	if !isTerminal(os.Stderr) {
		return nil
	}
	var bar *progressbar.ProgressBar
	of := ""
	return func(p ops.Progress) {
		if p.Of != of {
			of = p.Of
			bar = progressbar.NewOptions64(p.All, progressbar.OptionSetWriter(os.Stderr), progressbar.OptionShowCount(), progressbar.OptionClearOnFinish(),
				progressbar.OptionSetDescription("reading the "+of), progressbar.OptionShowBytes(of == ops.OfLedger))
		}
		_ = bar.Set64(p.Done)
	}
}

func printVerification(v ops.Verification) {
	fmt.Printf("%s ledger rows of %s ports: %s input and %s output tokens; gates asked: %d\n", count(v.Rows), count(v.Ports), count(v.InputTokens), count(v.OutputTokens), v.Gates)
	if v.OK {
		if v.Messages > 0 {
			fmt.Println(paint(warn, v.Describe(time.Now())+"; of what is booked, ledger, totals and gates agree"))
			return
		}
		fmt.Println(paint(good, "ledger, totals and gates agree"))
		return
	}
	if v.Behind > 0 {
		fmt.Println(paint(bad, fmt.Sprintf("the ledger is behind its stream: up to %s messages are being booked again", count(int64(v.Behind)))))
	}
	if len(v.Differences) == 0 {
		return
	}
	fmt.Println(paint(bad, "they differ:"))
	rows := make([][]string, len(v.Differences))
	for i, d := range v.Differences {
		rows[i] = []string{d.Where, d.Key, d.What, count(d.Want), count(d.Got)}
	}
	grid(os.Stdout, []string{"where", "key", "figure", "want", "got"}, rows, 3, 4)
}
