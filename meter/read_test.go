package meter

import (
	"bytes"
	"compress/gzip"
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"

	"github.com/tidegate/tidegate/events"
)

func TestMain(m *testing.M) {
	// genai's dependency starts this one when it is imported.
	goleak.VerifyTestMain(m, goleak.IgnoreTopFunction("go.opencensus.io/stats/view.(*worker).start"))
}

// told is what a test expects of a reply.
type told struct {
	In, Out, Read, Write, Reason int64
	Model, ID                    string
	By                           events.MeasuredBy
	Status                       events.Status
	Text                         int64
	Inferred                     bool
}

func toldBy(r reading) told {
	return told{
		r.tokens.input, r.tokens.output, r.tokens.details.CacheReadInputTokens, r.tokens.details.CacheWriteInputTokens, r.tokens.details.ReasoningOutputTokens,
		r.model, r.responseID, r.measuredBy(), r.status(), r.text, r.tokens.inferred,
	}
}

const (
	provider = events.MeasuredByProvider
	partial  = events.MeasuredByPartial
	guessed  = events.MeasuredByEstimate
)

// lines joins the lines of an event stream, each event ending in an empty one.
func sseBody(events ...string) string {
	var b strings.Builder
	for _, e := range events {
		b.WriteString(e + "\n\n")
	}
	return b.String()
}

const (
	claudeStart = `event: message_start
data: {"type":"message_start","message":{"id":"msg_1","type":"message","role":"assistant","model":"claude-x","content":[],"stop_reason":null,"usage":{"input_tokens":10,"cache_creation_input_tokens":200,"cache_read_input_tokens":3000,"cache_creation":{"ephemeral_5m_input_tokens":150,"ephemeral_1h_input_tokens":50},"output_tokens":2}}}`
	claudeBlock = `event: content_block_start
data: {"type":"content_block_start","index":0,"content_block":{"type":"tool_use","id":"toolu_9","name":"find","input":{}}}`
	claudeText = `event: content_block_delta
data: {"type":"content_block_delta","index":0,"delta":{"type":"text_delta","text":"12345678"}}`
	claudeDelta = `event: message_delta
data: {"type":"message_delta","delta":{"stop_reason":"end_turn","stop_sequence":null},"usage":{"output_tokens":77}}`
	claudeStop = `event: message_stop
data: {"type":"message_stop"}`
	claudeError = `event: error
data: {"type":"error","error":{"type":"overloaded_error","message":"Overloaded"}}`

	chatRole  = `data: {"id":"chatcmpl-1","object":"chat.completion.chunk","model":"gpt-x","choices":[{"index":0,"delta":{"role":"assistant","content":""},"finish_reason":null}],"usage":null}`
	chatText  = `data: {"id":"chatcmpl-1","object":"chat.completion.chunk","model":"gpt-x","choices":[{"index":0,"delta":{"content":"12345678"},"finish_reason":null}],"usage":null}`
	chatStop  = `data: {"id":"chatcmpl-1","object":"chat.completion.chunk","model":"gpt-x","choices":[{"index":0,"delta":{},"finish_reason":"stop"}],"usage":null}`
	chatUsage = `data: {"id":"chatcmpl-1","object":"chat.completion.chunk","model":"gpt-x","choices":[],"usage":{"prompt_tokens":100,"completion_tokens":40,"total_tokens":140,"prompt_tokens_details":{"cached_tokens":64,"audio_tokens":5},"completion_tokens_details":{"reasoning_tokens":32,"audio_tokens":2}}}`
	chatDone  = `data: [DONE]`

	responsesCreated = `event: response.created
data: {"type":"response.created","sequence_number":0,"response":{"id":"resp_1","object":"response","status":"in_progress","model":"gpt-x","output":[],"usage":null,"error":null}}`
	responsesDelta = `event: response.output_text.delta
data: {"type":"response.output_text.delta","sequence_number":1,"item_id":"msg_1","delta":"12345678"}`
	responsesItem = `event: response.output_item.done
data: {"type":"response.output_item.done","item":{"id":"msg_1","type":"message","content":[{"type":"output_text","text":"12345678"}]}}`
	responsesUsage = `"usage":{"input_tokens":9,"input_tokens_details":{"cached_tokens":4,"cache_write_tokens":3},"output_tokens":7,"output_tokens_details":{"reasoning_tokens":5},"total_tokens":16}`
)

