package main

import (
	"fmt"
	"os"

	"github.com/tidegate/tidegate/meter"
)

type meterCmd struct {
	File string `arg:"" help:"JSON lines, one recorded reply each: {\"name\", \"provider\", \"api\", \"url\", \"request\", \"response\":{\"status\",\"headers\",\"body\"}}." type:"existingfile"`
}

// Run says what would be counted for recorded replies.
func (c *meterCmd) Run() error {
	f, err := os.Open(c.File)
	if err != nil {
		return err
	}
	defer f.Close()
	if err := meter.WriteReport(os.Stdout, f); err != nil {
		return fmt.Errorf("%s: %w", c.File, err)
	}
	return nil
}
