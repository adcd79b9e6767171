package admin

import (
	"fmt"
	"io"
	"maps"
	"mime"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"github.com/tidegate/tidegate/budget"
	"github.com/tidegate/tidegate/identity/safehttp"
)

// settings is what a PUT stores. Soft and hard cap must be given: one that was left out by
// mistake would be one that is gone.
type settings struct {
	caps
	Limits []limit `json:"limits,omitzero" doc:"Beside the caps, at most 50. Left out, those that are stored stay; an empty list removes all."`
}

type caps struct {
	Enabled       bool          `json:"enabled" doc:"Whether the caps bind. Usage is recorded either way."`
	SoftCapTokens *int64        `json:"soft_cap_tokens" minimum:"0" maximum:"9007199254740991" doc:"From here on calls are allowed with a warning; null: no soft cap. At most hard_cap_tokens."`
	HardCapTokens *int64        `json:"hard_cap_tokens" minimum:"0" maximum:"9007199254740991" doc:"Here calls are refused until the period ends; 0 refuses all, null: no hard cap."`
	Period        budget.Period `json:"period" doc:"How often the budget starts anew, in UTC; a week starts on Monday."`
	ExtraTokens   *int64        `json:"extra_tokens,omitempty" minimum:"0" maximum:"9007199254740991" doc:"On top of the hard cap until extra_until. Left out, those that are stored stay; 0 takes them away."`
	ExtraUntil    time.Time     `json:"extra_until,omitzero" doc:"When the extra tokens end, by themselves. Needed with extra_tokens."`
}

// readSettings reads the body. Its error is a problem that names every field that
// is wrong, not just the first.
func readSettings(r *http.Request) (budget.Budget, error) {
	body, err := readBody(r)
	if err != nil {
		return budget.Budget{}, err
	}
	var fields map[string]jsontext.Value
	if err := json.Unmarshal(body, &fields); err != nil {
		return budget.Budget{}, malformed(err)
	}
	if fields == nil {
		return budget.Budget{}, malformed(fmt.Errorf("it is null"))
	}
	return settingsFrom(fields)
}

// readBody reads what says of itself that it is JSON.
func readBody(r *http.Request) ([]byte, error) {
	kind, params, err := mime.ParseMediaType(r.Header.Get("Content-Type"))
	if charset := params["charset"]; err != nil || kind != "application/json" || charset != "" && !strings.EqualFold(charset, "utf-8") {
		return nil, refusal(http.StatusUnsupportedMediaType, "content-type", "The body must be JSON",
			"send Content-Type: application/json; it was "+quoted(r.Header.Get("Content-Type")))
	}
	body, err := io.ReadAll(r.Body)
	if tooLarge, ok := safehttp.TooLarge(err); ok {
		return nil, &problem{tooLarge}
	}
	if err != nil {
		return nil, malformed(err)
	}
	return body, nil
}

func malformed(err error) *problem {
	return refusal(http.StatusBadRequest, "malformed-body", "The body cannot be read", "it must be one JSON object: "+err.Error())
}

func settingsFrom(fields map[string]jsontext.Value) (budget.Budget, error) {
	r := reader{fields: fields}
	var b budget.Budget
	var enabled *bool // null must not pass for false
	cap := fmt.Sprintf("must be a whole number from 0 to %d, or null for no cap", int64(budget.MaxCapTokens))
	r.read("enabled", "must be true or false", &enabled, func() bool { return enabled != nil })
	// Each cap alone obeys the contract; both together are checked below.
	r.read("soft_cap_tokens", cap, &b.SoftCapTokens, func() bool {
		return budget.Budget{Period: budget.Month, SoftCapTokens: b.SoftCapTokens}.Validate() == nil
	})
	r.read("hard_cap_tokens", cap, &b.HardCapTokens, func() bool {
		return budget.Budget{Period: budget.Month, HardCapTokens: b.HardCapTokens}.Validate() == nil
	})
	r.read("period", "must be day, week or month", &b.Period, func() bool { return b.Period.Valid() })
	r.readIfGiven("extra_tokens", "must be a whole number from 0 to "+strconv.FormatInt(budget.MaxCapTokens, 10)+"; 0: none", &b.ExtraTokens)
	r.readIfGiven("extra_until", "must be a time, as 2026-11-30T18:00:00Z", &b.ExtraUntil)
	if value, given := fields["limits"]; given {
		delete(fields, "limits")
		var wrong *safehttp.FieldError
		if b.Limits, wrong = readLimits(value); wrong != nil {
			r.wrong = append(r.wrong, *wrong)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(fields)) {
		r.wrong = append(r.wrong, safehttp.FieldError{Field: shortened(name), Value: shortened(string(fields[name])),
			Rule: "is no setting; there are: enabled, soft_cap_tokens, hard_cap_tokens, period, extra_tokens, extra_until, limits"})
	}
	if r.wrong != nil {
		return budget.Budget{}, invalidFields(r.wrong)
	}
	b.Enabled = *enabled
	return b, b.Validate()
}

// reader takes fields one by one and collects what is wrong with them.
type reader struct {
	fields map[string]jsontext.Value
	wrong  []safehttp.FieldError
}

// readIfGiven reads a field that need not be there. Whether its value is allowed is looked at later.
func (r *reader) readIfGiven(name, rule string, into any) {
	if _, given := r.fields[name]; given {
		r.read(name, rule, into, func() bool { return true })
	}
}

func (r *reader) read(name, rule string, into any, valid func() bool) {
	value, given := r.fields[name]
	delete(r.fields, name)
	switch {
	case !given:
		r.wrong = append(r.wrong, safehttp.FieldError{Field: name, Rule: "is required: " + rule})
	case json.Unmarshal(value, into) != nil || !valid():
		r.wrong = append(r.wrong, safehttp.FieldError{Field: name, Value: shortened(string(value)), Rule: rule})
	}
}
