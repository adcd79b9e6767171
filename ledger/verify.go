package ledger

import (
	"context"
	_ "embed"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
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
	Where string `json:"where"` // "totals", "port_days" or "gate"
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
	err = tx.QueryRow(ctx, `select count(*), coalesce(sum(input_tokens), 0)::bigint, coalesce(sum(output_tokens), 0)::bigint, count(distinct port_id)
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
	return v, nil
}
