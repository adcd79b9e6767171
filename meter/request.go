package meter

import (
	"strconv"
	"strings"

	"github.com/tidegate/tidegate/events"
)

const (
	// charsPerToken is what English text comes to with every provider's tokenizer.
	// Whole request bodies are counted so, JSON included: that stands for what
	// providers add around messages and tools, and errs on the high side.
	charsPerToken = 4
	// charsPerMediaToken is for base64 of documents, audio and video, whose rules
	// need what only a decoder sees (pages, seconds).
	charsPerMediaToken = 64
	// completionsMaxTokens is what OpenAI's completions API generates by default.
	completionsMaxTokens = 16
)

// estimate is what a call may cost, before it is made.
type estimate struct {
	input, output int64
	model         string
}

func (e estimate) total() int64 { return min(e.input+e.output, events.MaxTokens) }

// textTokens is how many tokens so many bytes of text are.
func textTokens(bytes int64) int64 { return (bytes + charsPerToken - 1) / charsPerToken }

// request reads a request body in pieces of any size for what bounds its cost.
type request struct {
	scan  scanner
	api   API
	bytes int64 // of the whole body
	media int64 // of those, base64, which does not count as text

	model      string
	maxTokens  int64 // 0: not bounded
	choices    int64
	mediaToken int64 // for media that is no image
	images     []image

	kind      key    // of the string at hand: what may hold media
	head      []byte // the beginning of that string
	length    int64  // of that string
	lowDetail int    // depth+1 of the object that asks for low detail, 0: none
}

// image is one picture in a request, width and height 0 where they are unknown.
type image struct {
	width, height int
	low           bool
	object        int // depth of the object it is in, 0 once that has ended
}

// headBytes of a string are kept to find an image's size in: enough for a JPEG
// with a thumbnail and a colour profile before it.
const headBytes = 192 << 10

func newRequest(api API) *request {
	r := &request{api: api}
	r.scan.visit = r
	return r
}

// Write never fails.
func (r *request) Write(p []byte) (int, error) {
	r.bytes += int64(len(p))
	r.scan.write(p)
	return len(p), nil
}

func (r *request) begin(kind byte) (limit int) {
	r.kind = keyNone
	if kind == '"' {
		switch r.scan.key {
		case keyData, keyURL, keyImageURL, keyBytes, keyFileData, keyFileID, keyFileURI, keyFileURI2:
			r.kind, r.length, r.head = r.scan.key, 0, r.head[:0]
		}
	}
	switch depth := len(r.scan.stack); {
	case r.scan.key == keyDetail && kind == '"':
		return 32
	case depth == 1 && r.scan.key == keyModel && kind == '"':
		return maxNameBytes
	case r.bounds() != nil && kind >= '0' && kind <= '9':
		return 32
	}
	return 0
}

// bounds is where the number at hand belongs when it bounds the output, else nil.
func (r *request) bounds() *int64 {
	switch key := r.scan.key; len(r.scan.stack) {
	case 1:
		switch key {
		case keyMaxTokens, keyMaxCompletionTokens, keyMaxOutputTokens, keyMaxTokensToSample, keyMaxGenLen:
			return &r.maxTokens
		case keyN, keyBestOf:
			return &r.choices
		}
	case 2:
		switch r.scan.top().key {
		case keyGenerationConfig, keyGenerationConfig2, keyInferenceConfig, keyTextGeneration, keyOptions, keyParameters:
			switch key {
			case keyMaxOutputTokens, keyMaxOutputTokens2, keyMaxTokens, keyMaxTokens2, keyMaxTokenCount, keyNumPredict, keyMaxNewTokens:
				return &r.maxTokens
			case keyCandidateCount, keyCandidateCount2:
				return &r.choices
			}
		}
	}
	return nil
}

func (r *request) text(raw []byte) {
	if r.kind != keyNone {
		r.length += int64(len(raw))
		r.head = append(r.head, raw[:min(len(raw), headBytes-len(r.head))]...)
	}
}

func (r *request) end(kind byte, raw []byte) {
	depth := len(r.scan.stack)
	switch {
	case kind == '{':
		r.endObject(depth + 1)
	case kind == '"' && r.kind != keyNone:
		r.endMedia(depth)
		r.kind = keyNone
	case len(raw) == 0:
	case r.scan.key == keyDetail:
		r.detail(depth, string(raw) == `"low"`)
	case r.scan.key == keyModel:
		r.model = unquote(raw)
	default:
		if to := r.bounds(); to != nil {
			if n, err := strconv.ParseInt(string(raw), 10, 64); err == nil && n > 0 {
				*to = max(*to, n)
			}
		}
	}
}

// endMedia takes the string that ended for what it is: media by value, media by
// reference, or just text.
func (r *request) endMedia(depth int) {
	reference := r.kind == keyFileID || r.kind == keyFileURI || r.kind == keyFileURI2
	if r.kind == keyURL || r.kind == keyImageURL {
		reference = isReference(r.head) && (r.kind == keyImageURL || mediaParent(r.scan.top().key))
	}
	switch {
	case reference:
		r.images = append(r.images, image{object: depth})
	case r.length > 64 && isBase64(r.head):
		r.media += r.length
		if width, height, ok := imageSize(r.head); ok {
			r.images = append(r.images, image{width: width, height: height, object: depth})
		} else {
			r.mediaToken += (r.length + charsPerMediaToken - 1) / charsPerMediaToken
			return
		}
	default:
		return
	}
	r.images[len(r.images)-1].low = r.lowDetail == depth+1
}

func mediaParent(k key) bool { return k == keyImageURL || k == keySource }

func isReference(head []byte) bool {
	s := string(head[:min(len(head), 8)])
	return strings.HasPrefix(s, "http://") || strings.HasPrefix(s, "https://") || strings.HasPrefix(s, "gs://")
}

// detail notes OpenAI's "detail", which may stand before or after the picture.
func (r *request) detail(depth int, low bool) {
	if !low {
		return
	}
	r.lowDetail = depth + 1
	if n := len(r.images); n > 0 && r.images[n-1].object == depth {
		r.images[n-1].low = true
	}
}

func (r *request) endObject(depth int) {
	if r.lowDetail == depth+1 {
		r.lowDetail = 0
	}
	if n := len(r.images); n > 0 && r.images[n-1].object == depth {
		r.images[n-1].object = 0
	}
}

// estimate is the answer, once the body was written. unbounded is the output that
// a request without a limit of its own counts for. model is what the URL says.
func (r *request) estimate(model string, unbounded int64) estimate {
	if r.model != "" {
		model = r.model
	}
	e := estimate{model: model, input: textTokens(r.bytes-r.media) + r.mediaToken}
	for _, picture := range r.images {
		e.input += picture.tokens(r.api, model)
	}
	switch {
	case r.api == Embeddings:
	case r.maxTokens > 0:
		e.output = r.maxTokens
	case r.api == Completions:
		e.output = completionsMaxTokens
	default:
		e.output = unbounded
	}
	e.input = min(e.input, events.MaxTokens)
	e.output = min(min(e.output, events.MaxTokens)*min(max(r.choices, 1), 1<<10), events.MaxTokens)
	return e
}
