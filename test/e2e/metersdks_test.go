package e2e

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/aws/protocol/eventstream"
	"github.com/aws/aws-sdk-go-v2/aws/retry"
	"github.com/aws/aws-sdk-go-v2/service/bedrockruntime"
	"github.com/aws/aws-sdk-go-v2/service/bedrockruntime/types"
	ollama "github.com/ollama/ollama/api"

	"github.com/tidegate/tidegate/internal/testenv"
)

const claudeOnBedrock = "eu.anthropic.claude-x-v1:0"

// moreSDKs speak no server-sent events.
var moreSDKs = []sdk{{
	name: "invoke", who: "aws.bedrock claude-x msg_1", whole: "3210 50 3000 200 20", cutStream: "3210 3 3000 200 0",
	json: `{"id":"msg_1","type":"message","role":"assistant","model":"claude-x","content":[{"type":"text","text":"A harbour."}],✂"stop_reason":"end_turn","usage":{"input_tokens":10,"cache_creation_input_tokens":200,"cache_read_input_tokens":3000,"output_tokens":50,"output_tokens_details":{"thinking_tokens":20}}}`,
	stream: frame("chunk", inBytes(`{"type":"message_start","message":{"id":"msg_1","type":"message","role":"assistant","model":"claude-x","content":[],"usage":{"input_tokens":10,"cache_creation_input_tokens":200,"cache_read_input_tokens":3000,"output_tokens":2}}}`)) +
		frame("chunk", inBytes(`{"type":"content_block_delta","index":0,"delta":{"type":"text_delta","text":"A harbour."}}`)) + "✂" +
		frame("chunk", inBytes(`{"type":"message_delta","delta":{"stop_reason":"end_turn"},"usage":{"output_tokens":50,"output_tokens_details":{"thinking_tokens":20}}}`)) +
		frame("chunk", inBytes(`{"type":"message_stop","amazon-bedrock-invocationMetrics":{"inputTokenCount":10,"outputTokenCount":50,"cacheReadInputTokenCount":3000,"cacheWriteInputTokenCount":200}}`)),
	call: func(ctx context.Context, client *http.Client, url string, streaming bool) (string, error) {
		body := []byte(`{"anthropic_version":"bedrock-2023-05-31","max_tokens":512,"messages":[{"role":"user","content":"` + question + `"}]}`)
		if !streaming {
			out, err := bedrock(client, url).InvokeModel(ctx, &bedrockruntime.InvokeModelInput{ModelId: aws.String(claudeOnBedrock), ContentType: aws.String("application/json"), Body: body})
			if err != nil {
				return "", err
			}
			var reply struct{ Content []struct{ Text string } }
			err = json.Unmarshal(out.Body, &reply)
			return reply.Content[0].Text, err
		}
		out, err := bedrock(client, url).InvokeModelWithResponseStream(ctx, &bedrockruntime.InvokeModelWithResponseStreamInput{ModelId: aws.String(claudeOnBedrock), ContentType: aws.String("application/json"), Body: body})
		if err != nil {
			return "", err
		}
		stream := out.GetStream()
		defer stream.Close()
		var text string
		for event := range stream.Events() {
			var e struct{ Delta struct{ Text string } }
			if chunk, ok := event.(*types.ResponseStreamMemberChunk); ok && json.Unmarshal(chunk.Value.Bytes, &e) == nil {
				text += e.Delta.Text
			}
		}
		return text, errors.Join(stream.Err(), ctx.Err())
	},
}, {
	name: "converse", who: "aws.bedrock " + claudeOnBedrock, whole: "38 10 30 5 0", cutStream: "~ 3 0 0 0",
	json: `{"output":{"message":{"role":"assistant","content":[{"text":"A harbour."}]}},✂"stopReason":"end_turn","metrics":{"latencyMs":551},"usage":{"inputTokens":3,"outputTokens":10,"totalTokens":48,"cacheReadInputTokens":30,"cacheWriteInputTokens":5}}`,
	stream: frame("messageStart", `{"role":"assistant"}`) + frame("contentBlockDelta", `{"contentBlockIndex":0,"delta":{"text":"A harbour."}}`) + "✂" +
		frame("messageStop", `{"stopReason":"end_turn"}`) + frame("metadata", `{"metrics":{"latencyMs":551},"usage":{"inputTokens":3,"outputTokens":10,"totalTokens":48,"cacheReadInputTokens":30,"cacheWriteInputTokens":5}}`),
	call: func(ctx context.Context, client *http.Client, url string, streaming bool) (string, error) {
		messages := []types.Message{{Role: types.ConversationRoleUser, Content: []types.ContentBlock{&types.ContentBlockMemberText{Value: question}}}}
		limit := &types.InferenceConfiguration{MaxTokens: aws.Int32(maxTokens)}
		if !streaming {
			out, err := bedrock(client, url).Converse(ctx, &bedrockruntime.ConverseInput{ModelId: aws.String(claudeOnBedrock), Messages: messages, InferenceConfig: limit})
			if err != nil {
				return "", err
			}
			return out.Output.(*types.ConverseOutputMemberMessage).Value.Content[0].(*types.ContentBlockMemberText).Value, nil
		}
		out, err := bedrock(client, url).ConverseStream(ctx, &bedrockruntime.ConverseStreamInput{ModelId: aws.String(claudeOnBedrock), Messages: messages, InferenceConfig: limit})
		if err != nil {
			return "", err
		}
		stream := out.GetStream()
		defer stream.Close()
		var text string
		for event := range stream.Events() {
			if delta, ok := event.(*types.ConverseStreamOutputMemberContentBlockDelta); ok {
				text += delta.Value.Delta.(*types.ContentBlockDeltaMemberText).Value
			}
		}
		return text, errors.Join(stream.Err(), ctx.Err())
	},
}, {
	name: "ollama", who: "ollama llama3.2", whole: "26 4 0 0 0", cutStream: "~ 3 0 0 0",
	json:   `{"model":"llama3.2","message":{"role":"assistant","content":"A harbour."},✂"done":true,"done_reason":"stop","prompt_eval_count":26,"eval_count":4}` + "\n",
	stream: `{"model":"llama3.2","message":{"role":"assistant","content":"A harbour."},"done":false}` + "\n✂" + `{"model":"llama3.2","message":{"role":"assistant","content":""},"done":true,"done_reason":"stop","prompt_eval_count":26,"eval_count":4}` + "\n",
	call: func(ctx context.Context, client *http.Client, at string, streaming bool) (text string, err error) {
		ai := ollama.NewClient(testenv.Must(url.Parse(at)), client)
		for range 2 { // it does not try again by itself
			err = ai.Chat(ctx, &ollama.ChatRequest{Model: "llama3.2", Messages: []ollama.Message{{Role: "user", Content: question}}, Stream: &streaming, Options: map[string]any{"num_predict": maxTokens}},
				func(r ollama.ChatResponse) error { text += r.Message.Content; return nil })
			var status ollama.StatusError
			if !errors.As(err, &status) || status.StatusCode != http.StatusInternalServerError {
				break
			}
		}
		return text, errors.Join(err, ctx.Err()) // nor does it tell that a reply was cut short
	},
}}

