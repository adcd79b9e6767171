package events_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/tidegate/tidegate/events"
	"github.com/tidegate/tidegate/events/eventstest"
)

const whole = `{"v":1,"id":"0199c0de-0000-7000-8000-000000000001","occurred_at":"2025-10-08T03:20:14.464Z",` +
	`"port_id":"p1","user_id":"u1","run_id":"run-1","feature":"ocr","provider":"anthropic","model":"claude-sonnet",` +
	`"request_id":"req_1","response_id":"msg_1","reservation_id":"r1",` +
	`"input_tokens":1532,"output_tokens":33,"total_tokens":1565,` +
	`"details":{"cache_read_input_tokens":1111,"cache_write_input_tokens":418,"reasoning_output_tokens":3},` +
	`"measured_by":"partial","status":"error"}`

func TestDecodeUsage_WholeEvent(t *testing.T) {
	want := events.Usage{
		ID: "0199c0de-0000-7000-8000-000000000001", OccurredAt: time.Date(2025, 10, 8, 3, 20, 14, 464e6, time.UTC),
		PortID: "p1", UserID: "u1", RunID: "run-1", Feature: "ocr", Provider: "anthropic", Model: "claude-sonnet",
		RequestID: "req_1", ResponseID: "msg_1", ReservationID: "r1", InputTokens: 1532, OutputTokens: 33,
		Details:    events.Details{CacheReadInputTokens: 1111, CacheWriteInputTokens: 418, ReasoningOutputTokens: 3},
		MeasuredBy: events.MeasuredByPartial, Status: events.StatusError,
	}
	for _, subject := range []string{"ai.usage", "ai.usage.p1"} {
		got, err := events.DecodeUsage(subject, []byte(whole))
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%s (-want +got):\n%s", subject, diff)
		}
	}
	if got := string(want.AppendJSON(nil)); got != whole {
		t.Errorf("encoded\n%s\nwant\n%s", got, whole)
	}
}

func TestDecodeUsage_Accepts(t *testing.T) {
	least := events.Usage{PortID: "p1", Feature: "ocr", Provider: "x", Model: "y", MeasuredBy: events.MeasuredByProvider, Status: events.StatusOK}
	for name, c := range map[string]struct {
		subject, payload string
		want             func(*events.Usage)
	}{
		"the least, port from the subject": {"ai.usage.p1", `{"feature":"ocr","provider":"x","model":"y"}`, nil},
		"the least, port from the payload": {"ai.usage", `{"port_id":"p1","feature":"ocr","provider":"x","model":"y"}`, nil},
		"null is absent":                   {"ai.usage.p1", `{"v":null,"id":null,"occurred_at":null,"port_id":null,"feature":"ocr","provider":"x","model":"y","input_tokens":null,"total_tokens":null,"details":null}`, nil},
		"unknown fields are ignored":       {"ai.usage.p1", `{"feature":"ocr","provider":"x","model":"y","Feature":7,"cost":{"usd":[1]}}`, nil},
		"white space around":               {"ai.usage.p1", " \n{\"feature\":\"ocr\",\"provider\":\"x\",\"model\":\"y\"}\r\n", nil},
		"any script, any printable text":   {"ai.usage.p1", `{"feature":"ocr","provider":"x","model":"y","user_id":"Zoë 🌊 \"q\" \u00e9"}`, func(u *events.Usage) { u.UserID = "Zoë 🌊 \"q\" é" }},
		"a time zone":                      {"ai.usage.p1", `{"feature":"ocr","provider":"x","model":"y","occurred_at":"2026-11-23T17:30:06+02:00"}`, func(u *events.Usage) { u.OccurredAt = time.Date(2026, 11, 23, 15, 30, 6, 0, time.UTC) }},
		"the longest texts, in characters": {"ai.usage.p1", `{"feature":"` + strings.Repeat("ä", 64) + `","provider":"x","model":"y"}`, func(u *events.Usage) { u.Feature = strings.Repeat("ä", 64) }},
		"the most tokens":                  {"ai.usage.p1", `{"feature":"ocr","provider":"x","model":"y","input_tokens":1099511627776,"output_tokens":1099511627776,"total_tokens":2199023255552}`, func(u *events.Usage) { u.InputTokens, u.OutputTokens = 1<<40, 1<<40 }},
		"details up to what they are of": {"ai.usage.p1", `{"feature":"ocr","provider":"x","model":"y","input_tokens":5,"output_tokens":2,"details":{"cache_read_input_tokens":2,"cache_write_input_tokens":3,"reasoning_output_tokens":2}}`, func(u *events.Usage) {
			u.InputTokens, u.OutputTokens, u.Details = 5, 2, events.Details{CacheReadInputTokens: 2, CacheWriteInputTokens: 3, ReasoningOutputTokens: 2}
		}},
		"the longest port": {"ai.usage." + strings.Repeat("P", 64), `{"feature":"ocr","provider":"x","model":"y"}`, func(u *events.Usage) { u.PortID = strings.Repeat("P", 64) }},
		"an id that is no UUID": {"ai.usage.p1", `{"id":"row 17","occurred_at":"2026-11-23T15:30:06Z","feature":"ocr","provider":"x","model":"y"}`, func(u *events.Usage) {
			u.ID, u.OccurredAt = "row 17", time.Date(2026, 11, 23, 15, 30, 6, 0, time.UTC)
		}},
		"a payload of the largest size":     {"ai.usage.p1", `{"feature":"ocr","provider":"x","model":"y","pad":"` + strings.Repeat("x", 16384-53) + `"}`, nil},
		"whole numbers written differently": {"ai.usage.p1", `{"feature":"ocr","provider":"x","model":"y","input_tokens":0}`, nil},
	} {
		t.Run(name, func(t *testing.T) {
			want := least
			if c.want != nil {
				c.want(&want)
			}
			got, err := events.DecodeUsage(c.subject, []byte(c.payload))
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(want, got); diff != "" {
				t.Error("(-want +got):\n", diff)
			}
		})
	}
}

