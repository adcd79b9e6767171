// Package alert delivers alerts to receivers: webhooks, Slack, e-mail. What is to be
// delivered, and what became of it, is in the ledger, so that any number of processes share the
// work and none that dies loses any of it.
package alert

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"
	"unicode"

	"github.com/google/uuid"
	"golang.org/x/text/language"
	printer "golang.org/x/text/message"

	"github.com/tidegate/tidegate/budget"
	"github.com/tidegate/tidegate/events"
	"github.com/tidegate/tidegate/ledger"
)

// The types of messages.
const (
	typeAlert = "ai.alert"
	typeTest  = "ai.alert.test"
)

// message is what a receiver gets.
type message struct {
	Type      string       `json:"type"`
	Timestamp time.Time    `json:"timestamp"` // of the alert
	Data      events.Alert `json:"data"`
}

func newMessage(a *ledger.Alert) message {
	return message{Type: typeAlert, Timestamp: a.NoticedAt, Data: a.OnWire()}
}

// testMessage is of no port that there is.
func testMessage(now time.Time) message {
	now = now.UTC().Truncate(time.Millisecond)
	a := ledger.Alert{ID: uuid.New(), PortID: "test", Limit: budget.PortLimit, Unit: budget.Tokens, Period: budget.Month,
		Threshold: budget.AtSoft, Reached: 800_000, Used: 800_412, NoticedAt: now}
	a.PeriodStart, _ = a.Period.Bounds(now)
	m := newMessage(&a)
	m.Type = typeTest
	return m
}

func (m *message) json() []byte {
	body, err := json.Marshal(m)
	if err != nil {
		panic(err) // it is made of texts, numbers and times
	}
	return body
}

// subject is one line.
func (m *message) subject() string {
	a := &m.Data
	text := fmt.Sprintf("port %s has reached %s", a.PortID, m.reached())
	if m.Type == typeTest {
		text = "a test: " + text
	}
	return "Tidegate: " + oneLine(text)
}

func (m *message) reached() string {
	a := &m.Data
	if a.Limit == budget.PortLimit {
		return "its " + a.Cap + " cap"
	}
	of := "the " + a.Cap + " cap"
	if a.Threshold != nil {
		of = a.Threshold.String()
	}
	of += " of limit " + a.Limit
	if a.LimitValue != "" {
		of += " for " + a.LimitValue
	}
	return of
}

// sentence is for people.
func (m *message) sentence() string {
	a := &m.Data
	unit := "tokens"
	switch a.Unit {
	case budget.Requests:
		unit = "requests"
	case budget.Weighted:
		unit = "weighted tokens"
	}
	text := printer.NewPrinter(language.English).Sprintf("Port %s has reached %s: %d of %d %s are used in this %s.", a.PortID, m.reached(), a.UsedTokens, a.CapTokens, unit, a.Period)
	if a.Period == budget.Total {
		text = strings.Replace(text, " in this total", "", 1)
	}
	next := ""
	if !a.ResetsAt.IsZero() {
		next = a.ResetsAt.Format(" until 2006-01-02 15:04 UTC")
	}
	switch {
	case a.Cap == budget.AtHard:
		text += fmt.Sprintf(" Its calls are refused%s.", next)
	case next != "":
		text += fmt.Sprintf(" That counts%s.", next)
	}
	if m.Type == typeTest {
		text = "This is a test, nothing has happened. It would say: " + text
	}
	return oneLine(text)
}

// oneLine takes out what could end a line, or hide in it.
func oneLine(text string) string {
	return strings.Map(func(r rune) rune {
		if unicode.IsControl(r) || unicode.In(r, unicode.Zl, unicode.Zp, unicode.Cf) {
			return ' '
		}
		return r
	}, strings.ToValidUTF8(text, "�"))
}

// Receiver is where alerts go.
type Receiver struct {
	Name  string
	Where string // without what must stay secret
	sender
	ports, limits, caps []string // of which alerts; nil: any
}

// wants says whether the alert is for the receiver.
func (r *Receiver) wants(a *ledger.Alert) bool {
	return matches(r.ports, a.PortID) && matches(r.limits, a.Limit) && matches(r.caps, a.OnWire().Cap)
}

// matches says whether one of the patterns is for the text.
func matches(patterns []string, text string) bool {
	return patterns == nil || slices.ContainsFunc(patterns, func(p string) bool { return budget.MatchesPattern(p, text) })
}
