package receipttest

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
)

// Answer is the receipt that a [Stand] reads on every picture.
const Answer = `{"merchant":"Harbour Supply","date":"2025-03-14","total":103.90,"currency":"MYR","items":[{"description":"Rope","quantity":2,"amount":84}]}`

// Stand plays an AI provider, OpenAI or Anthropic by what it is asked. It is an
// http.Handler, for a test's server.
type Stand struct {
	// Then changes the n-th answer, counted from 1; nil, or false, leaves it as it is.
	Then func(n int, w http.ResponseWriter, r *http.Request) (answered bool)
	// Text is what the model says. Default [Answer].
	Text string
	// Ending is how the reply ends, default as a good one does.
	Ending string

	mu       sync.Mutex
	requests []map[string]any
}

// The usage in every reply, as each provider writes it.
const (
	openAIUsage    = `{"prompt_tokens":1200,"completion_tokens":90,"total_tokens":1290,"prompt_tokens_details":{"cached_tokens":1024},"completion_tokens_details":{"reasoning_tokens":32}}`
	anthropicUsage = `{"input_tokens":300,"cache_creation_input_tokens":0,"cache_read_input_tokens":900,"output_tokens":90}`
)

// TotalTokens is what each reply says it cost, with either provider.
const TotalTokens = 1290

func (s *Stand) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	var request map[string]any
	if err == nil {
		err = json.Unmarshal(body, &request)
	}
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	s.mu.Lock()
	s.requests = append(s.requests, request)
	n := len(s.requests)
	s.mu.Unlock()
	if s.Then != nil && s.Then(n, w, r) {
		return
	}
	text := s.Text
	if text == "" {
		text = Answer
	}
	w.Header().Set("Content-Type", "application/json")
	if strings.HasSuffix(r.URL.Path, "/v1/messages") {
		w.Header().Set("Request-Id", fmt.Sprintf("req_%d", n))
		content := fmt.Sprintf(`{"type":"tool_use","id":"toolu_1","name":"receipt","input":%s}`, text)
		if !json.Valid([]byte(text)) {
			content = fmt.Sprintf(`{"type":"text","text":%q}`, text)
		}
		fmt.Fprintf(w, `{"id":"msg_%d","type":"message","role":"assistant","model":"claude-test","content":[%s],"stop_reason":%q,"stop_sequence":null,"usage":%s}`,
			n, content, or(s.Ending, "tool_use"), anthropicUsage)
		return
	}
	w.Header().Set("X-Request-Id", fmt.Sprintf("req_%d", n))
	fmt.Fprintf(w, `{"id":"chatcmpl-%d","object":"chat.completion","created":1,"model":"gpt-test","choices":[{"index":0,"message":{"role":"assistant","content":%q},"finish_reason":%q}],"usage":%s}`,
		n, text, or(s.Ending, "stop"), openAIUsage)
}

func or(s, otherwise string) string {
	if s == "" {
		return otherwise
	}
	return s
}

// Requests are the bodies of what it was asked so far.
func (s *Stand) Requests() []map[string]any {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]map[string]any(nil), s.requests...)
}