// Every refusal names field, value and rule.
func TestDecodeUsage_Refuses(t *testing.T) {
	// with sets fields of a good event, as raw JSON.
	with := func(fields string) string {
		return `{"feature":"ocr","provider":"x","model":"y",` + fields + `}`
	}
	long := func(n int) string { return strings.Repeat("x", n) }
	for name, c := range map[string]struct {
		subject, payload string
		reason           events.Reason
		field, value     string
		rule             string // part of it
	}{
		"a foreign subject":       {"ai.usages.p1", whole, events.ReasonInvalidField, "subject", `"ai.usages.p1"`, "ai.usage.<port>"},
		"a subject of two tokens": {"ai.usage.p1.x", whole, events.ReasonInvalidField, "subject", `"ai.usage.p1.x"`, "1 to 64"},
		"an odd port token":       {"ai.usage.p ö", whole, events.ReasonInvalidField, "subject", `"ai.usage.p \u00f6"`, "A-Z a-z 0-9 _ -"},
		"an empty port token":     {"ai.usage.", whole, events.ReasonInvalidField, "subject", `"ai.usage."`, "1 to 64"},
		"another port":            {"ai.usage.p2", whole, events.ReasonPortMismatch, "port_id", `"p1"`, "names port p2"},
		"another port by case":    {"ai.usage.P1", whole, events.ReasonPortMismatch, "port_id", `"p1"`, "names port P1"},
		"too large":               {"ai.usage.p1", with(`"pad":"` + long(16384) + `"`), events.ReasonTooLarge, "payload bytes", "16437", "at most 16384"},
		"an id without a time":    {"ai.usage.p1", with(`"id":"row 17"`), events.ReasonInvalidField, "occurred_at", `""`, "beside an id that is not a UUIDv7: the time of the call, the same whenever"},
		"version 2":               {"ai.usage.p1", with(`"v":2`), events.ReasonUnknownVersion, "v", "2", "version 1"},
		"version 0":               {"ai.usage.p1", with(`"v":0`), events.ReasonUnknownVersion, "v", "0", "version 1"},

		"nothing":             {"ai.usage.p1", "", events.ReasonMalformed, "payload", `""`, "one JSON object"},
		"half an object":      {"ai.usage.p1", `{"feature":"o`, events.ReasonMalformed, "payload", `"{\"feature\":\"o"`, "ends too early"},
		"two objects":         {"ai.usage.p1", `{}{}`, events.ReasonMalformed, "payload", `"{}{}"`, "not one JSON object"},
		"a list":              {"ai.usage.p1", `[1]`, events.ReasonMalformed, "payload", `"[1]"`, "one JSON object"},
		"null":                {"ai.usage.p1", `null`, events.ReasonInvalidField, "feature", `""`, "required"},
		"a number":            {"ai.usage.p1", `12`, events.ReasonMalformed, "payload", `"12"`, "one JSON object"},
		"no JSON":             {"ai.usage.p1", `<xml/>`, events.ReasonMalformed, "payload", `"<xml/>"`, "one JSON object"},
		"a PubAck":            {"ai.usage.p1", `{"stream":"AI_USAGE","seq":7}`, events.ReasonInvalidField, "feature", `""`, "required"},
		"a name twice":        {"ai.usage.p1", with(`"model":"z"`), events.ReasonMalformed, "payload", ``, "duplicate"},
		"broken UTF-8":        {"ai.usage.p1", with("\"user_id\":\"\xff\""), events.ReasonMalformed, "payload", ``, "UTF-8"},
		"half a surrogate":    {"ai.usage.p1", with(`"user_id":"\ud800"`), events.ReasonMalformed, "payload", ``, ""},
		"a text as number":    {"ai.usage.p1", with(`"input_tokens":"12"`), events.ReasonMalformed, "input_tokens", `"\"12\""`, "a whole number"},
		"a fraction":          {"ai.usage.p1", with(`"output_tokens":1.5`), events.ReasonMalformed, "output_tokens", `"1.5"`, "a whole number"},
		"an exponent":         {"ai.usage.p1", with(`"output_tokens":1e3`), events.ReasonMalformed, "output_tokens", `"1e3"`, "a whole number"},
		"beyond 64 bits":      {"ai.usage.p1", with(`"input_tokens":99999999999999999999`), events.ReasonMalformed, "input_tokens", `"99999999999999999999"`, "a whole number"},
		"a number as text":    {"ai.usage.p1", with(`"user_id":17`), events.ReasonMalformed, "user_id", `"17"`, "a string"},
		"an object as text":   {"ai.usage.p1", with(`"id":{"a":1}`), events.ReasonMalformed, "id", `"{\"a\":1}"`, "a string"},
		"details as a list":   {"ai.usage.p1", with(`"details":[1]`), events.ReasonMalformed, "details", `"[1]"`, "a JSON object"},
		"a detail as text":    {"ai.usage.p1", with(`"details":{"reasoning_output_tokens":"x"}`), events.ReasonMalformed, "details.reasoning_output_tokens", `"\"x\""`, "a whole number"},
		"a time without zone": {"ai.usage.p1", with(`"occurred_at":"2026-11-23T15:30:06"`), events.ReasonMalformed, "occurred_at", `"\"2026-11-23T15:30:06\""`, "RFC 3339"},
		"a Unix time":         {"ai.usage.p1", with(`"occurred_at":1763911806`), events.ReasonMalformed, "occurred_at", `"1763911806"`, "RFC 3339"},
		"an empty time":       {"ai.usage.p1", with(`"occurred_at":""`), events.ReasonMalformed, "occurred_at", `"\"\""`, "RFC 3339"},

		"a time before 1970":  {"ai.usage.p1", with(`"occurred_at":"1969-12-31T23:59:59.999Z"`), events.ReasonInvalidField, "occurred_at", `"1969-12-31T23:59:59Z"`, "between 1970 and 9999"},
		"a time in 10000 UTC": {"ai.usage.p1", with(`"occurred_at":"9999-12-31T23:59:59-01:00"`), events.ReasonInvalidField, "occurred_at", `"10000-01-01T00:59:59Z"`, "between 1970 and 9999"},

		"no port":               {"ai.usage", with(`"port_id":""`), events.ReasonInvalidField, "port_id", `""`, "1 to 64"},
		"a port with a dot":     {"ai.usage", with(`"port_id":"a.b"`), events.ReasonInvalidField, "port_id", `"a.b"`, "A-Z a-z 0-9 _ -"},
		"a port too long":       {"ai.usage", with(`"port_id":"` + long(65) + `"`), events.ReasonInvalidField, "port_id", `"` + long(65) + `"`, "1 to 64"},
		"no feature":            {"ai.usage.p1", `{"provider":"x","model":"y"}`, events.ReasonInvalidField, "feature", `""`, "required"},
		"no provider":           {"ai.usage.p1", `{"feature":"x","model":"y"}`, events.ReasonInvalidField, "provider", `""`, "required"},
		"no model":              {"ai.usage.p1", `{"feature":"x","provider":"y","Model":"z"}`, events.ReasonInvalidField, "model", `""`, "required"},
		"a feature too long":    {"ai.usage.p1", `{"feature":"` + strings.Repeat("ä", 65) + `","provider":"x","model":"y"}`, events.ReasonInvalidField, "feature", "", "at most 64 characters"},
		"a provider too long":   {"ai.usage.p1", `{"feature":"x","provider":"` + long(65) + `","model":"y"}`, events.ReasonInvalidField, "provider", "", "at most 64 characters"},
		"a model too long":      {"ai.usage.p1", `{"feature":"x","provider":"x","model":"` + long(129) + `"}`, events.ReasonInvalidField, "model", "", "at most 128 characters"},
		"an id too long":        {"ai.usage.p1", with(`"id":"` + long(129) + `"`), events.ReasonInvalidField, "id", "", "at most 128 characters"},
		"a user too long":       {"ai.usage.p1", with(`"user_id":"` + long(129) + `"`), events.ReasonInvalidField, "user_id", "", "at most 128 characters"},
		"a request id too long": {"ai.usage.p1", with(`"request_id":"` + long(257) + `"`), events.ReasonInvalidField, "request_id", "", "at most 256 characters"},
		"a response too long":   {"ai.usage.p1", with(`"response_id":"` + long(257) + `"`), events.ReasonInvalidField, "response_id", "", "at most 256 characters"},
		"a hold too long":       {"ai.usage.p1", with(`"reservation_id":"` + long(129) + `"`), events.ReasonInvalidField, "reservation_id", "", "at most 128 characters"},
		"a NUL":                 {"ai.usage.p1", with(`"user_id":"a\u0000b"`), events.ReasonInvalidField, "user_id", `"a\x00b"`, "control characters"},
		"an escape sequence":    {"ai.usage.p1", with(`"request_id":"\u001b[2J"`), events.ReasonInvalidField, "request_id", `"\x1b[2J"`, "control characters"},
		"a negative count":      {"ai.usage.p1", with(`"input_tokens":-1`), events.ReasonInvalidField, "input_tokens", "-1", "from 0 to 1099511627776"},
		"too many tokens":       {"ai.usage.p1", with(`"output_tokens":1099511627777`), events.ReasonInvalidField, "output_tokens", "1099511627777", "from 0 to"},
		"a negative detail":     {"ai.usage.p1", with(`"details":{"cache_read_input_tokens":-1}`), events.ReasonInvalidField, "details.cache_read_input_tokens", "-1", "from 0 to"},
		"more cached than read": {"ai.usage.p1", with(`"input_tokens":9,"details":{"cache_read_input_tokens":5,"cache_write_input_tokens":5}`), events.ReasonInvalidField, "details", "10", "within input_tokens"},
		"more reasoning":        {"ai.usage.p1", with(`"output_tokens":9,"details":{"reasoning_output_tokens":10}`), events.ReasonInvalidField, "details.reasoning_output_tokens", "10", "within output_tokens"},
		"a wrong total":         {"ai.usage.p1", with(`"input_tokens":9,"total_tokens":10`), events.ReasonInvalidField, "total_tokens", "10", "must equal input_tokens + output_tokens"},
		"a total of nothing":    {"ai.usage.p1", with(`"input_tokens":9,"total_tokens":0`), events.ReasonInvalidField, "total_tokens", "0", "must equal"},
		"another measure":       {"ai.usage.p1", with(`"measured_by":"guess"`), events.ReasonInvalidField, "measured_by", `"guess"`, "provider, partial or estimate"},
		"another status":        {"ai.usage.p1", with(`"status":"OK"`), events.ReasonInvalidField, "status", `"OK"`, "ok, partial or error"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := events.DecodeUsage(c.subject, []byte(c.payload))
			eventstest.WantRefusal(t, err, c.reason, c.field, c.value, c.rule)
		})
	}
}