var replies = []struct {
	name string
	api  API
	body string
	how  ending
	want told
}{
	{"chat", ChatCompletions,
		`{"id":"chatcmpl-1","object":"chat.completion","model":"gpt-x","choices":[{"index":0,"message":{"role":"assistant","content":"12345678"},"finish_reason":"stop"}],"usage":{"prompt_tokens":1,"completion_tokens":2,"total_tokens":3}}`,
		endOfBody, told{In: 1, Out: 2, Model: "gpt-x", ID: "chatcmpl-1", By: provider, Status: "ok", Text: 8}},
	{"chat, numbers written as floats", ChatCompletions,
		`{"usage":{"prompt_tokens":12.0,"completion_tokens":1e2}}`,
		endOfBody, told{In: 12, Out: 100, By: provider, Status: "ok"}},
	{"chat, details beyond what they are part of stand beside it", ChatCompletions,
		`{"usage":{"prompt_tokens":10,"completion_tokens":3,"prompt_tokens_details":{"cached_tokens":8,"cache_write_tokens":9},"completion_tokens_details":{"reasoning_tokens":4}}}`,
		endOfBody, told{In: 27, Out: 7, Read: 8, Write: 9, Reason: 4, By: provider, Status: "ok", Inferred: true}},
	{"chat, details beyond a total that has no room for them are clamped", ChatCompletions,
		`{"usage":{"prompt_tokens":41,"completion_tokens":97,"total_tokens":138,"completion_tokens_details":{"reasoning_tokens":104}}}`,
		endOfBody, told{In: 41, Out: 97, Reason: 97, By: provider, Status: "ok", Inferred: true}},
	{"chat without usage", ChatCompletions,
		`{"id":"c","model":"m","choices":[{"message":{"content":"1234","tool_calls":[{"id":"call_1","type":"function","function":{"name":"f","arguments":"{}"}}]}}]}`,
		endOfBody, told{Model: "m", ID: "c", By: guessed, Status: "ok", Text: 6}},
	{"chat, usage of another type", ChatCompletions, `{"id":"c","usage":"none"}`, endOfBody, told{ID: "c", By: guessed, Status: "ok"}},
	{"chat, usage empty", ChatCompletions, `{"id":"c","usage":{}}`, endOfBody, told{ID: "c", By: guessed, Status: "ok"}},
	{"chat, a negative count", ChatCompletions, `{"id":"c","usage":{"prompt_tokens":-1,"completion_tokens":5}}`, endOfBody, told{ID: "c", By: guessed, Status: "ok"}},
	{"chat, an absurd count", ChatCompletions, `{"id":"c","usage":{"prompt_tokens":99999999999999,"completion_tokens":5}}`, endOfBody, told{ID: "c", By: guessed, Status: "ok"}},
	{"chat, a count beyond int64", ChatCompletions, `{"id":"c","usage":{"prompt_tokens":1,"completion_tokens":1e400}}`, endOfBody, told{ID: "c", By: guessed, Status: "ok"}},
	{"chat, half a token", ChatCompletions, `{"id":"c","usage":{"prompt_tokens":1.5,"completion_tokens":5}}`, endOfBody, told{ID: "c", By: guessed, Status: "ok"}},
	{"chat, an error with status 200", ChatCompletions, `{"error":{"code":"content_filter"}}`, endOfBody, told{By: guessed, Status: "error"}},
	{"chat, leading blank lines", ChatCompletions, "\n\n  \n{\"usage\":{\"prompt_tokens\":1,\"completion_tokens\":2}}\n", endOfBody, told{In: 1, Out: 2, By: provider, Status: "ok"}},
	{"chat, usage of something else inside", ChatCompletions,
		`{"tool_usage":{"usage":{"prompt_tokens":5}},"choices":[{"usage":{"prompt_tokens":6},"id":"no","message":{"usage":{"prompt_tokens":7}}}],"usage":{"prompt_tokens":1,"completion_tokens":2}}`,
		endOfBody, told{In: 1, Out: 2, By: provider, Status: "ok"}},
	{"chat, JSON cut off", ChatCompletions, `{"id":"chatcmpl-1","model":"gpt-x","choices":[{"message":{"content":"12345`, endOfBody,
		told{Model: "gpt-x", ID: "chatcmpl-1", By: partial, Status: "partial", Text: 5}},
	{"chat, JSON read to its brace and closed", ChatCompletions, `{"usage":{"prompt_tokens":1,"completion_tokens":2}}`, cutShort, told{In: 1, Out: 2, By: provider, Status: "ok"}},
	{"chat, not JSON", ChatCompletions, "<html>bad gateway</html>", endOfBody, told{By: guessed, Status: "ok"}},
	{"chat, empty", ChatCompletions, "", endOfBody, told{By: guessed, Status: "ok"}},
	{"chat, unread", ChatCompletions, "", cutShort, told{By: partial, Status: "partial"}},

	{"chat stream", ChatCompletions, sseBody(chatRole, chatText, chatStop, chatUsage, chatDone), endOfBody,
		told{In: 100, Out: 40, Read: 64, Reason: 32, Model: "gpt-x", ID: "chatcmpl-1", By: provider, Status: "ok", Text: 8}},
	{"chat stream, closed after the usage", ChatCompletions, sseBody(chatRole, chatText, chatStop, chatUsage), cutShort,
		told{In: 100, Out: 40, Read: 64, Reason: 32, Model: "gpt-x", ID: "chatcmpl-1", By: provider, Status: "ok", Text: 8}},
	{"chat stream, closed at [DONE]", ChatCompletions, sseBody(chatRole, chatText, chatStop) + "data: [DONE]\n", cutShort,
		told{Model: "gpt-x", ID: "chatcmpl-1", By: guessed, Status: "ok", Text: 8}},
	{"chat stream without usage or [DONE]", ChatCompletions, sseBody(chatRole, chatText, chatStop), endOfBody,
		told{Model: "gpt-x", ID: "chatcmpl-1", By: guessed, Status: "ok", Text: 8}},
	{"chat stream, cut", ChatCompletions, sseBody(chatRole, chatText, chatText), endOfBody,
		told{Model: "gpt-x", ID: "chatcmpl-1", By: partial, Status: "partial", Text: 16}},
	{"chat stream, cumulative usage in each chunk, cancelled", ChatCompletions,
		sseBody(`data: {"choices":[{"delta":{"content":"a"}}],"usage":{"prompt_tokens":5,"completion_tokens":1}}`,
			`data: {"choices":[{"delta":{"content":"b"}}],"usage":{"prompt_tokens":5,"completion_tokens":2}}`), cutShort,
		told{In: 5, Out: 2, By: partial, Status: "partial", Text: 2}},
	{"chat stream, an error first", ChatCompletions, sseBody(`data: {"error":{"message":"no"}}`), endOfBody, told{By: partial, Status: "error"}},
	{"chat stream, an error later", ChatCompletions, sseBody(chatText, `data: {"error":{"message":"no"}}`, chatDone), cutShort,
		told{Model: "gpt-x", ID: "chatcmpl-1", By: guessed, Status: "error", Text: 8}},
	{"Azure's filter results come first, and nameless", ChatCompletions,
		sseBody(`data: {"choices":[],"created":0,"id":"","model":"","object":"","prompt_filter_results":[{"prompt_index":0}]}`, chatText, chatUsage, chatDone), endOfBody,
		told{In: 100, Out: 40, Read: 64, Reason: 32, Model: "gpt-x", ID: "chatcmpl-1", By: provider, Status: "ok", Text: 8}},
	{"carriage returns, comments, unknown fields, split data", ChatCompletions,
		"\xef\xbb\xbf: OPENROUTER PROCESSING\r\n\r\nid: 7\r\nretry: 10\r\ndata:{\"id\":\"c\",\r\ndata: \"model\":\"m\",\"choices\":[],\r\ndatum: x\r\ndata\r\ndata:  \"usage\":{\"prompt_tokens\":3,\r\ndata:\"completion_tokens\":4}}\r\n\r\ndata:[DONE]\r\n\r\n", endOfBody,
		told{In: 3, Out: 4, Model: "m", ID: "c", By: provider, Status: "ok"}},
	{"lines that end in a carriage return alone", ChatCompletions,
		"data: {\"choices\":[],\r\rdata: {\"id\":\"c\",\"choices\":[],\rdata: \"usage\":{\"prompt_tokens\":3,\"completion_tokens\":4}}\r\rdata: [DONE]\r\r", endOfBody,
		told{In: 3, Out: 4, ID: "c", By: provider, Status: "ok"}},
	{"a broken event does not spoil the next", ChatCompletions, sseBody(`data: {"id":"x","usage":{"prompt_tokens":9`, chatUsage, chatDone), endOfBody,
		told{In: 100, Out: 40, Read: 64, Reason: 32, Model: "gpt-x", ID: "chatcmpl-1", By: provider, Status: "ok"}},
	{"no empty line at the end", ChatCompletions, sseBody(chatText) + chatUsage, endOfBody,
		told{In: 100, Out: 40, Read: 64, Reason: 32, Model: "gpt-x", ID: "chatcmpl-1", By: provider, Status: "ok", Text: 8}},
	{"an event of three megabytes", ChatCompletions, sseBody(`data: {"blob":"` + strings.Repeat("x", 3<<20) + `","id":"c","choices":[],"usage":{"prompt_tokens":3,"completion_tokens":4}}`), endOfBody,
		told{In: 3, Out: 4, ID: "c", By: provider, Status: "ok"}},

	{"completions", Completions, `{"id":"cmpl-1","model":"m","choices":[{"text":"1234","finish_reason":"stop"}],"usage":{"prompt_tokens":1,"completion_tokens":2,"total_tokens":3}}`,
		endOfBody, told{In: 1, Out: 2, Model: "m", ID: "cmpl-1", By: provider, Status: "ok", Text: 4}},
	{"embeddings", Embeddings, `{"object":"list","data":[{"index":0,"embedding":[0.1,-2e-3]}],"model":"e","usage":{"prompt_tokens":8,"total_tokens":8}}`,
		endOfBody, told{In: 8, Model: "e", By: provider, Status: "ok"}},

	{"responses", Responses, `{"id":"resp_1","status":"completed","model":"gpt-x","error":null,"output":[{"id":"rs_1","type":"reasoning","summary":[{"type":"summary_text","text":"1234"}]},{"id":"msg_1","content":[{"type":"output_text","text":"5678"}]}],"tools":[{"type":"function","description":"not text"}],` + responsesUsage + `}`,
		endOfBody, told{In: 9, Out: 7, Read: 4, Write: 3, Reason: 5, Model: "gpt-x", ID: "resp_1", By: provider, Status: "ok", Text: 4}},
	{"responses, queued in the background", Responses, `{"id":"resp_1","status":"queued","model":"gpt-x","error":null,"output":[],"usage":null}`,
		endOfBody, told{Model: "gpt-x", ID: "resp_1", By: guessed, Status: "ok"}},
	{"responses stream, cut in an event that has not told its type yet", Responses, sseBody(`data: {"type":"response.output_text.delta","delta":"1234"}`) + `data: {"delta":"a summary that does not count`, cutShort,
		told{By: partial, Status: "partial", Text: 4}},
	{"responses stream", Responses, sseBody(responsesCreated, responsesDelta, responsesItem,
		"event: response.completed\ndata: {\"type\":\"response.completed\",\"response\":{\"id\":\"resp_1\",\"model\":\"gpt-x-1\",\"status\":\"completed\","+responsesUsage+"}}"), cutShort,
		told{In: 9, Out: 7, Read: 4, Write: 3, Reason: 5, Model: "gpt-x-1", ID: "resp_1", By: provider, Status: "ok", Text: 8}},
	{"responses stream, incomplete", Responses, sseBody(responsesCreated, responsesDelta,
		"data: {\"type\":\"response.incomplete\",\"response\":{\"id\":\"resp_1\",\"status\":\"incomplete\","+responsesUsage+"}}"), cutShort,
		told{In: 9, Out: 7, Read: 4, Write: 3, Reason: 5, Model: "gpt-x", ID: "resp_1", By: provider, Status: "ok", Text: 8}},
	{"responses stream, failed with usage", Responses, sseBody(responsesCreated,
		"data: {\"type\":\"response.failed\",\"response\":{\"id\":\"resp_1\",\"status\":\"failed\",\"error\":{\"code\":\"server_error\"},"+responsesUsage+"}}"), endOfBody,
		told{In: 9, Out: 7, Read: 4, Write: 3, Reason: 5, Model: "gpt-x", ID: "resp_1", By: provider, Status: "error"}},
	{"responses stream, cancelled", Responses, sseBody(responsesCreated, responsesDelta), cutShort,
		told{Model: "gpt-x", ID: "resp_1", By: partial, Status: "partial", Text: 8}},

	{"messages", Messages, `{"id":"msg_1","type":"message","role":"assistant","model":"claude-x","content":[{"type":"thinking","thinking":"1234","signature":"zzzz"},{"type":"tool_use","id":"toolu_1","name":"f","input":{"q":"5678","deep":{"list":["9"]}}}],"stop_reason":"tool_use","usage":{"input_tokens":10,"cache_creation_input_tokens":200,"cache_read_input_tokens":3000,"output_tokens":50,"output_tokens_details":{"thinking_tokens":20},"service_tier":"standard"}}`,
		endOfBody, told{In: 3210, Out: 50, Read: 3000, Write: 200, Reason: 20, Model: "claude-x", ID: "msg_1", By: provider, Status: "ok", Text: 9}},
	{"messages, the cache write only by its lifetimes", Messages, `{"usage":{"input_tokens":1,"cache_creation":{"ephemeral_5m_input_tokens":20,"ephemeral_1h_input_tokens":3},"output_tokens":5}}`,
		endOfBody, told{In: 24, Out: 5, Write: 23, By: provider, Status: "ok"}},
	{"messages, nulls", Messages, `{"usage":{"input_tokens":1,"cache_creation":null,"cache_read_input_tokens":null,"cache_creation_input_tokens":null,"output_tokens":5,"server_tool_use":null}}`,
		endOfBody, told{In: 1, Out: 5, By: provider, Status: "ok"}},
	{"messages stream", Messages, sseBody(claudeStart, "event: ping\ndata: {\"type\": \"ping\"}", claudeBlock, claudeText, claudeDelta, claudeStop), endOfBody,
		told{In: 3210, Out: 77, Read: 3000, Write: 200, Model: "claude-x", ID: "msg_1", By: provider, Status: "ok", Text: 8}},
	{"messages stream, the delta overwrites all it has, but not with nothing", Messages, sseBody(claudeStart,
		`data: {"type":"message_delta","delta":{"stop_reason":"end_turn"},"usage":{"input_tokens":40,"cache_creation_input_tokens":0,"cache_read_input_tokens":5,"output_tokens":9}}`, claudeStop), endOfBody,
		told{In: 245, Out: 9, Read: 5, Write: 200, Model: "claude-x", ID: "msg_1", By: provider, Status: "ok"}},
	{"messages stream, cancelled", Messages, sseBody(claudeStart, claudeText, claudeText), cutShort,
		told{In: 3210, Out: 2, Read: 3000, Write: 200, Model: "claude-x", ID: "msg_1", By: partial, Status: "partial", Text: 16}},
	{"messages stream, cut inside an event", Messages, sseBody(claudeStart) + claudeText[:len(claudeText)-6], endOfBody,
		told{In: 3210, Out: 2, Read: 3000, Write: 200, Model: "claude-x", ID: "msg_1", By: partial, Status: "partial", Text: 5}},
	{"messages stream, an error after text", Messages, sseBody(claudeStart, claudeText, claudeError), endOfBody,
		told{In: 3210, Out: 2, Read: 3000, Write: 200, Model: "claude-x", ID: "msg_1", By: partial, Status: "error", Text: 8}},

	{"gemini", GenerateContent, `{"candidates":[{"content":{"parts":[{"text":"1234","thoughtSignature":"zzz"},{"functionCall":{"name":"f","args":{"q":"5678"}}}],"role":"model"},"finishReason":"STOP"}],"usageMetadata":{"promptTokenCount":30,"cachedContentTokenCount":20,"toolUsePromptTokenCount":7,"candidatesTokenCount":5,"thoughtsTokenCount":11,"totalTokenCount":53,"promptTokensDetails":[{"modality":"TEXT","tokenCount":30}]},"modelVersion":"gemini-x","responseId":"r1"}`,
		endOfBody, told{In: 37, Out: 16, Read: 20, Reason: 11, Model: "gemini-x", ID: "r1", By: provider, Status: "ok", Text: 8}},
	{"gemini, blocked prompt", GenerateContent, `{"promptFeedback":{"blockReason":"SAFETY"},"usageMetadata":{"promptTokenCount":4,"totalTokenCount":4},"modelVersion":"gemini-x"}`,
		endOfBody, told{In: 4, Model: "gemini-x", By: provider, Status: "ok"}},
	{"gemini stream", GenerateContent, "data: {\"candidates\":[{\"content\":{\"parts\":[{\"text\":\"12\"}]}}],\"usageMetadata\":{\"promptTokenCount\":30,\"totalTokenCount\":41,\"thoughtsTokenCount\":11},\"modelVersion\":\"g\",\"responseId\":\"r1\"}\r\n\r\ndata: {\"candidates\":[{\"content\":{\"parts\":[{\"text\":\"34\"}]}}],\"usageMetadata\":{\"trafficType\":\"ON_DEMAND\"}}\r\n\r\ndata: {\"candidates\":[{\"finishReason\":\"STOP\"}],\"usageMetadata\":{\"promptTokenCount\":30,\"candidatesTokenCount\":8,\"thoughtsTokenCount\":12,\"totalTokenCount\":50}}\r\n\r\n",
		endOfBody, told{In: 30, Out: 20, Reason: 12, Model: "g", ID: "r1", By: provider, Status: "ok", Text: 4}},
	{"gemini stream, an error after text", GenerateContent, sseBody(`data: {"candidates":[{"content":{"parts":[{"text":"12"}]}}],"usageMetadata":{"promptTokenCount":30,"candidatesTokenCount":1},"responseId":"r1"}`, `data: {"error":{"code":503,"status":"UNAVAILABLE"}}`),
		endOfBody, told{In: 30, Out: 1, ID: "r1", By: partial, Status: "error", Text: 2}},
	{"gemini stream as an array", GenerateContent, `[{"candidates":[{"content":{"parts":[{"text":"12"}]}}],"usageMetadata":{"promptTokenCount":30,"candidatesTokenCount":1}}
,
{"candidates":[{"content":{"parts":[{"text":"34"}]},"finishReason":"STOP"}],"usageMetadata":{"promptTokenCount":30,"candidatesTokenCount":8},"modelVersion":"g","responseId":"r1"}
]`, endOfBody, told{In: 30, Out: 8, Model: "g", ID: "r1", By: provider, Status: "ok", Text: 4}},
	{"gemini stream as an array, cancelled", GenerateContent, `[{"candidates":[{"content":{"parts":[{"text":"12"}]}}],"usageMetadata":{"promptTokenCount":30,"candidatesTokenCount":1},"responseId":"r1"}
,{"candidates":[{"content":{"parts":[{"text":"3456`, cutShort, told{In: 30, Out: 1, ID: "r1", By: partial, Status: "partial", Text: 6}},

	{"converse", Converse, `{"output":{"message":{"role":"assistant","content":[{"text":"1234"},{"toolUse":{"toolUseId":"t","name":"f","input":{"q":"56"}}}]}},"stopReason":"end_turn","metrics":{"latencyMs":551},"usage":{"inputTokens":3,"outputTokens":10,"totalTokens":48,"cacheReadInputTokens":30,"cacheWriteInputTokens":5}}`,
		endOfBody, told{In: 38, Out: 10, Read: 30, Write: 5, By: provider, Status: "ok", Text: 6}},
	{"converse, older names of the cache", Converse, `{"usage":{"inputTokens":3,"outputTokens":10,"cacheReadInputTokenCount":30,"cacheWriteInputTokenCount":5}}`,
		endOfBody, told{In: 38, Out: 10, Read: 30, Write: 5, By: provider, Status: "ok"}},
}

