package e2e

import (
	"context"
	"encoding/json"
	"fmt"
	"runtime"
	"sync"
	"testing"
	"time"

	"github.com/tidegate/tidegate/consumer"
	"github.com/tidegate/tidegate/events"
	"github.com/tidegate/tidegate/internal/bus"
	"github.com/tidegate/tidegate/internal/testenv"
	"github.com/tidegate/tidegate/ledger"
)

// One of two consumers is killed, with what it fetched. The other has booked all of it
// within 3 s, and until a gate counts it, as_of does not claim so.
func TestOneOfTwoConsumersIsKilled(t *testing.T) {
	t.Parallel()
	binary := testenv.Killable(t)
	for _, point := range []string{"after-fetch", "after-commit"} {
		t.Run(point, func(t *testing.T) {
			t.Parallel()
			s := start(t, options{consumer: func(c *consumer.Config) { c.AckWait = 0 }}) // the default, as below
			p := spawn(t, binary, []string{"TIDEGATE_KILLPOINT=" + point + ":2"}, "--nats-url", s.nats.ClientURL(), "--database-url", s.url, "--roles", "consumer")
			p.awaitReady()
			var ports []string // an event each: what is booked later tells nothing of the others
			for end := time.Now().Add(time.Minute); !p.wait(0); {
				ports = append(ports, fmt.Sprintf("p%d", len(ports)))
				u := usage(ports[len(ports)-1], 1)
				u.ID = events.NewUUIDv7(time.Now()).String()
				if err := s.publisher.Publish(t.Context(), []events.Usage{u}); err != nil {
					t.Fatal(err)
				}
				for s.booked(u.PortID) == 0 && !p.wait(0) && time.Now().Before(end) {
					time.Sleep(5 * time.Millisecond)
				}
			}
			died := time.Now()
			committed := map[string]int64{}
			for _, port := range ports {
				committed[port] = s.booked(port)
			}
			var settled time.Duration
			for counted := false; !counted || settled == 0; time.Sleep(20 * time.Millisecond) {
				counted = true
				for _, port := range ports {
					v := s.check(port, 0)
					if v.AsOf.After(died) && v.UsedTokens < committed[port] {
						t.Fatalf("%s after the kill: as_of is %s after it, but the event that was booked before it is not counted", time.Since(died), v.AsOf.Sub(died))
					}
					counted = counted && v.AsOf.After(died) && v.UsedTokens == 1
				}
				if settled == 0 && s.waiting() == 0 && s.rows() == len(ports) {
					settled = time.Since(died)
				}
				if time.Since(died) > 20*time.Second {
					t.Fatalf("20 s after the kill %d of %d events are booked, all counted: %v", s.rows(), len(ports), counted)
				}
			}
			t.Logf("everything was booked and acknowledged %s after the kill, and as_of was later than it after %s", settled, time.Since(died))
			if settled > 5*time.Second { // 3 s, on a machine that does nothing else
				t.Errorf("what the dead consumer had fetched was settled after %s", settled)
			}
		})
	}
}

// untold has committed what it booked, and does not say so until it is let go.
type untold struct {
	*ledger.Ledger
	letGo <-chan struct{}
}

func (l untold) BookShare(ctx context.Context, share ledger.Share, entries []ledger.Entry) (ledger.Booking, error) {
	b, err := l.Ledger.BookShare(ctx, share, entries)
	<-l.letGo
	return b, err
}

// A consumer whose machine's clock is ahead tells nothing of a time that is not over by the
// database's clock: until a commit of it is told, as_of is not later than that.
func TestAConsumerWithAWrongClockClaimsNothingTooEarly(t *testing.T) {
	t.Parallel()
	letGo := make(chan struct{})
	release := sync.OnceFunc(func() { close(letGo) })
	s := start(t, options{consumer: func(c *consumer.Config) {
		c.Ledger = untold{c.Ledger.(*ledger.Ledger), letGo}
		c.Now = func() time.Time { return time.Now().Add(3 * time.Second) }
	}})
	t.Cleanup(release)
	ready := time.Now()
	testenv.Eventually(s.t, "the gate goes by what consumers tell: nobody else has been heard for 3 s", func() bool {
		return s.check("p1", 0).AsOf.After(ready.Add(3 * time.Second))
	})
	beats := testenv.Must(s.nc.SubscribeSync(bus.SubjectTotals))
	s.publisher.Record(usage("p1", 100))
	testenv.Eventually(s.t, "it is committed", func() bool { return s.booked("p1") == 100 })
	committed := time.Now()
	for heard := 0; heard < 2; { // of which the first may be from before
		n := testenv.Must(bus.Decode[bus.Totals](testenv.Must(beats.NextMsg(10*time.Second)).Data, time.Now()))
		if n.At.After(time.Now().Add(100 * time.Millisecond)) { // clocks are reckoned as well as a round trip allows
			t.Errorf("a notice is of %s, %s from now", n.At, time.Until(n.At))
		}
		if time.Since(committed) > 0 {
			heard++
		}
	}
	testenv.Eventually(s.t, "the gate has read what is held since", func() bool {
		v := s.check("p1", 0)
		if v.AsOf.After(committed) && v.UsedTokens != 100 {
			t.Fatalf("as_of is %s after the commit, which is not counted", v.AsOf.Sub(committed))
		}
		return time.Since(committed) > time.Second
	})
	release()
	testenv.Eventually(s.t, "it is told", func() bool {
		v := s.check("p1", 0)
		return v.UsedTokens == 100 && v.AsOf.After(committed)
	})
}

