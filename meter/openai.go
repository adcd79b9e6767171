package meter

// Chat completions, completions and embeddings: replies and stream chunks alike.
var chatShape = newShape(map[path]slot{
	{keyNone, keyID}:              slotID,
	{keyNone, keyModel}:           slotModel,
	{keyNone, keyUsage}:           slotUsage,
	{keyNone, keyError}:           slotError,
	{keyNone, keyChoices}:         slotText,
	{keyChoices, keyFinishReason}: slotStop,
})

// Responses: replies, and stream events that wrap one or bring a delta.
var responsesShape = newShape(map[path]slot{
	{keyNone, keyType}:       slotType,
	{keyNone, keyID}:         slotID,
	{keyNone, keyModel}:      slotModel,
	{keyNone, keyUsage}:      slotUsage,
	{keyNone, keyStatus}:     slotStatus,
	{keyNone, keyError}:      slotError,
	{keyNone, keyOutput}:     slotText,
	{keyNone, keyDelta}:      slotText,
	{keyResponse, keyID}:     slotID,
	{keyResponse, keyModel}:  slotModel,
	{keyResponse, keyUsage}:  slotUsage,
	{keyResponse, keyStatus}: slotStatus,
	{keyResponse, keyError}:  slotError,
})

// openAIUsage reads both generations of names: prompt/completion and
// input/output. OpenAI counts cached tokens inside the input and reasoning inside
// the output, as Tidegate does.
type openAIUsage struct {
	Prompt            count         `json:"prompt_tokens"`
	Completion        count         `json:"completion_tokens"`
	PromptDetails     inputDetails  `json:"prompt_tokens_details"`
	CompletionDetails outputDetails `json:"completion_tokens_details"`
	Input             count         `json:"input_tokens"`
	Output            count         `json:"output_tokens"`
	InputDetails      inputDetails  `json:"input_tokens_details"`
	OutputDetails     outputDetails `json:"output_tokens_details"`
}

type inputDetails struct {
	Cached     count `json:"cached_tokens"`
	CacheWrite count `json:"cache_write_tokens"`
}

type outputDetails struct {
	Reasoning count `json:"reasoning_tokens"`
}

func (u *openAIUsage) tokens() (t tokens, ok bool) {
	in, out := u.Prompt.or(u.Input), u.Completion.or(u.Output)
	t.input, t.output = sum(in), sum(out)
	t.details.CacheReadInputTokens = sum(u.PromptDetails.Cached.or(u.InputDetails.Cached))
	t.details.CacheWriteInputTokens = sum(u.PromptDetails.CacheWrite.or(u.InputDetails.CacheWrite))
	t.details.ReasoningOutputTokens = sum(u.CompletionDetails.Reasoning.or(u.OutputDetails.Reasoning))
	return t, in.set || out.set
}

// takeChat: the figures come in one last chunk without choices, when the request
// asked for them; [DONE] ends every stream.
func (r *reply) takeChat(d *document) {
	r.stopped = r.stopped || d.stopped
	r.ended = r.ended || len(d.usage) > 0 && d.choices == 0
}

func (r *reply) takeResponses(d *document) {
	switch string(d.typ) {
	case `"response.completed"`, `"response.incomplete"`, `"response.cancelled"`:
		r.ended = true
	case `"response.failed"`:
		r.failed, r.ended = true, len(d.usage) > 0
	case `"error"`:
		r.failed = true
	}
	if len(d.typ) == 0 && string(d.status) == `"failed"` {
		r.failed = true
	}
}
