package ledger

import (
	"context"
	_ "embed"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/tidegate/tidegate/budget"
)

//go:embed sql/standings.sql
var standingsSQL string

// State says how far a port has come to its caps.
type State string

// The states. What calls under way hold is not counted.
const (
	Uncapped State = "none"     // it has no budget, or one without caps and limits
	Fine     State = "fine"     // it is below its caps
	AtSoft   State = "soft"     // a soft cap, its own or of a limit, is reached
	AtHard   State = "hard"     // a hard cap, its own or of a limit, is reached: calls are refused
	Disabled State = "disabled" // its budget is not enforced
)

// States are all of them.
var States = [...]State{Uncapped, Fine, AtSoft, AtHard, Disabled}

// Standing is how a port stands.
type Standing struct {
	PortID      string
	Name        string
	UsedTokens  int64 // in the running period of its budget
	DayTokens   int64 // in the running day, and so on
	WeekTokens  int64
	MonthTokens int64
	ByDefault   bool // it has no budget of its own
	State       State
	Share       *float64  // of the hard cap, its own or of a limit, of which most is used; nil: it has none
	Tightest    string    // that limit's name, or [budget.PortLimit]; "": it has none
	LastDay     time.Time // of the last call; zero: there was none
}

// Standings reads how ports stand: those of ids, in no order; nil: all. That reads each
// port's days of the running month, so all of 100,000 busy ports take seconds.
func (l *Ledger) Standings(ctx context.Context, ids []string, now time.Time) (list []Standing, err error) {
	defer func() { err = wrap(err, "how ports stand") }()
	budgets, err := l.budgetsOf(ctx, ids)
	if err != nil {
		return nil, err
	}
	counts, err := l.fullestOf(ctx, ids, now)
	if err != nil {
		return nil, err
	}
	day, tomorrow := budget.Day.Bounds(now)
	week, _ := budget.Week.Bounds(now)
	month, _ := budget.Month.Bounds(now)
	args := []any{day, week, month, tomorrow}
	rows, _ := l.reportPool.Query(ctx, fmt.Sprintf(standingsSQL, among("p.id", ids, &args), among("port_id", ids, &args)), args...)
	var s Standing
	var last *time.Time
	var days, weeks, months int64
	_, err = pgx.ForEachRow(rows, []any{&s.PortID, &s.Name, &days, &weeks, &months, &last}, func() error {
		own, ok := budgets[s.PortID]
		if !ok {
			own = budget.None()
		}
		b := own.Or(budgets[budget.DefaultPort])
		next := Standing{PortID: s.PortID, Name: s.Name, DayTokens: days, WeekTokens: weeks, MonthTokens: months, ByDefault: !ok || own.Default}
		next.UsedTokens = next.Used(b.Period)
		if last != nil {
			next.LastDay = *last
		}
		next.stand(b, counts[s.PortID], now)
		list = append(list, next)
		return nil
	})
	return list, err
}

// among is the condition that a column is one of ids, with its argument among those that there are.
func among(column string, ids []string, args *[]any) string {
	if ids == nil {
		return "true"
	}
	*args = append(*args, ids)
	return fmt.Sprintf("%s = any($%d)", column, len(*args))
}

// window is where a limit counts.
type window struct {
	counter budget.CounterRef
	start   time.Time
}

// Used is what the port used in the running period.
func (s *Standing) Used(p budget.Period) int64 {
	switch p {
	case budget.Day:
		return s.DayTokens
	case budget.Week:
		return s.WeekTokens
	default:
		return s.MonthTokens
	}
}

// stand sets what comes of a budget and of what its limits count.
func (s *Standing) stand(b budget.Budget, counts map[window]int64, now time.Time) {
	s.State = Fine
	own := b
	own.Limits = nil
	d := budget.Decide(own.Rule(), budget.Count{Used: s.UsedTokens}, &budget.Call{}, nil, now)
	s.reach(d.Allowed, d.SoftCapWarning)
	if b.HardCapTokens != nil {
		s.fill(budget.PortLimit, s.UsedTokens, b.Rule().HardAt(now))
	}
	for i := range b.Limits {
		limit := &b.Limits[i]
		start, _ := limit.Window.Bounds(now)
		d := limit.Standing("", budget.Count{Used: counts[window{limit.Counter, start}]}, now)
		s.reach(d.Allowed, d.SoftCapWarning)
		if limit.Hard != nil {
			s.fill(limit.Name, d.UsedTokens, *limit.Hard)
		}
	}
	switch {
	case b.Version == 0 && !b.Default || b.SoftCapTokens == nil && b.HardCapTokens == nil && len(b.Limits) == 0:
		s.State = Uncapped
	case !b.Enabled:
		s.State = Disabled
	}
}

func (s *Standing) reach(allowed, warned bool) {
	if !allowed {
		s.State = AtHard
	} else if warned && s.State == Fine {
		s.State = AtSoft
	}
}

func (s *Standing) fill(limit string, used, hard int64) {
	share := 1.0 // a hard cap of 0 refuses everything
	if hard > 0 {
		share = float64(used) / float64(hard)
	}
	if s.Share == nil || share > *s.Share {
		s.Share, s.Tightest = &share, limit
	}
}

// budgetsOf are the stored budgets of ports, and the default one.
func (l *Ledger) budgetsOf(ctx context.Context, ids []string) (map[string]budget.Budget, error) {
	args := []any{BudgetKey, budget.DefaultPort}
	rows, _ := l.reportPool.Query(ctx, "select port_id, value, version, updated_at, updated_by from system_settings where key = $1 and (port_id = $2 or "+among("port_id", ids, &args)+")", args...)
	return readBudgets(rows)
}

// fullestOf is what limits of ports count in their running windows; of those that count each
// value by itself, of the value that has used most.
func (l *Ledger) fullestOf(ctx context.Context, ids []string, now time.Time) (map[string]map[window]int64, error) {
	args := []any{now}
	rows, _ := l.reportPool.Query(ctx, "select port_id, counter, start, max(used) from ai_limit_counters where start <= $1 and ends > $1 and "+among("port_id", ids, &args)+" group by 1, 2, 3", args...)
	counts := map[string]map[window]int64{}
	var port string
	var w window
	var used int64
	_, err := pgx.ForEachRow(rows, []any{&port, &w.counter, &w.start, &used}, func() error {
		if counts[port] == nil {
			counts[port] = map[window]int64{}
		}
		counts[port][w] = used
		return nil
	})
	return counts, err
}

// DailyTokens reads what ports used on each of so many days, the last of which contains now.
// A port that used nothing then has no entry.
func (l *Ledger) DailyTokens(ctx context.Context, ids []string, days int, now time.Time) (map[string][]int64, error) {
	day, tomorrow := budget.Day.Bounds(now)
	first := day.AddDate(0, 0, 1-days)
	rows, _ := l.reportPool.Query(ctx, "select port_id, day - $2::date, total_tokens from ai_usage_port_days where port_id = any($1) and day >= $2::date and day < $3::date", ids, first, tomorrow)
	daily := map[string][]int64{}
	var port string
	var no int
	var tokens int64
	_, err := pgx.ForEachRow(rows, []any{&port, &no, &tokens}, func() error {
		if daily[port] == nil {
			daily[port] = make([]int64, days)
		}
		daily[port][no] = tokens
		return nil
	})
	return daily, wrap(err, "tokens of ports by day")
}
