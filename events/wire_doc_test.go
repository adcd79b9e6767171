package events_test

import (
	"encoding/json"
	"errors"
	"os"
	"regexp"
	"strings"
	"testing"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/tidegate/tidegate/consumer/arrival"
	"github.com/tidegate/tidegate/events"
)

// The commands of docs/wire.md are within the contract.
func TestWireDoc_CommandsAreWithinTheContract(t *testing.T) {
	doc, err := os.ReadFile("../docs/wire.md")
	if err != nil {
		t.Fatal(err)
	}
	found, several := map[string]int{}, false
	for _, m := range regexp.MustCompile(`(?m)^nats (pub|req) .*?(ai\.[a-z._]+[a-z])(\.\S+)? '(.*)'$`).FindAllStringSubmatch(string(doc), -1) {
		base, subject, payload := m[2], m[2]+m[3], []byte(m[4])
		found[base]++
		if strings.Contains(m[0], jetstream.MsgIDHeader) {
			t.Errorf("a message id, for which JetStream may drop an event:\n%s", m[0])
		}
		var err error
		switch base {
		case events.SubjectUsage:
			var parts [][]byte
			parts, err = arrival.Split(payload)
			several = several || len(parts) > 1
			for _, part := range parts {
				if _, err = events.DecodeUsage(subject, part); err != nil {
					break
				}
			}
		case events.SubjectCheck:
			var r events.CheckRequest
			if _, err = events.DecodeRequest(base, subject, payload, &r); err == nil {
				err = r.Validate()
			}
		case events.SubjectReserve:
			var r events.ReserveRequest
			if _, err = events.DecodeRequest(base, subject, payload, &r); err == nil {
				err = r.Validate()
			}
		case events.SubjectRelease:
			var r events.ReleaseRequest
			if _, err = events.DecodeRequest(base, subject, payload, &r); err == nil {
				err = r.Validate()
			}
		case events.SubjectBudgetSet:
			var r events.SetRequest
			if _, err = events.DecodeRequest(base, subject, payload, &r); err == nil {
				err = r.Validate()
			}
		case events.SubjectBudgetGet:
			_, err = events.DecodeRequest(base, subject, payload, new(events.GetRequest))
		case events.SubjectReport:
			var r events.ReportRequest
			if _, err = events.DecodeRequest(base, subject, payload, &r); err == nil && r.By != "" && !r.By.Valid() {
				err = errors.New("no such dimension")
			}
		default:
			err = errors.New("no such subject")
		}
		if err != nil {
			t.Errorf("%v\n%s", err, m[0])
		}
	}
	for base, least := range map[string]int{events.SubjectUsage: 2, events.SubjectCheck: 1, events.SubjectReserve: 1, events.SubjectRelease: 1, events.SubjectBudgetGet: 1, events.SubjectBudgetSet: 1, events.SubjectReport: 1} {
		if found[base] < least {
			t.Errorf("%d examples of %s, want at least %d", found[base], base, least)
		}
	}
	if !several {
		t.Error("no example of a message of several events")
	}
	answer := regexp.MustCompile("(?s)```json\n(.*?)```").FindSubmatch(doc)
	if answer == nil {
		t.Fatal("no example of a verdict")
	}
	var v events.Verdict
	if err := json.Unmarshal(answer[1], &v); err != nil || *v.RemainingTokens != *v.HardCapTokens-v.UsedTokens-v.HeldTokens {
		t.Errorf("the example of a verdict: %+v, %v", v, err)
	}
}
