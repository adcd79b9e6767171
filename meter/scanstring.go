package meter

import "bytes"

// inString consumes string content from p[i] on. It looks at a window at a time:
// searching far for a quote again after every escape would be quadratic.
func (s *scanner) inString(p []byte, i int) int {
	for j := i; j < len(p) && j < i+24; j++ { // most are short
		if c := p[j]; c == '"' {
			s.tell(p[i:j])
			s.end('"', p, j+1)
			return j + 1
		} else if c == '\\' {
			s.tell(p[i : j+1])
			s.state = scanStringEscape
			return j + 1
		}
	}
	window := p[i:min(len(p), i+512)]
	n := bytes.IndexByte(window, '"')
	closed := n >= 0
	if !closed {
		n = len(window)
	}
	if e := bytes.IndexByte(window[:n], '\\'); e >= 0 {
		s.tell(window[:e+1])
		s.state = scanStringEscape
		return i + e + 1
	}
	s.tell(window[:n])
	if !closed {
		return i + n
	}
	s.end('"', p, i+n+1)
	return i + n + 1
}

func (s *scanner) tell(raw []byte) {
	if s.limit == 0 && len(raw) > 0 && s.matters() {
		s.visit.text(raw)
	}
}

// inName consumes key content from p[i] on. Most keys lie in one piece and need
// not be copied.
func (s *scanner) inName(p []byte, i int) int {
	if s.nameLen == 0 {
		window := p[i:min(len(p), i+len(s.name))]
		n := 0
		for n < len(window) && window[n] != '"' && window[n] != '\\' {
			n++
		}
		if n < len(window) && window[n] == '"' {
			s.key, s.state = keyNone, scanColon
			if s.tree == nil || s.top().node != nowhere {
				s.key = keyOf(window[:n])
			}
			if i += n + 1; i < len(p) && p[i] == ':' {
				s.state = scanValue
				i++
			}
			return i
		}
	}
	for ; i < len(p); i++ {
		switch c := p[i]; c {
		case '"':
			s.key, s.state = keyNone, scanColon
			if s.nameLen <= len(s.name) {
				s.key = keyOf(s.name[:s.nameLen])
			}
			return i + 1
		case '\\': // no key that matters has one
			s.nameLen = len(s.name) + 1
			s.state = scanNameEscape
			return i + 1
		default:
			if s.nameLen < len(s.name) {
				s.name[s.nameLen] = c
			}
			s.nameLen = min(s.nameLen+1, len(s.name)+1)
		}
	}
	return i
}