// TestReadReplies reads every reply whole and in pieces, plain and compressed:
// where the pieces end must not matter.
func TestReadReplies(t *testing.T) {
	for _, tt := range replies {
		t.Run(tt.name, func(t *testing.T) {
			for _, size := range []int{1, 2, 3, 7, 64, 4096, 1 << 30} {
				if len(tt.body) > 1<<20 && size < 64 {
					continue
				}
				if diff := cmp.Diff(tt.want, toldBy(readIn(tt.api, tt.how, []byte(tt.body), size))); diff != "" {
					t.Fatalf("in pieces of %d: want (-), got (+):\n%s", size, diff)
				}
			}
			if tt.body == "" {
				return
			}
			for _, size := range []int{1, 11, 1 << 30} {
				if diff := cmp.Diff(tt.want, toldBy(readIn(tt.api, tt.how, zipped(tt.body), size))); diff != "" {
					t.Fatalf("compressed, in pieces of %d: want (-), got (+):\n%s", size, diff)
				}
			}
		})
	}
}

func readIn(api API, how ending, body []byte, size int) reading {
	r := newReply(api, nil)
	for len(body) > 0 {
		n := min(size, len(body))
		r.write(body[:n])
		body = body[n:]
	}
	return r.finish(how)
}

func zipped(s string) []byte {
	var b bytes.Buffer
	z := gzip.NewWriter(&b)
	z.Write([]byte(s))
	z.Close()
	return b.Bytes()
}

