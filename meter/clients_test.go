package meter_test

import (
	"context"
	"net/http"
	"net/http/httptest"
	"strings"

	"github.com/anthropics/anthropic-sdk-go"
	anthropicoption "github.com/anthropics/anthropic-sdk-go/option"
	"github.com/openai/openai-go/v3"
	"github.com/openai/openai-go/v3/option"
	"github.com/openai/openai-go/v3/responses"
	"google.golang.org/genai"

	"github.com/tidegate/tidegate/events"
)

// sdk is one official client, as a service would use it. client gets the
// Transport; stream calls each for every event, until that returns false.
type sdk struct {
	name    string
	reply   string
	events  []string
	want    events.Usage // but for port, user, feature, measure and status
	wantCut events.Usage // of the first event of the stream alone
	call    func(ctx context.Context, client *http.Client, url string) (text string, err error)
	stream  func(ctx context.Context, client *http.Client, url string, each func() bool) error
}

const question = "What is a marina?"

var sdks = []sdk{
	{
		name:  "openai chat",
		reply: `{"id":"chatcmpl-1","object":"chat.completion","created":1,"model":"gpt-5-2025","choices":[{"index":0,"message":{"role":"assistant","content":"A harbour."},"finish_reason":"stop"}],"usage":{"prompt_tokens":100,"completion_tokens":40,"total_tokens":140,"prompt_tokens_details":{"cached_tokens":64},"completion_tokens_details":{"reasoning_tokens":32}}}`,
		events: []string{
			`data: {"id":"chatcmpl-1","object":"chat.completion.chunk","created":1,"model":"gpt-5-2025","choices":[{"index":0,"delta":{"role":"assistant","content":"A harbour."},"finish_reason":null}],"usage":null}`,
			`data: {"id":"chatcmpl-1","object":"chat.completion.chunk","created":1,"model":"gpt-5-2025","choices":[{"index":0,"delta":{},"finish_reason":"stop"}],"usage":null}`,
			`data: {"id":"chatcmpl-1","object":"chat.completion.chunk","created":1,"model":"gpt-5-2025","choices":[],"usage":{"prompt_tokens":100,"completion_tokens":40,"total_tokens":140,"prompt_tokens_details":{"cached_tokens":64},"completion_tokens_details":{"reasoning_tokens":32}}}`,
			`data: [DONE]`,
		},
		want: events.Usage{Provider: "openai", Model: "gpt-5-2025", RequestID: "req_1", ResponseID: "chatcmpl-1", InputTokens: 100, OutputTokens: 40,
			Details: events.Details{CacheReadInputTokens: 64, ReasoningOutputTokens: 32}},
		wantCut: events.Usage{Provider: "openai", Model: "gpt-5-2025", RequestID: "req_1", ResponseID: "chatcmpl-1", InputTokens: 33, OutputTokens: 3},
		call: func(ctx context.Context, client *http.Client, url string) (string, error) {
			c, err := openAI(client, url).Chat.Completions.New(ctx, chatParams())
			if err != nil {
				return "", err
			}
			return c.Choices[0].Message.Content, nil
		},
		stream: func(ctx context.Context, client *http.Client, url string, each func() bool) error {
			params := chatParams()
			params.StreamOptions = openai.ChatCompletionStreamOptionsParam{IncludeUsage: openai.Bool(true)}
			s := openAI(client, url).Chat.Completions.NewStreaming(ctx, params)
			defer s.Close()
			for s.Next() && each() {
			}
			return s.Err()
		},
	},
	{
		name:  "openai responses",
		reply: `{"id":"resp_1","object":"response","created_at":1,"status":"completed","error":null,"model":"gpt-5-2025","output":[{"id":"msg_1","type":"message","role":"assistant","status":"completed","content":[{"type":"output_text","text":"A harbour.","annotations":[]}]}],"usage":{"input_tokens":9,"input_tokens_details":{"cached_tokens":4,"cache_write_tokens":3},"output_tokens":7,"output_tokens_details":{"reasoning_tokens":5},"total_tokens":16}}`,
		events: []string{
			"event: response.created\ndata: {\"type\":\"response.created\",\"response\":{\"id\":\"resp_1\",\"status\":\"in_progress\",\"model\":\"gpt-5-2025\",\"output\":[],\"usage\":null}}",
			"event: response.output_text.delta\ndata: {\"type\":\"response.output_text.delta\",\"item_id\":\"msg_1\",\"delta\":\"A harbour.\"}",
			"event: response.completed\ndata: {\"type\":\"response.completed\",\"response\":{\"id\":\"resp_1\",\"status\":\"completed\",\"model\":\"gpt-5-2025\",\"output\":[],\"usage\":{\"input_tokens\":9,\"input_tokens_details\":{\"cached_tokens\":4,\"cache_write_tokens\":3},\"output_tokens\":7,\"output_tokens_details\":{\"reasoning_tokens\":5},\"total_tokens\":16}}}",
		},
		want: events.Usage{Provider: "openai", Model: "gpt-5-2025", RequestID: "req_1", ResponseID: "resp_1", InputTokens: 9, OutputTokens: 7,
			Details: events.Details{CacheReadInputTokens: 4, CacheWriteInputTokens: 3, ReasoningOutputTokens: 5}},
		wantCut: events.Usage{Provider: "openai", Model: "gpt-5-2025", RequestID: "req_1", ResponseID: "resp_1", InputTokens: 15},
		call: func(ctx context.Context, client *http.Client, url string) (string, error) {
			r, err := openAI(client, url).Responses.New(ctx, responsesParams())
			if err != nil {
				return "", err
			}
			return r.OutputText(), nil
		},
		stream: func(ctx context.Context, client *http.Client, url string, each func() bool) error {
			s := openAI(client, url).Responses.NewStreaming(ctx, responsesParams())
			defer s.Close()
			for s.Next() && each() {
			}
			return s.Err()
		},
	},
	{
		name:  "anthropic",
		reply: `{"id":"msg_1","type":"message","role":"assistant","model":"claude-x","content":[{"type":"text","text":"A harbour."}],"stop_reason":"end_turn","stop_sequence":null,"usage":{"input_tokens":10,"cache_creation_input_tokens":200,"cache_read_input_tokens":3000,"output_tokens":50,"output_tokens_details":{"thinking_tokens":20}}}`,
		events: []string{
			"event: message_start\ndata: {\"type\":\"message_start\",\"message\":{\"id\":\"msg_1\",\"type\":\"message\",\"role\":\"assistant\",\"model\":\"claude-x\",\"content\":[],\"stop_reason\":null,\"usage\":{\"input_tokens\":10,\"cache_creation_input_tokens\":200,\"cache_read_input_tokens\":3000,\"output_tokens\":2}}}",
			"event: content_block_start\ndata: {\"type\":\"content_block_start\",\"index\":0,\"content_block\":{\"type\":\"text\",\"text\":\"\"}}",
			"event: content_block_delta\ndata: {\"type\":\"content_block_delta\",\"index\":0,\"delta\":{\"type\":\"text_delta\",\"text\":\"A harbour.\"}}",
			"event: content_block_stop\ndata: {\"type\":\"content_block_stop\",\"index\":0}",
			"event: message_delta\ndata: {\"type\":\"message_delta\",\"delta\":{\"stop_reason\":\"end_turn\",\"stop_sequence\":null},\"usage\":{\"output_tokens\":50,\"output_tokens_details\":{\"thinking_tokens\":20}}}",
			"event: message_stop\ndata: {\"type\":\"message_stop\"}",
		},
		want: events.Usage{Provider: "anthropic", Model: "claude-x", RequestID: "req_1", ResponseID: "msg_1", InputTokens: 3210, OutputTokens: 50,
			Details: events.Details{CacheReadInputTokens: 3000, CacheWriteInputTokens: 200, ReasoningOutputTokens: 20}},
		wantCut: events.Usage{Provider: "anthropic", Model: "claude-x", RequestID: "req_1", ResponseID: "msg_1", InputTokens: 3210, OutputTokens: 2,
			Details: events.Details{CacheReadInputTokens: 3000, CacheWriteInputTokens: 200}},
		call: func(ctx context.Context, client *http.Client, url string) (string, error) {
			c := anthropic.NewClient(anthropicoption.WithAPIKey("k"), anthropicoption.WithBaseURL(url), anthropicoption.WithHTTPClient(client))
			m, err := c.Messages.New(ctx, messageParams())
			if err != nil {
				return "", err
			}
			return m.Content[0].Text, nil
		},
		stream: func(ctx context.Context, client *http.Client, url string, each func() bool) error {
			c := anthropic.NewClient(anthropicoption.WithAPIKey("k"), anthropicoption.WithBaseURL(url), anthropicoption.WithHTTPClient(client))
			s := c.Messages.NewStreaming(ctx, messageParams())
			defer s.Close()
			for s.Next() && each() {
			}
			return s.Err()
		},
	},
	{
		name:  "genai",
		reply: `{"candidates":[{"content":{"parts":[{"text":"A harbour."}],"role":"model"},"finishReason":"STOP"}],"usageMetadata":{"promptTokenCount":30,"cachedContentTokenCount":20,"toolUsePromptTokenCount":7,"candidatesTokenCount":5,"thoughtsTokenCount":11,"totalTokenCount":53},"modelVersion":"gemini-2.5-flash-001","responseId":"r1"}`,
		events: []string{
			`data: {"candidates":[{"content":{"parts":[{"text":"A"}],"role":"model"}}],"usageMetadata":{"promptTokenCount":30,"cachedContentTokenCount":20,"thoughtsTokenCount":11,"totalTokenCount":41},"modelVersion":"gemini-2.5-flash-001","responseId":"r1"}`,
			`data: {"candidates":[{"content":{"parts":[{"text":" harbour."}],"role":"model"},"finishReason":"STOP"}],"usageMetadata":{"promptTokenCount":30,"cachedContentTokenCount":20,"toolUsePromptTokenCount":7,"candidatesTokenCount":5,"thoughtsTokenCount":11,"totalTokenCount":53},"modelVersion":"gemini-2.5-flash-001","responseId":"r1"}`,
		},
		want: events.Usage{Provider: "google", Model: "gemini-2.5-flash-001", ResponseID: "r1", InputTokens: 37, OutputTokens: 16,
			Details: events.Details{CacheReadInputTokens: 20, ReasoningOutputTokens: 11}},
		wantCut: events.Usage{Provider: "google", Model: "gemini-2.5-flash-001", ResponseID: "r1", InputTokens: 30, OutputTokens: 11,
			Details: events.Details{CacheReadInputTokens: 20, ReasoningOutputTokens: 11}},
		call: func(ctx context.Context, client *http.Client, url string) (string, error) {
			c, err := gemini(ctx, client, url)
			if err != nil {
				return "", err
			}
			r, err := c.Models.GenerateContent(ctx, "gemini-2.5-flash", genai.Text(question), nil)
			if err != nil {
				return "", err
			}
			return r.Text(), nil
		},
		stream: func(ctx context.Context, client *http.Client, url string, each func() bool) error {
			c, err := gemini(ctx, client, url)
			if err != nil {
				return err
			}
			for _, err := range c.Models.GenerateContentStream(ctx, "gemini-2.5-flash", genai.Text(question), nil) {
				if err != nil {
					return err
				}
				if !each() {
					break
				}
			}
			return nil
		},
	},
}

