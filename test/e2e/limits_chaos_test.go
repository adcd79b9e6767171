package e2e

import (
	"context"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/tidegate/tidegate/budget"
	"github.com/tidegate/tidegate/events"
	"github.com/tidegate/tidegate/internal/testenv"
)

// chaosScale is by how much a port's limits are larger: with the small ones of most ports
// there are no leases.
func chaosScale(port string) int64 { return [...]int64{1, 1, 1, 10}[portNumber(port)%4] }

// underDefault: the port has no budget of its own, in a history with limits.
func underDefault(port string) bool { return portNumber(port)%4 == 2 }

// chaosLimits are what budgets have, each of them or not, beside the port's cap. A user's
// window is an hour, unless that is about to end. All windows are days where a day ends.
func (c *chaos) chaosLimits(port string) []events.Limit {
	hard := func(n int64) *int64 { return new(n * chaosScale(port)) }
	user := budget.Hour
	if _, end := budget.Hour.Bounds(time.Now()); time.Until(end) < time.Minute {
		user = budget.Total
	}
	limits := []events.Limit{
		{Name: "ocr", Match: budget.Match{Feature: "oc*"}, Window: budget.Day, Hard: hard(30)},
		{Name: "user", Per: budget.PerUser, Window: user, Hard: hard(15)},
		{Name: "run", Match: budget.Match{RunID: "*"}, Per: budget.PerRun, Window: budget.Total, Hard: hard(18)},
		{Name: "weighted", Window: budget.Week, Unit: budget.Weighted, Weights: budget.Weights{Output: new(budget.Weight(3000))}, Hard: hard(60)},
		{Name: "calls", Match: budget.Match{UserID: "u0"}, Window: budget.Day, Unit: budget.Requests, Hard: hard(7)},
	}
	for i := range limits {
		if c.clock != nil {
			limits[i].Window = budget.Day
		}
	}
	return limits
}

// chaosCounts are the counts of chaosLimits: of which limit, for which value, and how much fits,
// times the scale.
var chaosCounts = [...]struct {
	limit int
	value string
	hard  int64
}{{0, "", 30}, {1, "u0", 15}, {1, "u1", 15}, {1, "u2", 15}, {2, "r0", 18}, {2, "r1", 18}, {3, "", 60_000}, {4, "", 7}}

// chaosCall makes a request one of a user, maybe in a run, with the parts of its estimate.
func chaosCall(random *rand.Rand, q *events.ReserveRequest) {
	q.Feature = [...]string{"ocr", "chat"}[random.IntN(2)]
	q.UserID = fmt.Sprint("u", random.IntN(3))
	if random.IntN(3) > 0 {
		q.RunID = fmt.Sprint("r", random.IntN(2))
	}
	u := usage(q.PortID, q.EstimatedTokens)
	q.EstimatedInputTokens, q.EstimatedOutputTokens = u.InputTokens, u.OutputTokens
}

// countsAs is what a call counts in each of chaosCounts with so many tokens, asked for or used.
func countsAs(call budget.Call, tokens int64) (n counts) {
	u := usage("", tokens)
	for i, of := range chaosCounts {
		switch of.limit {
		case 0:
			if call.Feature == "ocr" {
				n[i] = tokens
			}
		case 1:
			if call.UserID == of.value {
				n[i] = tokens
			}
		case 2:
			if call.RunID == of.value {
				n[i] = tokens
			}
		case 3:
			n[i] = 1000*u.InputTokens + 3000*u.OutputTokens
		case 4:
			if call.UserID == "u0" {
				n[i] = 1
			}
		}
	}
	return n
}

// countsOfRow is what a hold that is found in the database counts.
func countsOfRow(feature string, call []byte, tokens int64) counts {
	c := budget.Call{Estimate: budget.Estimate{Tokens: tokens}}
	if err := json.Unmarshal(call, &c.Labels); err != nil {
		panic(err) // every call has a user
	}
	c.Feature = feature
	return countsAs(c, tokens)
}

// beginLimits gives every port a limit or two.
func (c *chaos) beginLimits() {
	// A change waits up to a second for the leases of gates that are dead.
	c.hasty = testenv.Must(events.NewClient(c.nc, events.ClientConfig{WhenUnavailable: events.FailClosed, Timeout: 3 * time.Second}))
	for p := range c.ports {
		c.setLimitsOf(chaosPort(p), 1<<(p%chaosLimitKinds)|1<<((p/4)%chaosLimitKinds), 0)
	}
}

const chaosLimitKinds = 5

// chaosChangers change limits at once, each those of its own ports: the third those of the
// default budget.
const chaosChangers = 4

// changeLimits adds limits to one port or the other, or extra tokens, and removes them, until ctx ends.
func (c *chaos) changeLimits(ctx context.Context, n int) {
	random := rand.New(rand.NewPCG(uint64(c.seed), 7+uint64(n)))
	for ctx.Err() == nil {
		port, extra := chaosPort(n+chaosChangers*random.IntN(c.ports/chaosChangers)), [...]int64{0, 0, 7, 40}[random.IntN(4)]
		c.setLimitsOf(port, uint8(1+random.IntN(1<<chaosLimitKinds-1)), extra)
	}
}

