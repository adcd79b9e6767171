package meter

import (
	"bytes"
	"encoding/base64"
	stdimage "image"
	"image/color"
	"image/jpeg"
	"image/png"
	"strconv"
	"strings"
	"testing"
)

func picture(t testing.TB, width, height int, format string) []byte {
	t.Helper()
	var b bytes.Buffer
	img := stdimage.NewPaletted(stdimage.Rect(0, 0, width, height), color.Palette{color.White})
	var err error
	if format == "png" {
		err = (&png.Encoder{CompressionLevel: png.BestSpeed}).Encode(&b, img)
	} else {
		err = jpeg.Encode(&b, img, nil)
	}
	if err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func TestEstimateOfText(t *testing.T) {
	filler := strings.Repeat("a", 400)
	for _, tt := range []struct {
		name, body string
		api        API
		input      int64 // 0: a quarter of the body
		output     int64
		model      string
	}{
		{name: "max_tokens", api: ChatCompletions, body: `{"model":"gpt-5","max_tokens":7,"messages":[{"content":"` + filler + `"}]}`, output: 7, model: "gpt-5"},
		{name: "max_completion_tokens times n", api: ChatCompletions, body: `{"n":3,"max_completion_tokens":7}`, output: 21},
		{name: "no limit", api: ChatCompletions, body: `{"messages":[]}`, output: 1024},
		{name: "a limit that is none", api: ChatCompletions, body: `{"max_tokens":null,"n":"x"}`, output: 1024},
		{name: "a limit inside something else", api: ChatCompletions, body: `{"metadata":{"max_tokens":5},"tools":[{"max_tokens":6}]}`, output: 1024},
		{name: "an absurd limit", api: ChatCompletions, body: `{"max_tokens":9000000000000000000,"n":1000000}`, output: 1 << 40},
		{name: "responses", api: Responses, body: `{"model":"o3","max_output_tokens":9,"input":"` + filler + `"}`, output: 9, model: "o3"},
		{name: "completions have a default", api: Completions, body: `{"prompt":"x","best_of":2}`, output: 32},
		{name: "embeddings have no output", api: Embeddings, body: `{"model":"e","input":["` + filler + `","` + filler + `"]}`, model: "e"},
		{name: "messages", api: Messages, body: `{"max_tokens":11,"thinking":{"budget_tokens":1000},"system":"` + filler + `"}`, output: 11},
		{name: "gemini", api: GenerateContent, body: `{"generationConfig":{"maxOutputTokens":5,"candidateCount":2},"contents":[]}`, output: 10, model: "from-url"},
		{name: "gemini, proto names", api: GenerateContent, body: `{"generation_config":{"max_output_tokens":5}}`, output: 5, model: "from-url"},
		{name: "converse", api: Converse, body: `{"inferenceConfig":{"maxTokens":13},"messages":[{"content":[{"text":"` + filler + `"}]}]}`, output: 13, model: "from-url"},
		{name: "not JSON", api: ChatCompletions, body: strings.Repeat("x", 40), input: 10, output: 1024},
		{name: "binary media that is no picture", api: GenerateContent, body: `{"inlineData":{"mimeType":"audio/wav","data":"` + strings.Repeat("QUJD", 1600) + `"}}`, input: 13 + 100, output: 1024, model: "from-url"},
		{name: "a tool's url is text", api: ChatCompletions, body: `{"url":"https://example.com/` + filler + `"}`, output: 1024},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r := newRequest(tt.api)
			for i := range len(tt.body) { // byte by byte
				r.Write([]byte{tt.body[i]})
			}
			if tt.input == 0 {
				tt.input = int64(len(tt.body)+3) / 4
			}
			url := ""
			if tt.model == "from-url" {
				url = tt.model
			}
			if got, want := r.estimate(url, 1024, 0), (estimate{tt.input, tt.output, tt.model}); got != want {
				t.Errorf("estimate = %+v, want %+v", got, want)
			}
		})
	}
}

