package meter

import (
	"net/http"
	"net/url"
	"strings"
)

// API is a provider's interface, which decides how its replies are read.
type API string

// The APIs that meter reads.
const (
	ChatCompletions API = "chat.completions" // OpenAI, Azure OpenAI and whoever speaks it
	Responses       API = "responses"        // OpenAI, Azure OpenAI
	Completions     API = "completions"      // OpenAI, Azure OpenAI
	Embeddings      API = "embeddings"       // OpenAI, Azure OpenAI
	Messages        API = "messages"         // Anthropic
	GenerateContent API = "generateContent"  // Google Gemini
	Converse        API = "converse"         // AWS Bedrock
)

func (a API) known() bool {
	switch a {
	case ChatCompletions, Responses, Completions, Embeddings, Messages, GenerateContent, Converse:
		return true
	}
	return false
}

// The providers, as usage events name them.
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
	Provider string // "" means whoever made the API: [OpenAI], [Anthropic], [Google] or [Bedrock]
	Model    string // "" where only the body names it
}

// maker is the provider whose API it is.
func (a API) maker() string {
	switch a {
	case Messages:
		return Anthropic
	case GenerateContent:
		return Google
	case Converse:
		return Bedrock
	default:
		return OpenAI
	}
}

// Detect tells an AI call from any other request: a POST whose path ends as a
// known API's does, whatever stands before, since base URLs differ behind
// proxies. The host only tells Azure OpenAI from OpenAI. ok is false for
// everything that spends no tokens itself, such as counting them.
func Detect(req *http.Request) (call Call, ok bool) {
	if req == nil || req.URL == nil || req.Method != http.MethodPost {
		return Call{}, false
	}
	return detectURL(req.URL)
}

func detectURL(u *url.URL) (Call, bool) {
	path := strings.TrimRight(u.EscapedPath(), "/")
	parent, last := cutLast(path, '/')
	switch last {
	case "completions":
		if strings.HasSuffix(parent, "/chat") || parent == "chat" {
			return openAI(u, path, ChatCompletions), true
		}
		return openAI(u, path, Completions), true
	case "embeddings":
		return openAI(u, path, Embeddings), true
	case "responses":
		return openAI(u, path, Responses), true
	case "compact":
		return openAI(u, path, Responses), strings.HasSuffix(parent, "/responses")
	case "messages":
		return Call{API: Messages, Provider: Anthropic}, strings.HasSuffix(parent, "/v1")
	case "converse", "converse-stream":
		before, model := cutLast(parent, '/')
		return Call{API: Converse, Provider: Bedrock, Model: unescape(model)}, strings.HasSuffix(before, "/model")
	}
	model, verb := cutLast(last, ':')
	if verb == "generateContent" || verb == "streamGenerateContent" {
		return Call{API: GenerateContent, Provider: Google, Model: unescape(model)}, model != ""
	}
	return Call{}, false
}

func openAI(u *url.URL, path string, api API) Call {
	call := Call{API: api, Provider: OpenAI}
	_, deployment, ok := strings.Cut(path, "/deployments/")
	if ok {
		deployment, _, _ = strings.Cut(deployment, "/")
		call.Model = unescape(deployment)
	}
	if ok || azureHost(u.Hostname()) {
		call.Provider = Azure
	}
	return call
}

func azureHost(host string) bool {
	host = strings.ToLower(host)
	for _, domain := range []string{".openai.azure.com", ".cognitiveservices.azure.com", ".services.ai.azure.com", ".openai.azure.us"} {
		if strings.HasSuffix(host, domain) {
			return true
		}
	}
	return false
}

// cutLast cuts s around its last sep; without one, all of s is after.
func cutLast(s string, sep byte) (before, after string) {
	i := strings.LastIndexByte(s, sep)
	if i < 0 {
		return "", s
	}
	return s[:i], s[i+1:]
}

func unescape(segment string) string {
	plain, err := url.PathUnescape(segment)
	if err != nil {
		return segment
	}
	return plain
}

// requestIDHeader is where the provider names the request in its own logs.
func requestIDHeader(api API) string {
	switch api {
	case Messages:
		return "Request-Id"
	case Converse:
		return "X-Amzn-Requestid"
	case GenerateContent:
		return "" // its reply has a responseId, nothing else
	default:
		return "X-Request-Id"
	}
}
