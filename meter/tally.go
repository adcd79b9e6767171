package meter

import (
	"math/bits"
	"strconv"

	"github.com/tidegate/tidegate/events"
)

// figure is a kind of number that providers report. What is "inside" another one
// is part of it, unless the provider's own total says otherwise.
type figure uint8

const (
	input      figure = iota // prompt tokens
	output                   // generated tokens
	total                    // of the whole call, as the provider adds it up
	inputElse                // the input where no other is told
	outputElse               // the output where no other is told

	moreInput      // beside the input: what tools put into the prompt, citations, pictures
	cacheRead      // inside the input
	cacheWrite     // inside the input
	moreCacheRead  // beside the input
	moreCacheWrite // beside the input
	partCacheWrite // parts of moreCacheWrite, added up where that is not told
	promptPart     // inside the input: audio

	reasoning      // inside the output
	moreReasoning  // beside the output
	citedReasoning // beside the output when citations are told, else inside
	numFigures
)

// figures are reported numbers. The zero value has none.
type figures struct {
	set uint32
	n   [numFigures]int64
	bad bool // one of them was no whole number from 0 to events.MaxTokens
}

func (f *figures) has(k figure) bool { return f.set&(1<<k) != 0 }

// put takes over a number from JSON. Where a provider tells one twice, the larger
// counts.
func (f *figures) put(k figure, raw []byte) {
	n, ok := count(raw)
	switch {
	case !ok:
		f.bad = true
	case k == partCacheWrite:
		f.n[k] += n
	default:
		f.n[k] = max(f.n[k], n)
	}
	f.set |= 1 << k
}

func count(raw []byte) (int64, bool) {
	if n, err := strconv.ParseInt(string(raw), 10, 64); err == nil {
		return n, n >= 0 && n <= events.MaxTokens
	}
	x, err := strconv.ParseFloat(string(raw), 64)
	return int64(x), err == nil && x >= 0 && x <= events.MaxTokens && x == float64(int64(x))
}

// update takes over what g tells. A zero does not undo what was told before:
// figures in a stream are cumulative, and some events leave out what they repeat.
func (f *figures) update(g *figures) {
	for k := range numFigures {
		if g.has(k) && (g.n[k] > 0 || !f.has(k)) {
			f.n[k] = g.n[k]
		}
	}
	f.set |= g.set
	f.bad = g.bad
}

// add adds up.
func (f *figures) add(g *figures) {
	for k := range numFigures {
		f.n[k] = min(f.n[k]+g.n[k], 2*events.MaxTokens) // which no event takes
	}
	f.set |= g.set
	f.bad = f.bad || g.bad
}

func (f *figures) zero() bool { return f.n == [numFigures]int64{} }

// tokens are a reply's figures as Tidegate counts them: the cache inside the
// input, the reasoning inside the output.
type tokens struct {
	input, output int64
	details       events.Details
	inferred      bool // the provider's figures contradict each other, or say less than their total
}

// tokens makes of the figures what an event tells.
func (f *figures) tokens() tokens {
	n := &f.n
	t := tokens{input: n[input], output: n[output]}
	if !f.has(input) {
		t.input = n[inputElse]
	}
	if !f.has(output) {
		t.output = n[outputElse]
	}
	write := n[moreCacheWrite]
	if !f.has(moreCacheWrite) {
		write = n[partCacheWrite]
	}
	t.input += n[moreInput] + n[moreCacheRead] + write
	t.output += n[moreReasoning]
	inside, beside := max(n[reasoning], n[citedReasoning]), n[moreReasoning]
	if n[moreInput] > 0 && n[citedReasoning] > 0 {
		inside, beside = n[reasoning], n[citedReasoning]
		t.output += n[citedReasoning]
	}
	t.details = events.Details{
		CacheReadInputTokens:  max(n[cacheRead], n[moreCacheRead]),
		CacheWriteInputTokens: max(n[cacheWrite], write),
		ReasoningOutputTokens: max(inside, beside),
	}
	if missing := n[total] - t.input - t.output; f.has(total) && missing > 0 {
		f.spread(&t, missing)
	} else if !f.has(total) || n[total] == 0 {
		t.stretch()
	}
	return t.clamped()
}

