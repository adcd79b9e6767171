package meter

import (
	"encoding/binary"
	"hash/crc32"
)

// eventStream reads AWS's binary framing (application/vnd.amazon.eventstream) in
// pieces of any size and passes the payload of each message on to its document.
// A message is: total length, headers' length, CRC of these eight bytes, headers,
// payload, CRC of everything before.
type eventStream struct {
	doc  *document
	fail func() // called at a message that is an exception

	part    framePart
	buf     []byte // the prelude, or the headers
	left    int    // bytes that the part still lacks
	payload int
	broken  bool // what came is no event stream: nothing more can be found in it
}

type framePart uint8

const (
	framePrelude framePart = iota
	frameHeaders
	framePayload
	frameTrailer
)

const (
	preludeBytes    = 12
	trailerBytes    = 4
	maxHeaderBytes  = 128 << 10 // AWS's own limits
	maxMessageBytes = 24 << 20
)

func newEventStream(doc *document, fail func()) *eventStream {
	return &eventStream{doc: doc, fail: fail, left: preludeBytes}
}

func (s *eventStream) write(p []byte) {
	for len(p) > 0 && !s.broken {
		n := min(s.left, len(p))
		switch s.part {
		case framePrelude, frameHeaders:
			s.buf = append(s.buf, p[:n]...)
		case framePayload:
			s.doc.scan.write(p[:n])
		}
		p, s.left = p[n:], s.left-n
		for s.left == 0 && !s.broken {
			s.advance()
		}
	}
}

// advance goes on to the next part, which may be empty.
func (s *eventStream) advance() {
	switch s.part {
	case framePrelude:
		total := int64(binary.BigEndian.Uint32(s.buf))
		headers := int64(binary.BigEndian.Uint32(s.buf[4:]))
		payload := total - headers - preludeBytes - trailerBytes
		if crc32.ChecksumIEEE(s.buf[:8]) != binary.BigEndian.Uint32(s.buf[8:]) ||
			total > maxMessageBytes || headers > maxHeaderBytes || payload < 0 {
			s.broken = true
			return
		}
		s.part, s.left, s.payload, s.buf = frameHeaders, int(headers), int(payload), s.buf[:0]
	case frameHeaders:
		if t := headerValue(s.buf, ":message-type"); t == "exception" || t == "error" {
			s.fail()
		}
		s.doc.next()
		s.part, s.left, s.buf = framePayload, s.payload, s.buf[:0]
	case framePayload:
		s.part, s.left = frameTrailer, trailerBytes
	case frameTrailer:
		s.part, s.left = framePrelude, preludeBytes
	}
}

// headerValue finds a header of string type. A header is: length of the name, the
// name, the value's type, and for a string (type 7) its length and bytes.
func headerValue(b []byte, name string) string {
	for len(b) > 0 {
		n := int(b[0])
		if len(b) < 1+n+1 {
			return ""
		}
		found, kind := string(b[1:1+n]), b[1+n]
		b = b[2+n:]
		size := 0
		switch kind {
		case 0, 1: // true, false
		case 2:
			size = 1
		case 3:
			size = 2
		case 4:
			size = 4
		case 5, 8: // int64, timestamp
			size = 8
		case 9: // uuid
			size = 16
		case 6, 7: // bytes, string
			if len(b) < 2 {
				return ""
			}
			size, b = int(binary.BigEndian.Uint16(b)), b[2:]
		default:
			return ""
		}
		if len(b) < size {
			return ""
		}
		if found == name && kind == 7 {
			return string(b[:size])
		}
		b = b[size:]
	}
	return ""
}
