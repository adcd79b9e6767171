package tesseract

import (
	"strconv"
	"strings"

	"github.com/tidegate/tidegate/receipt/text"
)

// readTSV reads tesseract's table of what it saw where: one word a row, with the
// block, paragraph and line it belongs to. Rows that it does not understand it
// leaves out.
func readTSV(table string) (lines [][]text.Word) {
	last := ""
	for row := range strings.Lines(table) {
		f := strings.Split(strings.TrimRight(row, "\r\n"), "\t")
		if len(f) != 12 || f[0] != "5" { // level 5: a word
			continue
		}
		var n [4]int
		ok := true
		for i := range n {
			v, err := strconv.Atoi(f[6+i])
			ok = ok && err == nil
			n[i] = v
		}
		confidence, err := strconv.ParseFloat(f[10], 64)
		if !ok || err != nil {
			continue
		}
		word := text.Word{Text: f[11], X: n[0], Y: n[1], W: n[2], H: n[3], Confidence: confidence}
		if line := strings.Join(f[1:5], "."); line != last || len(lines) == 0 {
			lines, last = append(lines, nil), line
		}
		lines[len(lines)-1] = append(lines[len(lines)-1], word)
	}
	return lines
}
