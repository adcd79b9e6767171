package meter

import (
	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"github.com/tidegate/tidegate/events"
)

// ending is how the reading of a body came to its end.
type ending uint8

const (
	endOfBody ending = iota // io.EOF
	cutShort                // closed early, failed, cancelled
)

// reading is what a whole reply says.
type reading struct {
	model, responseID string
	maker             string // of the form that its figures have
	tokens            tokens
	reported          bool  // tokens are the provider's
	unreadable        bool  // the provider's figures made no sense
	text              int64 // bytes of generated text seen
	seen              bool  // something was understood
	complete          bool  // nothing is missing
	failed            bool  // the provider said that the call failed
	free              bool  // it did so before it generated anything
	queued            bool  // it has only promised to answer
}

// finish reads what there is. Nothing may be written afterwards.
func (r *reply) finish(how ending) reading {
	if r.inflate != nil {
		r.inflate.close()
	}
	out := reading{
		model: unquote(r.model), responseID: unquote(r.id),
		text: r.textBytes(), seen: r.doc.count > 0 || r.doc.open,
		failed: r.failed, queued: r.queued && !r.stream,
	}
	t, of, bad := r.tokens()
	ok := of != nil
	if ok {
		out.maker = of.provider
	}
	if r.api == Batch {
		t, ok = r.batch, r.batched
	}
	out.reported = ok && !bad && t.usable()
	out.unreadable = bad || ok && !t.usable()
	if out.reported {
		out.tokens = t
	}
	r.ended = r.ended || !r.stream && r.doc.count > 0
	out.complete = (r.ended || how == endOfBody && !r.lacking()) && !(r.api == Batch && how == cutShort)
	// An error that a stream, a Response or a run reports in its own words is the
	// provider's failure. Another 200 with an error in it is not: Azure, for one,
	// charges for prompts that it filters.
	out.free = r.failed && (r.stream || r.saidFailed) && !out.reported && !out.unreadable && out.text == 0
	return out
}

// lacking reports whether a body that ended by itself ended too soon.
func (r *reply) lacking() bool {
	switch {
	case r.doc.open:
		return true
	case !r.stream || r.doc.count == 0: // not one event: no stream at all
		return false
	case r.api == Agent || r.api == Batch:
		return false // no event is the last one
	default:
		return r.failed || !r.stopped
	}
}

// lenient accepts what providers get away with; names stay case-sensitive.
var lenient = json.JoinOptions(jsontext.AllowDuplicateNames(true), jsontext.AllowInvalidUTF8(true))

func unquote(raw []byte) string {
	var s string
	if len(raw) == 0 || json.Unmarshal(raw, &s, lenient) != nil {
		return ""
	}
	return s
}

// measuredBy: what is cut short is partial, whoever its figures are from, since
// they are a lower bound.
func (r reading) measuredBy() events.MeasuredBy {
	switch {
	case !r.complete:
		return events.MeasuredByPartial
	case r.reported:
		return events.MeasuredByProvider
	default:
		return events.MeasuredByEstimate
	}
}

func (r reading) status() events.Status {
	switch {
	case r.failed:
		return events.StatusError
	case !r.complete:
		return events.StatusPartial
	default:
		return events.StatusOK
	}
}
