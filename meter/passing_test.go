package meter_test

import (
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/tidegate/tidegate/events"
	"github.com/tidegate/tidegate/meter"
)

// roundTripper is a base transport that tests look into.
type roundTripper func(*http.Request) (*http.Response, error)

func (f roundTripper) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

func TestOtherRequestsPassUntouched(t *testing.T) {
	var seen *http.Request
	answer := &http.Response{StatusCode: 200, Body: http.NoBody}
	transport := meter.NewTransport(meter.Config{
		Port: "p1", Recorder: new(ledger), Gate: &gate{refuseFrom: 1},
		Base: roundTripper(func(r *http.Request) (*http.Response, error) { seen = r; return answer, nil }),
	})
	for _, target := range []string{"GET /v1/chat/completions", "POST /v1/models", "POST /v1/messages/count_tokens", "POST /v1/messages/batches", "POST /v1/threads/t/messages", "POST /v1beta/models/g:countTokens", "POST /v1/responses/resp_1/cancel", "POST /v1/files", "POST /v1/vector_stores/vs_1/search", "GET /v1/files/file-1"} {
		method, path, _ := strings.Cut(target, " ")
		req := httptest.NewRequest(method, "https://api.openai.com"+path, strings.NewReader("{}"))
		resp, err := transport.RoundTrip(req)
		if seen != req || resp != answer || resp.Body != http.NoBody || err != nil {
			t.Errorf("%s was touched", target)
		}
	}
}

