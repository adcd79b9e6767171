package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math"
	"net/http"
	"os"
	"time"

	"github.com/tidegate/tidegate/admin/ops"
	"github.com/tidegate/tidegate/events"
)

type holdsCmd struct {
	remote
	Port string `arg:"" help:"The port."`
}

func (c *holdsCmd) Run(ctx context.Context) error {
	return c.operate(ctx, func(ctx context.Context, client *ops.Client) error {
		r, err := client.Holds(ctx, c.Port)
		if err != nil {
			return err
		}
		if c.JSON {
			return printJSON(r)
		}
		if len(r.Live)+len(r.Unsettled) == 0 {
			fmt.Printf("%s has no reservations, and none of the last 31 days went unreported\n", c.Port)
			return nil
		}
		if len(r.Live) > 0 {
			rows := make([][]string, len(r.Live))
			for i, h := range r.Live {
				rows[i] = []string{h.Service, h.Feature, count(h.Holds), count(h.Tokens), when(h.NextExpires)}
			}
			fmt.Println(paint(bold, "held now"))
			grid(os.Stdout, []string{"service", "feature", "holds", "tokens", "next expires"}, rows, 2, 3)
		}
		if len(r.Unsettled) > 0 {
			rows := make([][]string, len(r.Unsettled))
			for i, u := range r.Unsettled {
				rows[i] = []string{u.Day, u.Service, u.Feature, count(u.Holds), count(u.Tokens)}
			}
			fmt.Println(paint(bold, "allowed and never reported"))
			grid(os.Stdout, []string{"day", "service", "feature", "holds", "tokens"}, rows, 3, 4)
		}
		return nil
	})
}

// left is a time to wait in whole days or, below two, in hours and minutes.
func left(d time.Duration) string {
	if d >= 48*time.Hour {
		return fmt.Sprintf("%d days", d/(24*time.Hour))
	}
	return fmt.Sprintf("%dh %dm", d/time.Hour, d%time.Hour/time.Minute)
}

type usageCmd struct {
	remote
	Port string  `arg:"" help:"The port."`
	By   *string `help:"feature (if you do not say), model, user, run or day." enum:"feature,model,user,run,day" placeholder:"DIMENSION" xor:"what"`

	LimitName string `name:"limit" help:"What this limit of the budget counts in its present window: most used first." placeholder:"NAME" xor:"what"`
	Lines     int    `help:"How many lines at most. Default: all; with --limit 100." placeholder:"N"`
}

func (c *usageCmd) Run(ctx context.Context) error {
	if c.Lines < 0 {
		return fmt.Errorf("--lines must be a whole number from 1: got %d", c.Lines)
	}
	if c.LimitName != "" {
		return c.ask(ctx, c.limit)
	}
	return c.ask(ctx, func(ctx context.Context, client *events.Client) error {
		r, err := c.read(ctx, client)
		if err != nil {
			return err
		}
		if c.JSON {
			return printJSON(r)
		}
		fmt.Printf("%s used %s tokens in %s calls this %s, which ends in %s (%s)\n", paint(bold, c.Port), paint(bold, count(r.UsedTokens)), count(r.Requests),
			r.Period, left(time.Until(r.ResetsAt)), when(r.ResetsAt))
		if len(r.By) == 0 {
			return nil
		}
		fmt.Println()
		rows := make([][]string, len(r.By))
		for i, s := range r.By {
			rows[i] = []string{cmp.Or(s.Key, "(none)"), count(s.Requests), count(s.InputTokens), count(s.OutputTokens), count(s.TotalTokens), paint(accent, bar(s.TotalTokens, r.UsedTokens))}
		}
		grid(os.Stdout, []string{string(c.by()), "calls", "input", "output", "tokens", ""}, rows, 1, 2, 3, 4)
		if r.More {
			fmt.Println(paint(faint, "there are more"))
		}
		return nil
	})
}

