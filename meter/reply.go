package meter

import (
	"bytes"
	"net/http"
	"strings"
)

// reply reads one response body in pieces of any size, as JSON, as a stream of
// events or as lines of JSON, and remembers what it says about tokens. It keeps no
// more than single values.
type reply struct {
	api    API
	doc    *document
	stream bool // events, chunks or lines, not one JSON document

	tallies    [maxForms]*tally // by form
	batch      tokens           // of the documents before, where each is a call of its own
	batched    bool
	model, id  []byte // raw JSON strings
	pieces     int64  // bytes of text that came in pieces
	longest    int64  // bytes of the longest text that came whole
	stopped    bool   // a choice was told to be complete
	ended      bool   // everything that matters has come: closing early loses nothing
	failed     bool   // the provider said that the call failed,
	saidFailed bool   // and in its status, not just by an error
	blocked    bool   // a guardrail spoke in the model's place
	queued     bool   // the reply only says that there will be one
	extra      bool   // a chunk had figures and no choice
	header     figures
	meaning    meaning // of the last type

	opaque  bool // an encoding that we cannot read
	framing interface{ write([]byte) }
	inflate *inflater
	begun   bool // a first byte was seen
	bom     int  // bytes of a byte order mark seen
}

const maxForms = 24 // TestForms counts

// newReply reads a body that comes with this header.
func newReply(api API, header http.Header) *reply {
	r := &reply{api: api}
	r.doc = newDocument(r)
	switch strings.ToLower(strings.TrimSpace(header.Get("Content-Encoding"))) {
	case "", "identity", "gzip", "x-gzip": // whether a body is gzip its first byte tells
	default:
		r.opaque = true
	}
	contentType := strings.ToLower(header.Get("Content-Type"))
	r.stream = strings.Contains(contentType, "ndjson") || strings.Contains(contentType, "jsonl") || strings.Contains(contentType, "stream+json")
	for name, figure := range headerFigures {
		if value := header.Get(name); value != "" {
			r.header.put(figure, []byte(value))
		}
	}
	return r
}

// headerFigures are what Bedrock tells beside a model's reply. The model's own
// words, where it has any, say more.
var headerFigures = map[string]figure{
	"X-Amzn-Bedrock-Input-Token-Count": input, "X-Amzn-Bedrock-Output-Token-Count": output,
	"X-Amzn-Bedrock-Cache-Read-Input-Token-Count": moreCacheRead, "X-Amzn-Bedrock-Cache-Write-Input-Token-Count": moreCacheWrite,
}

func (r *reply) tally(form uint8) *tally {
	if r.tallies[form] == nil {
		r.tallies[form] = new(tally)
	}
	return r.tallies[form]
}

func (r *reply) beginGroup(a *act, kind byte) {
	if t := r.tallies[a.form]; t != nil {
		t.open[a.group.index] = figures{}
	}
	if kind != '{' && kind != 'n' && a.group.at != wholeDocument {
		r.tally(a.form).now.bad = true
	}
}

// endGroup takes over a group's figures and reports whether it had any.
func (r *reply) endGroup(a *act, kind []byte) bool {
	t := r.tallies[a.form]
	if t == nil || t.open[a.group.index].set == 0 {
		return false
	}
	g := &t.open[a.group.index]
	switch a.group.mode {
	case update:
		if t.listed.set != 0 && !g.zero() { // with all steps listed, what came before was one of them
			t.now = *g
		} else {
			t.now.update(g)
		}
	case replace:
		if !g.zero() || t.now.zero() {
			t.now = *g
		}
	case addUp:
		t.now.add(g)
	case onTop:
		if a.group.only == "" || listed(a.group.only, kind) {
			t.listed.add(g)
		}
	}
	return true
}

// listed reports whether a raw JSON string is one of words.
func listed(words string, raw []byte) bool {
	for word := range strings.FieldsSeq(words) {
		if len(raw) == len(word)+2 && string(raw[1:len(raw)-1]) == word {
			return true
		}
	}
	return false
}

