package meter

import "strings"

// host is one that serves AI. Its name says who gets the money, and that a POST
// which nobody can read is worth a word.
type host struct {
	suffix   string // of the name, at a dot
	provider string
}

// hosts, the first that fits. What is not listed is named after the form that its
// path or its reply has.
var hosts = []host{
	{"openai.azure.com", Azure}, {"openai.azure.us", Azure}, {"cognitiveservices.azure.com", Azure}, {"services.ai.azure.com", Azure}, {"models.ai.azure.com", Azure},
	{"api.openai.com", OpenAI}, {"api.anthropic.com", Anthropic},
	{"generativelanguage.googleapis.com", Google}, {"aiplatform.googleapis.com", Google},
	{"api.x.ai", "xai"}, {"api.groq.com", "groq"}, {"api.mistral.ai", "mistral"}, {"codestral.mistral.ai", "mistral"},
	{"api.deepseek.com", "deepseek"}, {"api.moonshot.ai", "moonshot"}, {"api.moonshot.cn", "moonshot"}, {"api.perplexity.ai", "perplexity"},
	{"api.cohere.com", "cohere"}, {"api.cohere.ai", "cohere"}, {"api.voyageai.com", "voyage"}, {"api.jina.ai", "jina"},
	{"openrouter.ai", "openrouter"}, {"api.together.xyz", "together"}, {"api.together.ai", "together"}, {"api.fireworks.ai", "fireworks"},
	{"api.cerebras.ai", "cerebras"}, {"api.sambanova.ai", "sambanova"}, {"api.deepinfra.com", "deepinfra"}, {"api.novita.ai", "novita"},
	{"api.studio.nebius.com", "nebius"}, {"api.hyperbolic.xyz", "hyperbolic"}, {"integrate.api.nvidia.com", "nvidia"},
	{"router.huggingface.co", "huggingface"}, {"api-inference.huggingface.co", "huggingface"}, {"endpoints.huggingface.cloud", "huggingface"},
	{"api.ai21.com", "ai21"}, {"api.writer.com", "writer"}, {"api.aleph-alpha.com", "aleph-alpha"}, {"api.z.ai", "zai"}, {"open.bigmodel.cn", "zai"},
	{"api.minimax.io", "minimax"}, {"api.minimax.chat", "minimax"}, {"dashscope.aliyuncs.com", "alibaba"}, {"dashscope-intl.aliyuncs.com", "alibaba"},
	{"api.reka.ai", "reka"}, {"api.upstage.ai", "upstage"}, {"api.replicate.com", "replicate"}, {"api.stability.ai", "stability"},
	{"api.elevenlabs.io", "elevenlabs"}, {"api.deepgram.com", "deepgram"}, {"api.assemblyai.com", "assemblyai"},
	{"ml.cloud.ibm.com", "ibm.watsonx"}, {"snowflakecomputing.com", "snowflake"}, {"inference.ai.azure.com", Azure},
	{"models.github.ai", "github"}, {"models.inference.ai.azure.com", "github"}, {"api.githubcopilot.com", "github"},
	{"ai-gateway.vercel.sh", "vercel"}, {"gateway.ai.cloudflare.com", "cloudflare"}, {"managed-inference-api-proxy.crusoecloud.com", "crusoe"}, {"ollama.com", "ollama"},
}

// hostOf finds the row of a host's name, nil when it is none that serves AI.
func hostOf(name string) *host {
	name = strings.ToLower(name)
	for i := range hosts {
		rest, ok := strings.CutSuffix(name, hosts[i].suffix)
		if ok && (rest == "" || strings.HasSuffix(rest, ".") || strings.HasSuffix(rest, "-")) {
			return &hosts[i]
		}
	}
	first, rest, _ := strings.Cut(name, ".")
	if strings.HasPrefix(first, "bedrock") && (strings.HasSuffix(rest, ".amazonaws.com") || strings.HasSuffix(rest, ".amazonaws.com.cn") || strings.HasSuffix(rest, ".api.aws")) {
		return &bedrockHost // bedrock-runtime, bedrock-agent-runtime, bedrock-mantle, in any region
	}
	return nil
}

var bedrockHost = host{provider: Bedrock}
