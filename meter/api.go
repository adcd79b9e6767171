package meter

import (
	"net/http"
	"net/url"
	"strings"
)

// API is a provider's interface. It says what a call may cost before it is made;
// what it did cost is told by the shape of the reply.
type API string

// The APIs that meter knows by their paths.
const (
	ChatCompletions    API = "chat.completions" // OpenAI, Azure OpenAI and whoever speaks it
	Responses          API = "responses"        // OpenAI, Azure OpenAI
	Completions        API = "completions"      // OpenAI, Azure OpenAI
	Embeddings         API = "embeddings"       // OpenAI and others
	Rerank             API = "rerank"           // Cohere, Voyage, Jina
	Images             API = "images"           // OpenAI
	Transcriptions     API = "transcriptions"   // OpenAI, Mistral, Groq
	Speech             API = "speech"           // OpenAI
	Runs               API = "runs"             // of OpenAI's assistants
	Messages           API = "messages"         // Anthropic, also on Vertex
	GenerateContent    API = "generateContent"  // Google Gemini
	EmbedContent       API = "embedContent"     // Google Gemini
	Interactions       API = "interactions"     // Google Gemini
	Predict            API = "predict"          // Google Vertex
	Converse           API = "converse"         // AWS Bedrock
	Invoke             API = "invoke"           // AWS Bedrock
	Agent              API = "agent"            // AWS Bedrock
	CohereChat         API = "cohere.chat"
	OllamaChat         API = "ollama.chat"
	LlamaCompletion    API = "llama.cpp.completion"
	WatsonxText        API = "watsonx.text"
	AlephAlphaComplete API = "aleph-alpha.complete"

	// Batch is a batch's file of results, which a GET fetches: one event for all of
	// it, however often it is fetched.
	Batch API = "batch"
	// Unknown is an API that no row of the table names: the reply is read all the
	// same, and if it tells nothing, the call is one that passed unmetered.
	Unknown API = "unknown"
)

// The providers, as usage events name them. Others have the names in the tables of
// forms and hosts.
const (
	OpenAI    = "openai"
	Azure     = "azure.openai"
	Anthropic = "anthropic"
	Google    = "google"
	Bedrock   = "aws.bedrock"
)

// Call is what a request's URL says about an AI call.
type Call struct {
	API      API
	Provider string // "" means whoever made the API
	Model    string // "" where only the body names it
}

func (a API) known() bool { return a == Batch || a == Unknown || a.form() != nil }

// form is the row of the table that the API is in.
func (a API) form() *form {
	for i := range forms {
		for _, e := range forms[i].endpoints {
			if e.api == a {
				return &forms[i]
			}
		}
	}
	return nil
}

// maker is the provider whose API it is.
func (a API) maker() string {
	if f := a.form(); f != nil {
		return f.provider
	}
	return OpenAI
}

// Detect tells an AI call from any other request: a POST whose path ends as a
// known API's does, whatever stands before, since base URLs differ behind
// proxies. The host only tells who serves it. ok is false for everything that
// spends no tokens itself, such as counting them.
func Detect(req *http.Request) (call Call, ok bool) {
	if req == nil || req.URL == nil {
		return Call{}, false
	}
	switch req.Method {
	case http.MethodPost:
		return detectURL(req.URL)
	case http.MethodGet, "":
		return detectResults(req.URL)
	}
	return Call{}, false
}

func detectURL(u *url.URL) (Call, bool) {
	path := strings.TrimRight(u.EscapedPath(), "/")
	for i := range forms {
		for _, e := range forms[i].endpoints {
			model, ok := match(e.path, path)
			if !ok {
				continue
			}
			call := Call{API: e.api, Provider: forms[i].provider, Model: unescape(model)}
			if host := hostOf(u.Hostname()); host != nil && (host.provider != Azure || call.Provider == OpenAI) {
				call.Provider = host.provider // Azure sells Anthropic's API under its name
			}
			if _, deployment, ok := strings.Cut(path, "/deployments/"); ok && (call.Provider == OpenAI || call.Provider == Azure) {
				deployment, _, _ = strings.Cut(deployment, "/")
				call.Provider, call.Model = Azure, unescape(deployment)
			}
			return call, true
		}
	}
	return Call{}, false
}

// detectResults finds the results of batches, which a GET fetches.
func detectResults(u *url.URL) (Call, bool) {
	path := strings.TrimRight(u.EscapedPath(), "/")
	provider := OpenAI
	switch host := hostOf(u.Hostname()); {
	case host != nil:
		provider = host.provider
	case !strings.Contains(path, "/v1/"):
		return Call{}, false // files are everywhere
	}
	for _, pattern := range []string{"/files/{id}/content", "/files/{id}:download"} {
		if _, ok := match(pattern, path); ok {
			return Call{API: Batch, Provider: provider}, true
		}
	}
	_, ok := match("/messages/batches/{id}/results", path)
	return Call{API: Batch, Provider: Anthropic}, ok
}

// match reports whether a path ends as a pattern says, and what stands for
// {model} or {any} in it.
func match(pattern, path string) (model string, ok bool) {
	for {
		before, after, found := cutLastBrace(pattern)
		if !strings.HasSuffix(path, after) {
			return "", false
		}
		path = strings.TrimSuffix(path, after)
		if !found {
			return model, true
		}
		open := strings.LastIndexByte(before, '{')
		name := before[open:]
		pattern = before[:open]
		var start int
		if name == "{any" {
			start = strings.Index(path, pattern) + len(pattern)
			if !strings.Contains(path, pattern) {
				return "", false
			}
		} else {
			start = strings.LastIndexByte(path, '/') + 1
		}
		if start == len(path) {
			return "", false
		}
		if name != "{id" {
			model = path[start:]
		}
		path = path[:start]
	}
}

// cutLastBrace cuts a pattern at its last closing brace.
func cutLastBrace(pattern string) (before, after string, found bool) {
	i := strings.LastIndexByte(pattern, '}')
	if i < 0 {
		return "", pattern, false
	}
	return pattern[:i], pattern[i+1:], true
}

func unescape(segment string) string {
	plain, err := url.PathUnescape(segment)
	if err != nil {
		return segment
	}
	return plain
}

// requestID is the provider's name for the request.
func requestID(api API, h http.Header) string {
	names := []string{"X-Request-Id", "Request-Id", "X-Amzn-Requestid"}
	switch api {
	case Messages:
		names = []string{"Request-Id", "X-Amzn-Requestid"}
	case Converse, Invoke, Agent:
		names = names[2:]
	case GenerateContent, EmbedContent, Interactions, Predict:
		return "" // its reply has a responseId, nothing else
	}
	for _, name := range names {
		if id := h.Get(name); id != "" {
			return id
		}
	}
	return ""
}
