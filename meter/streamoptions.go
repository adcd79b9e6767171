package meter

import (
	"io"
	"net/http"
	"strings"
	"sync"
)

// streamOptions is what a request says about its stream: whether it wants one,
// whether it asks for the usage, and where that would have to be written.
type streamOptions struct {
	wanted  bool // "stream": true
	asked   bool // "include_usage": true
	object  bool // stream_options is an object
	members bool // and has members
	top     int64
	options span
	usage   span
}

// span is a value's place in the body; to is 0 while it has not ended.
type span struct{ from, to int64 }

func (o *streamOptions) begin(s *scanner, depth int, kind byte) {
	switch depth {
	case 0:
		o.top = s.at + 1
	case 1:
		switch s.key {
		case keyStream:
			o.wanted = kind == 't'
		case keyStreamOptions:
			o.options, o.object, o.members = span{from: s.at}, kind == '{', false
		}
	case 2:
		if s.top().key == keyStreamOptions {
			o.members = true
			if s.key == keyIncludeUsage {
				o.usage, o.asked = span{from: s.at}, kind == 't'
			}
		}
	}
}

func (o *streamOptions) end(s *scanner, depth int) {
	switch {
	case depth == 1 && s.key == keyStreamOptions:
		o.options.to = s.at
	case depth == 2 && s.key == keyIncludeUsage && s.top().key == keyStreamOptions:
		o.usage.to = s.at
	}
}

// edit replaces a piece of a body.
type edit struct {
	span
	with string
}

func (e edit) grows() int64 { return int64(len(e.with)) - (e.to - e.from) }

// askForUsage is what makes the request ask for the usage of its stream; ok is
// false where it wants none, or asks already.
func (r *request) askForUsage() (e edit, ok bool) {
	o := &r.stream
	if !o.wanted || o.asked || r.scan.state != scanDone {
		return edit{}, false
	}
	const option = `"include_usage":true`
	switch {
	case o.usage.to > 0:
		return edit{o.usage, "true"}, true
	case o.options.to > 0 && o.object && o.members:
		return edit{span{o.options.from + 1, o.options.from + 1}, option + ","}, true
	case o.options.to > 0:
		return edit{o.options, "{" + option + "}"}, true
	default:
		return edit{span{o.top, o.top}, `"stream_options":{` + option + `},`}, true
	}
}

// apply reads body with the edit made.
func (e edit) apply(body io.ReadCloser) io.ReadCloser {
	rest := io.Reader(body)
	if e.to > e.from {
		rest = &skipping{body, e.to - e.from}
	}
	return replay{io.MultiReader(io.LimitReader(body, e.from), strings.NewReader(e.with), rest), body}
}

// skipping leaves out the beginning.
type skipping struct {
	io.Reader
	n int64
}

func (s *skipping) Read(p []byte) (int, error) {
	if s.n > 0 {
		n, err := io.CopyN(io.Discard, s.Reader, s.n)
		if s.n -= n; err != nil {
			return 0, err
		}
	}
	return s.Reader.Read(p)
}

// speaksStreamOptions reports whether a call is one of OpenAI's API or what looks
// like it, and its body may be changed: nobody signed it, and the reply will come
// as text.
func (c *call) speaksStreamOptions(req *http.Request) bool {
	if c.t.cfg.LeaveStreams || !c.plausible() || c.API != ChatCompletions && c.API != Completions || !strings.HasSuffix(strings.TrimRight(req.URL.Path, "/"), "/completions") {
		return false
	}
	for _, name := range []string{"X-Amz-Content-Sha256", "Content-Md5", "Content-Digest", "Digest", "Signature", "Content-Encoding", "Accept-Encoding"} {
		if req.Header.Get(name) != "" {
			return false
		}
	}
	return !strings.HasPrefix(req.Header.Get("Authorization"), "AWS4-")
}

// addresses remembers something about hosts with their paths. At maxAddresses it forgets
// them all and begins anew.
type addresses struct {
	mu sync.Mutex
	of map[string]bool
}

const maxAddresses = 1024

func (a *addresses) get(address string) (is, known bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	is, known = a.of[address]
	return is, known
}

func (a *addresses) set(address string, is bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.put(address, is)
}

// first reports whether an address is new, once.
func (a *addresses) first(address string) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.of[address] {
		return false
	}
	a.put(address, true)
	return true
}

func (a *addresses) put(address string, is bool) {
	if _, known := a.of[address]; a.of == nil || !known && len(a.of) == maxAddresses {
		a.of = make(map[string]bool)
	}
	a.of[address] = is
}