func TestUsage_JSONGoesBothWays(t *testing.T) {
	var u events.Usage
	if err := u.UnmarshalJSON([]byte(whole)); err != nil {
		t.Fatal(err)
	}
	got, err := u.MarshalJSON()
	if err != nil || string(got) != whole {
		t.Errorf("%v\n%s", err, got)
	}
	if err := u.UnmarshalJSON([]byte(`{}`)); err == nil {
		t.Error("an invalid event was read")
	}
	eventstest.WantRefusal(t, (&events.Usage{PortID: "p1", Feature: "a", Provider: "b", Model: "c\xff"}).Validate(),
		events.ReasonInvalidField, "model", `"c\xff"`, "UTF-8")
}

func TestDecodeRequest(t *testing.T) {
	for name, c := range map[string]struct {
		subject, payload string
		port             string
		field, rule      string // of the refusal
	}{
		"port from the subject":  {subject: "ai.budget.check.p1", payload: `{"feature":"ocr","estimated_tokens":5}`, port: "p1"},
		"port from the payload":  {subject: "ai.budget.check", payload: `{"port_id":"p1"}`, port: "p1"},
		"port in both":           {subject: "ai.budget.check.p1", payload: `{"port_id":"p1"}`, port: "p1"},
		"an empty payload":       {subject: "ai.budget.check.p1", payload: ``, port: "p1"},
		"port in neither":        {subject: "ai.budget.check", payload: `{}`, field: "port_id", rule: "1 to 64"},
		"two ports":              {subject: "ai.budget.check.p2", payload: `{"port_id":"p1"}`, field: "port_id", rule: "the subject names port p2"},
		"another subject":        {subject: "ai.budget.checks.p1", payload: `{}`, field: "subject", rule: "ai.budget.check.<port>"},
		"a token too many":       {subject: "ai.budget.check.p1.p2", payload: `{}`, field: "subject", rule: "ai.budget.check.<port>"},
		"an estimate in words":   {subject: "ai.budget.check.p1", payload: `{"estimated_tokens":"5"}`, field: "estimated_tokens", rule: "a whole number"},
		"an estimate below zero": {subject: "ai.budget.check.p1", payload: `{"estimated_tokens":-5}`, field: "estimated_tokens", rule: "from 0 to"},
		"no JSON":                {subject: "ai.budget.check.p1", payload: `5 tokens`, field: "payload", rule: "one JSON object"},
		"a feature that is none": {subject: "ai.budget.check.p1", payload: `{"feature":[]}`, field: "feature", rule: "a string"},
		"too much":               {subject: "ai.budget.check.p1", payload: `{"x":"` + strings.Repeat("x", 16384) + `"}`, field: "payload bytes", rule: "at most 16384"},
	} {
		t.Run(name, func(t *testing.T) {
			var r events.CheckRequest
			port, err := events.DecodeRequest(events.SubjectCheck, c.subject, []byte(c.payload), &r)
			if c.field != "" {
				var e *events.FieldError
				if !errors.As(err, &e) || e.Field != c.field || !strings.Contains(e.Rule, c.rule) {
					t.Errorf("want a refusal of %s with …%s…, got %v", c.field, c.rule, err)
				}
				return
			}
			if err != nil || port != c.port || r.PortID != c.port {
				t.Errorf("port %q, request %+v, %v", port, r, err)
			}
		})
	}
	var set events.SetRequest
	if port, err := events.DecodeRequest(events.SubjectBudgetSet, "ai.budget.set.p1", []byte(`{"enabled":true,"hard_cap_tokens":0,"if_version":0}`), &set); err != nil || port != "p1" ||
		!set.Enabled || set.SoftCapTokens != nil || set.HardCapTokens == nil || *set.HardCapTokens != 0 || set.IfVersion == nil || set.Budget().Period != events.PeriodMonth {
		t.Errorf("set: %+v, %v", set, err)
	}
	var report events.ReportRequest
	if port, err := events.DecodeRequest(events.SubjectReport, "ai.budget.usage.p1", []byte(`{"by":"day"}`), &report); err != nil || port != "p1" || report.By != events.ByDay {
		t.Errorf("report: %+v, %v", report, err)
	}
}

