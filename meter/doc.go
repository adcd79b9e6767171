// Package meter counts what AI calls really cost: it reads the provider's own
// figures out of its replies, as they pass by, and turns them into usage events.
//
// [Transport] does so under any SDK that takes an http.Client; with a [Gate] it
// also asks before each call whether the port may still spend. [WriteReport]
// reads recorded replies: what would be counted for them?
//
// It reads OpenAI's chat completions, responses, completions and embeddings, from
// OpenAI, Azure and everyone who speaks the same, Anthropic's messages, Google's
// generateContent and AWS Bedrock's Converse, as JSON, server-sent events, JSON
// arrays and AWS event streams. Replies are never buffered: what is kept of one,
// whatever its size, is its names and its figures. docs/meter.md has the rules.
package meter
