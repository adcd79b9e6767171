// Command testsum turns `go test -json` into what a person reads: a line for each
// package, the output of what failed, the slowest tests and a total.
//
//	go test -json ./... | go run ./scripts/testsum
//
// It exits 1 when anything failed, and when no test ran at all.
package main

import (
	"fmt"
	"os"
)

func main() {
	s := newSummary(os.Stdout)
	if err := s.read(os.Stdin); err != nil {
		fmt.Fprintln(os.Stderr, "testsum:", err)
		os.Exit(1)
	}
	if !s.close() {
		os.Exit(1)
	}
}
