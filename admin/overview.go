package admin

import (
	"cmp"
	"context"
	"maps"
	"slices"
	"time"

	"github.com/tidegate/tidegate/budget"
	"github.com/tidegate/tidegate/events"
	"github.com/tidegate/tidegate/ledger"
)

// overviewReply is what all ports of the caller do.
type overviewReply struct {
	Ports     int64      `json:"ports" doc:"How many there are."`
	States    portStates `json:"states" doc:"How many ports are in each state, as the list of ports has it."`
	Today     spell      `json:"today"`
	Month     spell      `json:"month"`
	Days      []string   `json:"days" doc:"The last 30 days, in UTC, like 2026-11-23; the last is today."`
	Features  []used     `json:"features" doc:"Those that used most on these days, at most 8; days of the others together have no entry here."`
	Models    []used     `json:"models" doc:"Those that used most on these days, at most 8."`
	Tokens    []int64    `json:"tokens" doc:"On each of these days, of all features."`
	TopPorts  []topPort  `json:"top_ports" doc:"Those that used most this month, at most 8."`
	TopUsers  []topUser  `json:"top_users" doc:"Those that used most this month, at most 8. A user is one of a port: the same name in two ports is two users."`
	UsersOf   *int64     `json:"top_users_of_ports" doc:"null: of all ports. Otherwise users of so many ports were looked at, of those that used most this month; one of another port may have used more."`
	Alerts    []alert    `json:"alerts" doc:"The newest, at most 8."`
	Refused   int64      `json:"refused_today" doc:"Checks and reservations that caps refused today; one that is asked again counts again. What a gate refused is here some seconds later."`
	Refusals  []refused  `json:"refusals" doc:"Of the last 7 days, the newest, at most 8."`
	Unsettled unsettled  `json:"unsettled"`
	Backlog   *backlog   `json:"backlog" doc:"null: this process does not know, or the caller is limited to some ports."`
	AsOf      time.Time  `json:"as_of" doc:"What is counted is of this moment, or a later one."`
}

type portStates struct {
	None     int64 `json:"none"`
	Fine     int64 `json:"fine"`
	Soft     int64 `json:"soft"`
	Hard     int64 `json:"hard"`
	Disabled int64 `json:"disabled"`
}

// spell is a day or a month, so far.
type spell struct {
	Start  time.Time `json:"start"`
	Tokens int64     `json:"tokens" doc:"So far."`
	Before int64     `json:"before" doc:"Tokens of the same part of the day or month before. Of its last day, only as much as the part of today that has gone by: calls are counted by the day."`
}

type used struct {
	Key         string  `json:"key"`
	TotalTokens int64   `json:"total_tokens"`
	Days        []int64 `json:"days,omitempty" doc:"Tokens of each day. Left out of models."`
}

type topPort struct {
	PortID      string       `json:"port_id"`
	Name        string       `json:"name" doc:"May be empty."`
	TotalTokens int64        `json:"total_tokens"`
	State       ledger.State `json:"state"`
}

type topUser struct {
	PortID      string `json:"port_id"`
	Name        string `json:"name" doc:"The port's; may be empty."`
	User        string `json:"user"`
	TotalTokens int64  `json:"total_tokens"`
}

// alert is one as it was sent; see docs/alerts.md.
type alert struct {
	PortID     string      `json:"port_id"`
	Name       string      `json:"name" doc:"The port's; may be empty."`
	Limit      string      `json:"limit" doc:"port: the port's own caps."`
	LimitValue string      `json:"limit_value" doc:"Of what the limit counts by itself; empty: all together."`
	Threshold  string      `json:"threshold" doc:"soft, hard, or one of alert_at."`
	Reached    int64       `json:"reached" doc:"The threshold's value, in the unit."`
	Unit       budget.Unit `json:"unit"`
	At         time.Time   `json:"at"`
}

// refused is what a limit of a port refused on a day.
type refused struct {
	PortID  string    `json:"port_id"`
	Name    string    `json:"name" doc:"The port's; may be empty."`
	Limit   string    `json:"limit" doc:"port: the port's own caps."`
	Day     string    `json:"day" doc:"In UTC, like 2026-11-23."`
	Refused int64     `json:"refused" doc:"Checks and reservations on that day."`
	LastAt  time.Time `json:"last_at"`
}

type unsettled struct {
	Holds  int64  `json:"holds" doc:"That expired in the last 31 days without a usage event."`
	Tokens int64  `json:"tokens"`
	PortID string `json:"port_id" doc:"The port that has most of these tokens; empty: there are none."`
	Name   string `json:"name" doc:"That port's; may be empty."`
}

type backlog struct {
	Messages int64      `json:"messages" doc:"That wait in the stream to be booked; one may hold several events."`
	OldestAt *time.Time `json:"oldest_at" doc:"null: none waits."`
}

const (
	overviewDays = 30
	topOfAll     = 8
)

func (a *api) readSpent(ctx context.Context, now time.Time) (ledger.Spent, bool, error) {
	s, err := a.cfg.Ledger.SpendOfAll(ctx, nil, overviewDays, now)
	if err != nil {
		return s, false, err
	}
	ports, err := a.cfg.Ledger.CountPorts(ctx, ledger.PortQuery{})
	return s, ports > manyPorts, err
}

