package main

import (
	"bytes"
	"strings"
	"testing"
)

// What services choose moves no cursor and turns no line round.
func TestGridIsHarmless(t *testing.T) {
	var b bytes.Buffer
	grid(&b, []string{"feature"}, [][]string{{"a\u009b2Jb"}, {"pay\u202eetanimret"}, {"\u2066x\ufeff\u200b\x7f"}, {"é 模型 👍"}, {"line\u2028break\r"}})
	for _, want := range []string{`a\u009b2Jb`, `pay\u202eetanimret`, `\u2066x\ufeff\u200b\x7f`, "é 模型 👍", `line\u2028break\r`} {
		if !strings.Contains(b.String(), want) {
			t.Errorf("%q is missing in %q", want, b.String())
		}
	}
	if got := visible("\x1b[2J\n\t", "\n\t"); got != `\x1b[2J`+"\n\t" {
		t.Errorf("%q", got)
	}
}
