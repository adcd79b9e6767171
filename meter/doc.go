// Package meter counts what AI calls really cost: it reads the provider's own
// figures out of its replies, as they pass by, and turns them into usage events.
//
// [Transport] does so under any SDK that takes an http.Client; with a [Gate] it
// also asks before each call whether the port may still spend. [WriteReport]
// reads recorded replies: what would be counted for them?
//
// A table of forms, forms.go, has all that it reads: the replies of OpenAI and of
// whoever speaks the same, of Anthropic, Google, AWS Bedrock, Cohere, Ollama and
// others, as JSON, lines of JSON, server-sent events, arrays and AWS event streams.
// Their shape decides, not the host. Replies are never buffered: what is kept of one,
// whatever its size, is its names and its figures. docs/meter.md has the rules.
package meter