// awsMessage is one message of an AWS event stream.
func awsMessage(payload string, headers ...string) string {
	var h []byte
	for i := 0; i < len(headers); i += 2 {
		h = append(h, byte(len(headers[i])))
		h = append(h, headers[i]...)
		h = append(h, 7)
		h = binary.BigEndian.AppendUint16(h, uint16(len(headers[i+1])))
		h = append(h, headers[i+1]...)
	}
	b := binary.BigEndian.AppendUint32(nil, uint32(16+len(h)+len(payload)))
	b = binary.BigEndian.AppendUint32(b, uint32(len(h)))
	b = binary.BigEndian.AppendUint32(b, crc32.ChecksumIEEE(b))
	b = append(append(b, h...), payload...)
	return string(binary.BigEndian.AppendUint32(b, crc32.ChecksumIEEE(b)))
}

func converseEvents() []string {
	event := func(kind, payload string) string {
		return awsMessage(payload, ":event-type", kind, ":content-type", "application/json", ":message-type", "event")
	}
	return []string{
		event("messageStart", `{"p":"abcdef","role":"assistant"}`),
		event("contentBlockDelta", `{"contentBlockIndex":0,"delta":{"text":"1234"},"p":"ab"}`),
		event("contentBlockDelta", `{"contentBlockIndex":1,"delta":{"toolUse":{"input":"56"}},"p":"ab"}`),
		event("messageStop", `{"stopReason":"end_turn"}`),
		event("metadata", `{"metrics":{"latencyMs":551},"usage":{"inputTokens":3,"outputTokens":10,"totalTokens":48,"cacheReadInputTokens":30,"cacheWriteInputTokens":5}}`),
	}
}

