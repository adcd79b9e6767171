package text

import (
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/tidegate/tidegate/receipt"
)

const digit = `[0-9OoIl|SBZ]`

// form is a form in which receipts print dates, at the beginning of a text and with
// the letters that OCR takes digits for. The groups say where the parts are.
type form struct {
	pattern          *regexp.Regexp
	year, month, day int // groups
	trust            int // how rarely anything else looks like it
}

const (
	monthNames = `(JAN|FEB|MAR|APR|MAY|MAI|JUN|JUL|AUG|SEP|[O0]CT|[O0]KT|N[O0]V|DEC|DEZ|DIS|MAC|OGO)[A-Z]{0,6}`
	ordinal    = `\s?(?:st|nd|rd|th)?`
	gaps       = `[\s\-/.,']*`
	years      = `(` + digit + `{4}|` + digit + `{2})`
	dayOrMonth = `(` + digit + `{1,2})`
)

var forms = []form{
	{regexp.MustCompile(`^(2[0O]` + digit + digit + `)\s?[-/.]\s?` + dayOrMonth + `\s?[-/.]\s?` + dayOrMonth), 1, 2, 3, 15},
	{regexp.MustCompile(`^(?i)` + dayOrMonth + ordinal + gaps + monthNames + gaps + years), 3, 2, 1, 20},
	{regexp.MustCompile(`^(?i)` + monthNames + gaps + dayOrMonth + ordinal + `[\s\-/.,']+` + years), 3, 1, 2, 15},
	{regexp.MustCompile(`^` + dayOrMonth + `\s?[-/]\s?` + dayOrMonth + `\s?[-/]\s?` + years), 3, 2, 1, 10},
	{regexp.MustCompile(`^` + dayOrMonth + `\s?[-/]\s?` + dayOrMonth + `\s?[-/]\s?` + years), 3, 1, 2, 5},        // the month first
	{regexp.MustCompile(`^` + dayOrMonth + `\s?[-/., ]\s?` + dayOrMonth + `\s?[-/.,]\s?` + years), 3, 2, 1, -20}, // as often an amount
}

var clock = regexp.MustCompile(`\b[0-2]?[0-9]\s?[:.]\s?[0-5][0-9]`)

var months = map[string]time.Month{
	"JAN": 1, "FEB": 2, "MAR": 3, "MAC": 3, "APR": 4, "MAY": 5, "MAI": 5, "JUN": 6, "JUL": 7, "AUG": 8, "OGO": 8,
	"SEP": 9, "OCT": 10, "OKT": 10, "NOV": 11, "DEC": 12, "DEZ": 12, "DIS": 12,
}

// dates scores the days that lines name, by how likely each is that of the
// purchase. Where a date can be read in two ways, the day is taken to come first,
// as in most of the world.
func dates(lines []Line, today time.Time) map[time.Time]int {
	scores := map[time.Time]int{}
	for i, line := range lines {
		s := line.String()
		for _, m := range datesIn(s, today) {
			score := 60 - min(i, 40) + m.trust
			w := letters(s)
			switch {
			case hasAnyWord(w, "DATE", "TARIKH", "DATUM"):
				score += 30
			case i > 0 && hasAnyWord(letters(lines[i-1].String()), "DATE"):
				score += 15
			}
			if clock.MatchString(s[:m.begin] + " " + s[m.end:]) {
				score += 30
			}
			if containsAny(w, "EXPIR", "VALID", "DUE", "UNTIL", "BEFORE", "BIRTH", "SINCE", "DELIVER") {
				score -= 60
			}
			if known, ok := scores[m.day]; ok {
				score = max(score, known) + 15
			}
			scores[m.day] = score
		}
	}
	return scores
}

// dated is a date in a line.
type dated struct {
	day        time.Time
	begin, end int
	trust      int
}

// datesIn finds the dates in a line, from left to right.
func datesIn(s string, today time.Time) (all []dated) {
	for i := 0; i < len(s); i++ {
		if i > 0 && isDigit(s[i-1]) {
			continue
		}
		if d, ok := dateAt(s, i, today); ok {
			all = append(all, d)
			i = d.end - 1
		}
	}
	return all
}

func dateAt(s string, i int, today time.Time) (dated, bool) {
	for _, f := range forms {
		m := f.pattern.FindStringSubmatch(s[i:])
		if m == nil {
			continue
		}
		end := i + len(m[0])
		if end < len(s) && isDigit(s[end]) {
			continue
		}
		month, named := months[strings.ReplaceAll(strings.ToUpper(m[f.month]), "0", "O")]
		if !named {
			month = time.Month(number(m[f.month]))
		}
		if day, ok := plausible(number(m[f.year]), int(month), number(m[f.day]), today); ok {
			return dated{day: day, begin: i, end: end, trust: f.trust}, true
		}
	}
	return dated{}, false
}

// number reads digits, or letters that look like them; 0 when there are none.
func number(s string) int {
	n, err := strconv.Atoi(digits(s))
	if err != nil {
		return 0
	}
	return n
}

// plausible is the day, if there is such a day and it may have come already
// somewhere on earth.
func plausible(year, month, day int, today time.Time) (time.Time, bool) {
	if year < 100 {
		year += 2000
	}
	t := time.Date(year, time.Month(month), day, 0, 0, 0, 0, time.UTC)
	if year < receipt.OldestYear || month < 1 || month > 12 || t.Day() != day || day < 1 || t.After(today.Add(24*time.Hour)) {
		return time.Time{}, false
	}
	return t, true
}