// While the durable is paused, answers and verification say that something waits.
func TestAnswersSayWhatWaits(t *testing.T) {
	t.Parallel()
	s := start(t, options{})
	s.spend("p1", 10, time.Time{})
	testenv.Eventually(s.t, "checks say that nothing waits, within a heartbeat", func() bool {
		v := s.check("p1", 0)
		return v.Messages == 0 && v.OldestAt.IsZero()
	})
	testenv.Must(s.js.PauseConsumer(t.Context(), events.UsageStream, events.ConsumerName, time.Now().Add(time.Hour)))
	// Whoever had asked for a message before gets one more.
	before := time.Now()
	for s.waiting() < 3 {
		s.publishRaw("ai.usage.p1", `{"feature":"ocr","provider":"openai","model":"gpt-5-mini","input_tokens":1}`)
	}
	testenv.Eventually(s.t, "a check says so", func() bool { return s.check("p1", 0).Messages >= 3 })
	v := s.check("p1", 0)
	if v.OldestAt.Before(before.Add(-time.Second)) || v.OldestAt.After(time.Now().Add(-time.Second)) {
		t.Errorf("the oldest is said to be of %s, published after %s", v.OldestAt, before)
	}
	if found := testenv.Must(s.ops.Verify(t.Context(), nil)); !found.OK || found.Messages != int64(s.waiting()) || !found.OldestAt.Equal(v.OldestAt) {
		t.Errorf("verify: %+v, want agreement, %d messages that wait, the oldest since %s", found, s.waiting(), v.OldestAt)
	}
	testenv.Must(s.js.ResumeConsumer(t.Context(), events.UsageStream, events.ConsumerName))
	testenv.Eventually(s.t, "nothing waits", func() bool { return s.check("p1", 0).Backlog == events.Backlog{} })
}

// What nobody in Tidegate would say is ignored, and what is said later counts.
func TestGateIgnoresWhatIsOutOfBounds(t *testing.T) {
	t.Parallel()
	s := start(t, options{})
	s.setBudget("p1", -1, 1_000_000, events.PeriodMonth)
	s.spend("p1", 10, time.Time{})
	var before runtime.MemStats
	runtime.ReadMemStats(&before)
	year9000 := time.Date(9000, 1, 1, 0, 0, 0, 0, time.UTC)
	for subject, body := range map[string]any{
		bus.SubjectTotals:  bus.Totals{From: "x", Seq: 1, At: time.Now(), Ports: []string{"p1"}, Days: []int32{1 << 30}, Tokens: []int64{1}},
		bus.SubjectHolds:   bus.Holds{Ports: []string{"p1"}, Tokens: []int64{900_000}, At: []int64{year9000.UnixMicro()}},
		bus.SubjectBudgets: bus.Budget{PortID: "p1", Budget: events.Budget{Period: events.PeriodMonth, Version: 1<<31 + 7}},
		bus.SubjectUsed:    bus.UsedRequest{Ports: []string{"p1"}, Start: -1 << 31, End: 1<<31 - 1},
	} {
		if err := s.nc.PublishRequest(subject, s.nc.NewInbox(), testenv.Must(json.Marshal(body))); err != nil {
			t.Fatal(err)
		}
	}
	r := s.reserve(events.ReserveRequest{PortID: "p1", EstimatedTokens: 500})
	testenv.Eventually(s.t, "true holds are counted", func() bool { return s.check("p1", 0).HeldTokens == 500 })
	if err := r.Release(t.Context()); err != nil {
		t.Fatal(err)
	}
	testenv.Eventually(s.t, "and no others", func() bool {
		v := s.check("p1", 0)
		return v.HeldTokens == 0 && v.UsedTokens == 10 && v.HardCapTokens != nil
	})
	var after runtime.MemStats
	runtime.ReadMemStats(&after)
	if mib := (after.TotalAlloc - before.TotalAlloc) >> 20; mib > 1000 {
		t.Errorf("%d MiB were allocated for a few messages", mib)
	}
	if !s.verified() {
		t.Error("gates and ledger differ")
	}
}