func TestReadConverseStream(t *testing.T) {
	whole := strings.Join(converseEvents(), "")
	cut := strings.Join(converseEvents()[:2], "")
	exception := cut + awsMessage(`{"message":"Too many requests"}`, ":exception-type", "throttlingException", ":message-type", "exception")
	broken := cut + "\x00\x00\x00\x20 this is no prelude"
	flipped := []byte(converseEvents()[4])
	flipped[8] ^= 1 // in the prelude's CRC: its lengths cannot be trusted
	for _, tt := range []struct {
		name, body string
		want       told
	}{
		{"a prelude with a bit flipped", cut + string(flipped), told{By: partial, Status: "partial", Text: 4}},
		{"whole", whole, told{In: 38, Out: 10, Read: 30, Write: 5, By: provider, Status: "ok", Text: 6}},
		{"cut", cut, told{By: partial, Status: "partial", Text: 4}},
		{"an exception", exception, told{By: partial, Status: "error", Text: 4}},
		{"garbage after two events", broken, told{By: partial, Status: "partial", Text: 4}},
	} {
		for _, size := range []int{1, 5, 1 << 30} {
			r := newReply(Converse, nil)
			for body := []byte(tt.body); len(body) > 0; {
				n := min(size, len(body))
				r.write(body[:n])
				body = body[n:]
			}
			if diff := cmp.Diff(tt.want, toldBy(r.finish(endOfBody))); diff != "" {
				t.Errorf("%s, in pieces of %d: want (-), got (+):\n%s", tt.name, size, diff)
			}
		}
	}
}

