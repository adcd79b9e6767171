package main

import (
	"testing"
	"time"
)

func TestLeft(t *testing.T) {
	for d, want := range map[time.Duration]string{
		30 * time.Second: "0h 0m",
		5*time.Hour + 49*time.Minute + 59*time.Second: "5h 49m",
		48*time.Hour - time.Second:                    "47h 59m",
		149*time.Hour + 50*time.Minute:                "6 days",
	} {
		if got := left(d); got != want {
			t.Errorf("left(%s) = %q, want %q", d, got, want)
		}
	}
}