func TestEstimateOfPictures(t *testing.T) {
	b64 := base64.StdEncoding.EncodeToString
	big := b64(picture(t, 1024, 1024, "png"))
	tall := b64(picture(t, 2048, 4096, "png"))
	small := b64(picture(t, 300, 200, "jpeg"))
	escaped := strings.ReplaceAll(big, "/", `\/`)
	chat := func(model, url, detail string) string {
		return `{"model":"` + model + `","messages":[{"content":[{"type":"image_url","image_url":{"url":"` + url + `"` + detail + `}}]}]}`
	}
	claude := func(model, source string) string {
		return `{"model":"` + model + `","messages":[{"content":[{"type":"image","source":{` + source + `}}]}]}`
	}
	data := "data:image/png;base64,"
	for _, tt := range []struct {
		name string
		api  API
		body string
		want int64 // of the pictures
	}{
		// The worked examples of OpenAI's guide.
		{"openai, 1024 x 1024", ChatCompletions, chat("gpt-4o", data+big, ""), 765},
		{"openai, 2048 x 4096", ChatCompletions, chat("gpt-4o", "data:image/png;base64,"+tall, `,"detail":"high"`), 1105},
		{"openai, low detail", ChatCompletions, chat("gpt-4o", data+big, `,"detail":"low"`), 85},
		{"openai, low detail first", Responses, `{"model":"gpt-4o","input":[{"detail":"low","type":"input_image","image_url":"` + data + big + `"},{"image_url":"` + data + big + `"}]}`, 85 + 765},
		{"openai, slashes escaped", ChatCompletions, chat("gpt-4o", data+escaped, ""), 765},
		{"openai, a small model", ChatCompletions, chat("gpt-4o-mini", data+big, ""), 2833 + 4*5667},
		{"openai, gpt-5", ChatCompletions, chat("gpt-5-2025-08-07", data+big, ""), 70 + 4*140},
		{"openai, patches", ChatCompletions, chat("gpt-4.1-mini", data+big, ""), 1659}, // 1,024 patches x 1.62
		{"openai, patches over the budget", ChatCompletions, chat("o4-mini", "data:image/png;base64,"+tall, ""), 2642},
		{"openai, a model of tomorrow", ChatCompletions, chat("gpt-9", data+big, ""), 1229}, // 1,024 x 1.2
		{"openai, by link", ChatCompletions, chat("gpt-4o", "https://example.com/a.png", ""), 765},
		{"openai, by file", Responses, `{"model":"gpt-4o","input":[{"type":"input_image","file_id":"file-1"}]}`, 765},
		{"anthropic", Messages, claude("claude-opus-4-7", `"type":"base64","media_type":"image/png","data":"`+big+`"`), 37 * 37},
		{"anthropic, an older model's limit", Messages, claude("claude-sonnet-4-5", `"type":"base64","media_type":"image/png","data":"`+tall+`"`), 28 * 56},
		{"anthropic, by link", Messages, claude("claude-sonnet-4-5", `"type":"url","url":"https://example.com/a.png"`), 1568},
		{"gemini 2, small", GenerateContent, `{"model":"gemini-2.5-pro","contents":[{"parts":[{"inlineData":{"mimeType":"image/jpeg","data":"` + small + `"}}]}]}`, 258},
		{"gemini 2, tiles", GenerateContent, `{"model":"gemini-2.5-pro","contents":[{"parts":[{"inlineData":{"mimeType":"image/png","data":"` + big + `"}}]}]}`, 4 * 258},
		{"gemini 3", GenerateContent, `{"model":"gemini-3-pro","contents":[{"parts":[{"inlineData":{"mimeType":"image/png","data":"` + big + `"}}]}]}`, 1120},
		{"gemini, by link", GenerateContent, `{"model":"gemini-3-pro","contents":[{"parts":[{"fileData":{"fileUri":"gs://b/a.png"}}]}]}`, 1120},
		{"bedrock, claude", Converse, `{"model":"us.anthropic.claude-opus-4-7","messages":[{"content":[{"image":{"format":"png","source":{"bytes":"` + big + `"}}}]}]}`, 37 * 37},
		{"bedrock, nova", Converse, `{"model":"us.amazon.nova-lite","messages":[{"content":[{"image":{"format":"png","source":{"bytes":"` + small + `"}}}]}]}`, 120},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r := newRequest(tt.api)
			r.Write([]byte(tt.body))
			text := tt.body
			for _, media := range []string{data + escaped, "data:image/png;base64," + tall, data + big, escaped, big, tall, small} {
				text = strings.ReplaceAll(text, media, "")
			}
			if got := r.estimate("", 0, 0).input - textTokens(int64(len(text))); got != tt.want {
				t.Errorf("the picture costs %d tokens, want %d", got, tt.want)
			}
		})
	}
}

func TestAddressesBeginAnew(t *testing.T) {
	var a addresses
	for i := range maxAddresses + 1 {
		address := strconv.Itoa(i)
		if !a.first(address) || a.first(address) {
			t.Fatalf("address %d is not new once", i)
		}
	}
	if len(a.of) > maxAddresses {
		t.Errorf("%d addresses are remembered", len(a.of))
	}
}
