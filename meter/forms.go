package meter

// form is what a provider's replies look like: JSON replies and stream events
// alike. Paths are names with a dot between them, several with a space between.
// "[]" is what lies in an array, "**" whatever lies within, "." the document.
type form struct {
	name      string
	provider  string // who made it, where the host does not say who serves it
	endpoints []endpoint

	id, model, types, status, error string
	stop                            string // a string tells that a choice is complete, a boolean whether everything is
	choices                         string // an array that is empty in a chunk that has the figures only
	blocked                         string // "INTERVENED" tells that a guardrail spoke in the model's place
	inner                           string // base64 of a document of its own
	pieces                          texts  // generated text, each piece once
	wholes                          texts  // generated text that a stream may repeat: the longest counts
	groups                          []group

	ends, fails, mute string // types of events: the last one, one that tells of a failure, endings of those that repeat text or hold none
}

// texts are paths of text. Those under 0 add up; those under 1, 2 and 3 tell the
// same text in several ways, of which the longest counts.
type texts [4]string

// wholeDocument is the path of the document itself.
const wholeDocument = "."

type textClass uint8

const whole textClass = 4 // added to the index in texts

// endpoint is where an API is reached: how its path ends, with {model} for a part
// without slashes and {any} for one with them.
type endpoint struct {
	path string
	api  API
}

// group is figures that belong together: an object that holds them, at any of
// these paths.
type group struct {
	at      string
	mode    mode
	only    string // only groups whose "type" is one of these
	last    bool   // nothing that matters comes after it
	figures map[string]figure

	index int // in its form
}

// mode is what a group does to what was read before.
type mode uint8

const (
	update  mode = iota // figures replace those of their name, unless they are zero
	replace             // the group replaces all
	addUp               // groups are parts of the whole
	onTop               // the document's groups together are billed beside the others
)

