package ledger

import (
	"context"
	_ "embed"
	"fmt"
	"maps"
	"slices"
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
	Ports        int64        `json:"ports"`       // that have used something since then
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

// Verify recomputes every total from the ledger, in one snapshot. It reads the whole ledger, ten
// million rows a minute on two cores, and calls progress, which may be nil, with how much of it and of
// its rollups it has read, in bytes.
//
// It adds up both sides in 4,096 buckets of keys, and compares single keys where a bucket differs.
// Two errors that cancel each other go unnoticed if their keys share a bucket; in each
// verification others do.
func (l *Ledger) Verify(ctx context.Context, now time.Time, progress func(done, all int64)) (Verification, error) {
	v := Verification{Differences: []Difference{}}
	if err := l.learnDropped(ctx, l.reportPool); err != nil {
		return v, wrap(err, "verify")
	}
	v.Since = l.Oldest(now)
	err := pgx.BeginTxFunc(ctx, l.reportPool, oneMoment, func(tx pgx.Tx) error {
		sums, err := l.addUp(ctx, tx, v.Since, progress)
		if err != nil {
			return err
		}
		for _, figures := range sums.booked {
			v.Rows += figures[0]
			v.InputTokens, v.OutputTokens = budget.Add(v.InputTokens, figures[1]), budget.Add(v.OutputTokens, figures[2])
		}
		for _, c := range []struct {
			sql     string
			buckets []int32
		}{{verifyTotalsSQL, differing(&sums.booked, &sums.totals)}, {verifyPortDaysSQL, differing(&sums.totalsOfDays, &sums.days)}} {
			if len(c.buckets) == 0 {
				continue
			}
			rows, _ := tx.Query(ctx, c.sql, v.Since, maxDifferences-len(v.Differences), sums.seed, c.buckets)
			found, err := pgx.CollectRows(rows, pgx.RowToStructByPos[Difference])
			if err != nil {
				return err
			}
			v.Differences = append(v.Differences, found...)
		}
		err = tx.QueryRow(ctx, `select count(*) from ports p where exists (select from ai_usage_port_days d
			where d.port_id = p.id and d.day >= ($1::timestamptz at time zone 'UTC')::date)`, v.Since).Scan(&v.Ports)
		if err != nil {
			return err
		}
		return verifyCounters(ctx, tx, &v, l.droppedBefore().IsZero())
	})
	return v, wrap(err, "verify")
}

// verifyCounters compares the counters of every limit with the ledger. whole: no month of it
// was ever dropped.
func verifyCounters(ctx context.Context, tx pgx.Tx, v *Verification, whole bool) error {
	var now time.Time
	if err := tx.QueryRow(ctx, "select now()").Scan(&now); err != nil {
		return err
	}
	ports, err := limitedPorts(ctx, tx, "true")
	if err != nil {
		return err
	}
	for _, p := range slices.Sorted(maps.Keys(ports)) {
		how := limitSums{sumLimitSQL, now}
		if p == budget.DefaultPort {
			how = limitSums{sql: sumLimitByDefaultSQL}
		}
		for i := range ports[p] {
			c := &ports[p][i]
			err := sumLimits(ctx, tx, how, p, c, nil, func(port string, want []addition, got map[valueAt]int64) {
				v.compareLimit(port, c, want, got, now, whole)
			})
			if err != nil {
				return err
			}
		}
	}
	return nil
}

// compareLimit leaves out windows that began before what is still in the ledger, since
// nobody can add them up any more, and those that are over for so long that late calls do
// not count in them.
func (v *Verification) compareLimit(port string, c *counted, want []addition, got map[valueAt]int64, now time.Time, whole bool) {
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
}