func openAI(client *http.Client, url string) *openai.Client {
	c := openai.NewClient(option.WithAPIKey("k"), option.WithBaseURL(url+"/v1"), option.WithHTTPClient(client))
	return &c
}

func chatParams() openai.ChatCompletionNewParams {
	return openai.ChatCompletionNewParams{Model: "gpt-5", Messages: []openai.ChatCompletionMessageParamUnion{openai.UserMessage(question)}}
}

func responsesParams() responses.ResponseNewParams {
	return responses.ResponseNewParams{Model: "gpt-5", Input: responses.ResponseNewParamsInputUnion{OfString: openai.String(question)}}
}

func messageParams() anthropic.MessageNewParams {
	return anthropic.MessageNewParams{Model: "claude-x", MaxTokens: 1024, Messages: []anthropic.MessageParam{anthropic.NewUserMessage(anthropic.NewTextBlock(question))}}
}

func gemini(ctx context.Context, client *http.Client, url string) (*genai.Client, error) {
	return genai.NewClient(ctx, &genai.ClientConfig{
		APIKey: "k", Backend: genai.BackendGeminiAPI, HTTPClient: client,
		HTTPOptions: genai.HTTPOptions{BaseURL: url, RetryOptions: &genai.HTTPRetryOptions{InitialDelay: new(0.001), MaxDelay: new(0.002)}},
	})
}

func (s sdk) streamBody(n int) string { return strings.Join(s.events[:n], "\n\n") + "\n\n" }

// exampleProvider plays Anthropic for the examples.
func exampleProvider() *httptest.Server {
	return httptest.NewServer(says("application/json", sdks[2].reply))
}

func anthropicSays(ctx context.Context, client *http.Client, url string) {
	sdks[2].call(ctx, client, url)
}
