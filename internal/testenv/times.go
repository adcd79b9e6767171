package testenv

import (
	"flag"
	"os"
	"strconv"
)

// Times is how often a test repeats what it draws at random, each time with servers: n times,
// or as many times more as REPEAT says, which `make chaos` sets.
func Times(n int) int {
	if more, err := strconv.Atoi(os.Getenv("REPEAT")); err == nil && more > 0 {
		n *= more
	}
	return n
}

// Checks makes rapid draw [Times] of n examples, where the command line does not say how many.
// It is for packages in which each example needs servers, and is called before [Main].
func Checks(n int) {
	if err := flag.Set("rapid.checks", strconv.Itoa(Times(n))); err != nil {
		panic(err) // the package does not use rapid
	}
}
