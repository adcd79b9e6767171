package text

import (
	"slices"

	"github.com/tidegate/tidegate/receipt"
)

// sums are the amounts on a receipt, by what the lines they stand in call them.
type sums struct {
	totals    []named
	subtotals []receipt.Amount
	taxes     []receipt.Amount
	roundings []receipt.Amount
	paid      []receipt.Amount
	change    []receipt.Amount
	taxed     []receipt.Amount // amount and tax of it in one row, summed
	all       []receipt.Amount // every amount that may be a price or a sum
	bought    receipt.Amount   // the sum of the items
}

// named is an amount that a line calls the total, and how clearly.
type named struct {
	amount receipt.Amount
	weight int
}

// totals scores the amounts that may have been to pay. Words propose amounts,
// arithmetic between the amounts confirms or even proposes them: what was handed
// over less the change, subtotal and tax, the rows of a tax summary.
func totals(rows []row) map[receipt.Amount]int {
	s := collect(rows)
	scores := map[receipt.Amount]int{}
	for i, t := range s.totals {
		scores[t.amount] = max(scores[t.amount], 40+t.weight+4*i/len(s.totals))
	}
	for _, a := range s.proposals() {
		scores[a] += s.confirm(a)
	}
	return scores
}

// enough evidence, by the weights below: some line calls it the total, or two sums agree on it.
const enough = 40

// collect reads the amounts of each line, from top to bottom.
func collect(rows []row) (s sums) {
	summary := false // of the taxes: what it calls total is before them
	for i, row := range rows {
		r, weight, all := row.role, row.weight, row.amounts
		summary = summary || isTaxSummary(row.text)
		if len(all) == 0 && r != other && r != aside && i+1 < len(rows) && rows[i+1].bare() {
			all = rows[i+1].amounts // it stands below its name
			weight -= 5
		}
		if len(all) == 0 {
			continue
		}
		last := all[len(all)-1].amount
		if n := len(all); n >= 2 {
			if net, tax := all[n-2].amount, all[n-1].amount; taxOf(net, tax) {
				note(&s.taxed, net+tax)
				summary = true
			}
		}
		if r == total && summary {
			r = aside
		}
		switch r {
		case total:
			if last <= 0 {
				continue
			}
			s.totals = append(s.totals, named{last, weight})
		case subtotal:
			note(&s.subtotals, last)
		case tax:
			note(&s.taxes, last)
		case rounding:
			note(&s.roundings, last)
		case paid:
			note(&s.paid, last)
		case change:
			note(&s.change, abs(last))
		}
		if r == change || r == rounding {
			continue
		}
		for _, f := range all[:min(len(all), maxAmounts-len(s.all))] {
			s.all = append(s.all, f.amount)
		}
	}
	if bought := items(rows); len(bought) > 1 {
		for _, item := range bought {
			s.bought += *item.Amount
		}
	}
	return s
}

// maxAmounts is how many amounts are compared with each other.
const maxAmounts = 1000

// note keeps an amount that some line calls so. Receipts have one or two of each
// kind; the bound keeps the sums over pairs of them small.
func note(kind *[]receipt.Amount, a receipt.Amount) {
	if len(*kind) < 20 {
		*kind = append(*kind, a)
	}
}

func isTaxSummary(s string) bool {
	w := letters(s)
	return hasAnyWord(w, "SUMMARY") || hasAnyWord(w, "TAX") && hasAnyWord(w, "CODE")
}

// bare reports whether a row is an amount and hardly anything else.
func (r row) bare() bool {
	n := 0
	for i := range len(r.text) {
		if isLetter(r.text[i]) {
			n++
		}
	}
	return r.role == other && n <= 4
}

// taxOf reports whether one amount can be the tax on the other.
func taxOf(net, tax receipt.Amount) bool {
	if net <= 0 || tax <= 0 {
		return false
	}
	for _, percent := range []receipt.Amount{5, 6, 7, 8, 10, 16, 19, 20, 21} {
		if off := net*percent - tax*100; off >= -150 && off <= 150 {
			return true
		}
	}
	return false
}

// proposals are the amounts that may be the total: those printed, and those that
// follow from them.
func (s sums) proposals() []receipt.Amount {
	proposed := slices.Clone(s.all)
	proposed = append(proposed, s.taxed...)
	for _, p := range s.paid {
		for _, c := range s.change {
			proposed = append(proposed, p-c)
		}
	}
	slices.Sort(proposed)
	first, _ := slices.BinarySearch(proposed, 1) // nobody prints a receipt over nothing
	return slices.Compact(proposed[first:])
}

// confirm says how much speaks for an amount beside its name.
func (s sums) confirm(a receipt.Amount) (score int) {
	if slices.ContainsFunc(s.paid, func(p receipt.Amount) bool { return slices.Contains(s.change, p-a) }) {
		score += 62 // as much as a clear name: three amounts agree
	}
	if slices.Contains(s.paid, a) {
		score += 15
	}
	if slices.ContainsFunc(s.taxed, func(t receipt.Amount) bool { return abs(t-a) <= 5 }) {
		score += 20
	}
	if s.addsUp(a) {
		score += 15
	}
	if s.rounds(a) {
		score += 15
	}
	if s.bought > 0 && s.bought == a {
		score += 35
	}
	if slices.Contains(s.subtotals, a) {
		score += 5
	}
	seen := 0
	for _, other := range s.all {
		if other == a {
			seen++
		}
	}
	return score + 5*min(seen, 4)
}

// addsUp reports whether a is some subtotal and tax together.
func (s sums) addsUp(a receipt.Amount) bool {
	for _, sub := range s.subtotals {
		for _, t := range s.taxes {
			if t > 0 && abs(sub+t-a) <= 5 {
				return true
			}
		}
	}
	return false
}

// rounds reports whether a is another sum after the rounding that is printed.
func (s sums) rounds(a receipt.Amount) bool {
	for _, r := range s.roundings {
		if r == 0 || abs(r) > 5 {
			continue
		}
		for _, other := range s.all {
			if other != a && (other+r == a || other-r == a) && a%5 == 0 {
				return true
			}
		}
	}
	return false
}

func abs(a receipt.Amount) receipt.Amount { return max(a, -a) }
