package text

import (
	"regexp"
	"strings"
)

// sdnBHD is the end of Malaysian companies' names, as OCR reads it too.
const sdnBHD = `\bS[DOU]N[.,]?\s?BHD\b`

// ringgit is told apart first: Malaysian receipts print "$" too.
var ringgit = regexp.MustCompile(`\bMYR\b|\bRM\b|\bRM\s?[0-9]|` + sdnBHD)

// currencies by what is printed of them.
var currencies = []struct {
	code    string
	pattern *regexp.Regexp
}{
	{"SGD", regexp.MustCompile(`\bSGD\b|\bS\$\s?[0-9]|\bPTE\.?\s?LTD`)},
	{"AUD", regexp.MustCompile(`\bAUD\b|\bA\$\s?[0-9]|\bABN\b`)},
	{"CAD", regexp.MustCompile(`\bCAD\b|\bC\$\s?[0-9]`)},
	{"EUR", regexp.MustCompile(`€|\bEUR\b`)},
	{"GBP", regexp.MustCompile(`£|\bGBP\b`)},
	{"CHF", regexp.MustCompile(`\bCHF\b`)},
	{"USD", regexp.MustCompile(`\$|\bUSD\b`)},
}

// currency finds the ISO code of the currency that is printed most, "" when
// nothing tells.
func currency(lines []Line) (code string) {
	var all strings.Builder
	for _, l := range lines {
		all.WriteString(strings.ToUpper(l.String()))
		all.WriteByte('\n')
	}
	text := all.String()
	if ringgit.MatchString(text) {
		return "MYR"
	}
	most := 0
	for _, c := range currencies {
		if n := len(c.pattern.FindAllStringIndex(text, -1)); n > most {
			code, most = c.code, n
		}
	}
	return code
}
