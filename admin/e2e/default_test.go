package e2e

import (
	"testing"
	"time"
)

// TestSystem_DefaultBudget looks at the default budget and changes it, gives a port one of its
// own, and gives it back.
func TestSystem_DefaultBudget(t *testing.T) {
	s := newSystem(t)
	s.call("marina-7", time.Now(), 4_000)
	s.booked("marina-7", 4_000)
	p, url := s.enter(t)
	p.Role("link", "Default budget").Click()
	p.See("It binds every port that has no budget of its own", "Nobody has set a default budget yet.")
	hard, save := p.Role("textbox", "Hard cap"), p.Role("button", "Save")
	hard.Fill("4k") // as much as the port has used
	p.See("It binds 1 port that has no budget of its own: 1 used as much as the hard cap this month, and all calls of that one are refused from now on.")
	save.Click()
	p.See("Save this?")
	hard.Fill("8k")
	p.SeeNot("Save this?")
	p.See("It binds 1 port that has no budget of its own: none used as much as the hard cap this month.")
	save.Click()
	p.See("Saved")
	p.Role("button", "Undo change, version 1").Click()
	p.See("No cap refuses a call of 1 port that has no budget of its own from now on", "Hard cap 8,000 none")
	p.Role("button", "No, leave it").Click()
	p.Open(url + "/?port=marina-7")
	p.See("This port has no budget of its own", "50%", "of the hard cap")
	looks(p, "by-default")
	if v := s.check("marina-7", 4_001); v.Allowed {
		t.Errorf("the gate goes by another budget: %+v", v)
	}
	p.Role("textbox", "Hard cap").Fill("16k")
	p.Role("button", "Save").Click()
	p.See("Saved", "25%")
	p.SeeNot("This port has no budget of its own")
	p.Role("button", "Use the default budget").Click()
	p.See("Use the default budget?", "The hard cap refuses no call now: 4,000 tokens are used this month, 4,000 are left.")
	p.Role("button", "Yes, use it").Click()
	p.See("This port has no budget of its own", "50%", "The port was given back to the default budget")
	p.Role("button", "Undo this save").Click()
	p.See("Undone", "25%")
	p.SeeNot("This port has no budget of its own")
	p.Role("button", "Undo change, version 3").Click()
	p.Role("button", "Yes, undo").Click()
	p.See("This port has no budget of its own", "50%")
	p.Open(url + "/?port=*")
	p.See("Default budget", "Hard cap 8,000")
	looks(p, "default-budget")
}