// forms is the table of all that meter reads. A provider's form is a row; what it
// shares with another one stands in both. Where several rows find figures in a
// reply, the one that finds most is right, of equals the first. Each row has an
// example at least in testdata/forms.jsonl.
var forms = []form{
	{
		name: "anthropic", provider: Anthropic,
		endpoints: []endpoint{{"/v1/messages", Messages}, {"/models/{model}:rawPredict", Messages}, {"/models/{model}:streamRawPredict", Messages}},
		id:        "id message.id result.message.id", model: "model message.model result.message.model",
		types: "type", error: "error", stop: "stop_reason delta.stop_reason",
		pieces: texts{"delta.text delta.thinking delta.partial_json completion"},
		wholes: texts{"content[].text content[].thinking content[].input.**"},
		groups: []group{
			{at: "usage message.usage result.message.usage", figures: anthropicFigures},
			// An advisor and a compaction are not in the usage above them. Other iterations are.
			{at: "usage.iterations[]", mode: onTop, only: "compaction advisor_message", figures: anthropicFigures},
		},
		ends: "message_stop", fails: "error",
	},
	{
		name: "openai", provider: OpenAI,
		endpoints: []endpoint{
			{"/chat/completions", ChatCompletions}, {"/agents/completions", ChatCompletions}, {"/text/chat", ChatCompletions}, {"/text/chat_stream", ChatCompletions},
			{"/serving-endpoints/{model}/invocations", ChatCompletions}, {"/cortex/inference:complete", ChatCompletions}, {"/ai/run/{any}", ChatCompletions},
			{"/completions", Completions}, {"/embeddings", Embeddings}, {"/rerank", Rerank},
			{"/images/generations", Images}, {"/images/edits", Images}, {"/images/variations", Images},
			{"/audio/transcriptions", Transcriptions}, {"/audio/translations", Transcriptions}, {"/audio/speech", Speech},
			{"/threads/runs", Runs}, {"/threads/{id}/runs", Runs}, {"/threads/{id}/runs/{id}/submit_tool_outputs", Runs},
		},
		id: "id", model: "model response.body.model", types: "object", status: "status", error: "error", stop: "choices[].finish_reason", choices: "choices",
		pieces: texts{
			"choices[].text choices[].delta.content choices[].delta.content[].text choices[].delta.content[].thinking[].text choices[].delta.refusal " +
				"choices[].delta.tool_calls[].function.arguments choices[].delta.function_call.arguments choices[].delta.audio.transcript delta.content[].text.value",
			"choices[].delta.reasoning_content", "choices[].delta.reasoning", "choices[].delta.reasoning_details[].text",
		},
		wholes: texts{
			"choices[].message.content choices[].message.content[].text choices[].message.content[].thinking[].text choices[].message.refusal " +
				"choices[].message.tool_calls[].function.arguments choices[].message.function_call.arguments choices[].message.audio.transcript",
			"choices[].message.reasoning_content", "choices[].message.reasoning", "choices[].message.reasoning_details[].text",
		},
		groups: []group{{at: "usage x_groq.usage choices[].usage result.usage response.body.usage", figures: openAIFigures}},
		ends:   "image_generation.completed image_edit.completed transcript.text.done speech.audio.done",
	},
	{
		name: "openai responses", provider: OpenAI,
		endpoints: []endpoint{{"/responses", Responses}, {"/responses/compact", Responses}},
		id:        "id response.id", model: "model response.model", types: "type", status: "status response.status", error: "error response.error",
		pieces: texts{"delta"},
		wholes: texts{"output[].content[].text output[].content[].refusal output[].arguments output[].input output[].code"},
		groups: []group{
			{at: "usage response.usage", figures: openAIFigures},
			{at: "tool_usage.image_gen response.tool_usage.image_gen", mode: onTop, figures: openAIFigures},
		},
		ends: "response.completed response.incomplete response.cancelled response.failed", fails: "error response.failed",
		mute: ".done .audio.delta .partial_image .reasoning_summary_text.delta", // a summary is longer than what it sums up, at times,
	},
	{
		name: "gemini", provider: Google,
		endpoints: []endpoint{
			{"{model}:generateContent", GenerateContent}, {"{model}:streamGenerateContent", GenerateContent},
			{"{model}:embedContent", EmbedContent}, {"{model}:batchEmbedContents", EmbedContent},
		},
		id: "responseId response.responseId", model: "modelVersion response.modelVersion", error: "error", stop: "candidates[].finishReason response.candidates[].finishReason",
		pieces: texts{"candidates[].content.parts[].text candidates[].content.parts[].functionCall.args.** candidates[].content.parts[].executableCode.code " +
			"response.candidates[].content.parts[].text"},
		groups: []group{{at: "usageMetadata response.usageMetadata", mode: replace, figures: map[string]figure{
			"promptTokenCount": input, "toolUsePromptTokenCount": moreInput, "cachedContentTokenCount": cacheRead,
			"candidatesTokenCount": output, "thoughtsTokenCount": moreReasoning, "totalTokenCount": total,
		}}},
	},
	{
		name: "gemini interactions", provider: Google,
		endpoints: []endpoint{{"/interactions", Interactions}},
		id:        "id interaction.id", model: "model interaction.model", types: "event_type", status: "status interaction.status", error: "error",
		pieces: texts{"delta.text delta.content.text delta.arguments.**"},
		wholes: texts{"outputs[].text steps[].content[].text"},
		groups: []group{{at: "usage interaction.usage", mode: replace, figures: map[string]figure{
			"total_input_tokens": input, "total_tool_use_tokens": moreInput, "total_cached_tokens": cacheRead,
			"total_output_tokens": output, "total_thought_tokens": moreReasoning, "total_tokens": total,
		}}},
		ends: "interaction.completed interaction.complete",
	},
	{
		name: "vertex predict", provider: Google,
		endpoints: []endpoint{{"/models/{model}:predict", Predict}},
		wholes:    texts{"predictions[].content"},
		groups: []group{
			{at: "predictions[].embeddings.statistics", mode: addUp, figures: map[string]figure{"token_count": input}},
			{at: "metadata.tokenMetadata", figures: map[string]figure{"inputTokenCount.totalTokens": input, "outputTokenCount.totalTokens": output}},
		},
	},
	{
		name: "bedrock converse", provider: Bedrock, // and Nova, through InvokeModel
		endpoints: []endpoint{{"/model/{any}/converse", Converse}, {"/model/{any}/converse-stream", Converse}},
		pieces: texts{"delta.text delta.toolUse.input delta.reasoningContent.text " +
			"contentBlockDelta.delta.text contentBlockDelta.delta.toolUse.input contentBlockDelta.delta.reasoningContent.text"},
		wholes: texts{"output.message.content[].text output.message.content[].toolUse.input.** output.message.content[].reasoningContent.reasoningText.text"},
		groups: []group{{at: "usage metadata.usage", last: true, figures: map[string]figure{
			"inputTokens": input, "outputTokens": output, "totalTokens": total,
			"cacheReadInputTokens": moreCacheRead, "cacheReadInputTokenCount": moreCacheRead,
			"cacheWriteInputTokens": moreCacheWrite, "cacheWriteInputTokenCount": moreCacheWrite,
		}}},
	},
	{
		name: "bedrock invoke", provider: Bedrock, // what Bedrock adds to the model's own reply
		endpoints: []endpoint{{"/model/{any}/invoke", Invoke}, {"/model/{any}/invoke-with-response-stream", Invoke}},
		inner:     "bytes",
		groups: []group{{at: "amazon-bedrock-invocationMetrics", last: true, figures: map[string]figure{
			"inputTokenCount": input, "outputTokenCount": output, "cacheReadInputTokenCount": moreCacheRead, "cacheWriteInputTokenCount": moreCacheWrite,
		}}},
	},
	{
		name: "bedrock agents", provider: Bedrock, // only their traces tell what the models took
		endpoints: []endpoint{{"/agents/{id}/agentAliases/{id}/sessions/{id}/text", Agent}, {"/agents/{id}/sessions/{id}", Agent}},
		groups: []group{{mode: addUp, figures: map[string]figure{"inputTokens": input, "outputTokens": output},
			at: "trace.orchestrationTrace.modelInvocationOutput.metadata.usage trace.preProcessingTrace.modelInvocationOutput.metadata.usage " +
				"trace.postProcessingTrace.modelInvocationOutput.metadata.usage trace.routingClassifierTrace.modelInvocationOutput.metadata.usage"}},
	},
	{
		name: "amazon titan", provider: Bedrock, stop: "completionReason results[].completionReason", blocked: "amazon-bedrock-guardrailAction",
		pieces: texts{"outputText results[].outputText"},
		groups: []group{
			{at: wholeDocument, figures: map[string]figure{"inputTextTokenCount": input, "totalOutputTextTokenCount": output}},
			{at: "results[]", figures: map[string]figure{"tokenCount": output}},
		},
	},
	{
		name: "meta llama", provider: Bedrock, stop: "stop_reason",
		pieces: texts{"generation outputs[].text"},
		groups: []group{{at: wholeDocument, figures: map[string]figure{"prompt_token_count": input, "generation_token_count": output}}},
	},
	{
		name: "cohere", provider: "cohere",
		endpoints: []endpoint{
			{"/v1/chat", CohereChat}, {"/v2/chat", CohereChat}, {"/v1/generate", CohereChat}, {"/v1/summarize", CohereChat},
			{"/v1/embed", Embeddings}, {"/v2/embed", Embeddings}, {"/v1/rerank", Rerank}, {"/v2/rerank", Rerank}, {"/v1/classify", Embeddings},
		},
		id: "id response_id response.response_id", types: "type event_type", stop: "finish_reason delta.finish_reason response.finish_reason is_finished",
		pieces: texts{"text delta.message.content.text delta.message.content.thinking delta.message.tool_plan delta.message.tool_calls.function.arguments"},
		wholes: texts{"message.content[].text message.content[].thinking message.tool_plan message.tool_calls[].function.arguments generations[].text"},
		groups: []group{{at: "usage meta delta.usage response.meta", mode: replace, figures: map[string]figure{
			"billed_units.input_tokens": input, "billed_units.output_tokens": output, "billed_units.image_tokens": moreInput,
			"tokens.input_tokens": inputElse, "tokens.output_tokens": outputElse,
		}}},
		ends: "message-end",
	},
	{
		name: "ollama", provider: "ollama",
		endpoints: []endpoint{{"/api/chat", OllamaChat}, {"/api/generate", OllamaChat}, {"/api/embed", Embeddings}, {"/api/embeddings", Embeddings}},
		model:     "model", error: "error", stop: "done",
		pieces: texts{"message.content message.thinking message.tool_calls[].function.arguments.** response thinking"},
		groups: []group{{at: wholeDocument, figures: map[string]figure{"prompt_eval_count": input, "eval_count": output, "prompt_eval_cached_count": cacheRead}}},
	},
	{
		name: "llama.cpp", provider: "llama.cpp",
		endpoints: []endpoint{{"/completion", LlamaCompletion}, {"/infill", LlamaCompletion}},
		pieces:    texts{"content"},
		groups: []group{
			{at: wholeDocument, figures: map[string]figure{"tokens_evaluated": input, "tokens_predicted": output}},
			{at: "timings", figures: map[string]figure{"prompt_n": input, "cache_n": moreCacheRead, "predicted_n": output}},
		},
	},
	{
		name: "watsonx", provider: "ibm.watsonx",
		endpoints: []endpoint{
			{"/text/generation", WatsonxText}, {"/text/generation_stream", WatsonxText}, {"/generation/text", WatsonxText}, {"/generation/text_stream", WatsonxText},
			{"/text/embeddings", Embeddings}, {"/text/rerank", Rerank},
		},
		model: "model_id", stop: "results[].stop_reason",
		pieces: texts{"results[].generated_text"},
		groups: []group{
			{at: "results[]", figures: map[string]figure{"input_token_count": input, "generated_token_count": output}},
			{at: wholeDocument, figures: map[string]figure{"input_token_count": input}},
		},
	},
	{
		name: "aleph alpha", provider: "aleph-alpha",
		endpoints: []endpoint{{"/complete", AlephAlphaComplete}},
		model:     "model_version", stop: "completions[].finish_reason",
		pieces: texts{"completions[].completion"},
		groups: []group{{at: wholeDocument, figures: map[string]figure{"num_tokens_prompt_total": input, "num_tokens_generated": output}}},
	},
}