func TestDetect(t *testing.T) {
	for url, want := range map[string]meter.Call{
		"https://api.openai.com/v1/chat/completions":                                                                           {API: meter.ChatCompletions, Provider: "openai"},
		"http://localhost:11434/v1/chat/completions/":                                                                          {API: meter.ChatCompletions, Provider: "openai"},
		"https://api.openai.com/v1/completions":                                                                                {API: meter.Completions, Provider: "openai"},
		"https://api.openai.com/v1/embeddings":                                                                                 {API: meter.Embeddings, Provider: "openai"},
		"https://api.openai.com/v1/responses":                                                                                  {API: meter.Responses, Provider: "openai"},
		"https://api.openai.com/v1/responses/compact":                                                                          {API: meter.Responses, Provider: "openai"},
		"https://x.openai.azure.com/openai/deployments/my%20gpt/chat/completions?api-version=1":                                {API: meter.ChatCompletions, Provider: "azure.openai", Model: "my gpt"},
		"https://X.OpenAI.Azure.com/openai/v1/responses":                                                                       {API: meter.Responses, Provider: "azure.openai"},
		"https://proxy.example/azure/openai/deployments/emb/embeddings":                                                        {API: meter.Embeddings, Provider: "azure.openai", Model: "emb"},
		"https://api.anthropic.com/v1/messages?beta=true":                                                                      {API: meter.Messages, Provider: "anthropic"},
		"https://x.services.ai.azure.com/anthropic/v1/messages":                                                                {API: meter.Messages, Provider: "anthropic"},
		"https://generativelanguage.googleapis.com/v1beta/models/gemini-2.5-pro:generateContent":                               {API: meter.GenerateContent, Provider: "google", Model: "gemini-2.5-pro"},
		"https://eu-aiplatform.googleapis.com/v1/projects/p/publishers/google/models/g:streamGenerateContent?alt=sse":          {API: meter.GenerateContent, Provider: "google", Model: "g"},
		"https://bedrock-runtime.us-east-1.amazonaws.com/model/us.anthropic.claude-v1%3A0/converse":                            {API: meter.Converse, Provider: "aws.bedrock", Model: "us.anthropic.claude-v1:0"},
		"https://bedrock-runtime.us-east-1.amazonaws.com/model/arn%3Aaws%3Abedrock%2Fx/converse-stream":                        {API: meter.Converse, Provider: "aws.bedrock", Model: "arn:aws:bedrock/x"},
		"https://bedrock-runtime.us-east-1.amazonaws.com/model/arn:aws:bedrock:us-east-1:1:inference-profile/us.x/converse":    {API: meter.Converse, Provider: "aws.bedrock", Model: "arn:aws:bedrock:us-east-1:1:inference-profile/us.x"},
		"https://bedrock-runtime.us-east-1.amazonaws.com/model/amazon.nova/invoke":                                             {API: meter.Invoke, Provider: "aws.bedrock", Model: "amazon.nova"},
		"https://bedrock-runtime.us-east-1.amazonaws.com/model/amazon.nova/invoke-with-response-stream":                        {API: meter.Invoke, Provider: "aws.bedrock", Model: "amazon.nova"},
		"https://bedrock-agent-runtime.us-east-1.amazonaws.com/agents/A1/agentAliases/B1/sessions/S1/text":                     {API: meter.Agent, Provider: "aws.bedrock"},
		"https://api.cohere.com/v2/chat":                                                                                       {API: meter.CohereChat, Provider: "cohere"},
		"https://api.cohere.com/v1/generate":                                                                                   {API: meter.CohereChat, Provider: "cohere"},
		"https://api.cohere.com/v2/embed":                                                                                      {API: meter.Embeddings, Provider: "cohere"},
		"http://localhost:11434/api/chat":                                                                                      {API: meter.OllamaChat, Provider: "ollama"},
		"http://localhost:11434/api/generate":                                                                                  {API: meter.OllamaChat, Provider: "ollama"},
		"http://localhost:11434/api/embed":                                                                                     {API: meter.Embeddings, Provider: "ollama"},
		"https://generativelanguage.googleapis.com/v1beta/interactions":                                                        {API: meter.Interactions, Provider: "google"},
		"https://generativelanguage.googleapis.com/v1beta/models/e:embedContent":                                               {API: meter.EmbedContent, Provider: "google", Model: "e"},
		"https://generativelanguage.googleapis.com/v1beta/models/e:batchEmbedContents":                                         {API: meter.EmbedContent, Provider: "google", Model: "e"},
		"https://eu-aiplatform.googleapis.com/v1/projects/p/locations/l/publishers/anthropic/models/claude-x@1:rawPredict":     {API: meter.Messages, Provider: "google", Model: "claude-x@1"},
		"https://eu-aiplatform.googleapis.com/v1/projects/p/locations/l/publishers/anthropic/models/claude-x:streamRawPredict": {API: meter.Messages, Provider: "google", Model: "claude-x"},
		"https://eu-aiplatform.googleapis.com/v1/projects/p/locations/l/publishers/google/models/text-x:predict":               {API: meter.Predict, Provider: "google", Model: "text-x"},
		"https://api.openai.com/v1/images/generations":                                                                         {API: meter.Images, Provider: "openai"},
		"https://api.openai.com/v1/audio/transcriptions":                                                                       {API: meter.Transcriptions, Provider: "openai"},
		"https://api.openai.com/v1/audio/speech":                                                                               {API: meter.Speech, Provider: "openai"},
		"https://api.openai.com/v1/threads/t1/runs":                                                                            {API: meter.Runs, Provider: "openai"},
		"https://api.mistral.ai/v1/audio/transcriptions":                                                                       {API: meter.Transcriptions, Provider: "mistral"},
		"https://api.groq.com/openai/v1/audio/transcriptions":                                                                  {API: meter.Transcriptions, Provider: "groq"},
		"https://eu-de.ml.cloud.ibm.com/ml/v1/text/generation?version=1":                                                       {API: meter.WatsonxText, Provider: "ibm.watsonx"},
		"https://x.cloud.databricks.com/serving-endpoints/m-1/invocations":                                                     {API: meter.ChatCompletions, Provider: "openai", Model: "m-1"},
	} {
		req, err := http.NewRequest(http.MethodPost, url, nil)
		if err != nil {
			t.Fatal(err)
		}
		if got, ok := meter.Detect(req); !ok || got != want {
			t.Errorf("%s: %+v, %t, want %+v", url, got, ok, want)
		}
	}
}