// TestNothingSpent: which replies within a 2xx response cost nothing.
func TestNothingSpent(t *testing.T) {
	for _, tt := range []struct {
		name string
		api  API
		body string
		want bool
	}{
		{"a stream that begins with an error", Messages, sseBody(claudeError), true},
		{"a stream with an error after figures", Messages, sseBody(claudeStart, claudeError), false},
		{"a stream with an error after text", ChatCompletions, sseBody(chatText, `data: {"error":{}}`), false},
		{"a failed response", Responses, `{"status":"failed","error":{"code":"server_error"},"output":[],"usage":null}`, true},
		{"a failed response with usage", Responses, `{"status":"failed","error":{"code":"server_error"},"output":[],` + responsesUsage + `}`, false},
		{"an error in JSON, as Azure's filter", ChatCompletions, `{"error":{}}`, false},
		{"a reply", ChatCompletions, `{"usage":null}`, false},
	} {
		if got := readIn(tt.api, endOfBody, []byte(tt.body), 10).free; got != tt.want {
			t.Errorf("%s: nothing spent = %t, want %t", tt.name, got, tt.want)
		}
	}
}

// TestMemoryIsBounded: a reply of any size must not make the reader grow.
func TestMemoryIsBounded(t *testing.T) {
	chunk := []byte(`{"index":0,"embedding":[` + strings.Repeat("0.0123456,", 1000) + `1]},`)
	r := newReply(Embeddings, nil)
	r.write([]byte(`{"object":"list","data":[`))
	got := testing.AllocsPerRun(500, func() { r.write(chunk) })
	r.write([]byte(`1],"model":"e","usage":{"prompt_tokens":8,"total_tokens":8}}`))
	if read := r.finish(endOfBody); read.tokens.input != 8 || got > 0 {
		t.Errorf("5 MB of embeddings: read %+v with %.1f allocations a piece, want input 8 and none", read, got)
	}
}