var anthropicFigures = map[string]figure{
	"input_tokens": input, "output_tokens": output,
	"cache_read_input_tokens": moreCacheRead, "cache_creation_input_tokens": moreCacheWrite,
	"cache_creation.ephemeral_5m_input_tokens": partCacheWrite, "cache_creation.ephemeral_1h_input_tokens": partCacheWrite,
	"output_tokens_details.thinking_tokens": reasoning,
}

// openAIFigures are both generations of OpenAI's names, and what others who speak
// the same have added.
var openAIFigures = map[string]figure{
	"prompt_tokens": input, "input_tokens": input, "completion_tokens": output, "output_tokens": output, "total_tokens": total,
	"prompt_tokens_details.cached_tokens": cacheRead, "input_tokens_details.cached_tokens": cacheRead,
	"prompt_token_details.cached_tokens": cacheRead, "input_token_details.cached_tokens": cacheRead,
	"prompt_tokens_details.cache_write_tokens": cacheWrite, "input_tokens_details.cache_write_tokens": cacheWrite,
	"prompt_tokens_details.cache_creation_tokens": cacheWrite, "input_tokens_details.cache_creation_tokens": cacheWrite,
	"prompt_tokens_details.audio_tokens": promptPart, "prompt_token_details.audio_tokens": promptPart, "audio_prompt_tokens": promptPart,
	"completion_tokens_details.reasoning_tokens": reasoning, "output_tokens_details.reasoning_tokens": reasoning,
	"completion_token_details.reasoning_tokens": reasoning, "output_token_details.reasoning_tokens": reasoning,
	"cached_tokens": cacheRead, "prompt_cache_hit_tokens": cacheRead, "cache_read_input_tokens": cacheRead, "cache_creation_input_tokens": cacheWrite,
	"connector_tokens": promptPart, "citation_tokens": moreInput, "reasoning_tokens": citedReasoning,
}

var replyTree = func() *tree {
	for i := range forms {
		for j := range forms[i].groups {
			forms[i].groups[j].index = j
		}
	}
	return newTree(forms)
}()
