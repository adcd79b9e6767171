package meter

// GenerateContent: replies and stream chunks alike.
var geminiShape = newShape(map[path]slot{
	{keyNone, keyResponseID}:               slotID,
	{keyNone, keyModelVersion}:             slotModel,
	{keyNone, keyUsageMetadata}:            slotUsage,
	{keyNone, keyError}:                    slotError,
	{keyNone, keyCandidates}:               slotText,
	{keyCandidates, keyGeminiFinishReason}: slotStop,
})

// geminiUsage: the prompt count includes cached content but not what tools put
// into the prompt; the candidates' count leaves out the thoughts. Zeros are not
// sent.
type geminiUsage struct {
	Prompt     count `json:"promptTokenCount"`
	ToolPrompt count `json:"toolUsePromptTokenCount"`
	Cached     count `json:"cachedContentTokenCount"`
	Candidates count `json:"candidatesTokenCount"`
	Thoughts   count `json:"thoughtsTokenCount"`
}

func (u *geminiUsage) tokens() (t tokens, ok bool) {
	t.input, t.output = sum(u.Prompt, u.ToolPrompt), sum(u.Candidates, u.Thoughts)
	t.details.CacheReadInputTokens = sum(u.Cached)
	t.details.ReasoningOutputTokens = sum(u.Thoughts)
	return t, u.Prompt.set || u.ToolPrompt.set || u.Candidates.set || u.Thoughts.set
}

// takeGemini: every chunk repeats the cumulative figures. Nothing but the end of
// the body ends a stream.
func (r *reply) takeGemini(d *document) {
	r.stopped = r.stopped || d.stopped
	r.ended = r.ended || d.stopped && len(d.usage) > 0
}
