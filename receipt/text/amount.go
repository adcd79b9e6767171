package text

import (
	"regexp"
	"strconv"
	"strings"

	"github.com/tidegate/tidegate/receipt"
)

// amountPattern is an amount with two decimals at the beginning of a text,
// thousands separated or not, with the letters that OCR takes digits for and the
// spaces it puts around dots.
var amountPattern = regexp.MustCompile(`^(-)?(?:(?i:(R[MNH]|MYR|SGD|USD|EUR|GBP|[A-Z]?\$|€|£))\s?)?(-)?` +
	`([0-9OoIlSB|]{1,3}(?:[,. ][0-9OoIlSB|]{3})+|[0-9OoIlSB|]{1,9})\s?[.,·]\s?([0-9OoIlSB|]{2})(-)?`)

// found is an amount in a line, from byte begin to byte end.
type found struct {
	amount     receipt.Amount
	begin, end int
	currency   string // as printed, "" for none
}

// amounts finds the amounts in s, from left to right.
func amounts(s string) (all []found) {
	for i := 0; i < len(s); i++ {
		if i > 0 && (isDigit(s[i-1]) || isLetter(s[i-1])) {
			continue
		}
		if f, ok := amountAt(s, i); ok {
			all = append(all, f)
			i = f.end - 1
		}
	}
	return all
}

func amountAt(s string, i int) (found, bool) {
	m := amountPattern.FindStringSubmatchIndex(s[i:])
	if m == nil {
		return found{}, false
	}
	part := func(group int) string {
		if m[2*group] < 0 {
			return ""
		}
		return s[i+m[2*group] : i+m[2*group+1]]
	}
	whole, cents := part(4), part(5)
	if !bounded(s, i, i+m[1]) || !mostlyDigits(whole+cents) {
		return found{}, false
	}
	n, err := strconv.ParseInt(digits(whole)+digits(cents), 10, 64)
	if err != nil || n > int64(receipt.MaxAmount) {
		return found{}, false
	}
	if part(1) != "" || part(3) != "" || part(6) != "" {
		n = -n
	}
	return found{amount: receipt.Amount(n), begin: i, end: i + m[1], currency: part(2)}, true
}

// bounded tells an amount from a piece of a longer number, a date or a word.
func bounded(s string, begin, end int) bool {
	if begin > 0 {
		switch c := s[begin-1]; {
		case c == '/':
			return false
		case (c == '.' || c == ',' || c == '-') && begin > 1 && isDigit(s[begin-2]):
			return false
		}
	}
	if end < len(s) {
		switch c := s[end]; {
		case isDigit(c), c == '/', c == '%':
			return false
		case (c == '.' || c == ',' || c == '-' || c == ':') && end+1 < len(s) && isDigit(s[end+1]):
			return false
		case c == ' ' && end+1 < len(s) && s[end+1] == '%':
			return false
		case isLetter(c):
			return end+1 == len(s) || !isLetter(s[end+1]) // one letter is a tax code, or a smudge
		}
	}
	return true
}

func isDigit(c byte) bool  { return '0' <= c && c <= '9' }
func isLetter(c byte) bool { return 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' }

func mostlyDigits(s string) bool {
	real, all := 0, 0
	for i := range len(s) {
		switch c := s[i]; {
		case isDigit(c):
			real++
			all++
		case isLetter(c):
			all++
		}
	}
	return 2*real >= all
}

var lookalikes = strings.NewReplacer("O", "0", "o", "0", "l", "1", "I", "1", "i", "1", "|", "1", "S", "5", "s", "5", "B", "8", "b", "6", "Z", "2", "z", "2")

// digits takes letters that look like digits for those, and drops the rest.
func digits(s string) string {
	return strings.Map(func(r rune) rune {
		if '0' <= r && r <= '9' {
			return r
		}
		return -1
	}, lookalikes.Replace(s))
}