func TestReadRecordedSaysWhatIsWrong(t *testing.T) {
	for _, tt := range []struct{ line, want string }{
		{`{"name":"x"`, "is not a recorded reply"},
		{`[]`, "is not a recorded reply"},
		{`{"name":"x","api":"messages"}`, `"x" has no response`},
		{`{"name":"x","api":"poems","url":"https://h/v1/poems","response":{}}`, `"x": url "https://h/v1/poems" is of no API`},
		{`{"name":"x","url":"https://h/v1/messages","response":{"body_b64":"?"}}`, `"x": response.body_b64`},
		{`{"name":"x","api":"messages","response":{"headers":{"a":1}}}`, `header a must be a string`},
	} {
		got, err := ReadRecorded([]byte(tt.line))
		if err == nil || !strings.Contains(err.Error(), tt.want) || got.MeasuredBy == nil || *got.MeasuredBy != MeasuredByNone {
			t.Errorf("%s:\n got %+v, %v\nwant measured by none, and %s", tt.line, got, err, tt.want)
		}
	}
}

func TestWriteReport(t *testing.T) {
	in := `{"name":"one","url":"https://api.anthropic.com/v1/messages?beta=true","response":{"status":200,"headers":{"REQUEST-ID":["req_1"]},"body":"{\"id\":\"msg_1\",\"model\":\"m\",\"usage\":{\"input_tokens\":1,\"output_tokens\":2}}"}}

{"name":"two","api":"converse","response":{"status":429,"headers":{"x-amzn-requestid":"r"},"body":"{}"}}
{"name":"three","api":"chat.completions","response":{"body":{"choices":[]}}}
{"name":"four"}
not JSON
{"name":"six","url":"https://proxy.example/ask","response":{"body_b64":"eyJtb2RlbCI6Im0iLCJ1c2FnZSI6eyJwcm9tcHRfdG9rZW5zIjoxLCJjb21wbGV0aW9uX3Rva2VucyI6MiwidG90YWxfdG9rZW5zIjo5fX0="}}
`
	want := `{"name":"one","usage":{"input_tokens":1,"output_tokens":2,"total_tokens":3,"cache_read_input_tokens":0,"cache_write_input_tokens":0,"reasoning_output_tokens":0},"model":"m","response_id":"msg_1","request_id":"req_1","measured_by":"provider"}
{"name":"two","usage":null,"model":null,"response_id":null,"request_id":"r","measured_by":null}
{"name":"three","usage":null,"model":null,"response_id":null,"request_id":null,"measured_by":"estimate"}
{"name":"four","usage":null,"model":null,"response_id":null,"request_id":null,"measured_by":"none","error":"line 5: \"four\" has no response {status, headers, body}"}
{"name":"","usage":null,"model":null,"response_id":null,"request_id":null,"measured_by":"none","error":"line 6: is not a recorded reply: jsontext: invalid character 'o' in literal null (expecting 'u') after offset 1"}
{"name":"six","usage":{"input_tokens":1,"output_tokens":8,"total_tokens":9,"cache_read_input_tokens":0,"cache_write_input_tokens":0,"reasoning_output_tokens":6},"model":"m","response_id":null,"request_id":null,"measured_by":"provider","inferred":true}
`
	var got strings.Builder
	report, err := WriteReport(&got, strings.NewReader(in))
	if diff := cmp.Diff(want, got.String()); diff != "" {
		t.Errorf("want (-), got (+):\n%s", diff)
	}
	if want := (Report{Provider: 2, Estimate: 1, Failed: 1, None: 2}); err != nil || report != want {
		t.Errorf("report %+v, %v, want %+v and no error", report, err, want)
	}
}

func ExampleWriteReport() {
	recorded := `{"name":"hello","api":"chat.completions","response":{"status":200,"headers":{"x-request-id":"req_7"},
 "body":"{\"id\":\"chatcmpl-7\",\"model\":\"gpt-5\",\"usage\":{\"prompt_tokens\":9,\"completion_tokens\":3}}"}}`
	var out strings.Builder
	report, err := WriteReport(&out, strings.NewReader(strings.ReplaceAll(recorded, "\n", "")))
	fmt.Print(out.String(), report, "\n", err)
	// Output:
	// {"name":"hello","usage":{"input_tokens":9,"output_tokens":3,"total_tokens":12,"cache_read_input_tokens":0,"cache_write_input_tokens":0,"reasoning_output_tokens":0},"model":"gpt-5","response_id":"chatcmpl-7","request_id":"req_7","measured_by":"provider"}
	// 1 replies: 1 measured by the provider, 0 partial, 0 estimated, 0 failed, 0 not read
	// <nil>
}