func (a *api) getOverview(c *call) error {
	standings, at, err := a.standings(c)
	if err != nil {
		return err
	}
	var spent ledger.Spent
	spentAt := c.now
	if c.caller.Ports == nil {
		spent, spentAt, err = a.spent.get(c.Context(), c.now)
	} else {
		spent, err = a.cfg.Ledger.SpendOfAll(c.Context(), c.caller.Ports, overviewDays, c.now)
	}
	if err != nil {
		return err
	}
	users, err := a.topUsers(c, standings)
	if err != nil {
		return err
	}
	alerts, err := a.cfg.Ledger.NewestAlerts(c.Context(), c.caller.Ports, topOfAll)
	if err != nil {
		return err
	}
	refusedToday, refusals, err := a.cfg.Ledger.Refusals(c.Context(), c.caller.Ports, topOfAll, c.now)
	if err != nil {
		return err
	}
	if spentAt.Before(at) {
		at = spentAt
	}
	r := overviewReply{Ports: int64(len(standings)), AsOf: at.UTC(), TopPorts: topPorts(standings), Alerts: []alert{}, Refused: refusedToday, Refusals: []refused{},
		Unsettled: unsettled{Holds: spent.UnsettledHolds, Tokens: spent.UnsettledTokens, PortID: spent.UnsettledPort}}
	r.spend(spent, spentAt)
	r.topUsers(users)
	for i := range standings {
		*r.States.of(standings[i].State)++
	}
	for _, f := range alerts {
		r.Alerts = append(r.Alerts, alertOf(&f))
	}
	for _, f := range refusals {
		r.Refusals = append(r.Refusals, refused{PortID: f.PortID, Limit: f.Limit, Day: f.Day.Format(time.DateOnly), Refused: f.Refused, LastAt: f.LastAt})
	}
	if err := a.nameAll(c, &r); err != nil {
		return err
	}
	if a.cfg.Backlog != nil && c.caller.Ports == nil {
		r.Backlog = backlogOf(a.cfg.Backlog())
	}
	return c.reply(r)
}

func backlogOf(b events.Backlog) *backlog {
	r := &backlog{Messages: b.Messages}
	if b.Messages > 0 && !b.OldestAt.IsZero() {
		r.OldestAt = &b.OldestAt
	}
	return r
}

func (s *portStates) of(state ledger.State) *int64 {
	switch state {
	case ledger.Uncapped:
		return &s.None
	case ledger.AtSoft:
		return &s.Soft
	case ledger.AtHard:
		return &s.Hard
	case ledger.Disabled:
		return &s.Disabled
	default:
		return &s.Fine
	}
}

// spend fills in what was used until now.
func (r *overviewReply) spend(s ledger.Spent, now time.Time) {
	day, _ := budget.Day.Bounds(now)
	month, _ := budget.Month.Bounds(now)
	gone := float64(now.Sub(day)) / float64(24*time.Hour)
	upTo := func(start, last time.Time) (sum int64) { // the last day in proportion
		for d := start; d.Before(last); d = d.AddDate(0, 0, 1) {
			sum = budget.Add(sum, s.Tokens[d])
		}
		return budget.Add(sum, int64(gone*float64(s.Tokens[last])))
	}
	r.Today = spell{day, s.Tokens[day], upTo(day.AddDate(0, 0, -1), day.AddDate(0, 0, -1))}
	r.Month = spell{Start: month}
	for d := month; !d.After(day); d = d.AddDate(0, 0, 1) {
		r.Month.Tokens = budget.Add(r.Month.Tokens, s.Tokens[d])
	}
	before := month.AddDate(0, -1, 0)
	if last := before.AddDate(0, 0, day.Day()-1); last.Before(month) {
		r.Month.Before = upTo(before, last)
	} else { // the month before was shorter
		gone = 1
		r.Month.Before = upTo(before, month.AddDate(0, 0, -1))
	}
	for i := range overviewDays {
		d := day.AddDate(0, 0, i+1-overviewDays)
		r.Days, r.Tokens = append(r.Days, d.Format(time.DateOnly)), append(r.Tokens, s.Tokens[d])
	}
	r.Features, r.Models = []used{}, []used{}
	for key, byDay := range s.Features {
		u := used{Key: key, Days: make([]int64, overviewDays)}
		for d, n := range byDay {
			u.TotalTokens = budget.Add(u.TotalTokens, n)
			if i := overviewDays - 1 - int(day.Sub(d)/(24*time.Hour)); i >= 0 && i < overviewDays {
				u.Days[i] = n
			}
		}
		r.Features = append(r.Features, u)
	}
	for _, key := range slices.Sorted(maps.Keys(s.Models)) {
		r.Models = append(r.Models, used{Key: key, TotalTokens: s.Models[key]})
	}
	r.Features, r.Models = mostUsed(r.Features), mostUsed(r.Models)
}

func mostUsed(all []used) []used {
	slices.SortFunc(all, func(a, b used) int {
		return cmp.Or(cmp.Compare(b.TotalTokens, a.TotalTokens), cmp.Compare(a.Key, b.Key))
	})
	return all[:min(len(all), topOfAll)]
}

// topPorts are those that used most this month; one that used nothing is none.
func topPorts(all []standing) []topPort {
	top := []topPort{}
	for i := range all {
		s := &all[i]
		if s.MonthTokens == 0 || len(top) == topOfAll && s.MonthTokens < top[topOfAll-1].TotalTokens {
			continue
		}
		p := topPort{s.PortID, s.Name, s.MonthTokens, s.State}
		at, _ := slices.BinarySearchFunc(top, p, func(a, b topPort) int {
			return cmp.Or(cmp.Compare(b.TotalTokens, a.TotalTokens), cmp.Compare(a.PortID, b.PortID))
		})
		top = slices.Insert(top, at, p)
		top = top[:min(len(top), topOfAll)]
	}
	return top
}
