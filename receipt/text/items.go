package text

import (
	"regexp"
	"strconv"
	"strings"

	"github.com/tidegate/tidegate/receipt"
)

const maxItems = 200

var (
	quantityFirst = regexp.MustCompile(`^\s*([1-9][0-9]{0,2})\s*(?:x|X|\*|PCS?|PKT|UNIT)?\s*(?:@\s*)?`)
	headers       = []string{"PRICE", "AMOUNT", "QTY", "DESCRIPTION", "DESC", "QUANTITY"}
)

// items finds what was bought: lines with an amount, before the first line that
// sums up.
func items(rows []row) (all []receipt.Item) {
	above := "" // a description whose amount stands in the next line
	for _, row := range rows {
		s, r, prices := row.text, row.role, row.amounts
		sum := r == total || r == subtotal || r == paid || r == change
		switch {
		case sum && len(all) > 0, len(all) == maxItems:
			return all
		case r != other || hasAnyWord(letters(s), headers...) && len(prices) == 0:
			above = ""
			continue
		case len(prices) == 0:
			above = s
			continue
		}
		last := prices[len(prices)-1].amount
		item := receipt.Item{Amount: &last}
		item.Description, item.Quantity = describe(s[:prices[0].begin])
		if !hasLetters(item.Description, 3) {
			item.Description, _ = describe(above)
		}
		above = ""
		if hasLetters(item.Description, 3) && last > 0 {
			all = append(all, item)
		}
	}
	return all
}

// describe splits a quantity from the words after it.
func describe(s string) (description string, quantity float64) {
	if m := quantityFirst.FindStringSubmatchIndex(s); m != nil && (m[1] == len(s) || m[1] > m[3]) {
		quantity, _ = strconv.ParseFloat(s[m[2]:m[3]], 64)
		s = s[m[1]:]
	}
	return strings.Trim(strings.Join(strings.Fields(s), " "), " ,;:-_*|=~\"'"), quantity
}
