package e2e

import (
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/chromedp/chromedp/kb"

	"github.com/tidegate/tidegate/events"
	"github.com/tidegate/tidegate/internal/browser"
)

// limitsOf is what the API tells of limits that nothing was counted in.
func limitsOf(b events.Budget) []any {
	list := []any{}
	for _, l := range b.Limits {
		list = append(list, struct {
			events.Limit
			Used   int64 `json:"used"`
			Values any   `json:"values"`
			Top    any   `json:"top"`
		}{Limit: l})
	}
	return list
}

// choose picks an option by the beginning of its text. Letters that are typed into a list count
// together only if they come quickly, which on a busy machine they do not.
func choose(p *browser.Page, list, text string) {
	p.Role("combobox", list).Focus()
	p.Do(fmt.Sprintf(`{
		const select = document.querySelector('ai-budget-card').shadowRoot.activeElement;
		select.value = [...select.options].find((o) => o.text.toLowerCase().startsWith(%q)).value;
		for (const kind of ['input', 'change']) select.dispatchEvent(new Event(kind, {bubbles: true}));
	}`, strings.ToLower(text)))
}

// TestSystem_Limits adds, changes and removes limits on the real thing: what the page
// shows was counted by bookings, and the gate decides by what the page stored.
func TestSystem_Limits(t *testing.T) {
	s := newSystem(t)
	now := time.Now()
	s.call("marina-7", now, 4_000)
	s.call("marina-7", now, 1_500, func(u *events.Usage) { u.Feature, u.UserID = "summary", "ada" })
	s.call("marina-7", now, 500, func(u *events.Usage) { u.Feature, u.UserID = "summary", "" })
	s.booked("marina-7", 6_000)
	p, url := s.enter(t)
	p.Open(url + "/?port=marina-7")
	p.See("There are none.", "Where they went") // nothing moves any more

	// What breaks a rule is said beside the field.
	typing := p.Role("textbox", "Hard cap")
	typing.Fill("7.5k") // somebody is about to change a cap
	p.Role("button", "Add limit").Click()
	name, hard := p.Role("textbox", "Name"), p.Role("textbox", "Hard cap of the limit")
	if name.Property("focused") != "true" {
		t.Error("the form of a limit opened, and the focus did not go there")
	}
	name.Fill("Ocr daily")
	p.Role("textbox", "Feature").Fill("ocr")
	p.Role("button", "Save limit").Click()
	p.See("Needs a number, or the soft cap does", "Not saved")
	if hard.Property("invalid") != "true" || hard.Property("focused") != "true" {
		t.Error("the cap that is missing is not marked, or has not the focus")
	}
	p.See("Type a cap as 200k, 1.5M or 1,500,000 to see what it would have done.")
	hard.Fill("10k")
	p.SeeNot("Needs a number")
	p.See("There were no calls yesterday that this limit matches.", "Now It refuses no call now: 4,000 tokens today, 40% of the hard cap.")
	p.Type(kb.Enter)
	p.See("Must be 1 to 64 of a-z", "Not saved")
	if name.Property("invalid") != "true" || name.Property("focused") != "true" || !strings.HasPrefix(name.Property("description"), "Must be 1 to 64 of a-z") {
		t.Errorf("a screen reader does not hear what is wrong: %q", name.Property("description"))
	}
	looks(p, "limit-invalid")
	if b, err := s.ledger.Budget(t.Context(), "marina-7"); err != nil || b.Version != 0 {
		t.Errorf("an invalid limit was stored: %+v, %v", b, err)
	}

	// Added, listed with what was counted before, live, and the gate goes by it.
	name.Fill("ocr-daily")
	p.SeeNot("Must be 1 to 64")
	p.Type(kb.Enter)
	p.See("Saved ocr-daily", "No cap on all calls together, but limits on some", "Hard cap 10,000 tokens a day", "Calls with feature ocr", "4,000 of 10,000 tokens used today (40%). 6,000 tokens left until the hard cap, starts anew on",
		"Caps enforced", "Limit ocr-daily Hard cap 10,000 tokens a day. Calls with feature ocr")
	if p.Role("button", "Edit ocr-daily").Property("focused") != "true" {
		t.Error("the focus is not at what was stored")
	}
	if got := typing.Property("value"); got != "7,500" && got != "7.5k" {
		t.Errorf("the cap that somebody was typing says %q", got)
	}
	p.SeeNot("changed this budget")
	if v := s.check("marina-7", 6_001); v.Allowed || v.Limit != "ocr-daily" {
		t.Errorf("above the limit: %+v", v)
	}
	s.call("marina-7", now, 1_000)
	p.See("5,000 of 10,000 tokens used today (50%).")
	const heard = `document.querySelector('ai-budget-card').shadowRoot.querySelector('.limit-bar').getAttribute('aria-valuetext')`
	if got := browser.Eval[string](p, heard); got != "5,000 of 10,000 tokens (50%)" || !p.Role("meter", "Used of limit ocr-daily").Exists() {
		t.Errorf("a screen reader hears of the bar: %q", got)
	}

	// One that counts each user by itself.
	p.Role("button", "Add limit").Click()
	name.Fill("each-user")
	p.Role("textbox", "Soft cap of the limit").Fill("2")
	hard.Fill("3")
	p.Role("textbox", "More alerts at").Fill("never")
	choose(p, "Unit", "calls")
	choose(p, "Window", "in total")
	choose(p, "Counted", "each user")
	p.Type(kb.Enter)
	p.Role("button", "Save limit").Click()
	p.See("Must be percentages or numbers", "Not saved")
	p.Role("textbox", "More alerts at").Fill("50%, 1")
	p.Role("button", "Save limit").Click()
	p.See("Alerts at 50% and 1 too", "Saved each-user", "Hard cap 3 · soft cap 2 calls in total", "All calls, each user by itself",
		"Fullest of 3 so far: user grace, 2 of 3 calls (67%).", "User Used Held Left grace 2 0 1 no user 1 0 2 ada 1 0 2")

	// What a call under way holds is beside what is used, and what is left is after it.
	under, err := s.client.Reserve(t.Context(), events.ReserveRequest{PortID: "marina-7", Feature: "ocr", UserID: "ada", EstimatedTokens: 1_000})
	s.must(err)
	p.See("5,000 of 10,000 tokens used today (50%), 1,000 held. 4,000 tokens left until the hard cap", "ada 1 1 1", "Fullest of 3 so far: user ada, 1 of 3 calls (33%), 1 held. 1 call left until the hard cap")
	looks(p, "limits")
	s.must(s.client.Release(t.Context(), "marina-7", under.ReservationID))
	p.See("5,000 of 10,000 tokens used today (50%). 5,000 tokens left until the hard cap", "Fullest of 3 so far: user grace, 2 of 3 calls (67%).")

	// Edited: what the person typed is checked against the other cap.
	p.Role("button", "Edit ocr-daily").Click()
	p.Role("textbox", "Soft cap of the limit").Fill("9k")
	hard.Fill("8k")
	p.Type(kb.Enter)
	p.See("Must be at most the hard cap, 8,000", "Not saved")
	p.Role("textbox", "Soft cap of the limit").Fill("6k")
	p.Type(kb.Enter)
	p.See("Saved ocr-daily", "Hard cap 8,000 · soft cap 6,000 tokens a day", "5,000 of 8,000 tokens used today (63%).")
	p.SeeNot("Hard cap 10,000 tokens a day Calls")
	if v := s.check("marina-7", 3_001); v.Allowed || v.Limit != "ocr-daily" {
		t.Errorf("above the limit as it is now: %+v", v)
	}

	// What stops calls at once is said, asked for once, and can be undone.
	p.Role("button", "Edit ocr-daily").Click()
	p.Role("textbox", "Soft cap of the limit").Fill("")
	hard.Fill("5k")
	p.See("5,000 tokens today: calls with feature ocr are refused from now on, until")
	p.Role("button", "Save limit").Click()
	p.See("Save this limit?")
	p.Role("button", "Yes, save").Click()
	p.See("Saved ocr-daily", "5,000 of 5,000 tokens used today (100%). 0 tokens left")
	if v := s.check("marina-7", 1); v.Allowed || v.Limit != "ocr-daily" {
		t.Errorf("the limit is used up: %+v", v)
	}
	p.Role("button", "Remove ocr-daily").Click()
	p.See("Remove ocr-daily? It refuses calls now: they are allowed again, as far as the budget goes.")
	p.Role("button", "Keep ocr-daily").Click()
	p.Role("button", "Undo the save of ocr-daily").Click()
	p.See("Undone", "Hard cap 8,000 · soft cap 6,000 tokens a day")
	if v := s.check("marina-7", 1); !v.Allowed {
		t.Errorf("it was undone, and the gate refuses: %+v", v)
	}

	// The caps are saved beside them, and leave them alone; so does whoever edits another limit, or
	// another field of the same.
	p.Role("button", "Save").Click()
	p.See("Hard cap 7,500", "5,000 of 8,000 tokens used today", "Fullest of 3 so far")
	p.Role("button", "Edit each-user").Click()
	if got := p.Role("textbox", "More alerts at").Property("value"); got != "50%, 1" {
		t.Errorf("the form says that each-user alerts at %q", got)
	}
	hard.Fill("2")
	p.See("Used up so far by user grace: their calls are refused from now on.")
	hard.Fill("4")
	p.See("It refuses no call now: nothing has used that much so far.")
	p.Role("button", "Save limit").Click()
	p.See("Hard cap 4 · soft cap 2 calls in total", "Alerts at 50% and 1 too")
	p.Role("button", "Edit each-user").Click()
	p.Role("textbox", "More alerts at").Fill("75%")
	p.Role("button", "Save limit").Click()
	p.See("Alerts at 75% too", "Alerts at 50% and 1 too became", "Alerts at 75% too")

	// Removed, once the person is sure.
	p.Role("button", "Remove ocr-daily").Click()
	p.See("Remove ocr-daily? It binds no call from then on.")
	p.Role("button", "Keep ocr-daily").Click()
	p.SeeNot("Remove ocr-daily?")
	p.Role("button", "Remove ocr-daily").Click()
	p.Role("button", "Yes, remove ocr-daily").Click()
	p.See("Removed ocr-daily")
	p.Role("heading", "ocr-daily").Gone()
	p.Role("button", "Edit each-user").Wait()
	if p.Role("button", "Add limit").Property("focused") != "true" {
		t.Error("the focus is lost with what was removed")
	}
	p.See("Limit ocr-daily Hard cap 8,000 · soft cap 6,000 tokens a day. Calls with feature ocr became none")
	p.Role("textbox", "Hard cap").Fill("100k")
	p.Role("button", "Save").Click()
	p.See("Hard cap 7,500 became 100,000")
	if v := s.check("marina-7", 3_001); !v.Allowed {
		t.Errorf("the limit is gone, and the gate refuses: %+v", v)
	}
}

