package meter

// scanner reads one JSON value in pieces of any size and tells a visitor what it
// passes. It holds the path to the current value and the bytes of a captured
// one, never the document, so a reply of any size costs the same memory. It does
// not judge JSON: of a broken document it reports what came before the break,
// and whoever captured a value decodes it strictly.
type scanner struct {
	visit    visitor
	tree     *tree // of the places that matter; nil: a visitor that asks for keys everywhere
	state    scanState
	stack    []frame // the open containers
	key      key     // of the value being read or just read, when it sits in an object
	node     node    // its place in the tree
	name     [32]byte
	nameLen  int // > len(name): longer than any key that matters
	literal  byte
	capture  []byte
	limit    int // of the running capture, 0: none
	capDepth int
	from     int   // where the running capture begins in the piece at hand
	passed   int64 // bytes before the piece at hand
	at       int64 // bytes before the value that begins, or up to the end of the one that ends
}

type frame struct {
	array bool
	key   key // under which the container sits; keyNone in an array
	node  node
}

// visitor learns about every value, or with a tree about those that it has a place
// for. Inside its methods scanner.stack is the path
// of the containers around that value and scanner.key its own key.
type visitor interface {
	// begin tells that a value starts. kind is its first byte. A limit above 0 asks
	// for its raw bytes, up to that many; what lies within is not visited.
	begin(kind byte) (limit int)
	// text tells raw bytes of the string value at hand, still escaped.
	text(raw []byte)
	// end tells that the value is complete. raw is nil when it was not captured or
	// exceeded its limit.
	end(kind byte, raw []byte)
}

type scanState uint8

const (
	scanValue      scanState = iota
	scanFirstValue           // in an array: a value or its end
	scanFirstKey             // in an object: a key or its end
	scanKey
	scanName
	scanNameEscape
	scanColon
	scanString
	scanStringEscape
	scanLiteral
	scanAfter // a value ended inside a container
	scanDone  // the document is complete
	scanBroken
)

const maxDepth = 256 // deeper than any reply; a stack must not grow with hostile input

func (s *scanner) reset() {
	s.state, s.stack, s.limit = scanValue, s.stack[:0], 0
	s.key = keyNone
}

func (s *scanner) done() bool { return s.state == scanDone }

// write takes the next piece and returns how much of it belongs to the document:
// less than all when that is complete or broken.
func (s *scanner) write(p []byte) (n int) {
	n = s.read(p)
	s.passed += int64(n)
	return n
}

func (s *scanner) read(p []byte) (n int) {
	s.from = 0
	for i := 0; i < len(p); {
		switch s.state { // what most bytes are, without a further call
		case scanString:
			i = s.inString(p, i)
			continue
		case scanName:
			i = s.inName(p, i)
			continue
		case scanLiteral:
			i = s.inLiteral(p, i)
			continue
		case scanKey:
			if p[i] == '"' {
				s.state, s.nameLen = scanName, 0
				i++
				continue
			}
		case scanValue:
			if c := p[i]; c == '"' || isLiteral(c) {
				s.begin(c, i)
				i++
				continue
			}
		case scanAfter:
			if p[i] == ',' {
				s.state = scanKey
				if s.stack[len(s.stack)-1].array {
					s.state = scanValue
				}
				i++
				continue
			}
		case scanDone, scanBroken:
			return i
		}
		s.step(p, i)
		i++
	}
	if s.limit > 0 {
		s.keep(p[s.from:])
	}
	return len(p)
}

// step handles one byte outside of strings and literals.
func (s *scanner) step(p []byte, i int) {
	c := p[i]
	switch s.state {
	case scanStringEscape:
		s.tell(p[i : i+1])
		s.state = scanString
		return
	case scanNameEscape:
		s.state = scanName
		return
	}
	if c == ' ' || c == '\n' || c == '\r' || c == '\t' {
		return
	}
	switch s.state {
	case scanValue, scanFirstValue:
		if c == ']' && s.state == scanFirstValue {
			s.pop(p, i)
			return
		}
		s.begin(c, i)
	case scanFirstKey, scanKey:
		switch {
		case c == '"':
			s.state, s.nameLen = scanName, 0
		case c == '}' && s.state == scanFirstKey:
			s.pop(p, i)
		default:
			s.state = scanBroken
		}
	case scanColon:
		s.state = scanBroken
		if c == ':' {
			s.state = scanValue
		}
	case scanAfter:
		s.after(c, p, i)
	}
}