func (c *usageCmd) by() events.Dimension {
	if c.By == nil {
		return events.ByFeature
	}
	return events.Dimension(*c.By)
}

// read reads as many pages as it takes.
func (c *usageCmd) read(ctx context.Context, client *events.Client) (whole events.Report, err error) {
	all := []events.Share{}
	err = readPages(events.ReportRequest{PortID: c.Port, By: c.by()}, c.Lines, func(r events.ReportRequest) (got int, next string, err error) {
		page, err := client.Usage(ctx, r)
		if err == nil {
			all, whole = append(all, page.By...), page
		}
		return len(page.By), page.Next, err
	})
	whole.By = all
	return whole, err
}

// readPages reads so many lines, 0: all, a page at a time, of which next is "" if it is the last.
func readPages(r events.ReportRequest, lines int, read func(events.ReportRequest) (got int, next string, err error)) error {
	r.Limit = events.MaxReportLimit
	for all := 0; ; {
		if lines > 0 {
			r.Limit = min(r.Limit, lines-all)
		}
		got, next, err := read(r)
		var fault *events.ServiceError
		if errors.As(err, &fault) && fault.Code == http.StatusRequestEntityTooLarge && r.Limit > 1 {
			r.Limit /= 2 // NATS takes small messages only
			continue
		}
		all, r.After = all+got, next
		if err != nil || next == "" || lines > 0 && all >= lines {
			return err
		}
	}
}

const limitLines = 100 // of a limit that counts each user there may be a million

// limit prints what a limit counts.
func (c *usageCmd) limit(ctx context.Context, client *events.Client) error {
	var r events.LimitReport
	all := []events.CounterUsed{}
	err := readPages(events.ReportRequest{PortID: c.Port, LimitName: c.LimitName}, cmp.Or(c.Lines, limitLines), func(q events.ReportRequest) (got int, next string, err error) {
		page, err := client.LimitUsage(ctx, q)
		if err == nil {
			all, r = append(all, page.Counters...), page
		}
		return len(page.Counters), page.Next, err
	})
	if err != nil {
		return err
	}
	r.Counters = all
	if c.JSON {
		return printJSON(r)
	}
	caps := "hard cap " + capText(r.HardCapTokens)
	if r.SoftCapTokens != nil {
		caps += ", soft cap " + capText(r.SoftCapTokens)
	}
	resets := "never resets"
	if r.ResetsAt != nil {
		resets = fmt.Sprintf("resets in %s (%s)", left(time.Until(*r.ResetsAt)), when(*r.ResetsAt))
	}
	fmt.Printf("%s of %s: %s, %s, %s\n", paint(bold, r.Limit), paint(bold, c.Port), string(r.Unit)+windowText(r.Period), caps, resets)
	if len(all) == 0 {
		fmt.Println("Nothing is counted in this window yet.")
		return nil
	}
	fmt.Println()
	rows := make([][]string, len(all))
	for i, v := range all {
		rows[i] = []string{cmp.Or(v.Value, "(none)"), count(v.UsedTokens), count(v.HeldTokens), capText(v.RemainingTokens), "", ""}
		if whole := cmp.Or(r.HardCapTokens, r.SoftCapTokens); whole != nil {
			rows[i][4], rows[i][5] = share(v.UsedTokens, *whole), paint(accent, bar(v.UsedTokens, *whole))
		}
	}
	head := cmp.Or(string(r.Per), "all calls")
	grid(os.Stdout, []string{head, "used", "held", "remaining", "used of cap", ""}, rows, 1, 2, 3, 4)
	if r.More {
		fmt.Println(paint(faint, fmt.Sprintf("%s of %s; there are more: --lines", count(int64(len(all))), count(r.Values))))
	}
	return nil
}

// share is how much of a whole is used, in percent.
func share(used, whole int64) string {
	if whole == 0 {
		return "100%"
	}
	return fmt.Sprintf("%.0f%%", math.Floor(100*float64(used)/float64(whole)))
}
