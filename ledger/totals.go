package ledger

import (
	"context"
	_ "embed"

	"github.com/jackc/pgx/v5"
)

//go:embed sql/add_totals.sql
var addTotalsSQL string

//go:embed sql/add_port_days.sql
var addPortDaysSQL string

//go:embed sql/read_port_days.sql
var readPortDaysSQL string

// addToTotals queues what adds the entries, all of them rows written by this transaction,
// to both rollups. Once it was sent, days has the new totals of their ports and days.
func addToTotals(send *pgx.Batch, b *batch, indexes []int) (days *[]PortDay) {
	days = new([]PortDay)
	if len(indexes) == 0 {
		return days
	}
	sums := b.rollUp(indexes)
	n := len(sums)
	var texts [4][]string
	for c := range texts {
		texts[c] = make([]string, n)
	}
	var ints [6][]int64
	for c := range ints {
		ints[c] = make([]int64, n)
	}
	dayOf := make([]int32, n)
	var perDay []PortDay
	for row := range sums {
		s := &sums[row]
		dayOf[row] = int32(s.day)
		for c, v := range [...]string{s.port, s.feature, s.provider, s.model} {
			texts[c][row] = v
		}
		for c, v := range [...]int64{s.requests, s.input, s.output, s.cacheRead, s.cacheWrite, s.reasoning} {
			ints[c][row] = v
		}
		if last := len(perDay) - 1; last < 0 || perDay[last].PortID != s.port || perDay[last].Day != s.day {
			perDay = append(perDay, PortDay{PortID: s.port, Day: s.day})
		}
		d := &perDay[len(perDay)-1]
		d.Requests += s.requests
		d.TotalTokens += s.input + s.output
	}
	send.Queue(addTotalsSQL, texts[0], dayOf, texts[1], texts[2], texts[3], ints[0], ints[1], ints[2], ints[3], ints[4], ints[5])
	ports, dayNumbers, requests, tokens := splitDays(perDay)
	send.Queue(addPortDaysSQL, ports, dayNumbers, requests, tokens).Query(func(rows pgx.Rows) (err error) {
		*days, err = appendDays(perDay[:0], rows)
		return err
	})
	return days
}

// readDays returns the totals of every port and day in the batch, as this
// transaction sees them.
func readDays(ctx context.Context, tx pgx.Tx, b *batch) ([]PortDay, error) {
	var perDay []PortDay
	for _, i := range b.pending {
		e := &b.entries[i]
		day := DayOf(e.At)
		if last := len(perDay) - 1; last < 0 || perDay[last].PortID != e.Usage.PortID || perDay[last].Day != day {
			perDay = append(perDay, PortDay{PortID: e.Usage.PortID, Day: day})
		}
	}
	ports, days, _, _ := splitDays(perDay)
	rows, _ := tx.Query(ctx, readPortDaysSQL, ports, days)
	perDay, err := appendDays(perDay[:0], rows)
	return perDay, wrap(err, "read totals")
}

func splitDays(perDay []PortDay) (ports []string, days []int32, requests, tokens []int64) {
	for _, d := range perDay {
		ports = append(ports, d.PortID)
		days = append(days, int32(d.Day))
		requests = append(requests, d.Requests)
		tokens = append(tokens, d.TotalTokens)
	}
	return ports, days, requests, tokens
}

func appendDays(to []PortDay, rows pgx.Rows) ([]PortDay, error) {
	var d PortDay
	var day int32
	_, err := pgx.ForEachRow(rows, []any{&d.PortID, &day, &d.Requests, &d.TotalTokens}, func() error {
		d.Day = Day(day)
		to = append(to, d)
		return nil
	})
	return to, err
}