// cardLimits is what goes wrong while limits are stored, and what others do meanwhile.
func cardLimits(t *testing.T, f *fake, p *browser.Page) {
	grace := "Grace Hopper (oidc:auth0|7c2)"
	with := func(limits ...events.Limit) events.Budget {
		b := monthly(tokens(800_000), tokens(1_000_000))
		b.Limits = limits
		return b
	}
	ocr := events.Limit{Name: "ocr", Window: "day", Hard: tokens(500)}
	f.store("marina-7", with(ocr), grace)
	p.Open(f.URL + "/?port=marina-7")
	p.See("0 of 500 tokens used today (0%).")
	p.Role("button", "Edit ocr").Click()
	hard := p.Role("textbox", "Hard cap of the limit")
	if got := hard.Property("value"); got != "500" {
		t.Errorf("the form says %q", got)
	}

	// Somebody else changes it while it is being edited.
	hard.Fill("700")
	ocr.Hard = tokens(600)
	f.store("marina-7", with(ocr), grace)
	p.See("Grace Hopper changed ocr in the meantime.", "0 of 600 tokens used today")
	if got := hard.Property("value"); got != "700" {
		t.Errorf("the card meddled with what somebody was typing: %q", got)
	}

	save := func(status int, body string) {
		f.breakWith(func(r *http.Request) (int, string) {
			if r.Method == http.MethodPut {
				return status, body
			}
			return 0, ""
		})
		p.Role("button", "Save limit").Click()
	}
	save(412, `{"title":"The budget has changed","status":412}`)
	p.See("Not saved: somebody else changed this budget in the meantime.")
	save(422, `{"title":"A value is not allowed","status":422,"errors":[{"field":"limits[0] (ocr).match.model","value":"x","rule":"may have a * at its end only"}]}`)
	p.See("May have a * at its end only.")
	if p.Role("textbox", "Model").Property("focused") != "true" {
		t.Error("the focus did not go to the field at fault")
	}
	save(500, `{"title":"Internal error","status":500,"detail":"the ledger does not answer"}`)
	p.See("Not saved. The ledger does not answer.")
	save(-1, "")
	p.See("may or may not be stored")
	save(401, `{"title":"The session has ended","status":401}`)
	p.See("your session has ended")
	if got := hard.Property("value"); got != "700" {
		t.Errorf("what was typed is gone: %q", got)
	}
	f.breakWith(nil)
	p.Role("button", "Save limit").Click()
	p.See("Saved ocr", "0 of 700 tokens used today")
	if b := f.port("marina-7").budget; len(b.Limits) != 1 || *b.Limits[0].Hard != 700 || *b.HardCapTokens != 1_000_000 {
		t.Errorf("stored: %+v", b)
	}

	// Cancelled, nothing is stored, and the focus goes back.
	p.Role("button", "Edit ocr").Click()
	hard.Fill("900")
	p.Role("button", "Cancel").Click()
	if p.Role("button", "Edit ocr").Property("focused") != "true" {
		t.Error("the focus did not go back to where the form was opened")
	}
	p.See("0 of 700 tokens used today")

	// All of a limit comes back into the form as it went out.
	p.Role("button", "Add limit").Click()
	p.Role("textbox", "Name").Fill("ocr")
	p.Role("textbox", "Soft cap of the limit").Fill("1.5M")
	p.Type(kb.Enter)
	p.See("Is the name of another limit.")
	p.Role("textbox", "Name").Fill("frontier")
	f.breakWith(func(r *http.Request) (int, string) {
		if strings.HasSuffix(r.URL.Path, "/limit-now") {
			return 503, `{"title":"Not in time","status":503}`
		}
		return 0, ""
	})
	p.Role("textbox", "Model").Fill("gpt-5*")
	p.Role("textbox", "User").Fill("ada")
	p.See("Now What it counts today cannot be said in time. It is added up when it is saved.")
	if p.Role("textbox", "Cache read").Exists() {
		t.Error("weights are asked for where nothing is weighed")
	}
	choose(p, "Unit", "weighted")
	p.Role("textbox", "Cache read").Fill("0.1234")
	p.Role("textbox", "Output").Fill("4")
	p.Role("button", "Save limit").Click()
	p.See("Must be numbers with at most 3 decimals")
	p.Role("textbox", "Cache read").Fill("0.1")
	p.Role("button", "Save limit").Click()
	p.See("Saved frontier", "Soft cap 1,500,000 weighted tokens a day", "Calls with model gpt-5* and user ada", "A token of cache reads 0.1 and output 4 counts that much, any other 1")
	p.Role("button", "Edit frontier").Click()
	for field, want := range map[string]string{"Name": "frontier", "Model": "gpt-5*", "User": "ada", "Cache read": "0.1", "Output": "4", "Input": "", "Soft cap of the limit": "1,500,000"} {
		if got := p.Role("textbox", field).Property("value"); got != want {
			t.Errorf("the field %s says %q, want %q", field, got, want)
		}
	}

	// The port's own switch is for its limits too.
	off := with(ocr)
	off.Enabled = false
	f.store("marina-7", off, grace)
	p.See("They do not bind: the caps are not enforced.", "Grace Hopper removed frontier in the meantime.")
}
