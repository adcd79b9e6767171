package meter

// slot is what a value in a reply means to meter.
type slot uint8

const (
	slotNone slot = iota
	slotID
	slotModel
	slotUsage
	slotType
	slotStatus
	slotError // anything but null: the provider says that the call failed
	slotStop  // a string: this choice is complete
	slotText  // generated text lies within
)

// path is where a value lies: {keyNone, name} at the top of a document, and
// {member, name} inside the object member, or inside an object in the array member.
type path struct{ member, name key }

// shape says where the documents of one API, JSON replies and stream events
// alike, keep what meter wants.
type shape struct {
	top   [numKeys]slot
	inner [numKeys][]innerSlot // by the value's name
}

type innerSlot struct {
	member key
	slot   slot
}

func newShape(slots map[path]slot) *shape {
	s := new(shape)
	for at, slot := range slots {
		if at.member == keyNone {
			s.top[at.name] = slot
		} else {
			s.inner[at.name] = append(s.inner[at.name], innerSlot{at.member, slot})
		}
	}
	return s
}

func (s *shape) within(member, name key) slot {
	for _, inner := range s.inner[name] {
		if inner.member == member {
			return inner.slot
		}
	}
	return slotNone
}

const (
	maxNameBytes  = 1 << 10  // id, model, type, status: raw JSON
	maxUsageBytes = 64 << 10 // raw JSON; Anthropic lists every iteration in it
)

// document picks what a shape names out of JSON as it passes by. Its fields tell
// of the current document and are overwritten by the next one.
type document struct {
	scan  scanner
	shape *shape
	take  func() // called at the end of each document

	id, model, typ, status []byte // raw JSON strings; empty when absent
	usage                  []byte // raw JSON object; empty when absent or null
	unreadable             bool   // usage is there, but no object, or too long
	failed, stopped        bool
	choices                int // elements of the array that holds the text
	open                   bool

	textBytes int64 // raw bytes of generated text, over all documents
	docs      int   // complete documents
	base      int   // 1 inside an array of documents, as Gemini streams without SSE
	want      slot  // of the value that began last
	inText    bool
	counts    bool // the string at hand is text
	deep      int  // depth+1 of the tool input that we are in, all of which is text
}

func newDocument(s *shape, take func()) *document {
	d := &document{shape: s, take: take}
	d.scan.visit = d
	return d
}

// next makes ready for another document, whatever became of the last one.
func (d *document) next() {
	d.scan.reset()
	d.base, d.open = 0, false
}

func (d *document) clear() {
	d.id, d.model, d.typ, d.status, d.usage = d.id[:0], d.model[:0], d.typ[:0], d.status[:0], d.usage[:0]
	d.unreadable, d.failed, d.stopped, d.choices = false, false, false, 0
	d.inText, d.counts, d.deep = false, false, 0
	d.open = true
}

func (d *document) depth() int { return len(d.scan.stack) - d.base }

func (d *document) slot(depth int) slot {
	name := d.scan.key
	switch {
	case name == keyNone || depth > 3:
		return slotNone
	case depth == 1:
		return d.shape.top[name]
	}
	member := d.scan.stack[d.base+1]
	if member.array != (depth == 3) {
		return slotNone
	}
	return d.shape.within(member.key, name)
}

func (d *document) begin(kind byte) (limit int) {
	depth := d.depth()
	if depth == 0 {
		if kind == '[' && d.base == 0 {
			d.base = 1
			return 0
		}
		d.clear()
		return 0
	}
	d.want = d.slot(depth)
	switch d.want {
	case slotID, slotModel, slotType, slotStatus:
		if kind == '"' {
			return maxNameBytes
		}
	case slotUsage:
		if kind == '{' {
			return maxUsageBytes
		}
		d.unreadable = kind != 'n'
	case slotError:
		d.failed = d.failed || kind != 'n'
	case slotStop:
		d.stopped = d.stopped || kind == '"'
	case slotText:
		d.inText = true
	}
	if d.inText {
		d.beginText(kind, depth)
	}
	return 0
}

func (d *document) beginText(kind byte, depth int) {
	k := d.scan.key
	if depth == 2 && d.scan.top().array {
		d.choices++
	}
	if kind == '"' {
		if in := d.scan.top(); in.array {
			k = in.key
		}
		d.counts = depth == 1 || d.deep > 0 || isText(k)
	} else if d.deep == 0 && (k == keyInput || k == keyArgs) {
		d.deep = len(d.scan.stack) + 1
	}
}

func isText(k key) bool {
	switch k {
	case keyText, keyContent, keyDelta, keyThinking, keyReasoning, keyReasoningContent, keyRefusal,
		keyArguments, keyPartialJSON, keyInput, keyArgs:
		return true
	}
	return false
}

func (d *document) text(raw []byte) {
	if d.counts {
		d.textBytes += int64(len(raw))
	}
}

func (d *document) end(kind byte, raw []byte) {
	d.counts = false
	depth := d.depth()
	switch {
	case depth == 0:
		d.docs++
		d.take()
		d.open = false
		return
	case depth < 0:
		return // the array of documents
	case depth == 1:
		d.inText = false
	}
	if len(d.scan.stack)+1 == d.deep {
		d.deep = 0
	}
	switch d.want {
	case slotID:
		d.id = append(d.id[:0], raw...)
	case slotModel:
		d.model = append(d.model[:0], raw...)
	case slotType:
		d.typ = append(d.typ[:0], raw...)
	case slotStatus:
		d.status = append(d.status[:0], raw...)
	case slotUsage:
		d.usage = append(d.usage[:0], raw...)
		d.unreadable = d.unreadable || kind == '{' && raw == nil
	}
	d.want = slotNone
}
