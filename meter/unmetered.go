package meter

import (
	"fmt"
	"net/http"
	"net/url"
	"strings"
)

// Unmetered says what becomes of a call that Transport cannot promise to meter: a
// POST to a host that serves AI, or with a body that is meant for a model, on a path
// that no row of the table in docs/meter.md names.
type Unmetered uint8

const (
	// Pass makes the call. Its reply is read by its shape: where it tells its usage, or
	// answers a request for a model with text, the call is recorded like any other. Else
	// it is counted in Stats.Passed, and logged once for each host and path.
	Pass Unmetered = iota
	// Refuse makes no such call: its response has status 402, and reading it yields an
	// *[UnmeteredError]. Give Detect to name the paths that may be called all the same.
	Refuse
)

// UnmeteredError is why a call did not happen: nobody would have counted it.
type UnmeteredError struct{ Host, Path string }

func (e *UnmeteredError) Error() string {
	return fmt.Sprintf("meter: refused: no row of the table in docs/meter.md reads POST %s%s, and Unmetered is Refuse; name its API in Config.Detect, or let it Pass", e.Host, e.Path)
}

// freePaths are endpoints of AI services that make no model work. {id} stands for a
// part without slashes, {any} for any number of parts.
var freePaths = []string{
	"/count_tokens", "/count-tokens", ":countTokens", ":computeTokens", "/input_tokens", "/tokenize", "/detokenize", "/apply-template",
	"/moderations", "/models", "/files", "/files/{id}", "/uploads", "/uploads/{id}/parts", "/uploads/{id}/complete", "/cancel",
	"/batches", "/batch/jobs", "/v1/skills", "/assistants", "/assistants/{id}", "/threads", "/threads/{id}", "/threads/{id}/messages",
	"/conversations", "/conversations/{id}/items", "/vector_stores/{any}", "/vector_stores", "/cachedContents", "/upload/v1beta/files",
	"/api/show", "/api/pull", "/api/push", "/api/copy", "/api/create", "/api/blobs/{id}",
}

// Free reports whether an address of an AI service makes no model work, such as counting tokens.
func Free(u *url.URL) bool {
	path := strings.TrimRight(u.EscapedPath(), "/")
	for _, pattern := range freePaths {
		if _, ok := match(pattern, path); ok {
			return true
		}
	}
	return false
}

// unknownCall is a request that no row names, and that may be for a model all the
// same: its body will tell, or its host does.
func unknownCall(req *http.Request) (call Call, ok bool) {
	if req.Method != http.MethodPost || req.URL == nil || Free(req.URL) {
		return Call{}, false
	}
	call.API = Unknown
	if host := hostOf(req.URL.Hostname()); host != nil {
		call.Provider = host.provider
		return call, true
	}
	contentType := req.Header.Get("Content-Type")
	return call, contentType == "" || strings.Contains(strings.ToLower(contentType), "json")
}

// stray reports whether the request turned out to be for no model.
func (c *call) stray() bool { return c.API == Unknown && !c.ours && !c.shape.ofAI() }

// plausible reports whether there is something to ask the gate for. A service that
// has nothing to do with AI may use a path of theirs, too.
func (c *call) plausible() bool {
	switch c.API {
	case Batch:
		return false
	case Unknown:
		return c.shape.ofAI()
	default:
		return c.ours || c.Model != "" || c.shape.mayBeAI()
	}
}

// unread reports whether a reply is none that can be booked.
func (c *call) unread(read reading) bool {
	switch {
	case c.API == Batch:
		return !read.reported || !read.complete || !c.t.fetched.first(c.port+" "+c.address) // it can be fetched again
	case read.reported:
		return false
	case c.API == Unknown && (read.text == 0 || !c.shape.ofAI()):
		c.pass()
		return true
	default:
		return !c.plausible() && read.model == ""
	}
}

// pass counts a call that nobody metered.
func (c *call) pass() {
	c.t.counters.passed.Add(1)
	if c.t.told.first(c.address) {
		c.t.cfg.Logger.Warn("meter: a call to an AI service passed unmetered: no row of the table in docs/meter.md reads it", "address", c.address, "port", c.port)
	}
}
