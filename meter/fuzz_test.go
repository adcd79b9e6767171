package meter

import (
	"bytes"
	"fmt"
	"io"
	"slices"
	"strings"
	"testing"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
	"github.com/google/go-cmp/cmp"

	"github.com/tidegate/tidegate/events"
)

// transcript writes down everything that a scanner tells.
type transcript struct {
	scan  scanner
	lines []string
}

func (t *transcript) begin(kind byte) int {
	if kind == '{' || kind == '[' {
		t.lines = append(t.lines, fmt.Sprintf("%d %d %c", len(t.scan.stack), t.scan.key, kind))
		return 0
	}
	return 1 << 30
}

func (t *transcript) text([]byte) {}

func (t *transcript) end(kind byte, raw []byte) {
	if kind == '{' || kind == '[' {
		t.lines = append(t.lines, fmt.Sprintf("%d %d end", len(t.scan.stack), t.scan.key))
		return
	}
	t.lines = append(t.lines, fmt.Sprintf("%d %d %s", len(t.scan.stack), t.scan.key, raw))
}

// oracle is the same transcript from a JSON decoder; ok is false for what is not
// one valid document.
func oracle(doc []byte) (lines []string, ok bool) {
	dec := jsontext.NewDecoder(bytes.NewReader(doc), jsontext.AllowDuplicateNames(true), jsontext.AllowInvalidUTF8(true))
	var names []key // of the open containers' values
	name := keyNone
	for {
		kind := dec.PeekKind()
		depth := dec.StackDepth()
		parent, length := dec.StackIndex(depth)
		isName := parent == '{' && length%2 == 0
		switch {
		case kind == '{' || kind == '[':
			lines = append(lines, fmt.Sprintf("%d %d %c", depth, name, byte(kind)))
			names = append(names, name)
		case kind == '}' || kind == ']':
			if len(names) == 0 {
				return nil, false
			}
			lines = append(lines, fmt.Sprintf("%d %d end", depth-1, names[len(names)-1]))
			names = names[:len(names)-1]
		case kind == 0:
			_, err := dec.ReadToken()
			return lines, err == io.EOF
		}
		if kind == '{' || kind == '[' || kind == '}' || kind == ']' {
			if _, err := dec.ReadToken(); err != nil {
				return nil, false
			}
			name = keyNone
			continue
		}
		raw, err := dec.ReadValue()
		if err != nil {
			return nil, false
		}
		if isName {
			name = keyOf(bytes.Trim(raw, `"`))
			continue
		}
		lines = append(lines, fmt.Sprintf("%d %d %s", depth, name, raw))
		name = keyNone
	}
}

// FuzzScanner compares the scanner with a real JSON decoder on every valid
// object or array, in pieces of any size.
func FuzzScanner(f *testing.F) {
	for _, tt := range replies {
		if len(tt.body) < 1<<10 {
			f.Add([]byte(tt.body), uint8(3))
		}
	}
	f.Add([]byte(`{"a":[1,-2.5e+3,true,null,"\"\\A",[[]],{}],"usage":{"id":"x","model":{"n":{}}},"":{"":0}} `), uint8(1))
	f.Fuzz(func(t *testing.T, doc []byte, size uint8) {
		got := new(transcript)
		got.scan.visit = got
		for p := doc; len(p) > 0; {
			n := min(int(size)+1, len(p))
			got.scan.write(p[:n])
			p = p[n:]
		}
		want, ok := oracle(doc)
		if !ok || len(want) < 2 || strings.Count(string(doc), "[")+strings.Count(string(doc), "{") > maxDepth {
			return
		}
		if first := bytes.TrimLeft(doc, " \t\r\n"); first[0] != '{' && first[0] != '[' {
			return
		}
		if !jsontext.Value(doc).IsValid(jsontext.AllowDuplicateNames(true), jsontext.AllowInvalidUTF8(true)) {
			return // more than one document: the scanner ends with the first
		}
		if !got.scan.done() {
			t.Fatalf("a valid document is not complete: state %d", got.scan.state)
		}
		if diff := cmp.Diff(want, got.lines); diff != "" {
			t.Errorf("decoder (-), scanner (+):\n%s", diff)
		}
	})
}

