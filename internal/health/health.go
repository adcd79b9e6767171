// Package health answers the questions that orchestrators ask: is the process
// alive, and is everything it depends on?
package health

import (
	"context"
	"encoding/json"
	"net/http"
	"sync"
	"time"
)

const checkTimeout = 2 * time.Second

// Checks are named dependencies. The zero value has none.
type Checks struct {
	mu     sync.Mutex
	checks map[string]func(context.Context) error
}

// Add names a dependency; check returns nil while it is usable.
func (c *Checks) Add(name string, check func(context.Context) error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.checks == nil {
		c.checks = map[string]func(context.Context) error{}
	}
	c.checks[name] = check
}

// Live always answers 200: the process serves.
func Live(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	_, _ = w.Write([]byte("ok\n"))
}

// Ready answers 200 if every dependency is usable and 503 if one is not, with a
// JSON object that says which: {"ready":false,"checks":{"postgres":"…"}}.
func (c *Checks) Ready(w http.ResponseWriter, r *http.Request) {
	results := c.run(r.Context())
	ready := true
	for _, result := range results {
		ready = ready && result == "ok"
	}
	w.Header().Set("Content-Type", "application/json")
	if !ready {
		w.WriteHeader(http.StatusServiceUnavailable)
	}
	_ = json.NewEncoder(w).Encode(map[string]any{"ready": ready, "checks": results})
}

func (c *Checks) run(ctx context.Context) map[string]string {
	ctx, cancel := context.WithTimeout(ctx, checkTimeout)
	defer cancel()
	c.mu.Lock()
	defer c.mu.Unlock()
	results := make(map[string]string, len(c.checks))
	var mu sync.Mutex
	var wg sync.WaitGroup
	for name, check := range c.checks {
		wg.Go(func() {
			result := "ok"
			if err := check(ctx); err != nil {
				result = err.Error()
			}
			mu.Lock()
			defer mu.Unlock()
			results[name] = result
		})
	}
	wg.Wait()
	return results
}
