package demo

import (
	"fmt"
	"hash/fnv"
	"math"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/tidegate/tidegate/events"
)

// historyDays is how far back the demo's ports were called.
const historyDays = 60

// pages is how many times its usual size a job of a history has at most: what people give
// an AI feature differs much.
const pages = 9

// history is the calls of a port in the days before now, oldest first. It is the same for
// every start of the demo, so that what is published twice is booked once.
func (p *port) history(days int, now time.Time) (calls []events.Usage) {
	today := now.UTC().Truncate(24 * time.Hour)
	end := now.Add(-time.Minute) // an event must not come from the future
	if p.live {
		end = today
	}
	if p.silent > 0 {
		end = today.AddDate(0, 0, -p.silent)
	}
	for day := today.AddDate(0, 0, -days); day.Before(end); day = day.AddDate(0, 0, 1) {
		for _, u := range p.callsOf(day) {
			if u.OccurredAt.Before(end) {
				calls = append(calls, u)
			}
		}
	}
	return calls
}

// callsOf is the calls of a day: fewer at weekends, most about noon, and for some weeks more
// than for others.
func (p *port) callsOf(day time.Time) (calls []events.Usage) {
	seed := fnv.New64a()
	seed.Write([]byte(p.id))
	number := day.Unix() / 86_400
	dice := rand.New(rand.NewPCG(seed.Sum64(), uint64(number)))
	wave := 1 + 0.25*math.Sin(float64(number)/7+float64(seed.Sum64()%7))
	n := float64(p.calls) * wave * (0.75 + 0.5*dice.Float64())
	if day.Weekday() == time.Saturday || day.Weekday() == time.Sunday {
		n /= 5
	}
	for i := range int(n) {
		calls = append(calls, p.callOf(dice, day, i))
	}
	slices.SortFunc(calls, func(a, b events.Usage) int { return a.OccurredAt.Compare(b.OccurredAt) })
	var tokens int64
	for i := range calls { // whoever reserves is refused then
		if tokens += calls[i].TotalTokens(); p.daily > 0 && tokens > p.daily {
			return calls[:i]
		}
	}
	return calls
}

func (p *port) callOf(dice *rand.Rand, day time.Time, i int) events.Usage {
	j := agent
	if pick := dice.IntN(2 + 2*len(jobs)); pick < 2*len(jobs) {
		j = jobs[pick/2]
	}
	hours := 5 + 16*(dice.Float64()+dice.Float64())/2
	if j.background {
		hours = 24 * dice.Float64()
	}
	scale := int64(1 + dice.IntN(1+dice.IntN(pages)))
	j.input, j.output = scale*j.input, scale*j.output
	u := j.do(dice, j.most())
	u.PortID, u.Feature = p.id, j.feature
	u.ID = fmt.Sprintf("demo-%s-%d", day.Format("20060102"), i)
	u.OccurredAt = day.Add(time.Duration(hours * float64(time.Hour))).Truncate(time.Millisecond)
	if first := dice.IntN(len(p.users)); !j.background { // some use it more than others
		u.UserID = p.users[dice.IntN(first+1)]
	}
	if j.run {
		u.RunID = fmt.Sprintf("run-%s-%d", day.Format("0102"), dice.IntN(1+p.calls/15))
	}
	return u
}

// usedBy sums a history up.
func usedBy(calls []events.Usage, days int, now time.Time) (u used) {
	month, _ := events.PeriodMonth.Bounds(now)
	for i := range calls {
		n := calls[i].TotalTokens()
		u.day += n
		if !calls[i].OccurredAt.Before(month) {
			u.month += n
		}
	}
	u.day /= int64(max(1, days))
	return u
}
