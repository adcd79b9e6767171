// Package text makes a receipt of the text that OCR found on it, by rules: no
// model, no training data, nothing learnt.
package text

import (
	"cmp"
	"time"

	"github.com/tidegate/tidegate/receipt"
)

// Read finds what it can in the text of a receipt. Each look is the lines, from top
// to bottom, that one pass of OCR saw; what several looks agree on counts more.
// Dates after today are misread ones.
func Read(today time.Time, looks ...[]Line) receipt.Receipt {
	var r receipt.Receipt
	days, sums := map[time.Time]int{}, map[receipt.Amount]int{}
	bestName := 0
	for _, lines := range looks {
		lines = lines[:min(len(lines), maxLines)]
		rows := parse(lines)
		for day, score := range dates(lines, today) {
			days[day] += score
		}
		for amount, score := range totals(rows) {
			sums[amount] += score
		}
		if name, score := merchant(lines); score > bestName {
			r.Merchant, bestName = name, score
		}
		if bought := items(rows); len(bought) > len(r.Items) {
			r.Items = bought
		}
		r.Currency = cmp.Or(r.Currency, currency(lines))
	}
	if day, score := best(days, time.Time.Compare); score > 0 {
		r.Date = day
	}
	if amount, score := best(sums, cmp.Compare[receipt.Amount]); score >= enough {
		r.Total = &amount
	}
	return r
}

// row is a line and what it says.
type row struct {
	text    string
	role    role
	weight  int // of a total: how clearly it is the one to pay
	amounts []found
}

func parse(lines []Line) []row {
	rows := make([]row, len(lines))
	for i, l := range lines {
		rows[i] = row{text: l.String(), amounts: amounts(l.String())}
		rows[i].role, rows[i].weight = roleOf(l.String())
	}
	return rows
}

// best is the key with the highest score; among equals the greatest key.
func best[K comparable](scores map[K]int, compare func(a, b K) int) (key K, score int) {
	for k, n := range scores {
		if n > score || n == score && compare(k, key) > 0 {
			key, score = k, n
		}
	}
	return key, score
}
