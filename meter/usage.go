package meter

import (
	"strconv"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"github.com/tidegate/tidegate/events"
)

// tokens are a reply's figures as Tidegate counts them: the cache inside the
// input, the reasoning inside the output.
type tokens struct {
	input, output int64
	details       events.Details
}

// usage is one API's usage object. Decoding into it again overwrites what the
// new object has and keeps the rest: streams repeat cumulative figures.
type usage interface {
	// tokens returns the figures; a count that is no whole number from 0 to
	// events.MaxTokens makes its sum negative. ok is false when there are none.
	tokens() (t tokens, ok bool)
}

// count is one reported number.
type count struct {
	set bool
	n   int64 // -1: unusable
}

// UnmarshalJSON never fails: a number that nobody can count with is for
// [tokens.usable] to refuse, together with its neighbours.
func (c *count) UnmarshalJSON(raw []byte) error {
	if string(raw) == "null" {
		return nil
	}
	c.set, c.n = true, -1
	if n, err := strconv.ParseInt(string(raw), 10, 64); err == nil && n >= 0 && n <= events.MaxTokens {
		c.n = n
	} else if f, err := strconv.ParseFloat(string(raw), 64); err == nil && f >= 0 && f <= events.MaxTokens && f == float64(int64(f)) {
		c.n = int64(f)
	}
	return nil
}

// or is c, or the alternative where c was not reported.
func (c count) or(alternative count) count {
	if c.set {
		return c
	}
	return alternative
}

// sum adds up what was reported; one unusable count makes it -1.
func sum(counts ...count) int64 {
	var total int64
	for _, c := range counts {
		if c.n < 0 {
			return -1
		}
		total += c.n
	}
	return total
}

// usable reports whether an event may carry t.
func (t tokens) usable() bool {
	for _, n := range []int64{t.input, t.output, t.details.CacheReadInputTokens, t.details.CacheWriteInputTokens, t.details.ReasoningOutputTokens} {
		if n < 0 || n > events.MaxTokens {
			return false
		}
	}
	return true
}

// clamped makes the details what the contract says they are: subsets.
func (t tokens) clamped() tokens {
	d := &t.details
	d.CacheReadInputTokens = min(d.CacheReadInputTokens, t.input)
	d.CacheWriteInputTokens = min(d.CacheWriteInputTokens, t.input-d.CacheReadInputTokens)
	d.ReasoningOutputTokens = min(d.ReasoningOutputTokens, t.output)
	return t
}

// lenient accepts what providers get away with; names stay case-sensitive.
var lenient = json.JoinOptions(jsontext.AllowDuplicateNames(true), jsontext.AllowInvalidUTF8(true))

func decodeUsage(raw []byte, into usage) error { return json.Unmarshal(raw, into, lenient) }
