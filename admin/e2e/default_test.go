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
	p.Role("textbox", "Hard cap").Fill("8k")
	p.Role("button", "Save").Click()
	p.See("Saved")
	p.Open(url + "/?port=marina-7")
	p.See("This port has no budget of its own", "50%", "of the hard cap")
	looks(p, "by-default", look{"light", 1280})
	if v := s.check("marina-7", 4_001); v.Allowed {
		t.Errorf("the gate goes by another budget: %+v", v)
	}
	p.Role("textbox", "Hard cap").Fill("16k")
	p.Role("button", "Save").Click()
	p.See("Saved", "25%")
	p.SeeNot("This port has no budget of its own")
	p.Role("button", "Use the default budget").Click()
	p.See("This port has no budget of its own", "50%", "The port was given back to the default budget")
	p.Open(url + "/?port=*")
	p.See("Default budget", "Hard cap 8,000")
	looks(p, "default-budget")
}
