package text

import (
	"cmp"
	"slices"
	"strings"
)

// Word is what OCR saw as one word, and where: pixels from the top left.
type Word struct {
	Text       string
	X, Y, W, H int
	Confidence float64 // 0 to 100
}

func (w Word) middle() int { return w.Y + w.H/2 }

// Line is a row of words, from left to right.
type Line struct {
	Words []Word
	text  string
}

// What a line and a receipt have at most. No till prints as much; a page made to
// keep us busy does.
const (
	maxLineBytes = 400
	maxLines     = 300
)

func newLine(words []Word) Line {
	texts, bytes := make([]string, 0, len(words)), 0
	for i, w := range words {
		if bytes += len(w.Text) + 1; bytes > maxLineBytes {
			words = words[:i]
			break
		}
		texts = append(texts, w.Text)
	}
	return Line{Words: words, text: strings.Join(texts, " ")}
}

// NewLine is a line of plain text, of which no places are known.
func NewLine(s string) Line {
	var words []Word
	for field := range strings.FieldsSeq(s) {
		words = append(words, Word{Text: field, Confidence: 100})
	}
	return newLine(words)
}

func (l Line) String() string { return l.text }

func (l Line) middle() int {
	sum := 0
	for _, w := range l.Words {
		sum += w.middle()
	}
	return sum / max(len(l.Words), 1)
}

// height is that of the middlemost word: OCR draws some boxes far too high.
func (l Line) height() int {
	if len(l.Words) == 0 {
		return 0
	}
	heights := make([]int, len(l.Words))
	for i, w := range l.Words {
		heights[i] = w.H
	}
	slices.Sort(heights)
	return heights[len(heights)/2]
}

// confidence is the mean of the words', by their lengths.
func (l Line) confidence() float64 {
	sum, n := 0.0, 0
	for _, w := range l.Words {
		sum += w.Confidence * float64(len(w.Text))
		n += len(w.Text)
	}
	return sum / float64(max(n, 1))
}

// Rows joins lines that stand side by side. OCR often takes the amounts at the
// right for a column of their own; what belongs together is what a person reads
// in one row, however wide the gap. The rows come from top to bottom.
func Rows(lines [][]Word) []Line {
	var rows []Line
	for _, words := range lines {
		words = slices.DeleteFunc(slices.Clone(words), func(w Word) bool {
			return strings.TrimSpace(w.Text) == "" || w.W <= 0 || w.H <= 0
		})
		if l := newLine(words); len(l.Words) > 0 {
			rows = append(rows, l)
		}
	}
	slices.SortStableFunc(rows, func(a, b Line) int { return cmp.Compare(a.middle(), b.middle()) })
	for i := 0; i < len(rows); i++ {
		for j := i + 1; j < len(rows) && j < i+6; j++ {
			if left, right, ok := sideBySide(rows[i], rows[j]); ok {
				rows[i] = newLine(slices.Concat(left.Words, right.Words))
				rows = slices.Delete(rows, j, j+1)
				j = i
			}
		}
	}
	return rows
}

// sideBySide tells which of two lines goes on where the other ends. It compares
// the two words that are nearest, since crooked receipts have crooked rows.
func sideBySide(a, b Line) (left, right Line, ok bool) {
	left, right = a, b
	if left.Words[0].X > right.Words[0].X {
		left, right = b, a
	}
	end, begin := left.Words[len(left.Words)-1], right.Words[0]
	if end.X+end.W > begin.X+begin.W/4 {
		return left, right, false
	}
	off := end.middle() - begin.middle()
	if off < 0 {
		off = -off
	}
	return left, right, 5*off < 2*min(left.height(), right.height())
}
