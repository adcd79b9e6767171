package ledger

import (
	"context"
	_ "embed"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/tidegate/tidegate/budget"
	"github.com/tidegate/tidegate/events"
)

//go:embed sql/simulate_days.sql
var simulateDaysSQL string

//go:embed sql/simulate_sum.sql
var simulateSumSQL string

//go:embed sql/simulate_rows.sql
var simulateRowsSQL string

// maxRowsAtOnce is how many calls are read one by one where their sum may do.
const maxRowsAtOnce = 20_000

// partsOfSpan is how many parts a span with more calls is looked at in. Small parts
// are read by index, and those after the crossing of the hard cap not at all.
const partsOfSpan = 8

// Simulate replays the port's calls in [from, to), in the order of created_at and
// id, against b as if it had been in force, enabled or not. from and to are widened
// to whole periods of b: the week of the 1st begins on its Monday.
//
// The rule is the gate's, for a caller whose every estimate is exact: a call is
// refused when the admitted calls of its period have reached the hard cap, or
// would exceed it together with the call. A refused call adds nothing, so smaller
// ones after it may still fit. An admitted call is warned of when it brings its
// period to the soft cap or beyond.
//
// The answer is exact, of one moment. Days that fit below the caps cost nothing,
// whatever the number of their calls; from the first refusal of a period on, only
// calls that still fit are read. The error is a [*events.FieldError] when b is
// invalid, or when some of the calls have left the ledger with their month.
func (l *Ledger) Simulate(ctx context.Context, port string, b budget.Budget, from, to time.Time) (budget.Simulation, error) {
	return l.simulate(ctx, port, b, from, to, maxRowsAtOnce)
}

func (l *Ledger) simulate(ctx context.Context, port string, b budget.Budget, from, to time.Time, atOnce int64) (budget.Simulation, error) {
	if err := b.Validate(); err != nil {
		return budget.Simulation{}, err
	}
	from, _ = b.Period.Bounds(from)
	_, to = b.Period.Bounds(to.Add(-1))
	s := simulator{port: port, atOnce: atOnce, Player: budget.NewPlayer(b, from, to)}
	err := pgx.BeginTxFunc(ctx, l.reportPool, oneMoment, func(tx pgx.Tx) error {
		s.tx = tx
		return s.run(ctx, b.Period, from, to)
	})
	return s.Result(), wrap(err, "simulate a budget of %s", port)
}

// simulator feeds a player from the ledger, with as few rows as will do.
type simulator struct {
	budget.Player
	tx     pgx.Tx
	port   string
	atOnce int64
}

type simulatedDay struct {
	day           Day
	calls, tokens int64
}

func (s *simulator) run(ctx context.Context, period budget.Period, from, to time.Time) error {
	// A generic plan would not know that a month of a busy port is best read by
	// several workers.
	if _, err := s.tx.Exec(ctx, "set local plan_cache_mode = force_custom_plan"); err != nil {
		return err
	}
	days, err := daysStillKept(ctx, s.tx, s.port, from, to)
	if err != nil {
		return err
	}
	for _, d := range days {
		s.Count(d.calls, d.tokens)
	}
	for len(days) > 0 {
		_, end := period.Bounds(days[0].day.Time())
		n := 0
		for n < len(days) && days[n].day.Time().Before(end) {
			n++
		}
		if err := s.period(ctx, days[:n], end); err != nil {
			return err
		}
		days = days[n:]
	}
	return nil
}

// period plays the days of one period, which ends at end.
func (s *simulator) period(ctx context.Context, days []simulatedDay, end time.Time) error {
	s.Begin()
	for _, d := range days {
		if s.PlaySum(d.calls, d.tokens) {
			continue
		}
		reached, err := s.span(ctx, d.day.Time(), (d.day + 1).Time(), d.calls, d.tokens)
		if err != nil {
			return err
		}
		if s.Refused() {
			// Hardly a call still fits now: find those among all that are left, in one reading.
			return s.playRows(ctx, reached, end)
		}
	}
	return nil
}

// span plays [from, to), which holds that many calls, up to some while after the
// first refusal: by the sums of its parts as far as those decide, one by one where
// a cap is crossed. It returns how far it came.
func (s *simulator) span(ctx context.Context, from, to time.Time, calls, tokens int64) (reached time.Time, err error) {
	part := (to.Sub(from) / partsOfSpan).Truncate(time.Millisecond)
	switch {
	case s.PlaySum(calls, tokens):
		return to, nil
	case calls <= s.atOnce, part == 0:
		return to, s.playRows(ctx, from, to)
	}
	for from.Before(to) && !s.Refused() {
		next := from.Add(part)
		if next.After(to) {
			next = to
		}
		partCalls, partTokens, err := s.sum(ctx, from, next)
		if err != nil {
			return from, err
		}
		if from, err = s.span(ctx, from, next, partCalls, partTokens); err != nil {
			return from, err
		}
	}
	return from, nil
}

// daysStillKept are the days of [from, to) with calls, all of which are in the ledger: totals
// outlive the months that retention drops.
func daysStillKept(ctx context.Context, tx pgx.Tx, port string, from, to time.Time) ([]simulatedDay, error) {
	rows, _ := tx.Query(ctx, simulateDaysSQL, port, from, to)
	days, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (d simulatedDay, err error) {
		err = row.Scan(&d.day, &d.calls, &d.tokens)
		return d, err
	})
	if err != nil {
		return nil, err
	}
	if len(days) == 0 {
		return nil, nil
	}
	month := monthOf(days[0].day.Time()) // retention drops the oldest
	var kept bool
	if err := tx.QueryRow(ctx, "select to_regclass($1) is not null", partitionName(month)).Scan(&kept); err != nil {
		return nil, err
	}
	if !kept {
		return nil, &events.FieldError{Reason: events.ReasonInvalidField, Field: "from", Value: from.Format(time.DateOnly),
			Rule: "the calls of " + month.Format("January 2006") + " have left the ledger: only their totals are kept"}
	}
	return days, nil
}

func (s *simulator) sum(ctx context.Context, from, to time.Time) (calls, tokens int64, err error) {
	err = s.tx.QueryRow(ctx, simulateSumSQL, s.port, from, to).Scan(&calls, &tokens)
	return calls, tokens, err
}

// playRows plays the calls of [from, to) one by one, but for those that are too
// large to be admitted whatever comes before them.
func (s *simulator) playRows(ctx context.Context, from, to time.Time) error {
	limit := s.Worth()
	if limit == 0 {
		return nil // not even a call of 0 tokens is admitted at the cap
	}
	rows, _ := s.tx.Query(ctx, simulateRowsSQL, s.port, from, to, limit)
	var at time.Time
	var tokens int64
	_, err := pgx.ForEachRow(rows, []any{&at, &tokens}, func() error {
		s.Play(at, tokens)
		return nil
	})
	return err
}
