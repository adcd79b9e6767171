package main

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"strings"
)

type processCmd struct{}

// Run takes the Go benchmarks that need no second process.
func (c *processCmd) Run(ctx context.Context, r *report) error {
	r.section("In process", "Go benchmarks: `Record` on the caller's goroutine with NATS up and down; the gate's memory per port at 1,000,000 ports; a cold start with 100,000 ports, from an empty memory to ready.")
	var out bytes.Buffer
	for _, args := range [][]string{
		{"test", "-run", "^$", "-bench", "^BenchmarkRecord", "-count", "3", "./events"},
		{"test", "-run", "^$", "-bench", "^Benchmark(Memory|ColdStart)", "-benchtime", "1x", "-count", "3", "./gate"},
	} {
		cmd := exec.CommandContext(ctx, "go", args...)
		cmd.Stdout, cmd.Stderr = &out, os.Stderr
		if err := cmd.Run(); err != nil {
			return err
		}
	}
	fmt.Fprintln(r.w, "```")
	for line := range strings.Lines(out.String()) {
		if strings.HasPrefix(line, "Benchmark") {
			fmt.Fprintln(r.w, strings.TrimSpace(line))
		}
	}
	fmt.Fprintln(r.w, "```")
	return nil
}
