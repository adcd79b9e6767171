package admin

import (
	"time"

	"github.com/tidegate/tidegate/budget"
)

// simulationReply is what a budget would have made of the calls of a period.
type simulationReply struct {
	PortID         string     `json:"port_id"`
	Of             string     `json:"of" doc:"As asked."`
	From           time.Time  `json:"from"`
	To             time.Time  `json:"to" doc:"The calls are those of [from, to), whole periods of the budget."`
	Calls          int64      `json:"calls"`
	RefusedCalls   int64      `json:"refused_calls"`
	RefusedTokens  int64      `json:"refused_tokens"`
	FirstRefusedAt *time.Time `json:"first_refused_at" doc:"null: none would have been refused"`
	WarnedCalls    int64      `json:"warned_calls" doc:"Admitted, with the soft cap's warning."`
	FirstWarnedAt  *time.Time `json:"first_warned_at" doc:"null: none would have been warned of"`
	UsedTokens     int64      `json:"used_tokens" doc:"Of the calls that would have been admitted."`
}

func (a *api) simulate(c *call) error {
	b := budget.Budget{Period: budget.Period(c.query["period"])}
	if n, ok := c.query.number("hard"); ok {
		b.HardCapTokens = &n
	}
	if n, ok := c.query.number("soft"); ok {
		b.SoftCapTokens = &n
		if b.HardCapTokens != nil && n > *b.HardCapTokens {
			return invalid("soft", c.query["soft"], "must be at most hard ("+c.query["hard"]+")")
		}
	}
	if b.Period == "" {
		stored, err := a.cfg.Ledger.Budget(c.Context(), c.port)
		if err != nil {
			return err
		}
		b.Period = stored.Period
	}
	of, err := budget.ParseNamed("of", c.query["of"], b.Period, c.now)
	if err != nil {
		return err
	}
	sim, err := a.cfg.Ledger.Simulate(c.Context(), c.port, b, of.Start, of.End)
	if err != nil {
		return err
	}
	return c.reply(simulationReply{
		PortID: c.port, Of: c.query["of"], From: sim.From, To: sim.To, Calls: sim.Calls,
		RefusedCalls: sim.RefusedCalls, RefusedTokens: sim.RefusedTokens, FirstRefusedAt: timeOrNull(sim.FirstRefusedAt),
		WarnedCalls: sim.WarnedCalls, FirstWarnedAt: timeOrNull(sim.FirstWarnedAt), UsedTokens: sim.UsedTokens,
	})
}

func timeOrNull(t time.Time) *time.Time {
	if t.IsZero() {
		return nil
	}
	return &t
}
