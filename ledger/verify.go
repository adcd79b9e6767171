package ledger

import (
	"context"
	_ "embed"
	"fmt"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/tidegate/tidegate/budget"
)

//go:embed sql/verify_totals.sql
var verifyTotalsSQL string

//go:embed sql/verify_port_days.sql
var verifyPortDaysSQL string

// maxDifferences bounds what a verification lists.
const maxDifferences = 100

// Verification is the comparison of the ledger with what was derived from it.
type Verification struct {
	Rows         int64        `json:"rows"` // ledger rows read
	InputTokens  int64        `json:"input_tokens"`
	OutputTokens int64        `json:"output_tokens"`
	Ports        int64        `json:"ports"`
	Since        time.Time    `json:"since"`       // first month compared: older ones have left the ledger
	Differences  []Difference `json:"differences"` // the first 100
}

// Difference is one figure that two places disagree about.
type Difference struct {
	Where string `json:"where"` // "totals", "port_days", "limits" or "gate"
	Key   string `json:"key"`
	Want  int64  `json:"want"` // what the ledger (or, for port_days and gates, the totals) says
	Got   int64  `json:"got"`
	What  string `json:"what"` // the figure: "requests", "total_tokens", …
}

// Verify recomputes every total from the ledger, in one snapshot. It reads the
// whole ledger: seconds per ten million rows.
func (l *Ledger) Verify(ctx context.Context, now time.Time) (Verification, error) {
	v := Verification{Differences: []Difference{}}
	if err := l.learnDropped(ctx, l.reportPool); err != nil {
		return v, fmt.Errorf("ledger: verify: %w", err)
	}
	v.Since = l.Oldest(now)
	tx, err := l.reportPool.BeginTx(ctx, pgx.TxOptions{IsoLevel: pgx.RepeatableRead, AccessMode: pgx.ReadOnly})
	if err != nil {
		return v, fmt.Errorf("ledger: verify: %w", err)
	}
	defer func() { _ = tx.Rollback(context.WithoutCancel(ctx)) }()
	err = tx.QueryRow(ctx, `select count(*), `+saturated("coalesce(sum(input_tokens), 0)")+`, `+saturated("coalesce(sum(output_tokens), 0)")+`, count(distinct port_id)
		from ai_usage_ledger where created_at >= $1`, v.Since).Scan(&v.Rows, &v.InputTokens, &v.OutputTokens, &v.Ports)
	if err != nil {
		return v, fmt.Errorf("ledger: verify: %w", err)
	}
	for _, sql := range []string{verifyTotalsSQL, verifyPortDaysSQL} {
		rows, err := tx.Query(ctx, sql, v.Since, maxDifferences-len(v.Differences))
		if err != nil {
			return v, fmt.Errorf("ledger: verify: %w", err)
		}
		found, err := pgx.CollectRows(rows, pgx.RowToStructByPos[Difference])
		if err != nil {
			return v, fmt.Errorf("ledger: verify: %w", err)
		}
		v.Differences = append(v.Differences, found...)
	}
	if err := verifyCounters(ctx, tx, &v, l.droppedBefore().IsZero()); err != nil {
		return v, fmt.Errorf("ledger: verify: %w", err)
	}
	return v, nil
}

// verifyCounters compares the counters of every limit with the ledger. whole: no month of it
// was ever dropped.
func verifyCounters(ctx context.Context, tx pgx.Tx, v *Verification, whole bool) error {
	var now time.Time
	if err := tx.QueryRow(ctx, "select now()").Scan(&now); err != nil {
		return err
	}
	rows, err := tx.Query(ctx, "select port_id, limits from ai_limited_ports where limits is not null order by port_id")
	if err != nil {
		return err
	}
	type limitedPort struct {
		port   string
		limits []counted
	}
	ports, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (p limitedPort, err error) { return p, row.Scan(&p.port, &p.limits) })
	if err != nil {
		return err
	}
	for _, p := range ports {
		if p.port == budget.DefaultPort {
			of, err := portsByDefault(ctx, tx, p.limits)
			if err != nil {
				return err
			}
			for _, port := range of {
				ports = append(ports, limitedPort{port, p.limits})
			}
		}
	}
	for _, p := range ports {
		for i := range p.limits {
			if err := v.verifyLimit(ctx, tx, p.port, &p.limits[i], now, whole); err != nil {
				return err
			}
		}
	}
	return nil
}

// verifyLimit leaves out windows that began before what is still in the ledger, since
// nobody can add them up any more, and those that are over for so long that late calls do
// not count in them.
func (v *Verification) verifyLimit(ctx context.Context, tx pgx.Tx, port string, c *counted, now time.Time, whole bool) error {
	want, got, err := sumLimit(ctx, tx, port, c, nil)
	if err != nil {
		return err
	}
	differ := func(value string, start time.Time, want, got int64) {
		_, end := c.Window.Bounds(start)
		if want != got && c.counts(start, end, now) && (!start.Before(v.Since) || whole && c.Window == budget.Total) && len(v.Differences) < maxDifferences {
			v.Differences = append(v.Differences, Difference{Where: "limits", Key: strings.TrimSpace(fmt.Sprint(port, " ", c.Name, " ", start.Format(time.RFC3339), " ", value)), Want: want, Got: got, What: string(c.Window)})
		}
	}
	for _, w := range want {
		at := valueAt{w.Value, w.Start.Unix()}
		differ(w.Value, w.Start, w.Used, got[at])
		delete(got, at)
	}
	for at, used := range got {
		differ(at.value, time.Unix(at.start, 0).UTC(), 0, used)
	}
	return nil
}
