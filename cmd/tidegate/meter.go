package main

import (
	"fmt"
	"os"

	"github.com/tidegate/tidegate/meter"
)

type meterCmd struct {
	File string `arg:"" help:"JSON lines, one recorded reply each: {\"name\", \"api\" or \"url\", \"response\":{\"status\",\"headers\",\"body\" or \"body_b64\"}}." type:"existingfile"`
}

// Run says what would be counted for recorded replies. A line that nobody can read
// does not end it.
func (c *meterCmd) Run() error {
	f, err := os.Open(c.File)
	if err != nil {
		return err
	}
	defer f.Close()
	report, err := meter.WriteReport(os.Stdout, f)
	if err != nil {
		return fmt.Errorf("%s: %w", c.File, err)
	}
	fmt.Fprintf(os.Stderr, "%s: %v\n", c.File, report)
	return nil
}