func bedrock(client *http.Client, url string) *bedrockruntime.Client {
	return bedrockruntime.New(bedrockruntime.Options{
		Region: "eu-north-1", BaseEndpoint: aws.String(url), HTTPClient: client,
		Credentials: aws.CredentialsProviderFunc(func(context.Context) (aws.Credentials, error) {
			return aws.Credentials{AccessKeyID: "k", SecretAccessKey: "s"}, nil
		}),
		Retryer: retry.NewStandard(func(o *retry.StandardOptions) { o.MaxBackoff = time.Millisecond }),
	})
}

// inBytes is how InvokeModel packs an event of the model's.
func inBytes(event string) string {
	return `{"bytes":"` + base64.StdEncoding.EncodeToString([]byte(event)) + `"}`
}

// frame is a message of AWS's event stream.
func frame(kind, payload string) string {
	var message bytes.Buffer
	header := func(name, value string) eventstream.Header {
		return eventstream.Header{Name: name, Value: eventstream.StringValue(value)}
	}
	if err := eventstream.NewEncoder().Encode(&message, eventstream.Message{
		Headers: eventstream.Headers{header(":event-type", kind), header(":content-type", "application/json"), header(":message-type", "event")},
		Payload: []byte(strings.TrimSpace(payload)),
	}); err != nil {
		panic(err)
	}
	return message.String()
}
