package e2e

import (
	"context"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/tidegate/tidegate/consumer"
	"github.com/tidegate/tidegate/events"
	"github.com/tidegate/tidegate/internal/testenv"
)

// TestThousandCallersNeverPassTheCap lets 1,000 callers reserve 97 tokens at a
// time from three gate processes, which are killed at random, until a cap of 100,000
// (in `make chaos` of a million) is spent. Half of them name a key and ask until they are
// answered; the others are served from slices and give up on what nobody answers.
func TestThousandCallersNeverPassTheCap(t *testing.T) {
	t.Parallel()
	const (
		callers  = 1_000
		estimate = 97
	)
	hardCap := int64(envInt(t, "CAP_TOKENS", 100_000))
	s := start(t, options{gates: -1, noRoles: true})
	binary := testenv.Killable(t)
	s.background(testenv.Must(consumer.New(consumer.Config{Conn: testenv.Connect(t, s.nats), Ledger: s.ledger, AckWait: time.Second})).Run)
	args := []string{"--nats-url", s.nats.ClientURL(), "--database-url", s.url, "--roles", "gate,admin", "--log-level", "error"}
	gates := make([]*process, 3)
	for i := range gates {
		gates[i] = spawn(t, binary, nil, args...)
	}
	for _, g := range gates {
		g.awaitReady()
	}
	s.setBudget("p1", -1, hardCap, events.PeriodMonth)

	var admitted, refusals, booked, kills atomic.Int64
	// As much is admitted for each gate that is killed. A cap of 100,000 would be spent otherwise
	// before the second one has died.
	eachKill := hardCap / estimate / 4
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
	defer cancel()
	var group sync.WaitGroup
	for caller := range callers {
		group.Go(func() {
			random := rand.New(rand.NewPCG(uint64(caller), 7))
			client := testenv.Must(events.NewClient(s.nc, events.ClientConfig{WhenUnavailable: events.FailClosed, Publisher: s.publisher, Timeout: 3 * time.Second}))
			for i, refused := 0, 0; ctx.Err() == nil && refused < 3; {
				if admitted.Load() >= eachKill*(kills.Load()+1) {
					time.Sleep(time.Duration(10+random.IntN(10)) * time.Millisecond)
					continue
				}
				q := events.ReserveRequest{PortID: "p1", Feature: "ocr", EstimatedTokens: estimate}
				if caller%2 == 0 {
					q.IdempotencyKey = fmt.Sprintf("%d-%d", caller, i)
				}
				r, err := client.Reserve(ctx, q)
				if err != nil { // a gate was killed: the same key finds the hold if there is one; without a key it expires
					time.Sleep(time.Duration(10+random.IntN(50)) * time.Millisecond)
					continue
				}
				i++
				if r.Allowed {
					admitted.Add(1)
					refused = 0
					r.Settle(usage("p1", 81+random.Int64N(estimate-81+1)))
					continue
				}
				refusals.Add(1)
				if booked.Load() == admitted.Load() { // a call that is not booked yet may give something back
					refused++
				}
				if r.UsedTokens+r.HeldTokens+estimate <= hardCap {
					t.Errorf("refused while %d + %d of %d were spent", r.UsedTokens, r.HeldTokens, hardCap)
				}
				time.Sleep(time.Duration(100+random.IntN(400)) * time.Millisecond)
			}
		})
	}
	// Meanwhile: kill gates, and look at used + held in one snapshot, again and again.
	watch, stop := context.WithCancel(ctx)
	var watching sync.WaitGroup
	var most, looks int64
	watching.Go(func() {
		for watch.Err() == nil {
			var calls, spent int64
			err := s.db.QueryRow(watch, `select coalesce(sum(requests), 0)::bigint, (coalesce(sum(total_tokens), 0)
				+ (select coalesce(sum(tokens), 0) from ai_held_tokens where port_id = 'p1' and expires_at > clock_timestamp()))::bigint
				from ai_usage_port_days where port_id = 'p1'`).Scan(&calls, &spent)
			if err == nil {
				most, looks = max(most, spent), looks+1
				booked.Store(calls)
			}
			time.Sleep(5 * time.Millisecond)
		}
	})
	watching.Go(func() {
		random := rand.New(rand.NewPCG(1, 1))
		for watch.Err() == nil {
			// Each kill strands what the gate had leased. A slow machine must not strand the
			// whole cap before anything is spent.
			for enough := min(admitted.Load()+100, eachKill*(kills.Load()+1)); admitted.Load() < enough && watch.Err() == nil; {
				time.Sleep(10 * time.Millisecond)
			}
			time.Sleep(time.Duration(300+random.IntN(700)) * time.Millisecond)
			i := random.IntN(len(gates))
			gates[i].signal(syscall.SIGKILL)
			gates[i].wait(5 * time.Second)
			gates[i] = spawn(t, binary, nil, args...)
			kills.Add(1)
		}
	})
	group.Wait()
	stop()
	watching.Wait()
	s.flush()
	testenv.Eventually(s.t, "all calls are booked", func() bool { return int64(s.rows()) == admitted.Load() })
	for _, g := range gates {
		g.awaitReady()
	}
	used, held := s.booked("p1"), s.held("p1") // by gates that were killed: holds that nobody was told of, and what they had to spare
	t.Logf("%d admitted, %d refusals, %d kills, %d looks, used + held at most %d, at the end %d used and %d held", admitted.Load(), refusals.Load(), kills.Load(), looks, most, used, held)
	if most > hardCap || used+held > hardCap {
		t.Errorf("used + held reached %d, at the end %d: past the cap of %d", most, used+held, hardCap)
	}
	if used+held < hardCap*99/100 || used < hardCap/2 {
		t.Errorf("only %d are used and %d held: callers were refused while budget was left", used, held)
	}
	if kills.Load() < 3 {
		t.Errorf("only %d gates were killed: too few to mean anything", kills.Load())
	}
	if !s.verified() {
		t.Error("verify finds differences")
	}
}