// take reads the document that is complete now.
func (r *reply) take(d *document) {
	if d.extras {
		r.takeExtras()
	}
	if d.more {
		r.stream = true
	}
	failed := d.failed || string(d.status) == `"failed"`
	kind := r.meaningOf(d.typ)
	failed = failed || kind.fails
	r.saidFailed = r.saidFailed || string(d.status) == `"failed"`
	r.failed = r.failed || failed
	extra := d.figures && d.chosen && d.choices == 0
	r.extra = r.extra || extra
	r.stopped = r.stopped || d.stopped || d.over
	r.ended = r.ended || d.over || d.last || r.blocked && d.figures || extra || d.figures && d.stopped || kind.ends && (!failed || d.figures)
	r.queued = string(d.status) == `"queued"` || string(d.status) == `"in_progress"`
	r.keepText(d)
	if r.api == Batch {
		r.addBatch()
	}
}

// takeExtras takes over what the document has of groups that are billed on top.
func (r *reply) takeExtras() {
	for _, t := range r.tallies {
		if t != nil && t.listed.set != 0 {
			if !t.listed.zero() || t.beside.zero() {
				t.beside = t.listed
			}
			t.listed = figures{}
		}
	}
}

// meaning is what the type of an event says about it, whatever its form.
type meaning struct {
	of                 []byte
	ends, fails, mutes bool
}

// meanings are those of the types that a form names.
var meanings = func() map[string]meaning {
	all := map[string]meaning{}
	for i := range forms {
		for word := range strings.FieldsSeq(forms[i].ends) {
			m := all[word]
			m.ends = true
			all[word] = m
		}
		for word := range strings.FieldsSeq(forms[i].fails) {
			m := all[word]
			m.fails = true
			all[word] = m
		}
	}
	return all
}()

var mutes = func() (endings []string) {
	for i := range forms {
		for word := range strings.FieldsSeq(forms[i].mute) {
			endings = append(endings, word)
		}
	}
	return endings
}()

// meaningOf reads a raw JSON string.
func (r *reply) meaningOf(raw []byte) *meaning {
	m := &r.meaning // streams repeat themselves
	if !bytes.Equal(m.of, raw) {
		typ := bytes.Trim(raw, `"`)
		of := append(m.of[:0], raw...)
		*m = meanings[string(typ)]
		m.of = of
		for _, ending := range mutes {
			m.mutes = m.mutes || bytes.HasSuffix(typ, []byte(ending))
		}
	}
	return m
}

// keepText counts the text of a document, complete or not.
func (r *reply) keepText(d *document) {
	if d.texts == [2 * whole]int64{} {
		return
	}
	pieces, longest := d.textBytes()
	r.pieces, r.longest = r.pieces+pieces, max(r.longest, longest)
	d.texts = [2 * whole]int64{}
}

// textBytes is how much text has come.
func (r *reply) textBytes() int64 {
	pieces, longest := r.doc.textBytes()
	return max(r.pieces+pieces, r.longest, longest)
}

// addBatch adds up the documents of a batch, each of which is a reply.
func (r *reply) addBatch() {
	if t, of, _ := r.tokens(); of != nil && t.usable() {
		r.batched = true
		b := &r.batch
		b.input, b.output, b.inferred = b.input+t.input, b.output+t.output, b.inferred || t.inferred
		b.details.CacheReadInputTokens += t.details.CacheReadInputTokens
		b.details.CacheWriteInputTokens += t.details.CacheWriteInputTokens
		b.details.ReasoningOutputTokens += t.details.ReasoningOutputTokens
	}
	r.tallies = [maxForms]*tally{}
	r.failed, r.saidFailed = false, false // of one of them
}

// tokens are those of the form that found most, nil for none. bad tells of figures that made no
// sense.
func (r *reply) tokens() (best tokens, of *form, bad bool) {
	weight := 0
	for i, t := range r.tallies {
		if t == nil {
			continue
		}
		bad = bad || t.bad()
		if sum, found := t.tokens(); found && !t.bad() && t.weight() > weight {
			best, of, weight = sum, &forms[i], t.weight()
			if r.blocked && forms[i].blocked != "" {
				best.output = 0
			}
		}
	}
	if of == nil && !bad && r.header.set != 0 {
		return r.header.tokens(), Invoke.form(), r.header.bad
	}
	return best, of, bad && of == nil
}
