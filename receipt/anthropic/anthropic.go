// Package anthropic reads receipts with Anthropic's messages.
package anthropic

import (
	"context"
	"encoding/base64"
	"fmt"
	"image"
	"net/http"
	"time"

	sdk "github.com/anthropics/anthropic-sdk-go"
	"github.com/anthropics/anthropic-sdk-go/option"

	"github.com/tidegate/tidegate/events"
	"github.com/tidegate/tidegate/receipt"
	"github.com/tidegate/tidegate/receipt/picture"
	"github.com/tidegate/tidegate/receipt/reply"
)

// DefaultModel reads pictures and costs little.
const DefaultModel = sdk.ModelClaudeHaiku4_5

// maxEdge is beyond what most models look at: they shrink larger pictures
// themselves.
const maxEdge = 2048

// Config configures [New]. Every field may be left at its zero value.
type Config struct {
	APIKey  string // without one the provider is not configured
	BaseURL string // default https://api.anthropic.com
	Model   string // default [DefaultModel]; it must take pictures and tools
}

// Provider is a [receipt.Provider].
type Provider struct{ cfg Config }

// New returns a provider. It makes no call.
func New(cfg Config) *Provider {
	if cfg.Model == "" {
		cfg.Model = DefaultModel
	}
	return &Provider{cfg: cfg}
}

// Name is the provider's name in usage events.
func (p *Provider) Name() string { return "anthropic" }

// Read asks the model. What it costs the metered client has seen.
func (p *Provider) Read(ctx context.Context, metered *http.Client, img image.Image) (receipt.Receipt, *events.Usage, error) {
	if p.cfg.APIKey == "" {
		return receipt.Receipt{}, nil, fmt.Errorf("%w: ANTHROPIC_API_KEY is not set", receipt.ErrNotConfigured)
	}
	file, err := picture.JPEG(img, maxEdge)
	if err != nil {
		return receipt.Receipt{}, nil, err
	}
	options := []option.RequestOption{
		option.WithoutEnvironmentDefaults(), option.WithAPIKey(p.cfg.APIKey),
		option.WithHTTPClient(metered), option.WithMaxRetries(1),
	}
	if p.cfg.BaseURL != "" {
		options = append(options, option.WithBaseURL(p.cfg.BaseURL))
	}
	client := sdk.NewClient(options...)
	message, err := client.Messages.New(ctx, p.params(file))
	if err != nil {
		return receipt.Receipt{}, nil, fmt.Errorf("anthropic: %w", err)
	}
	for _, block := range message.Content {
		if block.Type == "tool_use" && block.Name == reply.Name && message.StopReason == sdk.StopReasonToolUse {
			read, err := reply.Read(block.Input, time.Now())
			return read, nil, err
		}
	}
	return receipt.Receipt{}, nil, fmt.Errorf("%w: anthropic ended it with %q and without the tool", receipt.ErrUnreadableReply, message.StopReason)
}

// params make the model answer through a tool, which every model has, and whose
// input has a schema.
func (p *Provider) params(file []byte) sdk.MessageNewParams {
	schema := reply.Schema()
	return sdk.MessageNewParams{
		Model:     p.cfg.Model,
		MaxTokens: reply.MaxOutputTokens,
		System:    []sdk.TextBlockParam{{Text: reply.Instructions}},
		Messages: []sdk.MessageParam{sdk.NewUserMessage(
			sdk.NewImageBlockBase64("image/jpeg", base64.StdEncoding.EncodeToString(file)),
		)},
		Tools: []sdk.ToolUnionParam{{OfTool: &sdk.ToolParam{
			Name:        reply.Name,
			Description: sdk.String("Takes what is printed on the receipt."),
			InputSchema: sdk.ToolInputSchemaParam{
				Properties: schema["properties"], Required: schema["required"].([]string),
				ExtraFields: map[string]any{"additionalProperties": false},
			},
		}}},
		ToolChoice: sdk.ToolChoiceParamOfTool(reply.Name),
	}
}
