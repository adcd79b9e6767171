package health

import (
	"context"
	"encoding/json"
	"errors"
	"net/http/httptest"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
)

type answer struct {
	Ready  bool
	Checks map[string]string
}

func ask(t *testing.T, c *Checks) (status int, a answer) {
	t.Helper()
	w := httptest.NewRecorder()
	c.Ready(w, httptest.NewRequest("GET", "/readyz", nil))
	if err := json.Unmarshal(w.Body.Bytes(), &a); err != nil {
		t.Fatal(err)
	}
	return w.Code, a
}

// Readiness is a fact of now: it comes, goes, and comes again.
func TestReadyIsAFactOfNow(t *testing.T) {
	var c Checks
	var broken atomic.Bool
	c.Add("postgres", Failing("cannot be reached:\n\tno route"))
	c.Add("gate", func(context.Context) error {
		if broken.Load() {
			return errors.New("a subscription is gone")
		}
		return nil
	})
	for _, step := range []struct {
		do     func()
		status int
		want   answer
	}{
		{func() {}, 503, answer{false, map[string]string{"postgres": "cannot be reached: no route", "gate": "ok"}}},
		{func() { c.Add("postgres", func(context.Context) error { return nil }) }, 200, answer{true, map[string]string{"postgres": "ok", "gate": "ok"}}},
		{func() { broken.Store(true) }, 503, answer{false, map[string]string{"postgres": "ok", "gate": "a subscription is gone"}}},
		{func() { broken.Store(false); c.Hold("starting") }, 503, answer{false, map[string]string{"postgres": "ok", "gate": "ok", "start": "starting"}}},
		{func() { c.Hold("") }, 200, answer{true, map[string]string{"postgres": "ok", "gate": "ok"}}},
	} {
		step.do()
		status, got := ask(t, &c)
		if diff := cmp.Diff(step.want, got); status != step.status || diff != "" {
			t.Errorf("%d, want %d (-want +got):\n%s", status, step.status, diff)
		}
	}
}

// A check that hangs, whatever it does with its context, neither hangs /readyz nor piles
// up, and the others' answers are there.
func TestACheckThatHangs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var c Checks
		release := make(chan struct{})
		var asked atomic.Int32
		for _, name := range []string{"gate", "consumer"} {
			c.Add(name, func(context.Context) error {
				asked.Add(1)
				<-release
				return nil
			})
		}
		c.Add("postgres", func(context.Context) error { return nil })
		for range 3 {
			began := time.Now()
			status, got := ask(t, &c)
			want := answer{false, map[string]string{"postgres": "ok", "gate": "no answer within 2s", "consumer": "no answer within 2s"}}
			if diff := cmp.Diff(want, got); status != 503 || diff != "" {
				t.Errorf("%d (-want +got):\n%s", status, diff)
			}
			if took := time.Since(began); took > 3*time.Second {
				t.Errorf("it took %s", took)
			}
		}
		if n := asked.Load(); n != 2 {
			t.Errorf("two checks that hang were asked %d times", n)
		}
		close(release)
		if err := c.Await(t.Context()); err != nil {
			t.Error(err)
		}
		if status, got := ask(t, &c); status != 200 {
			t.Errorf("%d %v once they answer", status, got)
		}
	})
}

func TestAwait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var c Checks
		c.Hold("the screen is not printed yet") // Await is what it waits for
		c.Add("gate", Failing("loading"))
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if err := c.Await(ctx); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("%v, want the context's end", err)
		}
		go func() {
			time.Sleep(time.Second)
			c.Add("gate", func(context.Context) error { return nil })
		}()
		if err := c.Await(t.Context()); err != nil {
			t.Error(err)
		}
	})
}