// spread finds out on which side the tokens are that the provider's total has and
// its parts have not: the details say so, whose sum it is. Where they don't, the
// output takes it, as reasoning: that is what providers hide.
func (f *figures) spread(t *tokens, missing int64) {
	told := f.has(output) || f.has(outputElse)
	if !f.has(input) && !f.has(inputElse) && !told {
		t.input += missing // an embedding, mostly
		return
	}
	if !told {
		t.output += missing
		return
	}
	if !f.has(input) && !f.has(inputElse) {
		t.input += missing
		return
	}
	parts := [...]int64{f.n[reasoning], f.n[promptPart], f.n[cacheRead], f.n[cacheWrite]}
	best, size := 0, len(parts)+1
	for set := 1; set < 1<<len(parts); set++ {
		var sum int64
		for i, n := range parts {
			if set&(1<<i) != 0 {
				sum += n
			}
		}
		if n := bits.OnesCount(uint(set)); sum == missing && n < size {
			best, size = set, n
		}
	}
	if best == 0 {
		t.output += missing
		t.details.ReasoningOutputTokens = max(t.details.ReasoningOutputTokens, missing)
		t.inferred = true
		return
	}
	for i, n := range parts {
		switch {
		case best&(1<<i) == 0:
		case i == 0:
			t.output += n
		default:
			t.input += n
		}
	}
}

// stretch is for details that cannot be inside their total, where no total of the
// call says so: they stand beside it.
func (t *tokens) stretch() {
	d := &t.details
	if d.ReasoningOutputTokens > t.output {
		t.output += d.ReasoningOutputTokens
		t.inferred = true
	}
	if d.CacheReadInputTokens+d.CacheWriteInputTokens > t.input {
		t.input += d.CacheReadInputTokens + d.CacheWriteInputTokens
		t.inferred = true
	}
}

// usable reports whether an event may carry t.
func (t tokens) usable() bool {
	return t.input <= events.MaxTokens && t.output <= events.MaxTokens
}

// clamped makes the details what the contract says they are: subsets.
func (t tokens) clamped() tokens {
	d, before := &t.details, t.details
	d.CacheReadInputTokens = min(d.CacheReadInputTokens, t.input)
	d.CacheWriteInputTokens = min(d.CacheWriteInputTokens, t.input-d.CacheReadInputTokens)
	d.ReasoningOutputTokens = min(d.ReasoningOutputTokens, t.output)
	t.inferred = t.inferred || *d != before
	return t
}

// maxGroups is how many groups a form may have.
const maxGroups = 2

// tally is what one form has read.
type tally struct {
	now    figures            // of the groups that have ended
	beside figures            // of the groups that are billed on top
	open   [maxGroups]figures // of the groups at hand
	listed figures            // of the document's groups that are billed on top
}

// tokens is the sum; ok is false when there is none.
func (t *tally) tokens() (_ tokens, ok bool) {
	const some = 1<<input | 1<<output | 1<<total | 1<<inputElse | 1<<outputElse
	sum := t.now.tokens()
	if t.beside.set != 0 {
		more := t.beside.tokens()
		sum.input += more.input
		sum.output += more.output
		sum.details.CacheReadInputTokens += more.details.CacheReadInputTokens
		sum.details.CacheWriteInputTokens += more.details.CacheWriteInputTokens
		sum.details.ReasoningOutputTokens += more.details.ReasoningOutputTokens
		sum.inferred = sum.inferred || more.inferred
	}
	return sum, (t.now.set|t.beside.set)&some != 0
}

func (t *tally) bad() bool { return t.now.bad || t.beside.bad }

// weight orders the forms that have read something of the same reply.
func (t *tally) weight() int { return bits.OnesCount32(t.now.set) + bits.OnesCount32(t.beside.set) }