// TestClientSeesWhatTheServerSent: bytes, headers, status and errors alike.
func TestClientSeesWhatTheServerSent(t *testing.T) {
	abort := func(w http.ResponseWriter, r *http.Request) {
		says("text/event-stream", chatChunk("12345678"))(w, r)
		w.(http.Flusher).Flush()
		panic(http.ErrAbortHandler)
	}
	compress := func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Encoding", "gzip")
		z := gzip.NewWriter(w)
		io.WriteString(z, chatReply)
		z.Close()
	}
	for _, tt := range []struct {
		name   string
		answer http.HandlerFunc
		rows   int
	}{
		{"a reply", says("application/json", chatReply), 1},
		{"garbage", says("application/json", "\x00\xff{[\"data:"), 1},
		{"nothing", says("application/json", ""), 1},
		{"an error status", fails, 0},
		{"a connection that breaks", abort, 1},
		{"a compressed reply that the client wants compressed", compress, 1},
	} {
		t.Run(tt.name, func(t *testing.T) {
			server := newStand(t, tt.answer)
			client, l, _ := metered(t, nil)
			fetch := func(client *http.Client) (status int, h http.Header, body string, length int64, err string) {
				req, _ := http.NewRequestWithContext(t.Context(), http.MethodPost, server.URL+"/v1/chat/completions", strings.NewReader(chatRequest))
				req.Header.Set("Accept-Encoding", "gzip")
				resp, e := client.Do(req)
				if e != nil {
					t.Fatal(e)
				}
				defer resp.Body.Close()
				b, e := io.ReadAll(resp.Body)
				if e != nil {
					err = e.Error()
				}
				h = resp.Header.Clone()
				h.Del("Date")
				return resp.StatusCode, h, string(b), resp.ContentLength, err
			}
			s1, h1, b1, l1, e1 := fetch(server.Client())
			s2, h2, b2, l2, e2 := fetch(client)
			if diff := cmp.Diff([]any{s1, h1, b1, l1, e1}, []any{s2, h2, b2, l2, e2}); diff != "" {
				t.Errorf("bare (-) against metered (+):\n%s", diff)
			}
			if rows := l.all(); len(rows) != tt.rows {
				t.Errorf("recorded %+v, want %d rows", rows, tt.rows)
			}
			if tt.name == "a compressed reply that the client wants compressed" && len(l.all()) == 1 && l.all()[0].InputTokens != 10 {
				t.Errorf("recorded %+v, want the provider's figures", l.all()[0])
			}
		})
	}
}

// TestRequestArrivesWhole: whatever the body is made of.
func TestRequestArrivesWhole(t *testing.T) {
	var got string
	base := roundTripper(func(r *http.Request) (*http.Response, error) {
		b, err := io.ReadAll(r.Body)
		got = string(b)
		r.Body.Close()
		return &http.Response{StatusCode: 500, Body: http.NoBody}, err
	})
	transport := meter.NewTransport(meter.Config{Port: "p1", Base: base})
	shared := bytes.NewReader([]byte(chatRequest))
	rewind := func() (io.ReadCloser, error) {
		_, err := shared.Seek(0, io.SeekStart)
		return io.NopCloser(shared), err
	}
	for name, body := range map[string]func(*http.Request){
		"a body that cannot be had twice": func(r *http.Request) { r.Body = io.NopCloser(strings.NewReader(chatRequest)) },
		"one reader that is rewound":      func(r *http.Request) { r.Body, r.GetBody = io.NopCloser(shared), rewind },
	} {
		req := httptest.NewRequest("POST", "https://h/v1/chat/completions", nil)
		body(req)
		before := *req
		if _, err := transport.RoundTrip(req); err != nil || got != chatRequest {
			t.Errorf("%s: the base transport read %q, %v", name, got, err)
		}
		if req.Body != before.Body || req.URL != before.URL {
			t.Errorf("%s: the caller's request was changed", name)
		}
	}

	torn := errors.New("torn")
	closed := false
	req := httptest.NewRequest("POST", "https://h/v1/chat/completions", nil)
	req.Body = closer{io.MultiReader(strings.NewReader("{"), failing{torn}), func() { closed = true }}
	if _, err := transport.RoundTrip(req); !errors.Is(err, torn) || !closed {
		t.Errorf("a body that fails: err = %v, closed = %t", err, closed)
	}
}