// fuzzReplies holds for every reader of replies: it does not panic, its figures
// are fit for an event, and it does not matter where the pieces end.
func fuzzReplies(f *testing.F, apis ...API) {
	for _, tt := range replies {
		if slices.Contains(apis, tt.api) && len(tt.body) < 1<<20 {
			f.Add([]byte(tt.body), uint8(3))
			f.Add(zipped(tt.body), uint8(7))
		}
	}
	for _, e := range examples(f) {
		if slices.Contains(apis, e.api(f)) {
			f.Add(e.body(), uint8(3))
		}
	}
	f.Add([]byte(strings.Join(converseEvents(), "")), uint8(5))
	f.Fuzz(func(t *testing.T, body []byte, size uint8) {
		for _, api := range apis {
			for _, how := range []ending{endOfBody, cutShort} {
				whole := fuzzRead(t, api, how, body, len(body)+1)
				pieces := fuzzRead(t, api, how, body, int(size)+1)
				if whole != pieces {
					t.Errorf("%s: whole %+v, in pieces of %d %+v", api, whole, size+1, pieces)
				}
			}
		}
	})
}

func fuzzRead(t *testing.T, api API, how ending, body []byte, size int) reading {
	r := newReply(api, nil)
	for len(body) > 0 {
		n := min(size, len(body))
		r.write(body[:n])
		body = body[n:]
	}
	read := r.finish(how)
	u := events.Usage{PortID: "p", Feature: "f", Provider: "x", Model: "m",
		InputTokens: read.tokens.input, OutputTokens: read.tokens.output, Details: read.tokens.details,
		MeasuredBy: read.measuredBy(), Status: read.status()}
	if err := u.Validate(); err != nil {
		t.Errorf("%s: %v in %+v", api, err, read)
	}
	if !read.reported && read.tokens != (tokens{}) || read.text < 0 {
		t.Errorf("%s: figures from nowhere: %+v", api, read)
	}
	return read
}

func FuzzOpenAI(f *testing.F) {
	fuzzReplies(f, ChatCompletions, Completions, Embeddings, Images, Transcriptions, Runs)
}
func FuzzResponses(f *testing.F) { fuzzReplies(f, Responses) }
func FuzzAnthropic(f *testing.F) { fuzzReplies(f, Messages) }
func FuzzGemini(f *testing.F) {
	fuzzReplies(f, GenerateContent, EmbedContent, Interactions, Predict)
}
func FuzzBedrock(f *testing.F) { fuzzReplies(f, Converse, Invoke, Agent) }
func FuzzOthers(f *testing.F) {
	fuzzReplies(f, CohereChat, OllamaChat, LlamaCompletion, WatsonxText, AlephAlphaComplete, Rerank, Unknown)
}
func FuzzBatch(f *testing.F) { fuzzReplies(f, Batch) }

// FuzzAskForUsage: what makes a request ask for its usage leaves it the JSON that it
// was, and asks.
func FuzzAskForUsage(f *testing.F) {
	for _, body := range []string{
		`{"model":"m","stream":true}`, `{"stream":true,"stream_options":{"include_usage":false,"x":1}}`, ` { "stream" : true , "stream_options" : null } `,
		`{"stream_options":{},"stream":true}`, `{"stream":true,"stream_options":{"x":[{"include_usage":1}]}}`,
	} {
		f.Add([]byte(body), uint8(3))
	}
	f.Fuzz(func(t *testing.T, body []byte, size uint8) {
		r := newRequest(ChatCompletions)
		for p := body; len(p) > 0; {
			n := min(int(size)+1, len(p))
			r.Write(p[:n])
			p = p[n:]
		}
		e, ok := r.askForUsage()
		if !ok {
			return
		}
		var before, after map[string]jsontext.Value
		if json.Unmarshal(body, &before) != nil {
			return // no JSON, or a name twice
		}
		edited, err := io.ReadAll(e.apply(io.NopCloser(bytes.NewReader(body))))
		if err != nil || int64(len(edited)) != int64(len(body))+e.grows() {
			t.Fatalf("%d bytes, %v, of %d that grow by %d", len(edited), err, len(body), e.grows())
		}
		if err := json.Unmarshal(edited, &after); err != nil {
			t.Fatalf("%s became %s: %v", body, edited, err)
		}
		var options struct {
			IncludeUsage bool `json:"include_usage"`
		}
		if err := json.Unmarshal(after["stream_options"], &options); err != nil || !options.IncludeUsage {
			t.Errorf("%s became %s, which does not ask: %v", body, edited, err)
		}
		delete(before, "stream_options")
		delete(after, "stream_options")
		if diff := cmp.Diff(before, after); diff != "" {
			t.Errorf("%s became %s", body, edited)
		}
	})
}

