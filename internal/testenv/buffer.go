package testenv

import (
	"bytes"
	"context"
	"sync"
	"testing"
)

// Buffer keeps what is written to it, by whomever at once: a program's output, or a log.
type Buffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (b *Buffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Write(p)
}

func (b *Buffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.String()
}

// Background runs a role until the test ends, and waits for its end. An error fails the test.
func Background(t testing.TB, run func(context.Context) error) {
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		if err := run(ctx); err != nil {
			t.Errorf("a role ended with %v", err)
		}
	}()
	t.Cleanup(func() {
		cancel()
		Await(t, "a role ends", ended)
	})
}