type failing struct{ err error }

func (f failing) Read([]byte) (int, error) { return 0, f.err }

type closer struct {
	io.Reader
	close func()
}

func (c closer) Close() error { c.close(); return nil }

type panicking struct{}

func (panicking) Record(events.Usage) { panic("recorder") }
func (panicking) Check(context.Context, events.CheckRequest) (events.Verdict, error) {
	panic("gate")
}

func TestPanicsDoNotEscape(t *testing.T) {
	server := newStand(t, says("application/json", chatReply))
	base := http.DefaultTransport.(*http.Transport).Clone()
	defer base.CloseIdleConnections()
	var logged bytes.Buffer
	transport := meter.NewTransport(meter.Config{Base: base, Port: "p1", Recorder: panicking{}, Gate: panicking{}, Logger: slog.New(slog.NewTextHandler(&logged, nil))})
	resp := post(t, t.Context(), &http.Client{Transport: transport}, server.URL, chatRequest)
	body, err := io.ReadAll(resp.Body)
	resp.Body.Close()
	if string(body) != chatReply || err != nil {
		t.Errorf("the reply is %q, %v", body, err)
	}
	if got := transport.Stats(); got.Failures != 2 || got.Recorded != 0 {
		t.Errorf("stats = %+v, want two failures", got)
	}
	if !strings.Contains(logged.String(), "gate") {
		t.Errorf("logged %q, want the panic", &logged)
	}
}

func TestNobodyToCountFor(t *testing.T) {
	server := newStand(t, says("application/json", chatReply))
	base := http.DefaultTransport.(*http.Transport).Clone()
	defer base.CloseIdleConnections()
	l, g := new(ledger), &gate{refuseFrom: 1}
	transport := meter.NewTransport(meter.Config{Base: base, Recorder: l, Gate: g, Logger: slog.New(slog.DiscardHandler)})
	client := &http.Client{Transport: transport}
	for _, ctx := range []context.Context{t.Context(), meter.WithPort(t.Context(), "not a port")} {
		resp := post(t, ctx, client, server.URL, chatRequest)
		io.Copy(io.Discard, resp.Body)
		resp.Body.Close()
	}
	if got := transport.Stats(); got != (meter.Stats{Unattributed: 2}) || len(l.all())+len(g.asked) != 0 {
		t.Errorf("stats = %+v, %d rows, %d questions; want two unattributed calls and nothing else", got, len(l.all()), len(g.asked))
	}
}

func TestZeroAndNilTransport(t *testing.T) {
	server := newStand(t, says("application/json", chatReply))
	defer http.DefaultTransport.(*http.Transport).CloseIdleConnections()
	for name, transport := range map[string]*meter.Transport{"nil": nil, "zero config": meter.NewTransport(meter.Config{Port: "p1"})} {
		resp := post(t, t.Context(), &http.Client{Transport: transport}, server.URL, chatRequest)
		body, err := io.ReadAll(resp.Body)
		resp.Body.Close()
		if string(body) != chatReply || err != nil {
			t.Errorf("%s: the reply is %q, %v", name, body, err)
		}
		if got := transport.Stats(); got != (meter.Stats{}) {
			t.Errorf("%s: stats = %+v", name, got)
		}
	}
}

func TestConnectionsAreReused(t *testing.T) {
	var connections atomic.Int64
	server := httptest.NewUnstartedServer(says("application/json", chatReply))
	server.Config.ConnState = func(_ net.Conn, s http.ConnState) {
		if s == http.StateNew {
			connections.Add(1)
		}
	}
	server.Start()
	defer server.Close()
	client, l, _ := metered(t, nil)
	for range 20 {
		resp := post(t, t.Context(), client, server.URL, chatRequest)
		io.Copy(io.Discard, resp.Body)
		resp.Body.Close()
	}
	if connections.Load() != 1 || len(l.all()) != 20 {
		t.Errorf("%d connections and %d rows for 20 calls, want 1 and 20", connections.Load(), len(l.all()))
	}
}
