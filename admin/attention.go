package admin

import (
	"encoding/json"
	"errors"
	"net/http"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/tidegate/tidegate/consumer/quarantine"
	"github.com/tidegate/tidegate/events"
	"github.com/tidegate/tidegate/ledger"
)

// What is shown of a port's events that were refused, its reservations that nobody settled, and its alerts.
const (
	maxQuarantined = 100
	maxUnsettled   = 500
	maxAlerts      = 200
	excerptBytes   = 500 // of an event
)

type quarantineReply struct {
	Total  int64         `json:"total" doc:"How many there are of the port."`
	Events []quarantined `json:"events" doc:"Oldest first."`
	Next   int64         `json:"next" doc:"What to give as after for the next page; 0: this was the last one."`
}

type quarantined struct {
	Sequence int64         `json:"sequence" doc:"What tidegate quarantine show and replay take."`
	Reason   events.Reason `json:"reason" doc:"In a word."`
	Error    string        `json:"error" doc:"In a sentence: what breaks which rule."`
	Arrived  time.Time     `json:"arrived" doc:"When the event came first."`
	Since    time.Time     `json:"quarantined_at"`
	Payload  string        `json:"payload" doc:"The event, at most its first 500 bytes. Empty if it is not UTF-8."`
	Bytes    int           `json:"bytes" doc:"How long the event is."`
}

func (a *api) listQuarantine(c *call) error {
	after, _ := c.query.number("after")
	limit, _ := c.query.number("limit")
	list, err := a.quarantine.ListOf(c.Context(), c.port, uint64(after)+1, int(limit)+1)
	var total uint64
	if err == nil {
		total, err = a.quarantine.CountOf(c.Context(), c.port)
	}
	if err != nil {
		return errors.Join(refusal(http.StatusServiceUnavailable, "unavailable", "The quarantine does not answer", "nothing was lost; try again in a moment"), err)
	}
	r := quarantineReply{Total: int64(total), Events: []quarantined{}}
	if len(list) > int(limit) {
		list = list[:limit]
		r.Next = int64(list[limit-1].Sequence)
	}
	for i := range list {
		r.Events = append(r.Events, quarantinedOf(&list[i]))
	}
	return c.reply(r)
}

func quarantinedOf(e *quarantine.Event) quarantined {
	return quarantined{Sequence: int64(e.Sequence), Reason: e.Reason, Error: strings.TrimPrefix(e.Error, string(e.Reason)+": "), Arrived: e.Arrived, Since: e.Held,
		Payload: excerpt(e.Payload), Bytes: len(e.Payload)}
}

func excerpt(payload []byte) string {
	if !utf8.Valid(payload) {
		return ""
	}
	return strings.ToValidUTF8(string(payload[:min(len(payload), excerptBytes)]), "") // not half a character
}

type unsettledHoldsReply struct {
	Holds []unsettledGroup `json:"holds" doc:"Of the last 31 days, the newest day first."`
	Next  string           `json:"next" doc:"What to give as after for the next page; empty: this was the last one."`
}

type unsettledGroup struct {
	Day     string `json:"day" doc:"In UTC, like 2026-11-23."`
	Service string `json:"service" doc:"That reserved. In parentheses: what a gate had leased when it was killed."`
	Feature string `json:"feature"`
	Holds   int64  `json:"holds" doc:"That expired without a usage event."`
	Tokens  int64  `json:"tokens" doc:"That they held."`
}

func (a *api) listUnsettled(c *call) error {
	limit, _ := c.query.number("limit")
	after, err := afterUnsettled(c.query["after"])
	if err != nil {
		return err
	}
	list, err := a.cfg.Ledger.UnsettledHolds(c.Context(), c.port, after, int(limit)+1)
	if err != nil {
		return err
	}
	r := unsettledHoldsReply{Holds: []unsettledGroup{}}
	if len(list) > int(limit) {
		list = list[:limit]
		last := list[limit-1]
		next, err := json.Marshal([]string{last.Day, last.Service, last.Feature})
		if err != nil {
			return err
		}
		r.Next = string(next)
	}
	for _, g := range list {
		r.Holds = append(r.Holds, unsettledGroup(g))
	}
	return c.reply(r)
}

// afterUnsettled reads a page's next.
func afterUnsettled(text string) (ledger.UnsettledGroup, error) {
	if text == "" {
		return ledger.UnsettledGroup{}, nil
	}
	var last []string
	err := json.Unmarshal([]byte(text), &last)
	if err == nil && len(last) == 3 {
		_, err = time.Parse(time.DateOnly, last[0])
	}
	if err != nil || len(last) != 3 || strings.ContainsRune(last[1]+last[2], 0) {
		return ledger.UnsettledGroup{}, invalid("after", quoted(text), "must be the next of the page before")
	}
	return ledger.UnsettledGroup{Day: last[0], Service: last[1], Feature: last[2]}, nil
}

type alertsReply struct {
	Alerts []alert `json:"alerts" doc:"Newest first."`
}

func alertOf(a *ledger.Alert) alert {
	return alert{PortID: a.PortID, Limit: a.Limit, LimitValue: a.Value, Threshold: a.Threshold, Reached: a.Reached, Unit: a.Unit, At: a.NoticedAt}
}

func (a *api) listAlerts(c *call) error {
	limit, _ := c.query.number("limit")
	found, err := a.cfg.Ledger.NewestAlerts(c.Context(), []string{c.port}, int(limit))
	if err != nil {
		return err
	}
	r := alertsReply{Alerts: []alert{}}
	names, err := a.cfg.Ledger.PortNames(c.Context(), []string{c.port})
	if err != nil {
		return err
	}
	for _, f := range found {
		one := alertOf(&f)
		one.Name = names[f.PortID]
		r.Alerts = append(r.Alerts, one)
	}
	return c.reply(r)
}
