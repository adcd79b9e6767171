package main

import (
	"context"
	"errors"
	"fmt"
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
	Port string `arg:"" help:"The port."`
	By   string `help:"feature, model, user, run or day." enum:"feature,model,user,run,day" default:"feature"`

	Limit int `help:"How many lines at most. Default: all." placeholder:"N"`
}

func (c *usageCmd) Run(ctx context.Context) error {
	if c.Limit < 0 {
		return fmt.Errorf("--limit must be a whole number from 1: got %d", c.Limit)
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
			key := s.Key
			if key == "" {
				key = "(none)"
			}
			rows[i] = []string{key, count(s.Requests), count(s.InputTokens), count(s.OutputTokens), count(s.TotalTokens), paint(accent, bar(s.TotalTokens, r.UsedTokens))}
		}
		grid(os.Stdout, []string{c.By, "calls", "input", "output", "tokens", ""}, rows, 1, 2, 3, 4)
		if r.More {
			fmt.Println(paint(faint, "there are more"))
		}
		return nil
	})
}

// read reads as many pages as it takes.
func (c *usageCmd) read(ctx context.Context, client *events.Client) (events.Report, error) {
	r := events.ReportRequest{PortID: c.Port, By: events.Dimension(c.By), Limit: events.MaxReportLimit}
	var whole events.Report
	all := []events.Share{}
	for more := true; more; {
		if c.Limit > 0 {
			r.Limit = min(r.Limit, c.Limit-len(all))
		}
		page, err := client.Usage(ctx, r)
		var fault *events.ServiceError
		if errors.As(err, &fault) && fault.Code == http.StatusRequestEntityTooLarge && r.Limit > 1 {
			r.Limit /= 2 // NATS takes small messages only
			continue
		}
		if err != nil {
			return events.Report{}, err
		}
		all, whole, r.After = append(all, page.By...), page, page.Next
		more = page.More && (c.Limit == 0 || len(all) < c.Limit)
	}
	whole.By = all
	return whole, nil
}
