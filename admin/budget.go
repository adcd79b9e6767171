package admin

import (
	"log/slog"
	"math"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/go-json-experiment/json"

	"github.com/tidegate/tidegate/budget"
	"github.com/tidegate/tidegate/internal/changes"
)

// budgetReply is a port's budget and what it has spent of it.
type budgetReply struct {
	PortID string `json:"port_id"`
	caps
	Default   bool       `json:"default" doc:"The port has no budget of its own: caps, period and limits are those of the default budget, and so are updated_at and updated_by."`
	Version   int64      `json:"version" doc:"Of the port's own budget. Counts every change; 0: nothing is stored yet. It is the ETag."`
	UpdatedAt *time.Time `json:"updated_at" doc:"null: nothing is stored yet"`
	UpdatedBy string     `json:"updated_by" doc:"Who stored it, as in the audit log."`
	MayChange bool       `json:"may_change" doc:"Whether the caller may change it, or only see it."`

	UsedTokens      int64     `json:"used_tokens" doc:"Booked in this period."`
	HeldTokens      int64     `json:"held_tokens" doc:"Reserved by calls under way, or leased to gates for the next ones."`
	RemainingTokens *int64    `json:"remaining_tokens" doc:"Hard cap, with the extra tokens of now, - used - held, never below 0; null without a hard cap."`
	ProjectedTokens *int64    `json:"projected_tokens" doc:"What the period will have used at its end, if it goes on as it went so far; null in its first hundredth."`
	SoftCapReached  bool      `json:"soft_cap_reached" doc:"Used + held are at the soft cap or above, and the budget is enabled."`
	HardCapReached  bool      `json:"hard_cap_reached" doc:"Used + held are at the hard cap, with the extra tokens of now, or above, and the budget is enabled: calls are refused."`
	PeriodStart     time.Time `json:"period_start"`
	ResetsAt        time.Time `json:"resets_at"`
	AsOf            time.Time `json:"as_of" doc:"Every commit up to then is counted."`

	Limits []limitState `json:"limits" doc:"Those beside the caps, in the order in which they are looked at. They bind while the budget is enabled."`
}

func (a *api) getBudget(c *call) error {
	b, err := a.cfg.Ledger.Budget(c.Context(), c.port)
	if err != nil {
		return err
	}
	return a.replyBudget(c, b)
}

func (a *api) putBudget(c *call) error {
	b, err := readSettings(c.Request)
	if err == nil {
		b, err = a.storeBudget(c, c.port, b)
	}
	if err != nil {
		return err
	}
	return a.replyBudget(c, b)
}

// deleteBudget gives a port back to the default budget.
func (a *api) deleteBudget(c *call) error {
	b, err := a.storeBudget(c, c.port, budget.Budget{Default: true, Period: budget.Month})
	if err != nil {
		return err
	}
	return a.replyBudget(c, b)
}

// storeBudget stores a budget, if the stored version is the one that the caller has seen.
func (a *api) storeBudget(c *call, port string, b budget.Budget) (budget.Budget, error) {
	version, err := ifMatch(c.Header)
	if err != nil {
		return b, err
	}
	b.UpdatedBy = c.caller.Actor()
	if b, err = changes.StoreBudget(c.Context(), a.cfg.Ledger, a.cfg.Conn, a.log, port, b, &version); err != nil {
		return b, err
	}
	a.log.LogAttrs(c.Context(), slog.LevelInfo, "admin: budget stored", slog.String("port_id", port), slog.Int64("version", b.Version), slog.String("by", c.caller.Actor()))
	return b, nil
}

// defaultReply is the default budget, which no port has by itself: nothing is used of it.
type defaultReply struct {
	caps
	Version   int64      `json:"version" doc:"Counts every change; 0: nothing is stored yet. It is the ETag."`
	UpdatedAt *time.Time `json:"updated_at" doc:"null: nothing is stored yet"`
	UpdatedBy string     `json:"updated_by" doc:"Who stored it, as in the audit log."`
	MayChange bool       `json:"may_change" doc:"Whether the caller may change it, or only see it."`
	Limits    []limit    `json:"limits" doc:"Those beside the caps, in the order in which they are looked at."`
}

func (a *api) getDefault(c *call) error {
	b, err := a.cfg.Ledger.Budget(c.Context(), budget.DefaultPort)
	if err != nil {
		return err
	}
	return c.replyDefault(b)
}

func (a *api) putDefault(c *call) error {
	b, err := readSettings(c.Request)
	if err == nil {
		b, err = a.storeBudget(c, budget.DefaultPort, b)
	}
	if err != nil {
		return err
	}
	return c.replyDefault(b)
}

func (c *call) replyDefault(b budget.Budget) error {
	r := defaultReply{caps: capsOf(b), Version: b.Version, UpdatedBy: b.UpdatedBy, Limits: []limit{}, MayChange: c.mayChange()}
	if b.Version > 0 {
		r.UpdatedAt = &b.UpdatedAt
	}
	for _, l := range b.Limits {
		r.Limits = append(r.Limits, limit(l))
	}
	c.setETag(b)
	return c.reply(r)
}

