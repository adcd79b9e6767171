package text

import (
	"regexp"
	"strings"
	"unicode"
)

// trades are words that names of businesses end with or contain.
var trades = []string{
	"SDN", "BHD", "ENTERPRISE", "TRADING", "RESTAURANT", "RESTORAN", "RESTAURANTS", "HARDWARE", "STATIONERY", "MARKET", "SUPERMARKET", "HYPERMARKET",
	"MART", "MINIMART", "PASAR", "KEDAI", "PERNIAGAAN", "MACHINERY", "BAKERY", "CAFE", "BISTRO", "PHARMACY", "FARMASI", "CLINIC", "GALLERY", "MOTOR",
	"LTD", "LIMITED", "INC", "LLC", "GMBH", "PTE", "PLC", "CORP", "COMPANY", "STORE", "STORES", "SHOP", "BOOKS", "HOTEL", "MARINA", "PETROL",
}

// notNames are what the lines are about that stand around the name.
var notNames = []string{
	"INVOICE", "RECEIPT", "BILL", "TEL", "FAX", "GST", "SST", "DATE", "CASHIER", "TABLE", "JALAN", "JLN", "STREET", "ROAD", "AVENUE", "TAMAN", "LOT",
	"FLOOR", "LEVEL", "TOTAL", "CASH", "PHONE", "WELCOME", "THANK", "REG", "INCLUSIVE", "HTTP", "WWW", "COM", "EMAIL", "BANDAR", "SELANGOR", "JOHOR",
}

// headLines is how far down a receipt its merchant's name is looked for.
const headLines = 9

// merchant finds the name of who sold: it stands at the top, over the address.
func merchant(lines []Line) (name string, score int) {
	best, bestScore := -1, 0
	for i := range min(len(lines), headLines) {
		if score := nameScore(lines[i]) - 4*i; score > bestScore {
			best, bestScore = i, score
		}
	}
	if best < 0 {
		return "", 0
	}
	name = clean(lines[best].String())
	if best+1 < len(lines) && strings.HasSuffix(name, "&") {
		name += " " + clean(lines[best+1].String()) // the name goes on below
	}
	return name, bestScore
}

func nameScore(l Line) int {
	s := l.String()
	alphabetic, upper, all := 0, 0, 0
	for _, r := range s {
		switch {
		case unicode.IsUpper(r):
			alphabetic, upper, all = alphabetic+1, upper+1, all+1
		case unicode.IsLetter(r):
			alphabetic, all = alphabetic+1, all+1
		case !unicode.IsSpace(r):
			all++
		}
	}
	if alphabetic < 4 || 10*alphabetic < 6*all {
		return 0
	}
	w := letters(s)
	score := 30 + int(l.confidence()/4)
	if 2*upper > alphabetic {
		score += 15 // handwriting and mottos are in small letters
	}
	if hasAnyWord(w, trades...) || strings.Contains(strings.ToUpper(s), "S/B") {
		score += 30
	}
	if hasAnyWord(w, notNames...) {
		score -= 40
	}
	return score
}

// clean drops what OCR makes of smudges at the ends of a name, and the number of
// the company's registration.
func clean(s string) string {
	fields := strings.Fields(s)
	for len(fields) > 0 && !hasLetters(fields[0], 1) {
		fields = fields[1:]
	}
	for len(fields) > 0 {
		last := fields[len(fields)-1]
		if hasLetters(last, 1) && !strings.ContainsAny(last, "0123456789") || last == "&" {
			break
		}
		fields = fields[:len(fields)-1]
	}
	return misread.ReplaceAllString(strings.Trim(strings.Join(fields, " "), " ,;:-_*|=~\"'"), "SDN BHD")
}

// misread is what OCR often makes of "SDN BHD".
var misread = regexp.MustCompile(`\bS[OU]N[.,]? BHD\b\.?`)

func hasLetters(s string, n int) bool {
	for _, r := range s {
		if unicode.IsLetter(r) {
			n--
		}
	}
	return n <= 0
}
