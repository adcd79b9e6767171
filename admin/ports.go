package admin

import (
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strconv"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"github.com/tidegate/tidegate/budget"
	"github.com/tidegate/tidegate/events"
	"github.com/tidegate/tidegate/identity/safehttp"
	"github.com/tidegate/tidegate/internal/changes"
	"github.com/tidegate/tidegate/ledger"
)

type portsReply struct {
	Ports []port `json:"ports"`
	Next  string `json:"next" doc:"What to give as after for the next page; empty: this was the last one."`
	Total *int64 `json:"total" doc:"How many there are in all. Only with the first page, else null."`
}

// port is a tenant with what it has spent.
type port struct {
	PortID      string       `json:"port_id"`
	Name        string       `json:"name" doc:"May be empty."`
	CreatedAt   time.Time    `json:"created_at"`
	Budget      storedBudget `json:"budget"`
	UsedTokens  int64        `json:"used_tokens" doc:"In the current period of the budget."`
	PeriodStart time.Time    `json:"period_start"`
	ResetsAt    time.Time    `json:"resets_at"`
	TotalTokens int64        `json:"total_tokens" doc:"Of all time."`
	Requests    int64        `json:"requests" doc:"Of all time."`

	State      ledger.State `json:"state" doc:"none: without budget, or one without caps and limits; fine; soft: a soft cap is reached; hard: a hard cap is, so calls are refused; disabled: the budget is not enforced. Caps are the port's own and those of its limits. What calls under way hold is not counted."`
	Share      *float64     `json:"share" doc:"Of the hard cap, the port's own or of a limit, of which most is used: 1 is all of it. null: there is none."`
	Tightest   string       `json:"tightest" doc:"The name of that limit; port: the port's own hard cap; empty: there is none."`
	Days       []int64      `json:"days" doc:"Tokens of the last 14 days, in UTC, the last of which is today."`
	LastCallOn *string      `json:"last_call_on" doc:"The day of the last call, in UTC, like 2026-11-23. null: there was none."`
}

type storedBudget struct {
	caps
	Default   bool       `json:"default" doc:"The port has no budget of its own: this is the default budget."`
	Version   int64      `json:"version" doc:"Of the port's own budget; 0: nothing is stored"`
	UpdatedAt *time.Time `json:"updated_at" doc:"null: nothing is stored"`
	UpdatedBy string     `json:"updated_by"`
}

func (a *api) listPorts(c *call) error {
	limit, _ := c.query.number("limit")
	ids, next, total, err := a.portsPage(c, int(limit))
	if err != nil {
		return err
	}
	r := portsReply{Next: next}
	if c.query["after"] == "" {
		r.Total = &total
	}
	found := []ledger.Port{}
	if len(ids) > 0 {
		if found, err = a.cfg.Ledger.Ports(c.Context(), ledger.PortQuery{IDs: ids, Limit: len(ids)}, c.now); err != nil {
			return err
		}
	}
	slices.SortFunc(found, func(a, b ledger.Port) int { return slices.Index(ids, a.PortID) - slices.Index(ids, b.PortID) })
	if r.Ports, err = a.rows(c, found); err != nil {
		return err
	}
	return c.reply(r)
}

// portsPage is which ports the query asks for, what the next page comes after, and how many
// there are of this page and those that follow.
func (a *api) portsPage(c *call, limit int) (ids []string, next string, total int64, err error) {
	if c.query["sort"] != sortID || c.query["state"] != "" {
		return a.sortedPage(c, limit)
	}
	q := ledger.PortQuery{IDs: c.caller.Ports, Search: c.query["q"], After: c.query["after"], Limit: limit + 1}
	if ids, total, err = a.cfg.Ledger.FindPorts(c.Context(), q); err != nil {
		return nil, "", 0, err
	}
	if len(ids) > limit {
		ids = ids[:limit]
		next = ids[limit-1]
	}
	return ids, next, total, nil
}

// sparkDays is how many days a row of the list shows.
const sparkDays = 14

// rows are ports as the list has them. Their figures are of now, whatever they were sorted by.
func (a *api) rows(c *call, found []ledger.Port) ([]port, error) {
	ids := make([]string, len(found))
	for i := range found {
		ids[i] = found[i].PortID
	}
	standings, err := a.cfg.Ledger.Standings(c.Context(), ids, c.now)
	if err != nil {
		return nil, err
	}
	daily, err := a.cfg.Ledger.DailyTokens(c.Context(), ids, sparkDays, c.now)
	if err != nil {
		return nil, err
	}
	stands := map[string]*ledger.Standing{}
	for i := range standings {
		stands[standings[i].PortID] = &standings[i]
	}
	rows := make([]port, 0, len(found))
	for _, p := range found {
		start, end := p.Budget.Period.Bounds(c.now)
		row := port{
			PortID: p.PortID, Name: p.Name, CreatedAt: p.CreatedAt, Budget: storedBudgetOf(p.Budget),
			UsedTokens: p.UsedTokens, PeriodStart: start, ResetsAt: end, TotalTokens: p.TotalTokens, Requests: p.Requests, Days: daily[p.PortID],
		}
		if row.Days == nil {
			row.Days = make([]int64, sparkDays)
		}
		if s := stands[p.PortID]; s != nil { // nil: deleted this moment
			row.State, row.Share, row.Tightest = s.State, s.Share, s.Tightest
			if !s.LastDay.IsZero() {
				row.LastCallOn = new(s.LastDay.Format(time.DateOnly))
			}
		}
		rows = append(rows, row)
	}
	return rows, nil
}

