// Package health answers the questions that orchestrators ask: is the process
// alive, and does everything in it, and all it depends on, work now?
package health

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/singleflight"
)

const (
	checkTimeout = 2 * time.Second
	awaitEvery   = 50 * time.Millisecond
)

// Check returns nil while what it looks at works, and otherwise what is wrong. It is
// asked anew for each answer.
type Check func(context.Context) error

// Failing is the check of what is not there yet.
func Failing(reason string) Check {
	return func(context.Context) error { return errors.New(reason) }
}

// Checks are named dependencies. The zero value has none.
type Checks struct {
	// Words is what an error is called in answers, which anybody may ask for. nil: by its own text.
	Words func(error) string

	mu     sync.Mutex
	checks map[string]Check
	facts  map[string]func() any
	held   string
	asked  singleflight.Group // one question at a time to each, however many ask
}

// Add names a dependency, or replaces its check.
func (c *Checks) Add(name string, check Check) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.checks == nil {
		c.checks = map[string]Check{}
	}
	c.checks[name] = check
}

// Tell adds a fact to the answers of [Checks.Ready], under a name of its own, which
// decides nothing; nil is left out.
func (c *Checks) Tell(name string, fact func() any) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.facts == nil {
		c.facts = map[string]func() any{}
	}
	c.facts[name] = fact
}

// Hold makes [Checks.Ready] say no, whatever the checks say, until it is called with
// an empty reason.
func (c *Checks) Hold(reason string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.held = reason
}

// Await returns when every check passes, or when ctx ends.
func (c *Checks) Await(ctx context.Context) error {
	for {
		if _, ready := c.run(); ready {
			return nil
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(awaitEvery):
		}
	}
}

// Live always answers 200: the process serves.
func Live(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	_, _ = w.Write([]byte("ok\n"))
}

// Ready answers 200 if every dependency is usable and 503 if one is not, with a
// JSON object that says which: {"ready":false,"checks":{"postgres":"…"}}. A check that
// does not answer within 2 s fails.
func (c *Checks) Ready(w http.ResponseWriter, _ *http.Request) {
	results, ready := c.run()
	answer := map[string]any{}
	c.mu.Lock()
	if c.held != "" {
		results["start"], ready = c.held, false
	}
	for name, fact := range c.facts {
		if value := fact(); value != nil {
			answer[name] = value
		}
	}
	c.mu.Unlock()
	answer["ready"], answer["checks"] = ready, results
	w.Header().Set("Content-Type", "application/json")
	if !ready {
		w.WriteHeader(http.StatusServiceUnavailable)
	}
	_ = json.NewEncoder(w).Encode(answer)
}

func (c *Checks) run() (results map[string]string, ready bool) {
	c.mu.Lock()
	answers := make(map[string]<-chan singleflight.Result, len(c.checks))
	for name, check := range c.checks {
		answers[name] = c.asked.DoChan(name, func() (any, error) {
			ctx, cancel := context.WithTimeout(context.Background(), checkTimeout)
			defer cancel()
			return nil, check(ctx)
		})
	}
	c.mu.Unlock()
	results, ready = make(map[string]string, len(answers)), true
	late := make(chan struct{})
	defer time.AfterFunc(checkTimeout+checkTimeout/4, func() { close(late) }).Stop() // a check's own words say more
	for name, answer := range answers {
		result := "ok"
		if err, answered := await(answer, late); !answered {
			result = fmt.Sprintf("no answer within %s", checkTimeout)
		} else if err != nil {
			result = strings.Join(strings.Fields(c.words(err)), " ")
		}
		results[name], ready = result, ready && result == "ok"
	}
	return results, ready
}

func (c *Checks) words(err error) string {
	if c.Words == nil {
		return err.Error()
	}
	return c.Words(err)
}

// await prefers an answer that is there, however late it is asked for.
func await(answer <-chan singleflight.Result, late <-chan struct{}) (err error, answered bool) {
	select {
	case a := <-answer:
		return a.Err, true
	case <-late:
	}
	select {
	case a := <-answer:
		return a.Err, true
	default:
		return nil, false
	}
}
