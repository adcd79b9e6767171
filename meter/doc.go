// Package meter counts what AI calls really cost: it reads the provider's own
// figures out of its replies, as they pass by, and turns them into usage events.
//
// [Transport] does so under any SDK that takes an http.Client; with a [Gate] it
// also asks before each call whether the port may still spend. [WriteReport]
// reads recorded replies: what would be counted for them?
//
// The table in forms.go lists all that it reads: the replies of OpenAI and of whoever
// speaks the same, of Anthropic, Google, AWS Bedrock, Cohere, Ollama and others, as
// JSON, lines of JSON, server-sent events, arrays and AWS event streams. A reply is
// read by its shape, not by its host. It is never buffered: whatever its size, only
// its names and figures are kept. docs/meter.md has the rules.
package meter
