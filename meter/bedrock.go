package meter

// Converse replies, and the payloads of ConverseStream's events. Neither names
// the model nor an id.
var converseShape = newShape(map[path]slot{
	{keyNone, keyUsage}:  slotUsage,
	{keyNone, keyOutput}: slotText,
	{keyNone, keyDelta}:  slotText,
})

// converseUsage: as with Anthropic, inputTokens are those that touched no cache.
// The names in ...Count are what older replies have.
type converseUsage struct {
	Input           count `json:"inputTokens"`
	Output          count `json:"outputTokens"`
	CacheRead       count `json:"cacheReadInputTokens"`
	CacheReadCount  count `json:"cacheReadInputTokenCount"`
	CacheWrite      count `json:"cacheWriteInputTokens"`
	CacheWriteCount count `json:"cacheWriteInputTokenCount"`
}

func (u *converseUsage) tokens() (t tokens, ok bool) {
	read, write := u.CacheRead.or(u.CacheReadCount), u.CacheWrite.or(u.CacheWriteCount)
	t.input, t.output = sum(u.Input, read, write), sum(u.Output)
	t.details.CacheReadInputTokens = sum(read)
	t.details.CacheWriteInputTokens = sum(write)
	return t, u.Input.set || u.Output.set
}

// takeConverse: the metadata event, the only one with usage, comes last.
func (r *reply) takeConverse(d *document) {
	r.ended = r.ended || len(d.usage) > 0
}
