package meter

import (
	"bytes"
	"encoding/base64"
	stdimage "image"
	_ "image/gif"  // the formats that providers take
	_ "image/jpeg" // "
	_ "image/png"  // "
	"io"
	"math"
	"strings"

	_ "golang.org/x/image/webp"
)

// unknownSide is the width and height that a picture is taken to have when its
// bytes are not in the request.
const unknownSide = 2048

// isBase64 tells base64, bare or as a data URL, from text by its beginning.
func isBase64(head []byte) bool {
	data, ok := base64Data(head)
	if !ok {
		return false
	}
	for _, c := range data[:min(len(data), 64)] {
		if !('a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9' || c == '+' || c == '/' || c == '=' || c == '-' || c == '_' || c == '\\') {
			return false
		}
	}
	return true
}

// base64Data is what follows the comma of a data URL; ok is false for one that is
// not base64.
func base64Data(head []byte) (data []byte, ok bool) {
	if !bytes.HasPrefix(head, []byte("data:")) {
		return head, true
	}
	before, data, ok := bytes.Cut(head, []byte(","))
	return data, ok && bytes.HasSuffix(before, []byte(";base64"))
}

// imageSize reads the size of a picture out of the beginning of its base64.
func imageSize(head []byte) (width, height int, ok bool) {
	data, ok := base64Data(head)
	if !ok {
		return 0, 0, false
	}
	config, _, err := stdimage.DecodeConfig(base64.NewDecoder(base64.RawStdEncoding, &base64Reader{data}))
	if err != nil || config.Width <= 0 || config.Height <= 0 {
		return 0, 0, false
	}
	return config.Width, config.Height, true
}

// base64Reader makes the standard alphabet of either alphabet, and drops padding
// and the backslashes with which some JSON encoders escape slashes.
type base64Reader struct{ rest []byte }

func (r *base64Reader) Read(p []byte) (n int, err error) {
	for n < len(p) && len(r.rest) > 0 {
		c := r.rest[0]
		r.rest = r.rest[1:]
		switch c {
		case '\\', '=':
			continue
		case '-':
			c = '+'
		case '_':
			c = '/'
		}
		p[n] = c
		n++
	}
	if n == 0 {
		return 0, io.EOF
	}
	return n, nil
}

// tokens is what a picture costs by its provider's published rule.
func (i image) tokens(api API, model string) int64 {
	width, height := float64(i.width), float64(i.height)
	if i.width == 0 || i.height == 0 {
		width, height = unknownSide, unknownSide
	}
	switch {
	case api == Messages, (api == Converse || api == Invoke) && strings.Contains(model, "claude"):
		return claudeImage(model, width, height)
	case api == Converse, api == Invoke:
		return novaImage(width, height)
	case api == GenerateContent, api == EmbedContent, api == Interactions:
		return geminiImage(model, width, height)
	default:
		return openAIImage(model, width, height, i.low)
	}
}

// claudeImage: a token for each patch of 28 by 28 pixels, after shrinking the
// picture to the model's limits.
// https://platform.claude.com/docs/en/build-with-claude/vision
func claudeImage(model string, width, height float64) int64 {
	edge, budget := 2576.0, int64(4784)
	for _, older := range []string{"claude-2", "claude-3", "claude-opus-4-2", "claude-sonnet-4-2", "-4-0", "-4-1", "-4-5", "-4-6"} {
		if strings.Contains(model, older) {
			edge, budget = 1568, 1568
		}
	}
	scale := min(1, edge/max(width, height))
	return min(patches(width*scale, height*scale, 28), budget)
}

// novaImage is the upper end of Amazon's table for Nova (about 800 tokens for 900
// by 450 pixels, 2,600 for 1,300 by 1,300). Other families on Bedrock publish none.
func novaImage(width, height float64) int64 {
	return min(int64(math.Ceil(width*height/500)), 2600)
}

// geminiImage: up to Gemini 2.5, 258 tokens for each tile of 768 by 768 pixels;
// since Gemini 3, what the default media resolution allows.
// https://ai.google.dev/gemini-api/docs/tokens
func geminiImage(model string, width, height float64) int64 {
	if !strings.Contains(model, "gemini-1") && !strings.Contains(model, "gemini-2") {
		return 1120
	}
	if width <= 384 && height <= 384 {
		return 258
	}
	scale := min(1, 3072/max(width, height))
	return 258 * patches(width*scale, height*scale, 768)
}

// openAIRule is how a family of models counts a picture: by tiles of 512 pixels,
// or by patches of 32 times a multiplier.
// https://platform.openai.com/docs/guides/images-vision
type openAIRule struct {
	model      string // prefix
	base, tile int64
	multiplier float64
	budget     int64 // patches
}

// openAIRules, the first that fits. What is not listed is newer than the list.
var openAIRules = []openAIRule{
	{model: "gpt-4o-mini", base: 2833, tile: 5667},
	{model: "gpt-4.1-mini", multiplier: 1.62, budget: 1536},
	{model: "gpt-4.1-nano", multiplier: 2.46, budget: 1536},
	{model: "gpt-5-mini", multiplier: 1.62, budget: 1536},
	{model: "gpt-5-nano", multiplier: 2.46, budget: 1536},
	{model: "o4-mini", multiplier: 1.72, budget: 1536},
	{model: "gpt-5.", multiplier: 1.2, budget: 10_000},
	{model: "gpt-5", base: 70, tile: 140},
	{model: "gpt-4", base: 85, tile: 170},
	{model: "o1", base: 75, tile: 150},
	{model: "o3", base: 75, tile: 150},
	{model: "computer-use", base: 65, tile: 129},
	{multiplier: 1.2, budget: 10_000},
}

func openAIImage(model string, width, height float64, low bool) int64 {
	for _, rule := range openAIRules {
		if strings.HasPrefix(model, rule.model) {
			return rule.tokens(width, height, low)
		}
	}
	return 0 // the last rule fits every model
}

func (r openAIRule) tokens(width, height float64, low bool) int64 {
	if r.tile == 0 {
		if low {
			scale := min(1, 512/max(width, height))
			width, height = width*scale, height*scale
		}
		return int64(math.Ceil(float64(min(patches(width, height, 32), r.budget)) * r.multiplier))
	}
	if low {
		return r.base
	}
	scale := min(1, 2048/max(width, height))
	scale = min(scale, 768/min(width, height))
	return r.base + r.tile*patches(width*scale, height*scale, 512)
}

// patches covers a picture, resized to whole pixels, with squares.
func patches(width, height, side float64) int64 {
	return int64(math.Ceil(math.Round(width)/side) * math.Ceil(math.Round(height)/side))
}
