package e2e

import (
	"testing"
	"time"

	"github.com/tidegate/tidegate/events"
)

// Beside the inputs of a limit stands what it would have done yesterday, whatever is typed.
func TestSystem_LimitBackTest(t *testing.T) {
	s := newSystem(t)
	yesterday := time.Now().UTC().Truncate(24 * time.Hour).Add(-12 * time.Hour)
	for i, user := range []string{"ada", "ada", "grace", "ada", "ada"} {
		s.call("marina-7", yesterday.Add(time.Duration(i)*time.Minute), 100, func(u *events.Usage) { u.Feature, u.UserID = "summary", user })
	}
	s.booked("marina-7", 500)
	p, url := s.enter(t)
	p.Open(url + "/?port=marina-7")
	usage := "Where they went"
	if month, _ := events.PeriodMonth.Bounds(time.Now()); yesterday.Before(month) { // the card is about this month
		usage = "No usage this month yet"
	}
	p.See("There are none.", usage) // nothing moves any more
	p.Role("button", "Add limit").Click()
	p.See("Type a cap as 200k, 1.5M or 1,500,000 to see what it would have done.")
	hard := p.Role("textbox", "Hard cap of the limit")
	hard.Fill("350")
	p.See("With this limit, yesterday 2 of 5 calls that it matches would have been refused, from 12:03 on.")
	// What it would do now, whatever its window: of all that was ever called, and of an hour without calls.
	choose(p, "Window", "in total")
	p.See("Now 500 tokens so far: all calls are refused from now on.")
	hard.Fill("1k")
	p.See("Now It refuses no call now: 500 tokens so far, 50% of the hard cap.")
	choose(p, "Counted", "each user")
	hard.Fill("400")
	p.See("Now Used up so far by user ada: their calls are refused from now on.")
	looks(p, "limit-now")
	hard.Fill("401")
	p.See("It refuses no call now: nothing has used that much so far.")
	choose(p, "Counted", "all")
	choose(p, "Window", "each hour")
	p.See("It refuses no call now: 0 tokens this hour, 0% of the hard cap.")
	choose(p, "Window", "each day")
	hard.Fill("350")
	choose(p, "Counted", "each user")
	p.See("With this limit, yesterday 1 of 5 calls that it matches would have been refused, from 12:04 on. Of 1 of 2 users: ada (1).")
	choose(p, "Unit", "calls")
	hard.Fill("2")
	p.Role("textbox", "Soft cap of the limit").Fill("1")
	p.See("yesterday 2 of 5 calls that it matches would have been refused, from 12:03 on. Of 1 of 2 users: ada (2). The soft cap would have warned from 12:00 on.")
	looks(p, "limit-back-test")
	p.Role("textbox", "Feature").Fill("ocr")
	p.See("There were no calls yesterday that this limit matches.")
	p.Role("textbox", "Feature").Fill("sum*")
	hard.Fill("two")
	p.See("Type a cap as 200k")
	hard.Fill("5")
	p.See("none of 5 calls that it matches would have been refused")
	p.Role("button", "Cancel").Click()
	p.See("There are none.")
}
