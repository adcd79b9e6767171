package meter

import (
	"bytes"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
)

// chunkFilter takes the usage chunk out of a stream whose reader has not asked for
// it. It holds back no more than a line that has not ended.
type chunkFilter struct {
	line  []byte // the beginning of a line
	ready []byte // what may be read
	read  int    // of it
	begun bool
	all   bool // no event stream: everything passes
	long  bool // in a line too long to be that chunk
	blank bool // the empty line after the chunk belongs to it
}

const maxHeldLine = 64 << 10

// take reads what is ready.
func (f *chunkFilter) take(p []byte) int {
	n := copy(p, f.ready[f.read:])
	if f.read += n; f.read == len(f.ready) {
		f.ready, f.read = f.ready[:0], 0
	}
	return n
}

// giveBack puts the beginning of a line in front of where the rest will be read to,
// so that whole lines pass where they lie. It does so where enough room is left.
func (f *chunkFilter) giveBack(p []byte) int {
	if len(f.line) > len(p)/2 {
		return 0
	}
	n := copy(p, f.line)
	f.line = f.line[:0]
	return n
}

// pass takes the next piece and returns how much of it may be read; what else may
// be is ready. seen tells that the chunk has been seen, in this piece or before:
// until then, whole lines pass unread.
func (f *chunkFilter) pass(p []byte, seen bool) int {
	if !f.begun && len(p) > 0 {
		f.begun, f.all = true, p[0] == '{' || p[0] == '['
	}
	switch {
	case f.all:
		return len(p)
	case seen || len(f.line) > 0:
		f.write(p, seen)
		return 0
	}
	n := bytes.LastIndexByte(p, '\n') + 1
	if n > 0 {
		f.long, f.blank = false, false
	}
	f.hold(p[n:])
	return n
}

// write makes ready what may be read of the next piece.
func (f *chunkFilter) write(p []byte, seen bool) {
	if n := bytes.LastIndexByte(p, '\n') + 1; n > 0 && !seen {
		f.ready = append(append(f.ready, f.line...), p[:n]...)
		f.line, f.long, f.blank = f.line[:0], false, false
		p = p[n:]
	}
	for {
		n := bytes.IndexByte(p, '\n') + 1
		if n == 0 {
			f.hold(p)
			return
		}
		line := p[:n]
		p = p[n:]
		if len(f.line) > 0 {
			f.line = append(f.line, line...)
			line = f.line
		}
		f.endLine(line)
		f.line = f.line[:0]
	}
}

// hold keeps the beginning of a line.
func (f *chunkFilter) hold(p []byte) {
	if f.long {
		f.ready = append(f.ready, p...)
		return
	}
	f.line = append(f.line, p...)
	r := bytes.IndexByte(f.line, '\r') // lines may end in it alone
	f.all = r >= 0 && r < len(f.line)-1
	f.long = len(f.line) > maxHeldLine
	if f.all || f.long {
		f.ready = append(f.ready, f.line...)
		f.line = f.line[:0]
	}
}

func (f *chunkFilter) endLine(line []byte) {
	drop := !f.long && (f.blank && len(bytes.TrimSpace(line)) == 0 || isUsageChunk(line))
	f.blank = drop && !f.blank
	f.long = false
	if !drop {
		f.ready = append(f.ready, line...)
	}
}

// close lets go of a last line without an end.
func (f *chunkFilter) close() {
	if len(f.line) > 0 {
		f.endLine(f.line)
		f.line = nil
	}
}

// isUsageChunk tells the chunk that stream_options.include_usage adds: it has
// figures, and no choice.
func isUsageChunk(line []byte) bool {
	data, ok := bytes.CutPrefix(line, []byte("data:"))
	if !ok {
		return false
	}
	_, choices, ok := bytes.Cut(data, []byte(`"choices"`))
	if !ok {
		return false
	}
	for _, c := range []byte(":[]") {
		choices = bytes.TrimLeft(choices, " ")
		if len(choices) == 0 || choices[0] != c {
			return false
		}
		choices = choices[1:]
	}
	var chunk struct {
		Choices []jsontext.Value `json:"choices"`
		Usage   jsontext.Value   `json:"usage"`
	}
	return json.Unmarshal(data, &chunk, lenient) == nil && len(chunk.Choices) == 0 && chunk.Usage.Kind() == '{'
}
