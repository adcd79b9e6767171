package meter

import "bytes"

// sse reads server-sent events in pieces of any size and passes the data of each
// event on to its document as it comes, so the size of an event does not matter.
type sse struct {
	doc  *document
	done func() // called at "data: [DONE]", with which OpenAI ends a stream

	state   sseState
	name    [5]byte // of the field, as far as needed to know data
	nameLen int
	head    [6]byte // of the event's data, as far as needed to know [DONE]
	headLen int
	cr      bool // the last byte was a carriage return, whose line feed may follow
}

type sseState uint8

const (
	sseName  sseState = iota // at the start of a line, or in a field's name
	sseSpace                 // right after "data:", where one space is no data
	sseData
	sseSkip // in a line that does not matter
)

var newline = []byte{'\n'}

func (s *sse) write(p []byte) {
	for len(p) > 0 {
		if s.cr {
			s.cr = false
			if p[0] == '\n' {
				p = p[1:]
				continue
			}
		}
		window := p[:min(len(p), 4096)]
		n := bytes.IndexByte(window, '\n')
		ended := n >= 0
		if !ended {
			n = len(window)
		}
		if r := bytes.IndexByte(window[:n], '\r'); r >= 0 {
			n, ended, s.cr = r, true, true
		}
		s.content(window[:n])
		p = p[n:]
		if ended {
			s.endLine()
			p = p[1:]
		}
	}
}

// content is part of a line, without its end.
func (s *sse) content(p []byte) {
	for len(p) > 0 {
		switch s.state {
		case sseSkip:
			return
		case sseName:
			p = s.inName(p)
		case sseSpace:
			s.state = sseData
			if s.doc.spent() { // some end an event with its line
				s.doc.next()
				s.headLen = 0
			}
			if p[0] == ' ' {
				p = p[1:]
			}
		case sseData:
			s.headLen += copy(s.head[s.headLen:], p)
			s.doc.scan.write(p)
			return
		}
	}
}

func (s *sse) inName(p []byte) (rest []byte) {
	for i, c := range p {
		if c == ':' {
			s.state = sseSkip
			if string(s.name[:s.nameLen]) == "data" {
				s.state = sseSpace
			}
			return p[i+1:]
		}
		if s.nameLen == len(s.name) {
			s.state = sseSkip
			return nil
		}
		s.name[s.nameLen] = c
		s.nameLen++
	}
	return nil
}

func (s *sse) endLine() {
	switch {
	case s.state == sseName && s.nameLen == 0: // an empty line: the event ends
		s.doc.next()
		s.headLen = 0
	case s.state == sseData || s.state == sseSpace:
		if string(s.head[:s.headLen]) == "[DONE]" {
			s.done()
		}
		s.doc.scan.write(newline)
	}
	s.state, s.nameLen = sseName, 0
}