func TestCheckRequest_Validate(t *testing.T) {
	for field, r := range map[string]events.CheckRequest{
		"port_id":          {PortID: "a b"},
		"feature":          {PortID: "p1", Feature: strings.Repeat("x", 65)},
		"user_id":          {PortID: "p1", UserID: "a\nb"},
		"run_id":           {PortID: "p1", RunID: strings.Repeat("r", 129)},
		"estimated_tokens": {PortID: "p1", EstimatedTokens: -1},
	} {
		var e *events.FieldError
		if err := r.Validate(); !errors.As(err, &e) || e.Field != field {
			t.Errorf("want a refusal of %s, got %v", field, err)
		}
	}
	if err := (events.CheckRequest{PortID: "p1"}).Validate(); err != nil {
		t.Error(err)
	}
}

func TestReserveRequest_Validate(t *testing.T) {
	for field, r := range map[string]events.ReserveRequest{
		"port_id":          {},
		"estimated_tokens": {PortID: "p1", EstimatedTokens: -1},
		"service":          {PortID: "p1", Service: strings.Repeat("x", 65)},
		"idempotency_key":  {PortID: "p1", IdempotencyKey: "a\x00b"},
		"ttl_seconds":      {PortID: "p1", TTLSeconds: 3601},
	} {
		var e *events.FieldError
		if err := r.Validate(); !errors.As(err, &e) || e.Field != field {
			t.Errorf("want a refusal of %s, got %v", field, err)
		}
	}
	if err := (events.ReserveRequest{PortID: "p1", TTLSeconds: -1}).Validate(); err == nil {
		t.Error("a negative lifetime was accepted")
	}
	if got := (events.ReserveRequest{PortID: "p1"}).TTL(); got != 5*time.Minute {
		t.Errorf("default lifetime %s", got)
	}
	if err := (events.ReserveRequest{PortID: "p1", TTLSeconds: 3600}).Validate(); err != nil {
		t.Error(err)
	}
	if err := (events.ReleaseRequest{PortID: "p1"}).Validate(); err == nil {
		t.Error("a release of nothing was accepted")
	}
}

func TestSubjects(t *testing.T) {
	for subject, want := range map[string]string{
		"ai.usage": " true", "ai.usage.p1": "p1 true", "ai.usage.A-b_9": "A-b_9 true",
		"ai.usage.": " false", "ai.usagep1": " false", "ai.usage.p1.": " false", "ai.usage.*": " false", "ai": " false", "": " false",
	} {
		port, ok := events.SubjectPort(events.SubjectUsage, subject)
		if got := fmt.Sprint(port, " ", ok); got != want {
			t.Errorf("%q: %s, want %s", subject, got, want)
		}
	}
	if got := events.Subject(events.SubjectCheck, "p1"); got != "ai.budget.check.p1" {
		t.Error(got)
	}
}