// FuzzChunkFilter: it does not matter where the pieces end, and nothing is lost but
// usage chunks and the lines that end them.
func FuzzChunkFilter(f *testing.F) {
	f.Add([]byte("data: {\"choices\":[{}]}\n\ndata: {\"choices\":[],\"usage\":{}}\n\ndata: [DONE]\n\n"), uint8(7))
	f.Add([]byte("data: {\"choices\":[ ],\"usage\":{\"prompt_tokens\":1}}\r\n\r\nx"), uint8(0))
	f.Fuzz(func(t *testing.T, body []byte, size uint8) {
		seenAt := 0 // where the first usage chunk ends
		for line := range bytes.Lines(body) {
			if isUsageChunk(line) {
				seenAt += len(bytes.TrimSpace(line))
				break
			}
			seenAt += len(line)
		}
		filtered := func(size int) string {
			filter, out, read := new(chunkFilter), []byte(nil), make([]byte, size+40)
			take := func() {
				for n := filter.take(read); n > 0; n = filter.take(read) {
					out = append(out, read[:n]...)
				}
			}
			passed := 0
			for p := body; len(p) > 0; {
				begun := filter.giveBack(read)
				n := copy(read[begun:min(begun+size, len(read))], p)
				p, passed = p[n:], passed+n
				n = filter.pass(read[:begun+n], passed >= seenAt)
				out = append(out, read[:n]...)
				take()
			}
			filter.close()
			take()
			return string(out)
		}
		whole := filtered(len(body) + 1)
		if pieces := filtered(int(size) + 1); pieces != whole && !bytes.Contains(body, []byte("\r")) {
			t.Errorf("whole %q, in pieces of %d %q", whole, size+1, pieces)
		}
		var want []byte
		for line := range bytes.Lines(body) {
			if !isUsageChunk(line) && len(bytes.TrimSpace(line)) > 0 {
				want = append(want, line...)
			}
		}
		if got := strings.Join(strings.Fields(whole), ""); bytes.IndexAny(body, "{[\r") != 0 && !bytes.Contains(body, []byte("\r")) && got != strings.Join(strings.Fields(string(want)), "") {
			t.Errorf("%q became %q", body, whole)
		}
	})
}

// FuzzRequest: an estimate is never negative or absurd.
func FuzzRequest(f *testing.F) {
	f.Add([]byte(`{"model":"gpt-5","n":3,"max_tokens":7,"messages":[{"content":[{"type":"image_url","image_url":{"url":"data:image/png;base64,iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAIAAACQd1PeAAAADElEQVR4nGP4z8AAAAMBAQDJ/pLvAAAAAElFTkSuQmCC","detail":"low"}}]}]}`), uint8(5))
	f.Add([]byte(`{"generationConfig":{"maxOutputTokens":5,"candidateCount":2},"contents":[{"parts":[{"inlineData":{"data":"AAAA"}},{"fileData":{"fileUri":"gs://b/o"}}]}]}`), uint8(0))
	f.Add([]byte(`{"inferenceConfig":{"maxTokens":13}}`), uint8(9))
	f.Fuzz(func(t *testing.T, body []byte, size uint8) {
		for _, api := range []API{ChatCompletions, Responses, Completions, Embeddings, Messages, GenerateContent, Converse} {
			whole, pieces := newRequest(api), newRequest(api)
			whole.Write(body)
			for p := body; len(p) > 0; {
				n := min(int(size)+1, len(p))
				pieces.Write(p[:n])
				p = p[n:]
			}
			a, b := whole.estimate("m", 1024, 0), pieces.estimate("m", 1024, 0)
			if a != b {
				t.Errorf("%s: whole %+v, in pieces %+v", api, a, b)
			}
			if a.input < 0 || a.output < 0 || a.total() < 0 || a.input > events.MaxTokens || a.output > events.MaxTokens || a.total() > events.MaxTokens {
				t.Errorf("%s: estimate %+v", api, a)
			}
		}
	})
}

func FuzzReadRecorded(f *testing.F) {
	f.Add([]byte(`{"name":"one","url":"https://api.anthropic.com/v1/messages","response":{"status":200,"headers":{"request-id":["req_1"]},"body":"{\"id\":\"msg_1\",\"usage\":{\"input_tokens\":1,\"output_tokens\":2}}"}}`))
	f.Add([]byte(`{"api":"converse","response":{"body":{"usage":{"inputTokens":1,"outputTokens":2}}}}`))
	f.Fuzz(func(t *testing.T, line []byte) {
		r, err := ReadRecorded(line)
		if err != nil {
			return
		}
		if u := r.Usage; u != nil && (u.InputTokens < 0 || u.OutputTokens < 0 || u.TotalTokens != u.InputTokens+u.OutputTokens ||
			u.CacheReadInputTokens+u.CacheWriteInputTokens > u.InputTokens || u.ReasoningOutputTokens > u.OutputTokens) {
			t.Errorf("usage %+v", *u)
		}
	})
}
