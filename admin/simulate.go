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

// limitSimulationReply is what a limit would have made of the calls of a period.
type limitSimulationReply struct {
	PortID         string         `json:"port_id"`
	Of             string         `json:"of" doc:"As asked."`
	From           time.Time      `json:"from"`
	To             time.Time      `json:"to" doc:"The calls are those of [from, to), whole windows of the limit."`
	Unit           budget.Unit    `json:"unit" doc:"Of refused and used."`
	Calls          int64          `json:"calls" doc:"That the limit matches."`
	RefusedCalls   int64          `json:"refused_calls"`
	Refused        int64          `json:"refused" doc:"What the refused calls count, rounded up."`
	FirstRefusedAt *time.Time     `json:"first_refused_at" doc:"null: none would have been refused"`
	WarnedCalls    int64          `json:"warned_calls" doc:"Admitted, with the soft cap's warning."`
	FirstWarnedAt  *time.Time     `json:"first_warned_at" doc:"null: none would have been warned of"`
	Used           int64          `json:"used" doc:"What the calls count that would have been admitted, rounded up."`
	Values         *int64         `json:"values" doc:"How many values the calls have, each counted by itself; null where all calls are counted together."`
	RefusedValues  *int64         `json:"refused_values" doc:"How many of them would have had a call refused; null where all calls are counted together."`
	Top            []valueRefused `json:"top" nullable:"true" doc:"Of which values, most refused calls first, at most 100 of them; null where all calls are counted together."`
}

type valueRefused struct {
	Value          string    `json:"value" doc:"Empty: of calls that do not name the dimension, and of erased users."`
	RefusedCalls   int64     `json:"refused_calls"`
	Refused        int64     `json:"refused"`
	FirstRefusedAt time.Time `json:"first_refused_at"`
}

func (a *api) simulateLimit(c *call) error {
	l, err := readLimit(c.Request)
	if err != nil {
		return err
	}
	if err := l.Validate("limit"); err != nil {
		return err
	}
	of, err := budget.ParseNamed("of", c.query["of"], l.Span(), c.now)
	if err != nil {
		return err
	}
	s, err := a.cfg.Ledger.SimulateLimit(c.Context(), c.port, &l, of.Start, of.End)
	if err != nil {
		return err
	}
	r := limitSimulationReply{
		PortID: c.port, Of: c.query["of"], From: s.From, To: s.To, Unit: s.Unit, Calls: s.Calls,
		RefusedCalls: s.RefusedCalls, Refused: s.RefusedTokens, FirstRefusedAt: timeOrNull(s.FirstRefusedAt),
		WarnedCalls: s.WarnedCalls, FirstWarnedAt: timeOrNull(s.FirstWarnedAt), Used: s.UsedTokens,
	}
	if l.Per != "" {
		r.Values, r.RefusedValues, r.Top = &s.Values, &s.RefusedValues, make([]valueRefused, len(s.Refused))
		for i, v := range s.Refused {
			r.Top[i] = valueRefused{v.Value, v.RefusedCalls, v.RefusedTokens, v.FirstRefusedAt}
		}
	}
	return c.reply(r)
}

func timeOrNull(t time.Time) *time.Time {
	if t.IsZero() {
		return nil
	}
	return &t
}
