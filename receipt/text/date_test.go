package text

import (
	"regexp/syntax"
	"strings"
	"testing"
)

// What a form says of its first byte keeps no date from its pattern.
func TestDatesBeginAsTheirFormsSay(t *testing.T) {
	for _, f := range forms {
		parsed, err := syntax.Parse(f.pattern.String(), syntax.Perl)
		if err != nil {
			t.Fatal(err)
		}
		prog, err := syntax.Compile(parsed.Simplify())
		if err != nil {
			t.Fatal(err)
		}
		var begins func(pc uint32)
		seen := map[uint32]bool{}
		begins = func(pc uint32) {
			i := prog.Inst[pc]
			if seen[pc] {
				return
			}
			seen[pc] = true
			switch i.Op {
			case syntax.InstAlt, syntax.InstAltMatch:
				begins(i.Out)
				begins(i.Arg)
			case syntax.InstCapture, syntax.InstNop, syntax.InstEmptyWidth:
				begins(i.Out)
			case syntax.InstMatch:
				t.Errorf("%s matches nothing at all", f.pattern)
			default:
				for r := range rune(0x10000) {
					if i.MatchRune(r) && strings.IndexByte(f.first, string(r)[0]) < 0 {
						t.Errorf("%s may begin with %q", f.pattern, r)
					}
				}
			}
		}
		begins(uint32(prog.Start))
	}
}