// defaultEffectReply is what a default budget would do at once.
type defaultEffectReply struct {
	Ports      int64     `json:"ports" doc:"How many have no budget of their own."`
	Refused    int64     `json:"refused" doc:"How many of these have used as much as the hard cap in the running period: all their calls would be refused. What calls under way hold is not counted."`
	RefusedNow int64     `json:"refused_now" doc:"The same, by the default budget that is stored."`
	AsOf       time.Time `json:"as_of" doc:"Where there are many ports, of a moment ago."`
}

func (a *api) getDefaultEffect(c *call) error {
	stored, err := a.cfg.Ledger.Budget(c.Context(), budget.DefaultPort)
	if err != nil {
		return err
	}
	all, at, err := a.standings(c)
	if err != nil {
		return err
	}
	r := defaultEffectReply{AsOf: at.UTC()}
	hard, capped := c.query.number("hard")
	for i := range all {
		s := &all[i]
		if !s.ByDefault {
			continue
		}
		r.Ports++
		if capped && s.Used(budget.Period(c.query["period"])) >= hard {
			r.Refused++
		}
		if stored.Enabled && stored.HardCapTokens != nil && s.Used(stored.Period) >= *stored.HardCapTokens {
			r.RefusedNow++
		}
	}
	return c.reply(r)
}

func (c *call) setETag(b budget.Budget) {
	c.w.Header().Set("ETag", `"`+strconv.FormatInt(b.Version, 10)+`"`)
}

// ifMatch reads the version that the caller has seen. A weak validator is taken
// for a strong one, since proxies that compress make it weak.
func ifMatch(h http.Header) (version int64, err error) {
	given := strings.Join(h.Values("If-Match"), ", ")
	if given == "" || given == "*" {
		return 0, refusal(http.StatusPreconditionRequired, "if-match", "Which version do you change?",
			`send If-Match with the ETag that GET gave you ("0" when nothing is stored yet), so that you overwrite nobody's change unseen`)
	}
	tag := strings.TrimPrefix(given, "W/")
	if inner, quotes := strings.CutPrefix(tag, `"`); quotes && strings.HasSuffix(inner, `"`) {
		tag = strings.TrimSuffix(inner, `"`)
	}
	version, err = strconv.ParseInt(tag, 10, 64)
	if err != nil || strconv.FormatUint(uint64(version), 10) != tag { // no sign, no zero in front
		return 0, invalid("If-Match", quoted(given), `must be one ETag of this address, like "3"`)
	}
	return version, nil
}

func (a *api) replyBudget(c *call, b budget.Budget) error {
	start, end := b.Period.Bounds(c.now)
	spend, err := a.cfg.Ledger.Spend(c.Context(), c.port, start, end)
	if err != nil {
		return err
	}
	limits, err := a.limitStates(c, b.Limits)
	if err != nil {
		return err
	}
	own := b
	own.Limits = nil
	d := budget.Decide(own.Rule(), budget.Count{Used: spend.UsedTokens, Held: spend.HeldTokens}, &budget.Call{}, nil, c.now) // about a call of no tokens
	r := budgetReply{
		PortID: c.port, caps: capsOf(b), Default: b.Default, Version: b.Version, UpdatedBy: b.UpdatedBy,
		UsedTokens: spend.UsedTokens, HeldTokens: spend.HeldTokens, ProjectedTokens: projected(spend.UsedTokens, start, end, c.now),
		RemainingTokens: d.RemainingTokens, SoftCapReached: d.SoftCapWarning, HardCapReached: !d.Allowed,
		PeriodStart: start, ResetsAt: end, AsOf: spend.AsOf, Limits: limits, MayChange: c.mayChange(),
	}
	if !b.UpdatedAt.IsZero() {
		r.UpdatedAt = &b.UpdatedAt
	}
	c.setETag(b)
	return c.reply(r)
}

func capsOf(b budget.Budget) caps {
	return caps{Enabled: b.Enabled, SoftCapTokens: b.SoftCapTokens, HardCapTokens: b.HardCapTokens, Period: b.Period,
		ExtraTokens: b.ExtraTokens, ExtraUntil: b.ExtraUntil}
}

// projected is a straight line through nothing at start and used now. In the first
// hundredth of a period (seven hours of a month) one call more or less would move
// it by hundreds, so it says nothing.
func projected(used int64, start, end, now time.Time) *int64 {
	length, elapsed := end.Sub(start), now.Sub(start)
	if elapsed < length/100 {
		return nil
	}
	n := math.Round(float64(used) * float64(length) / float64(elapsed))
	return new(int64(min(n, budget.MaxCapTokens)))
}

// reply answers with JSON. A list that is nil is null, which is not the same as
// one without entries.
func (c *call) reply(v any) error {
	body, err := json.Marshal(v, json.FormatNilSliceAsNull(true))
	if err != nil {
		return err
	}
	c.w.Header().Set("Content-Type", "application/json")
	_, _ = c.w.Write(append(body, '\n')) // the client is gone: nobody to tell
	return nil
}
