package meter

// Messages: replies, and stream events.
var messagesShape = newShape(map[path]slot{
	{keyNone, keyType}:        slotType,
	{keyNone, keyID}:          slotID,
	{keyNone, keyModel}:       slotModel,
	{keyNone, keyUsage}:       slotUsage, // of a reply, and of message_delta
	{keyNone, keyError}:       slotError,
	{keyNone, keyContent}:     slotText,
	{keyNone, keyDelta}:       slotText,
	{keyDelta, keyStopReason}: slotStop,
	{keyMessage, keyID}:       slotID, // message_start
	{keyMessage, keyModel}:    slotModel,
	{keyMessage, keyUsage}:    slotUsage,
})

// anthropicUsage: Anthropic's input_tokens are those that touched no cache.
// Thinking is inside output_tokens.
type anthropicUsage struct {
	Input         count `json:"input_tokens"`
	Output        count `json:"output_tokens"`
	CacheRead     count `json:"cache_read_input_tokens"`
	CacheWrite    count `json:"cache_creation_input_tokens"`
	CacheCreation struct {
		FiveMinutes count `json:"ephemeral_5m_input_tokens"`
		OneHour     count `json:"ephemeral_1h_input_tokens"`
	} `json:"cache_creation"`
	OutputDetails struct {
		Thinking count `json:"thinking_tokens"`
	} `json:"output_tokens_details"`
}

func (u *anthropicUsage) tokens() (t tokens, ok bool) {
	write := u.CacheWrite
	if !write.set {
		write = count{n: sum(u.CacheCreation.FiveMinutes, u.CacheCreation.OneHour)}
	}
	t.input, t.output = sum(u.Input, u.CacheRead, write), sum(u.Output)
	t.details.CacheReadInputTokens = sum(u.CacheRead)
	t.details.CacheWriteInputTokens = sum(write)
	t.details.ReasoningOutputTokens = sum(u.OutputDetails.Thinking)
	return t, u.Input.set || u.Output.set
}

// takeMessages: message_start has the input, message_delta the cumulative rest.
// The one that names the stop reason is final.
func (r *reply) takeMessages(d *document) {
	switch string(d.typ) {
	case `"message_stop"`:
		r.ended = true
	case `"message_delta"`:
		r.ended = r.ended || d.stopped && len(d.usage) > 0
	case `"error"`:
		r.failed = true
	}
}
