package main

import (
	"context"
	"fmt"
	"os"
	"time"

	"github.com/schollz/progressbar/v3"

	"github.com/tidegate/tidegate/admin/ops"
)

type rebookCmd struct {
	remote
	Since time.Time `help:"Only what the stream got at this time or later; default: all that it holds." placeholder:"2026-11-23T00:00:00Z"`
}

// Run waits until everything is booked again. The consumers go on without it.
func (c *rebookCmd) Run(ctx context.Context) error {
	return c.operate(ctx, func(ctx context.Context, client *ops.Client) error {
		began := time.Now()
		at, err := client.Rebook(ctx, c.Since)
		if err != nil {
			return err
		}
		total, goal := at.Behind(), at.Acknowledged
		progress := func(int) {}
		if isTerminal(os.Stderr) {
			bar := progressbar.NewOptions64(int64(total), progressbar.OptionSetWriter(os.Stderr), progressbar.OptionSetDescription("booked again"),
				progressbar.OptionShowCount(), progressbar.OptionShowIts(), progressbar.OptionSetItsString("messages"),
				progressbar.OptionThrottle(100*time.Millisecond), progressbar.OptionClearOnFinish())
			progress = func(done int) { _ = bar.Set(done) }
		}
		for at.Booked < goal {
			select {
			case <-ctx.Done():
				return fmt.Errorf("interrupted; the consumers go on booking again: %d of %d messages are left", goal-at.Booked, total)
			case <-time.After(200 * time.Millisecond):
			}
			if at, err = client.Position(ctx); err != nil {
				return fmt.Errorf("%w (the consumers go on booking again)", err)
			}
			if left := goal - min(at.Booked, goal); left <= total {
				progress(int(total - left))
			}
		}
		if c.JSON {
			return printJSON(map[string]any{"messages": total, "through": goal, "elapsed_seconds": time.Since(began).Seconds()})
		}
		fmt.Printf("%s messages of the stream were booked again in %s; those that the ledger had were recognised by their ids\n",
			count(int64(total)), time.Since(began).Round(time.Millisecond))
		return nil
	})
}
