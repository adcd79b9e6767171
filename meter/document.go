package meter

import (
	"encoding/base64"
)

// document picks what the forms name out of JSON as it passes by. What it finds
// goes to its reply.
type document struct {
	scan  scanner
	reply *reply

	open  bool // it has begun and not ended
	base  int  // 1 inside an array of documents
	count int  // of complete documents

	typ, status []byte // raw JSON strings; empty when absent
	failed      bool   // it says that the call failed
	stopped     bool   // a choice is complete
	over, more  bool   // everything is complete; more will come
	chosen      bool   // the array of choices is there,
	choices     int    // with so many
	figures     bool   // a group of figures ended
	last        bool   // and one that is the last thing that matters
	extras      bool   // or one that is billed on top

	texts    [2 * whole]int64 // bytes, by class
	counting bool             // the string at hand is text, or an inner document
	class    textClass
	kind     []byte // type of the group within the group at hand

	inner   *document // of base64 in this one
	decode  base64Stream
	inInner bool
}

const maxNameBytes = 1 << 10 // id, model, type, status: raw JSON

func newDocument(r *reply) *document {
	d := &document{reply: r}
	d.scan.visit, d.scan.tree = d, replyTree
	return d
}

// next makes ready for another document, whatever became of the last one.
func (d *document) next() {
	d.scan.reset()
	d.base, d.open = 0, false
}

// spent reports whether the document at hand can take no more.
func (d *document) spent() bool { return d.scan.state == scanDone || d.scan.state == scanBroken }

func (d *document) clear() {
	if d.open { // cut: what it had counts
		d.reply.keepText(d)
	}
	d.typ, d.status, d.kind = d.typ[:0], d.status[:0], d.kind[:0]
	d.failed, d.stopped, d.over, d.more, d.chosen, d.choices, d.figures, d.last, d.extras = false, false, false, false, false, 0, false, false, false
	d.texts, d.counting, d.inInner = [2 * whole]int64{}, false, false
	d.open = true
}

func (d *document) begin(kind byte) (limit int) {
	if len(d.scan.stack) == d.base {
		if kind == '[' && d.base == 0 {
			d.base = 1
			return 0
		}
		d.clear()
	}
	acts := replyTree.acts[d.scan.node]
	for i := range acts {
		limit = max(limit, d.beginValue(&acts[i], kind))
	}
	return limit
}

func (d *document) beginValue(a *act, kind byte) (limit int) {
	switch a.slot {
	case slotID, slotModel, slotType, slotStatus, slotBlocked, slotKind:
		if kind == '"' {
			return maxNameBytes
		}
	case slotError:
		d.failed = d.failed || kind != 'n'
	case slotStop:
		if kind == '"' {
			return maxNameBytes
		}
		d.over, d.more = d.over || kind == 't', d.more || kind == 'f'
	case slotChoice:
		d.chosen = d.chosen || kind == '['
	case slotText:
		if kind == '"' {
			d.counting, d.class = true, a.class
		}
	case slotInner:
		d.inInner = kind == '"'
		if d.inInner {
			d.beginInner()
		}
	case slotGroup:
		d.reply.beginGroup(a, kind)
		d.kind = d.kind[:0]
	case slotFigure:
		if kind != 'n' && kind != '{' && kind != '[' {
			return 64
		}
	}
	return 0
}

func (d *document) text(raw []byte) {
	if d.counting {
		d.texts[d.class] += int64(len(raw))
	}
	if d.inInner {
		d.decode.write(raw, d.writeInner)
	}
}

func (d *document) end(kind byte, raw []byte) {
	d.counting = false
	if d.inInner {
		d.inInner = false
		d.endInner()
	}
	depth := len(d.scan.stack) - d.base
	if depth < 0 {
		return // the array of documents
	}
	if depth == 2 && d.scan.top().array && d.chosen && d.scan.top().node != nowhere {
		d.countChoice()
	}
	acts := replyTree.acts[d.scan.node]
	for i := range acts {
		d.endValue(&acts[i], kind, raw)
	}
	if depth == 0 {
		d.count++
		d.open = false
		d.reply.take(d)
	}
}

