package admin

import (
	stdcsv "encoding/csv"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/tidegate/tidegate/budget"
	"github.com/tidegate/tidegate/events"
)

// usageReply is a port's usage in a period, broken down by one dimension.
type usageReply struct {
	PortID      string           `json:"port_id"`
	Period      budget.Period    `json:"period,omitempty" doc:"Left out where from and to were given."`
	PeriodStart time.Time        `json:"period_start"`
	PeriodEnd   time.Time        `json:"period_end"`
	UsedTokens  int64            `json:"used_tokens" doc:"Of all pages."`
	Requests    int64            `json:"requests" doc:"Of all pages."`
	Dimension   events.Dimension `json:"dimension"`
	By          []share          `json:"by" doc:"Most tokens first; days in order, those without usage left out."`
	Next        string           `json:"next" doc:"What to give as after for the next page; empty: this was the last one."`
	AsOf        time.Time        `json:"as_of" doc:"Every commit up to then is counted."`
}

type share struct {
	Key          string `json:"key" doc:"The feature, the model, the day like 2026-11-23, or the user: empty for calls of the system and of erased users."`
	Requests     int64  `json:"requests"`
	InputTokens  int64  `json:"input_tokens" doc:"Includes cached ones."`
	OutputTokens int64  `json:"output_tokens" doc:"Includes reasoning."`
	TotalTokens  int64  `json:"total_tokens"`
}

// usage has everything in one page where the query names no limit.
func (a *api) usage(c *call) (usageReply, error) {
	p, err := a.askedRange(c)
	if err != nil {
		return usageReply{}, err
	}
	limit, _ := c.query.number("limit")
	asked := events.ReportRequest{PortID: c.port, By: events.Dimension(c.query["by"]), After: c.query["after"], Limit: int(limit)}
	page, err := a.cfg.Ledger.Shares(c.Context(), asked, p.Start, p.End)
	if err != nil {
		return usageReply{}, err
	}
	r := usageReply{PortID: c.port, Period: p.Period, PeriodStart: p.Start, PeriodEnd: p.End, UsedTokens: page.UsedTokens, Requests: page.Requests,
		Dimension: asked.By, By: make([]share, len(page.Shares)), Next: page.Next, AsOf: c.now.UTC()}
	for i, s := range page.Shares {
		r.By[i] = share(s)
	}
	return r, nil
}

func (a *api) getUsage(c *call) error {
	r, err := a.usage(c)
	if err != nil {
		return err
	}
	return c.reply(r)
}

func (a *api) getUsageCSV(c *call) error {
	r, err := a.usage(c)
	if err != nil {
		return err
	}
	h := c.w.Header()
	h.Set("Content-Type", "text/csv; charset=utf-8; header=present")
	h.Set("Content-Disposition", fmt.Sprintf(`attachment; filename="ai-usage-%s-by-%s-%s.csv"`, c.port, r.Dimension, r.PeriodStart.Format(time.DateOnly)))
	if c.Method == http.MethodHead {
		return nil
	}
	w := stdcsv.NewWriter(c.w)
	w.UseCRLF = true // RFC 4180
	_ = w.Write([]string{string(r.Dimension), "requests", "input_tokens", "output_tokens", "total_tokens"})
	for _, s := range r.By {
		_ = w.Write([]string{harmless(s.Key), number(s.Requests), number(s.InputTokens), number(s.OutputTokens), number(s.TotalTokens)})
	}
	w.Flush() // an error means that the client is gone: nobody to tell
	return nil
}

// limitUsageReply is a page of what a limit counts in its running window.
type limitUsageReply struct {
	PortID      string        `json:"port_id"`
	LimitName   string        `json:"limit_name"`
	Per         budget.Per    `json:"per,omitempty" doc:"Left out: all calls are counted together, in one count."`
	Unit        budget.Unit   `json:"unit" doc:"Of all figures."`
	Window      budget.Period `json:"window" enum:"hour,day,week,month,total"`
	WindowStart time.Time     `json:"window_start"`
	ResetsAt    *time.Time    `json:"resets_at" doc:"null: never"`
	Soft        *int64        `json:"soft" doc:"null: no soft cap"`
	Hard        *int64        `json:"hard" doc:"null: no hard cap"`
	Values      int64         `json:"values" doc:"How many are counted, of all pages."`
	Counters    []valueUsed   `json:"counters" doc:"Most used first, then by value. One of which nothing is used yet is not among them."`
	Next        string        `json:"next" doc:"What to give as after for the next page; empty: this was the last one."`
	AsOf        time.Time     `json:"as_of" doc:"Every commit up to then is counted."`
}

func (a *api) getLimitUsage(c *call) error {
	limit, _ := c.query.number("limit")
	asked := events.ReportRequest{PortID: c.port, LimitName: c.query["limit_name"], After: c.query["after"], Limit: int(limit)}
	b, err := a.cfg.Ledger.Budget(c.Context(), c.port)
	if err != nil {
		return err
	}
	held, err := a.cfg.Ledger.Held(c.Context(), c.port, b.Limits, c.now) // before what is used: nothing is missed in between
	if err != nil {
		return err
	}
	u, err := a.cfg.Ledger.LimitReport(c.Context(), asked, c.now, held)
	if err != nil {
		return err
	}
	r := limitUsageReply{PortID: u.PortID, LimitName: u.Limit, Per: u.Per, Unit: u.Unit, Window: u.Period, WindowStart: u.PeriodStart, ResetsAt: u.ResetsAt,
		Soft: u.SoftCapTokens, Hard: u.HardCapTokens, Values: u.Values, Counters: make([]valueUsed, len(u.Counters)), Next: u.Next, AsOf: u.AsOf}
	for i, v := range u.Counters {
		r.Counters[i] = valueUsed{v.Value, v.UsedTokens, v.HeldTokens, v.RemainingTokens}
	}
	return c.reply(r)
}

func number(n int64) string { return strconv.FormatInt(n, 10) }

// harmless keeps a spreadsheet from taking a key, which services choose, for a
// formula: what begins like one gets an apostrophe in front. The wide forms are
// what a Japanese or Chinese Excel takes for the same. A spreadsheet skips byte order marks, and
// where decimals have a comma it begins another cell after each semicolon.
func harmless(key string) string {
	cells := strings.Split(key, ";")
	for i, cell := range cells {
		first, _ := utf8.DecodeRuneInString(strings.TrimLeft(cell, "\ufeff"))
		if cell != "" && strings.ContainsRune("=+-@\t\r\n＝＋－＠", first) {
			cells[i] = "'" + cell
		}
	}
	return strings.Join(cells, ";")
}
