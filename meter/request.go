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

// beyond is what of it a hold of so many tokens does not cover: the input was held first.
func (e estimate) beyond(held int64) (input, output int64) {
	input = max(e.input-held, 0)
	return input, e.total() - held - input
}

// textTokens is how many tokens so many bytes of text are.
func textTokens(bytes int64) int64 { return (bytes + charsPerToken - 1) / charsPerToken }

// request reads a request body in pieces of any size for what bounds its cost. It
// keeps the beginning of one string and the sizes of some pictures, never the body.
type request struct {
	scan   scanner
	api    API
	binary bool  // a form with files, or a file: no JSON
	bytes  int64 // of the whole body
	media  int64 // of those, base64, which does not count as text

	model      string
	maxTokens  int64 // 0: not bounded
	choices    int64
	mediaToken int64 // for media that is no image
	images     []image
	more       int64 // pictures beyond maxImages

	shape  shape
	stream streamOptions

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

// shape is what in a request's body shows that it is for a model.
type shape uint8

const (
	saysModel    shape = 1 << iota // a model's name at the top
	saysPrompt                     // a prompt, an input or the like at the top
	saysList                       // a list of messages, of whatever kind, at the top
	saysMessages                   // messages of somebody in a role, or contents with parts
)

// ofAI reports whether the body is one for a model, whatever the path says.
func (s shape) ofAI() bool {
	return s&saysMessages != 0 || s&saysModel != 0 && s&(saysPrompt|saysList) != 0
}

// mayBeAI reports whether the body is one for a model on a path of a model's API.
func (s shape) mayBeAI() bool { return s&(saysModel|saysPrompt|saysMessages) != 0 }

// maxImages of a request are priced each by its size. What is beyond counts as the
// dearest that is known by a link.
const maxImages = 1024

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
	if !r.binary {
		r.scan.write(p)
	}
	return len(p), nil
}

func (r *request) begin(kind byte) (limit int) {
	r.kind = keyNone
	if kind == '"' {
		key := r.scan.key
		if in := r.scan.top(); in.array && in.key == keyImages { // Ollama's
			key = keyImages
		}
		switch key {
		case keyData, keyURL, keyImageURL, keyBytes, keyFileData, keyFileID, keyFileURI, keyFileURI2, keyImages:
			r.kind, r.length, r.head = key, 0, r.head[:0]
		}
	}
	depth := len(r.scan.stack)
	r.look(depth, kind)
	r.stream.begin(&r.scan, depth, kind)
	switch {
	case r.scan.key == keyDetail && kind == '"':
		return 32
	case depth == 1 && (r.scan.key == keyModel || r.scan.key == keyModelID) && kind == '"':
		return maxNameBytes
	case r.bounds() != nil && kind >= '0' && kind <= '9':
		return 32
	}
	return 0
}

// look sees what shape the body has.
func (r *request) look(depth int, kind byte) {
	switch key := r.scan.key; depth {
	case 1:
		switch key {
		case keyModel, keyModelID:
			if kind == '"' {
				r.shape |= saysModel
			}
		case keyPrompt, keyInput, keyContents, keyInstances:
			r.shape |= saysPrompt
		case keyMessages:
			r.shape |= saysList
		}
	case 3:
		switch r.scan.stack[1].key {
		case keyMessages:
			if key == keyRole && kind == '"' {
				r.shape |= saysMessages
			}
		case keyContents:
			if key == keyParts {
				r.shape |= saysMessages
			}
		}
	}
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
	r.stream.end(&r.scan, depth)
	switch {
	case kind == '{':
		r.endObject(depth + 1)
	case kind == '"' && r.kind != keyNone:
		r.endMedia(depth)
		r.kind = keyNone
	case len(raw) == 0:
	case r.scan.key == keyDetail:
		r.detail(depth, string(raw) == `"low"`)
	case r.scan.key == keyModel || r.scan.key == keyModelID:
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
	picture := image{object: depth, low: r.lowDetail == depth+1}
	switch {
	case reference:
	case r.inMedia():
		r.media += r.length
		var ok bool
		if picture.width, picture.height, ok = imageSize(r.head); !ok {
			r.mediaToken += mediaTokens(r.length)
			return
		}
	default:
		return
	}
	if len(r.images) == maxImages {
		r.more++
		return
	}
	r.images = append(r.images, picture)
}

// inMedia reports whether the string at hand is media by value.
func (r *request) inMedia() bool { return r.kind != keyNone && r.length > 64 && isBase64(r.head) }

// maxUnseenText is how much of a body that nobody has seen yet is taken for text: what
// the largest contexts have room for. The rest must be media.
const maxUnseenText = 4 << 20

func mediaTokens(bytes int64) int64 { return (bytes + charsPerMediaToken - 1) / charsPerMediaToken }

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

// estimate is the answer, once the body was written, or so much of it as there is:
// rest bytes are to come. unbounded is the output that a request without a limit of
// its own counts for. model is what the URL says.
func (r *request) estimate(model string, unbounded, rest int64) estimate {
	if r.model != "" {
		model = r.model
	}
	text, media := r.bytes-r.media, r.mediaToken
	switch {
	case r.binary:
		text, media = 0, mediaTokens(r.bytes+rest)
	case r.inMedia():
		text, media = text-r.length, media+mediaTokens(r.length+rest)
	default:
		unseen := min(rest, maxUnseenText)
		text, media = text+unseen, media+mediaTokens(rest-unseen)
	}
	e := estimate{model: model, input: textTokens(text) + media}
	for _, picture := range r.images {
		e.input += picture.tokens(r.api, model)
	}
	e.input += r.more * image{}.tokens(r.api, model)
	switch {
	case r.api == Embeddings || r.api == EmbedContent || r.api == Rerank:
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