// textBytes is the text of the document at hand: pieces of it, and text that a
// stream may repeat.
func (d *document) textBytes() (pieces, longest int64) {
	if d.open && len(d.typ) == 0 && len(d.reply.meaning.of) > 0 {
		return 0, 0 // events have types here, and this one has not told its yet
	}
	if d.reply.meaningOf(d.typ).mutes {
		return 0, 0
	}
	t := &d.texts
	return t[0] + max(t[1], t[2], t[3]), t[whole] + max(t[whole+1], t[whole+2], t[whole+3])
}

func (d *document) countChoice() {
	acts := replyTree.acts[d.scan.top().node]
	for i := range acts {
		if acts[i].slot == slotChoice {
			d.choices++
		}
	}
}

func (d *document) endValue(a *act, kind byte, raw []byte) {
	switch r := d.reply; a.slot {
	case slotID:
		if len(raw) > len(`""`) {
			r.id = append(r.id[:0], raw...)
		}
	case slotModel:
		if len(raw) > len(`""`) {
			r.model = append(r.model[:0], raw...)
		}
	case slotType:
		if len(raw) > 0 {
			d.typ = append(d.typ[:0], raw...)
		}
	case slotStatus:
		if len(raw) > 0 {
			d.status = append(d.status[:0], raw...)
		}
	case slotKind:
		if len(raw) > 0 {
			d.kind = append(d.kind[:0], raw...)
		}
	case slotStop:
		switch string(raw) {
		case "", `""`, `"not_finished"`, `"FINISH_REASON_UNSPECIFIED"`:
		default:
			d.stopped = true
		}
	case slotBlocked:
		r.blocked = r.blocked || string(raw) == `"INTERVENED"`
	case slotFigure:
		if len(raw) > 0 {
			r.tally(a.form).open[a.group.index].put(a.figure, raw)
		}
	case slotGroup:
		if kind == '{' && r.endGroup(a, d.kind) {
			d.figures = d.figures || a.group.mode != onTop
			d.last, d.extras = d.last || a.group.last, d.extras || a.group.mode == onTop
		}
	}
}

// beginInner makes ready for a document in base64. What is no JSON in it is text.
func (d *document) beginInner() {
	if d.inner == nil {
		d.inner = newDocument(d.reply)
	}
	d.inner.next()
	d.decode = base64Stream{}
}

func (d *document) writeInner(p []byte) {
	if d.inner.spent() && d.inner.scan.state == scanBroken && !d.inner.open {
		d.texts[0] += int64(len(p))
		return
	}
	d.inner.scan.write(p)
	if d.inner.scan.state == scanBroken && !d.inner.open {
		d.texts[0] += int64(len(p))
	}
}

func (d *document) endInner() {
	d.decode.close(d.writeInner)
}

// base64Stream decodes base64 that comes in pieces of any size.
type base64Stream struct {
	quad [4]byte
	n    int
}

func (s *base64Stream) write(raw []byte, to func([]byte)) {
	var out [768]byte
	n := 0
	for _, c := range raw {
		if c == '\\' || c == '=' { // JSON may escape a slash
			continue
		}
		s.quad[s.n] = c
		if s.n++; s.n == len(s.quad) {
			m, _ := base64.RawStdEncoding.Decode(out[n:], s.quad[:])
			n, s.n = n+m, 0
			if n+3 > len(out) {
				to(out[:n])
				n = 0
			}
		}
	}
	if n > 0 {
		to(out[:n])
	}
}

func (s *base64Stream) close(to func([]byte)) {
	var out [3]byte
	if n, _ := base64.RawStdEncoding.Decode(out[:], s.quad[:s.n]); n > 0 {
		to(out[:n])
	}
	s.n = 0
}