// inLiteral consumes a number, true, false or null.
func (s *scanner) inLiteral(p []byte, i int) int {
	for ; i < len(p); i++ {
		if !isLiteral(p[i]) {
			s.end(s.literal, p, i)
			break
		}
	}
	return i
}

// matters reports whether the value at hand is one that the visitor wants to know of.
func (s *scanner) matters() bool { return s.tree == nil || s.tree.heeds[s.node] }

func (s *scanner) begin(c byte, i int) {
	s.place()
	s.at = s.passed + int64(i)
	switch {
	case c == '{' || c == '[' || c == '"':
	case isLiteral(c):
		s.literal = c
	default:
		s.state = scanBroken
		return
	}
	if s.limit == 0 && s.matters() {
		if s.limit = s.visit.begin(c); s.limit > 0 {
			s.capture, s.capDepth, s.from = s.capture[:0], len(s.stack), i
		}
	}
	switch c {
	case '"':
		s.state = scanString
	case '{':
		s.push(frame{key: s.key, node: s.node}, scanFirstKey)
	case '[':
		s.push(frame{key: s.key, node: s.node, array: true}, scanFirstValue)
	default:
		s.state = scanLiteral
	}
}

// place finds out where in the tree the value is that begins.
func (s *scanner) place() {
	if len(s.stack) == 0 {
		s.node = top
		return
	}
	in := &s.stack[len(s.stack)-1]
	if in.array {
		s.key = keyNone
	}
	switch {
	case s.tree == nil || in.node == nowhere:
		s.node = nowhere
	case in.array:
		s.node = s.tree.next[in.node][keyElement]
	default:
		s.node = s.tree.next[in.node][s.key]
	}
}

func (s *scanner) push(f frame, next scanState) {
	if len(s.stack) == maxDepth {
		s.state = scanBroken
		return
	}
	s.stack = append(s.stack, f)
	s.state = next
}

func (s *scanner) pop(p []byte, i int) {
	f := s.top()
	s.stack = s.stack[:len(s.stack)-1]
	s.key, s.node = f.key, f.node
	kind := byte('{')
	if f.array {
		kind = '['
	}
	s.end(kind, p, i+1)
}

// end finishes the value whose last byte is p[to-1].
func (s *scanner) end(kind byte, p []byte, to int) {
	s.state = scanAfter
	s.at = s.passed + int64(to)
	if len(s.stack) == 0 {
		s.state = scanDone
	}
	switch {
	case s.limit == 0:
		if s.matters() {
			s.visit.end(kind, nil)
		}
	case s.capDepth == len(s.stack):
		s.keep(p[s.from:to])
		raw := s.capture
		if len(raw) > s.limit {
			raw = nil
		}
		s.limit = 0
		s.visit.end(kind, raw)
	}
}

func (s *scanner) after(c byte, p []byte, i int) {
	array := s.top().array
	switch {
	case c == ',' && array:
		s.state = scanValue
	case c == ',':
		s.state = scanKey
	case c == ']' && array, c == '}' && !array:
		s.pop(p, i)
	default:
		s.state = scanBroken
	}
}

// keep adds to the capture: one byte past the limit at most, which marks it as
// too long.
func (s *scanner) keep(raw []byte) {
	s.capture = append(s.capture, raw[:min(len(raw), s.limit+1-len(s.capture))]...)
}

func (s *scanner) top() frame {
	if len(s.stack) == 0 {
		return frame{}
	}
	return s.stack[len(s.stack)-1]
}

func isLiteral(c byte) bool { return literals[c] }

var literals = func() (is [256]bool) {
	for c := range is {
		is[c] = '0' <= c && c <= '9' || 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || c == '-' || c == '+' || c == '.'
	}
	return is
}()
