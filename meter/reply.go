package meter

import (
	"strings"

	"github.com/go-json-experiment/json"

	"github.com/tidegate/tidegate/events"
)

// reply reads one response body in pieces of any size, as JSON or as a stream,
// and remembers what it says about tokens. It keeps no more than single values.
type reply struct {
	api    API
	doc    *document
	usage  usage
	stream bool // events or chunks, not one JSON document

	model, id  []byte // raw JSON strings
	reported   bool   // a usage object was there
	unreadable bool   // the last usage object made no sense
	stopped    bool   // a choice was told to be complete
	ended      bool   // everything that matters has come: closing early loses nothing
	failed     bool   // the provider said that the call failed

	opaque  bool // an encoding that we cannot read
	framing interface{ write([]byte) }
	inflate *inflater
	begun   bool // a first byte was seen
	bom     int  // bytes of a byte order mark seen
}

// newReply reads a body with these headers' values.
func newReply(api API, contentType, contentEncoding string) *reply {
	r := &reply{api: api}
	switch api {
	case Messages:
		r.doc, r.usage = newDocument(messagesShape, r.take), new(anthropicUsage)
	case GenerateContent:
		r.doc, r.usage = newDocument(geminiShape, r.take), new(geminiUsage)
	case Converse:
		r.doc, r.usage = newDocument(converseShape, r.take), new(converseUsage)
	case Responses:
		r.doc, r.usage = newDocument(responsesShape, r.take), new(openAIUsage)
	default:
		r.doc, r.usage = newDocument(chatShape, r.take), new(openAIUsage)
	}
	switch strings.ToLower(strings.TrimSpace(contentEncoding)) {
	case "", "identity", "gzip", "x-gzip": // whether a body is gzip its first byte tells
	default:
		r.opaque = true
	}
	if strings.HasPrefix(strings.ToLower(contentType), "application/vnd.amazon.eventstream") {
		r.stream = true
		r.framing = newEventStream(r.doc, func() { r.failed = true })
	}
	return r
}

const (
	byteOrderMark = "\xef\xbb\xbf"
	gzipMagic     = 0x1f // neither JSON nor an event begins so
)

// write takes the next piece of the body.
func (r *reply) write(p []byte) {
	if len(p) == 0 || r.opaque {
		return
	}
	if !r.begun {
		r.begun = true
		if p[0] == gzipMagic {
			r.inflate = newInflater(r.plain)
		}
	}
	if r.inflate != nil {
		r.inflate.write(p)
		return
	}
	r.plain(p)
}

func (r *reply) plain(p []byte) {
	if r.framing == nil {
		p = r.sniff(p)
	}
	if r.framing != nil {
		r.framing.write(p)
	}
}

// sniff decides by the first byte that counts: servers get content types wrong.
func (r *reply) sniff(p []byte) []byte {
	for i, c := range p {
		switch {
		case r.bom < len(byteOrderMark) && c == byteOrderMark[r.bom]:
			r.bom++
			continue
		case c == ' ' || c == '\t' || c == '\r' || c == '\n':
			continue
		case c == '{' || c == '[':
			r.stream = c == '[' // Gemini without alt=sse
			r.framing = &r.doc.scan
		default:
			r.stream = true
			r.framing = &sse{doc: r.doc, done: func() { r.ended = true }}
		}
		return p[i:]
	}
	return nil
}

// take reads the document that is complete now.
func (r *reply) take() {
	d := r.doc
	r.pick(d)
	r.failed = r.failed || d.failed
	switch r.api {
	case Messages:
		r.takeMessages(d)
	case GenerateContent:
		r.takeGemini(d)
	case Converse:
		r.takeConverse(d)
	case Responses:
		r.takeResponses(d)
	default:
		r.takeChat(d)
	}
	r.ended = r.ended || !r.stream
}

// pick takes over what the document at hand has of names and figures.
func (r *reply) pick(d *document) {
	if len(d.id) > len(`""`) {
		r.id = append(r.id[:0], d.id...)
	}
	if len(d.model) > len(`""`) {
		r.model = append(r.model[:0], d.model...)
	}
	switch {
	case d.unreadable:
		r.reported, r.unreadable = true, true
	case len(d.usage) > 0:
		r.reported = true
		r.unreadable = decodeUsage(d.usage, r.usage) != nil
	}
}

// ending is how the reading of a body came to its end.
type ending uint8

const (
	endOfBody ending = iota // io.EOF
	cutShort                // closed early, failed, cancelled
)

// reading is what a whole reply says.
type reading struct {
	model, responseID string
	tokens            tokens
	reported          bool  // tokens are the provider's
	unreadable        bool  // the provider's figures made no sense
	text              int64 // bytes of generated text seen
	seen              bool  // something was understood
	complete          bool  // nothing is missing
	failed            bool  // the provider said that the call failed
	free              bool  // it did so before it generated anything
}

// finish reads what there is. Nothing may be written afterwards.
func (r *reply) finish(how ending) reading {
	if r.inflate != nil {
		r.inflate.close()
	}
	if r.doc.open {
		r.pick(r.doc) // the document is cut, its complete values are not
	}
	out := reading{
		model: unquote(r.model), responseID: unquote(r.id),
		text: r.doc.textBytes, seen: r.doc.docs > 0 || r.doc.open,
		complete: r.ended || how == endOfBody && !r.lacking(),
		failed:   r.failed,
	}
	if r.reported {
		t, ok := r.usage.tokens()
		out.reported = ok && !r.unreadable && t.usable()
		out.unreadable = r.unreadable || ok && !t.usable()
		if out.reported {
			out.tokens = t.clamped()
		}
	}
	// An error that a stream or a Response reports in its own words is the
	// provider's failure. Another 200 with an error in it is not: Azure, for one,
	// charges for prompts that it filters.
	out.free = r.failed && (r.stream || r.api == Responses) && !r.reported && out.text == 0
	return out
}

// lacking reports whether a body that ended by itself ended too soon.
func (r *reply) lacking() bool {
	switch {
	case r.doc.open:
		return true
	case !r.stream || r.doc.docs == 0: // not one event: no stream at all
		return false
	default:
		return r.failed || !r.stopped && r.api != GenerateContent
	}
}

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