func storedBudgetOf(b budget.Budget) storedBudget {
	s := storedBudget{caps: capsOf(b), Default: b.Default, Version: b.Version, UpdatedBy: b.UpdatedBy}
	if b.Version > 0 || b.Default {
		s.UpdatedAt = &b.UpdatedAt
	}
	return s
}

type auditReply struct {
	Changes []change `json:"changes" doc:"Newest first."`
	Next    string   `json:"next" doc:"What to give as before for the next page; empty: this was the last one."`
}

// change is an entry of the audit log, which outlives its port.
type change struct {
	ID         int64          `json:"id"`
	PortID     string         `json:"port_id"`
	Key        string         `json:"key" doc:"What was changed: ai.budget; port.named, the port's name; or port.deleted."`
	Version    int64          `json:"version" doc:"Of the port's budget, from then on."`
	OldValue   jsontext.Value `json:"old_value" doc:"A budget, or an object with the name. null: there was none"`
	NewValue   jsontext.Value `json:"new_value" doc:"The same. null: deleted"`
	ChangedAt  time.Time      `json:"changed_at"`
	ChangedBy  string         `json:"changed_by" doc:"Who: a name of their own choosing, and in parentheses what they proved."`
	RestoredAt *time.Time     `json:"restored_at,omitempty" doc:"When the database, which an older copy of it had replaced, took the change back; left out: it was made here."`
}

func (a *api) audit(c *call) error { return a.auditOf(c, c.port) }

func (a *api) auditDefault(c *call) error { return a.auditOf(c, budget.DefaultPort) }

func (a *api) auditOf(c *call, port string) error {
	limit, _ := c.query.number("limit")
	before, _ := c.query.number("before")
	found, err := a.cfg.Ledger.Audit(c.Context(), port, before, int(limit)+1)
	if err != nil {
		return err
	}
	r := auditReply{Changes: []change{}}
	if len(found) > int(limit) {
		found = found[:limit]
		r.Next = strconv.FormatInt(found[limit-1].ID, 10)
	}
	for _, f := range found {
		r.Changes = append(r.Changes, change{f.ID, f.PortID, f.Key, f.Version, jsontext.Value(f.OldValue), jsontext.Value(f.NewValue), f.ChangedAt, f.ChangedBy, f.RestoredAt})
	}
	return c.reply(r)
}

type portName struct {
	Name string `json:"name" doc:"At most 100 printable characters; empty: none."`
}

type namedReply struct {
	PortID string `json:"port_id"`
	portName
}

func (a *api) namePort(c *call) error {
	body, err := readBody(c.Request)
	if err != nil {
		return err
	}
	var fields map[string]jsontext.Value
	if err := json.Unmarshal(body, &fields); err != nil || fields == nil {
		return malformed(fmt.Errorf("as {\"name\":\"Harbour North\"}"))
	}
	r := reader{fields: fields}
	var name *string // null must not pass for ""
	r.read("name", "must be a text", &name, func() bool { return name != nil })
	for _, other := range slices.Sorted(maps.Keys(fields)) {
		r.wrong = append(r.wrong, safehttp.FieldError{Field: shortened(other), Value: shortened(string(fields[other])), Rule: "is no field of this; there is: name"})
	}
	if r.wrong != nil {
		return invalidFields(r.wrong)
	}
	if err := changes.NamePort(c.Context(), a.cfg.Ledger, a.cfg.Conn, a.log, c.port, *name, c.caller.Actor()); err != nil {
		return err
	}
	return c.reply(namedReply{c.port, portName{*name}})
}

type deletedReply struct {
	PortID      string `json:"port_id"`
	DeletedRows int64  `json:"deleted_rows" doc:"Ledger rows that are gone."`
}

func (a *api) deletePort(c *call) error {
	rows, err := changes.DeletePort(c.Context(), a.cfg.Ledger, a.cfg.Conn, a.log, c.port, c.caller.Actor())
	if err != nil {
		return err
	}
	return c.reply(deletedReply{PortID: c.port, DeletedRows: rows})
}

type erasedReply struct {
	ErasedRows int64 `json:"erased_rows" doc:"Ledger rows that named the user, and no longer do."`
}

func (a *api) eraseUser(c *call) error {
	user := c.PathValue("user")
	// A name that no event can carry is a mistake; the wire's own rule decides.
	if err := (events.CheckRequest{PortID: "any", UserID: user}).Validate(); err != nil {
		return err
	}
	rows, err := a.cfg.Ledger.EraseUser(c.Context(), user)
	if err != nil {
		return err
	}
	// Whom, the log must not remember either.
	a.log.LogAttrs(c.Context(), slog.LevelInfo, "admin: user erased", slog.Int64("rows", rows), slog.String("by", c.caller.Actor()))
	return c.reply(erasedReply{ErasedRows: rows})
}