// setLimitsOf asks until it is answered: what is asked for is the same each time. It asks
// with the version that was read, since a try that nobody answered may be done later. The extra
// tokens are there until the period ends; the default budget has none.
func (c *chaos) setLimitsOf(port string, which uint8, extra int64) {
	limits := []events.Limit{}
	for i, l := range c.chaosLimits(port) {
		if which&(1<<i) != 0 {
			limits = append(limits, l)
		}
	}
	id, ports := port, []string{port}
	if underDefault(port) {
		id, ports, extra = events.DefaultPort, nil, 0
		for p := range c.ports {
			if underDefault(chaosPort(p)) {
				ports = append(ports, chaosPort(p))
			}
		}
	}
	begin := c.now()
	now, until := c.period().Bounds(begin)
	c.insist("change of a budget", func() bool {
		_, err := c.hasty.Change(context.Background(), id, func(b *events.Budget) {
			b.Enabled, b.HardCapTokens, b.Period, b.Limits = true, new(chaosCap(port)), c.period(), limits
			if b.ExtraTokens, b.ExtraUntil = nil, (time.Time{}); extra > 0 {
				b.ExtraTokens, b.ExtraUntil = &extra, until
			}
		})
		return err == nil
	})
	for _, port := range ports {
		op := operation{port: port, period: now, kind: opLimits, limits: which}
		if c.clock != nil { // the budget is the same on both days, but for what is extra
			for _, op.period = range []time.Time{midnight.AddDate(0, 0, -1), midnight} {
				if op.tokens = 0; op.period.Equal(now) {
					op.tokens = extra
				}
				c.record(begin, op)
			}
			continue
		}
		op.tokens = extra
		c.record(begin, op)
	}
}

// TestChaosOfLimits is [TestChaos] with limits that overlap: of a feature, of each user, of
// each run, of weighted tokens and of calls, beside each port's cap, and with extra tokens. They are
// added and removed while calls are under way. Every fourth port goes by the default budget.
func TestChaosOfLimits(t *testing.T) {
	seed, runs := envInt(t, "CHAOS_SEED", 1), envInt(t, "CHAOS_RUNS", 1)
	for i := range runs {
		t.Run(fmt.Sprintf("seed=%d", seed+i), func(t *testing.T) {
			c := newChaos(t, seed+i, "", withLimits)
			c.run()
			c.mustBeLegal()
			t.Logf("%s", c.tally())
		})
	}
}

func withLimits(c *chaos) { c.limits = true }

// TestChaosOfLimitsFindsPlantedBugs is [TestChaosFindsPlantedBugs] for limits.
func TestChaosOfLimitsFindsPlantedBugs(t *testing.T) {
	t.Parallel()
	findPlanted(t, limitPlants, "counter forgotten", withLimits)
}

// limitPlants are bugs as a trigger would cause them in the real tables.
var limitPlants = map[string]string{
	"counter added twice": plantIn("ai_limit_counters", "update", "new.used := new.used + (new.used - old.used);"),
	"counter forgotten":   plantIn("ai_limit_counters", "update", "new.used := old.used;"),
	"a user's calls count as another's": `create function plant() returns trigger language plpgsql as $$ begin
		update ai_limit_counters set used = used + new.used - old.used
			where (port_id, counter, start) = (new.port_id, new.counter, new.start) and value = 'u2';
		return new; end $$;
		create trigger plant after update on ai_limit_counters for each row
			when (new.value = 'u1' and pg_trigger_depth() = 0) execute function plant()`,
	"added limit begins at nothing": `create function plant() returns trigger language plpgsql as $$ begin
		delete from ai_limit_counters where port_id = new.port_id; return new; end $$;
		create trigger plant after update on system_settings for each row execute function plant()`,
	"hold does not say whose it is": plantIn("ai_budget_holds", "insert", "new.call := '{\"user_id\":\"x\"}';"),
	"parts of a hold are lost":      plantIn("ai_budget_holds", "insert", "new.call := new.call - 'input' - 'output';"),
	"a run's calls are forgotten": `create function plant() returns trigger language plpgsql as $$ begin
		new.used := old.used; return new; end $$;
		create trigger plant before update on ai_limit_counters for each row when (new.value = 'r1') execute function plant()`,
	"hold is of another feature": plantIn("ai_budget_holds", "insert", "new.feature := case new.feature when 'ocr' then 'chat' else 'ocr' end;"),
	"extra tokens count twice":   plantIn("system_settings", "update", "new.value := new.value || jsonb_build_object('extra_tokens', 2 * (new.value->>'extra_tokens')::bigint);"),
	"window of the day before":   plantIn("ai_limit_counters", "insert", "new.start := new.start - interval '1 day';"),
}

func plantIn(table, when, what string) string {
	return fmt.Sprintf(`create function plant() returns trigger language plpgsql as $$ begin %s return new; end $$;
		create trigger plant before %s on %s for each row execute function plant()`, what, when, table)
}
