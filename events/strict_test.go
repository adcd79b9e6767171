package events_test

import (
	"errors"
	"strings"
	"testing"

	"github.com/tidegate/tidegate/events"
)

// A field that nobody knows is refused by name in every request: it may be what the
// request was about.
func TestDecodeRequest_RefusesUnknownFields(t *testing.T) {
	for name, c := range map[string]struct {
		base, payload string
		into          any
		want          string
	}{
		"an estimate with a letter missing": {events.SubjectCheck, `{"feature":"ocr","estimated_tokns":2000}`, new(events.CheckRequest),
			`invalid_field: estimated_tokns = "2000": is no field of this request; did you mean estimated_tokens?`},
		"camel case":               {events.SubjectReserve, `{"estimatedTokens":2000}`, new(events.ReserveRequest), "estimatedTokens = \"2000\": is no field of this request; did you mean estimated_tokens?"},
		"another case":             {events.SubjectReserve, `{"Estimated_Tokens":2000}`, new(events.ReserveRequest), "did you mean estimated_tokens?"},
		"part of a name":           {events.SubjectCheck, `{"tokens":2000}`, new(events.CheckRequest), "did you mean estimated_tokens?"},
		"a lifetime":               {events.SubjectReserve, `{"ttl_second":60}`, new(events.ReserveRequest), "did you mean ttl_seconds?"},
		"what a check has not":     {events.SubjectCheck, `{"ttl_seconds":60}`, new(events.CheckRequest), "; there are: port_id, feature, provider, model, user_id, run_id, estimated_tokens, estimated_input_tokens, estimated_output_tokens, explain"},
		"a reservation":            {events.SubjectRelease, `{"reservation":"x"}`, new(events.ReleaseRequest), "did you mean reservation_id?"},
		"a cap":                    {events.SubjectBudgetSet, `{"enabled":true,"hard_cap":5}`, new(events.SetRequest), "did you mean hard_cap_tokens?"},
		"a budget as get answered": {events.SubjectBudgetSet, `{"enabled":true,"hard_cap_tokens":5,"version":4,"updated_at":"2026-11-23T15:30:06Z"}`, new(events.SetRequest), `version = "4": is no field of this request; did you mean if_version?`},
		"a dimension":              {events.SubjectReport, `{"dimension":"day"}`, new(events.ReportRequest), "; there are: port_id, by"},
		"two other letters":        {events.SubjectReport, `{"in":"day"}`, new(events.ReportRequest), "; there are: port_id, by"},
		"a get by something":       {events.SubjectBudgetGet, `{"by":"day"}`, new(events.GetRequest), "; there are: port_id"},
		"nothing like a name":      {events.SubjectCheck, "{\"\\nNats: x\":{}}", new(events.CheckRequest), `"\nNats: x" = "{}": is no field`},
		"no name":                  {events.SubjectCheck, `{"":1}`, new(events.CheckRequest), `"" = "1": is no field`},
		"a very long name":         {events.SubjectCheck, `{"` + strings.Repeat("ä", 5000) + `":1}`, new(events.CheckRequest), `…" = "1": is no field`},
		"the first of several":     {events.SubjectCheck, `{"b":null,"zz":1,"aa":2}`, new(events.CheckRequest), "invalid_field: zz = "},
		"beside what is wrong":     {events.SubjectCheck, `{"zz":1,"estimated_tokens":"5"}`, new(events.CheckRequest), "zz = "},
		"before the end":           {events.SubjectCheck, `{"zz":`, new(events.CheckRequest), "ends too early"},
		"null, and then no JSON":   {events.SubjectCheck, `{"zz":null,`, new(events.CheckRequest), "ends too early"},
		"inside a limit":           {events.SubjectBudgetSet, `{"limits":[{"name":"x","window":"day","hard":5,"mtach":{"feature":"ocr"}}]}`, new(events.SetRequest), `limits[0].mtach = "{`},
		"inside a limit's match":   {events.SubjectBudgetSet, `{"limits":[{"name":"x","window":"day","hard":5,"match":{"featur":"ocr"}}]}`, new(events.SetRequest), "limits[0].match.featur = "},
		"inside one, beside null":  {events.SubjectBudgetSet, `{"zz":null,"limits":[{"name":"x","window":"day","hrad":5}]}`, new(events.SetRequest), `limits[0].hrad = "5": is no field of this request; there are: name, match, per`},
		"a weight too fine":        {events.SubjectBudgetSet, `{"limits":[{"name":"x","window":"day","hard":5,"unit":"weighted","weights":{"output":0.1234}}]}`, new(events.SetRequest), `limits[0].weights.output = "0.1234": must be a number from 0 to 1000000 with at most 3 decimals`},
		"null, and a wrong type":   {events.SubjectCheck, `{"zz":null,"estimated_tokens":"5"}`, new(events.CheckRequest), "estimated_tokens = "},
	} {
		_, err := events.DecodeRequest(c.base, c.base+".p1", []byte(c.payload), c.into)
		var e *events.FieldError
		if !errors.As(err, &e) || !strings.Contains(err.Error(), c.want) || len(err.Error()) > 300 {
			t.Errorf("%s: want …%s…, got %v", name, c.want, err)
		}
	}
}

// Absent, null and empty are one in requests too, whatever the field.
func TestDecodeRequest_NullIsAbsent(t *testing.T) {
	for _, payload := range []string{"", "{}", "null", `{"port_id":null,"feature":null,"user_id":null,"estimated_tokens":null}`, `{"session_id":null,"feature":null,"model":null}`} {
		r := events.CheckRequest{}
		port, err := events.DecodeRequest(events.SubjectCheck, "ai.budget.check.p1", []byte(payload), &r)
		if err != nil || port != "p1" || r != (events.CheckRequest{PortID: "p1"}) {
			t.Errorf("%q: port %q, %+v, %v", payload, port, r, err)
		}
	}
	r := events.CheckRequest{}
	if _, err := events.DecodeRequest(events.SubjectCheck, "ai.budget.check.p1", []byte(`{"session_id":null,"estimated_tokens":7}`), &r); err != nil || r.EstimatedTokens != 7 {
		t.Errorf("beside a null: %+v, %v", r, err)
	}
}
