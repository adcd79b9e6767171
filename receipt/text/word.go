package text

import (
	"strings"

	"github.com/agnivade/levenshtein"
)

// letters is s in capitals, with the digits that OCR takes letters for made
// letters again, and everything else a space: what keywords are looked for in.
func letters(s string) string {
	var b strings.Builder
	for _, r := range strings.ToUpper(s) {
		switch {
		case 'A' <= r && r <= 'Z':
			b.WriteRune(r)
		case r == '0':
			b.WriteByte('O')
		case r == '1' || r == '|':
			b.WriteByte('I')
		case r == '5' || r == '$':
			b.WriteByte('S')
		case r == '4':
			b.WriteByte('A')
		case r == '.' || r == '\'' || r == '’': // T.O.T.A.L, DIN'S
		default:
			b.WriteByte(' ')
		}
	}
	return b.String()
}

// hasWord reports whether one of the words of s is word, but for one letter that
// OCR got wrong in a word of five or more.
func hasWord(s, word string) bool {
	for field := range strings.FieldsFuncSeq(s, func(r rune) bool { return r < 'A' || r > 'Z' }) {
		if alike(field, word) {
			return true
		}
	}
	return false
}

func alike(a, b string) bool {
	if a == b {
		return true
	}
	return len(b) >= 5 && len(a)-len(b) <= 1 && len(b)-len(a) <= 1 && levenshtein.ComputeDistance(a, b) <= 1
}

func containsAny(s string, parts ...string) bool {
	for _, part := range parts {
		if strings.Contains(s, part) {
			return true
		}
	}
	return false
}

func hasAnyWord(s string, words ...string) bool {
	for _, word := range words {
		if hasWord(s, word) {
			return true
		}
	}
	return false
}
