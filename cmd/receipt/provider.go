package main

import (
	"os"

	"github.com/tidegate/tidegate/receipt"
	"github.com/tidegate/tidegate/receipt/anthropic"
	"github.com/tidegate/tidegate/receipt/openai"
	"github.com/tidegate/tidegate/receipt/tesseract"
)

const (
	openAIModel    = openai.DefaultModel
	anthropicModel = anthropic.DefaultModel
)

// provider is who reads. Keys come from the environment only: a flag would be in
// every list of processes.
func (c *cli) provider() receipt.Provider {
	switch c.Provider {
	case "openai":
		return openai.New(openai.Config{APIKey: os.Getenv("OPENAI_API_KEY"), BaseURL: c.BaseURL, Model: c.Model})
	case "anthropic", "claude":
		return anthropic.New(anthropic.Config{APIKey: os.Getenv("ANTHROPIC_API_KEY"), BaseURL: c.BaseURL, Model: c.Model})
	case "tesseract":
		return tesseract.New(tesseract.Config{Languages: c.Language})
	default:
		return nil
	}
}
