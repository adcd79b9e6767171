// Package openai reads receipts with OpenAI's chat completions, or with a server
// that speaks them.
package openai

import (
	"context"
	"encoding/base64"
	"fmt"
	"image"
	"net/http"
	"time"

	sdk "github.com/openai/openai-go/v3"
	"github.com/openai/openai-go/v3/option"
	"github.com/openai/openai-go/v3/shared"

	"github.com/tidegate/tidegate/events"
	"github.com/tidegate/tidegate/receipt"
	"github.com/tidegate/tidegate/receipt/picture"
	"github.com/tidegate/tidegate/receipt/reply"
)

// DefaultModel reads pictures and costs little.
const DefaultModel = sdk.ChatModelGPT5_4Mini

// maxEdge is beyond what the API looks at: it shrinks larger pictures itself.
const maxEdge = 2048

// Config configures [New]. Every field may be left at its zero value.
type Config struct {
	APIKey  string // without one, and with the official BaseURL, the provider is not configured
	BaseURL string // default https://api.openai.com/v1
	Model   string // default [DefaultModel]; it must take pictures and JSON Schema
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
func (p *Provider) Name() string { return "openai" }

// Read asks the model. What it costs the metered client has seen.
func (p *Provider) Read(ctx context.Context, metered *http.Client, img image.Image) (receipt.Receipt, *events.Usage, error) {
	if p.cfg.APIKey == "" && p.cfg.BaseURL == "" {
		return receipt.Receipt{}, nil, fmt.Errorf("%w: OPENAI_API_KEY is not set", receipt.ErrNotConfigured)
	}
	file, err := picture.JPEG(img, maxEdge)
	if err != nil {
		return receipt.Receipt{}, nil, err
	}
	options := []option.RequestOption{option.WithAPIKey(p.cfg.APIKey), option.WithHTTPClient(metered), option.WithMaxRetries(1)}
	if p.cfg.BaseURL != "" {
		options = append(options, option.WithBaseURL(p.cfg.BaseURL))
	}
	client := sdk.NewClient(options...)
	completion, err := client.Chat.Completions.New(ctx, p.params(file))
	if err != nil {
		return receipt.Receipt{}, nil, fmt.Errorf("openai: %w", err)
	}
	if len(completion.Choices) == 0 {
		return receipt.Receipt{}, nil, fmt.Errorf("%w: openai answered without a choice", receipt.ErrUnreadableReply)
	}
	choice := completion.Choices[0]
	if choice.FinishReason != "stop" {
		return receipt.Receipt{}, nil, fmt.Errorf("%w: openai ended it with %q, %q", receipt.ErrUnreadableReply, choice.FinishReason, choice.Message.Refusal)
	}
	read, err := reply.Read([]byte(choice.Message.Content), time.Now())
	return read, nil, err
}

func (p *Provider) params(file []byte) sdk.ChatCompletionNewParams {
	return sdk.ChatCompletionNewParams{
		Model:               p.cfg.Model,
		MaxCompletionTokens: sdk.Int(reply.MaxOutputTokens),
		Messages: []sdk.ChatCompletionMessageParamUnion{
			sdk.SystemMessage(reply.Instructions),
			sdk.UserMessage([]sdk.ChatCompletionContentPartUnionParam{
				sdk.ImageContentPart(sdk.ChatCompletionContentPartImageImageURLParam{
					URL: "data:image/jpeg;base64," + base64.StdEncoding.EncodeToString(file), Detail: "high",
				}),
			}),
		},
		ResponseFormat: sdk.ChatCompletionNewParamsResponseFormatUnion{
			OfJSONSchema: &shared.ResponseFormatJSONSchemaParam{
				JSONSchema: shared.ResponseFormatJSONSchemaJSONSchemaParam{Name: reply.Name, Strict: sdk.Bool(true), Schema: reply.Schema()},
			},
		},
	}
}
