package meter

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
			r.stream = r.stream || c == '[' // Gemini without alt=sse
			r.framing = &lines{reply: r}
		case c <= maxMessageBytes>>24: // of a length in four bytes
			r.stream = true
			r.framing = newEventStream(r.doc, func() { r.failed = true })
		default:
			r.stream = true
			r.framing = &sse{doc: r.doc, done: func() { r.ended = true }}
		}
		return p[i:]
	}
	return nil
}

// lines reads JSON documents one after the other: one, as most replies are, or
// many, mostly one a line.
type lines struct {
	reply *reply
	lost  bool // in a line that is no JSON
}

func (l *lines) write(p []byte) {
	d := l.reply.doc
	for len(p) > 0 {
		if d.spent() && !l.skip(&p) {
			return
		}
		n := d.scan.write(p)
		p = p[n:]
		l.lost = d.scan.state == scanBroken
	}
}

// skip finds the next document and reports whether it has begun. After a broken
// one it begins on another line.
func (l *lines) skip(p *[]byte) bool {
	for i, c := range *p {
		switch {
		case c == '\n':
			l.lost = false
		case l.lost:
		case c == '{':
			l.reply.stream = true
			l.reply.doc.next()
			*p = (*p)[i:]
			return true
		case c != ' ' && c != '\t' && c != '\r':
			l.lost = true
		}
	}
	return false
}
