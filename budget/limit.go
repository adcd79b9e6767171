package budget

import (
	"fmt"
	"regexp"
	"slices"
	"strings"
)

// Limit is one cap of a budget beside the port's own, which is the limit named [PortLimit].
// A call must fit under every limit that matches it.
type Limit struct {
	Name   string `json:"name"`
	Match  Match  `json:"match,omitzero"`
	Per    Per    `json:"per,omitempty"` // "": one count for all calls
	Window Period `json:"window"`
	Unit   Unit   `json:"unit,omitempty"` // "": tokens
	// Weights are of unit weighted: what a token counts.
	Weights Weights `json:"weights,omitzero"`
	Soft    *int64  `json:"soft,omitempty"` // in the unit; nil: none
	Hard    *int64  `json:"hard,omitempty"`
	// AlertAt are thresholds at which an alert is sent, beside soft and hard cap.
	AlertAt []Threshold `json:"alert_at,omitempty"`
	Counter CounterRef  `json:"counter,omitzero"` // set by Tidegate; ignored where a budget is set
}

// CounterRef says where a limit is counted. Limits that count the same have the same, from
// one version of a budget to the next.
type CounterRef int64

// PortLimit is the name of a port's own caps among the limits of its budget.
const PortLimit = "port"

const (
	// MaxLimits is how many limits a budget has at most.
	MaxLimits        = 50
	maxPatternChars  = 256
	limitNamePattern = `^[a-z0-9][a-z0-9_.-]{0,63}$`
)

var limitName = regexp.MustCompile(limitNamePattern)

// Match says which calls a limit is about. Each dimension is a value, a prefix that ends
// in *, or "" for any. A call that does not name a dimension matches nothing but "" there.
type Match Labels

// Per is the dimension of which a limit counts each value by itself.
type Per string

// The dimensions, as they are called on the wire.
const (
	PerFeature  Per = "feature"
	PerProvider Per = "provider"
	PerModel    Per = "model"
	PerUser     Per = "user_id"
	PerRun      Per = "run_id"
)

// Pers are all of them, in the order of the fields of [Match].
var Pers = [...]Per{PerFeature, PerProvider, PerModel, PerUser, PerRun}

// Unit is what a limit counts.
type Unit string

// The units.
const (
	Tokens   Unit = "tokens"
	Requests Unit = "requests"
	Weighted Unit = "weighted" // tokens, each kind with a weight
)

// Labels are what a limit can look at of a call.
type Labels struct {
	Feature  string `json:"feature,omitempty"`
	Provider string `json:"provider,omitempty"`
	Model    string `json:"model,omitempty"`
	UserID   string `json:"user_id,omitempty"`
	RunID    string `json:"run_id,omitempty"`
}

// Of is a dimension's value, "" where there is none.
func (l *Labels) Of(d Per) string {
	switch d {
	case PerFeature:
		return l.Feature
	case PerProvider:
		return l.Provider
	case PerModel:
		return l.Model
	case PerUser:
		return l.UserID
	case PerRun:
		return l.RunID
	}
	return ""
}

// Matches reports whether the limit is about a call.
func (l *Limit) Matches(c *Labels) bool {
	m := &l.Match
	return MatchesPattern(m.Feature, c.Feature) && MatchesPattern(m.Provider, c.Provider) && MatchesPattern(m.Model, c.Model) &&
		MatchesPattern(m.UserID, c.UserID) && MatchesPattern(m.RunID, c.RunID)
}

// MatchesPattern reports whether a value is the pattern, or begins with it if that ends in *. An
// empty pattern is for any value.
func MatchesPattern(pattern, value string) bool {
	switch {
	case pattern == "":
		return true
	case value == "":
		return false
	}
	if prefix, ok := strings.CutSuffix(pattern, "*"); ok {
		return strings.HasPrefix(value, prefix)
	}
	return pattern == value
}

// LooksAt reports whether it makes a difference to the limit what a dimension's value is.
func (l *Limit) LooksAt(d Per) bool {
	m := Labels(l.Match)
	return l.Per == d || m.Of(d) != ""
}

// looksAt are the dimensions that any of limits looks at, beside the feature: those by which a
// lease is for some calls only, and those of which it is for any value. The latter have many
// values, users and runs, which limits count and do not match.
func looksAt(limits []Limit) (by, each []Per) {
	for _, d := range Pers[1:] {
		matched := slices.ContainsFunc(limits, func(l Limit) bool { m := Labels(l.Match); return m.Of(d) != "" })
		switch {
		case !slices.ContainsFunc(limits, func(l Limit) bool { return l.LooksAt(d) }):
		case matched || d != PerUser && d != PerRun:
			by = append(by, d)
		default:
			each = append(each, d)
		}
	}
	return by, each
}

// Set sets a dimension's value.
func (l *Labels) Set(d Per, value string) {
	switch d {
	case PerFeature:
		l.Feature = value
	case PerProvider:
		l.Provider = value
	case PerModel:
		l.Model = value
	case PerUser:
		l.UserID = value
	case PerRun:
		l.RunID = value
	}
}

// Only is the labels without all but some dimensions.
func (l *Labels) Only(dims []Per) (some Labels) {
	for _, d := range dims {
		some.Set(d, l.Of(d))
	}
	return some
}

// CountsLike reports whether both limits count the same calls, in the same way.
func (l *Limit) CountsLike(o *Limit) bool {
	return l.Match == o.Match && l.Per == o.Per && l.Window == o.Window && l.unit() == o.unit() &&
		(l.unit() != Weighted || l.Weights.scaled() == o.Weights.scaled())
}

func (l *Limit) unit() Unit {
	if l.Unit == "" {
		return Tokens
	}
	return l.Unit
}

// Validate reports the first field that breaks its rule, as a [*FieldError]. Field is what
// the error calls the limit.
func (l *Limit) Validate(field string) error {
	if !limitName.MatchString(l.Name) || l.Name == PortLimit {
		return Refuse(ReasonInvalidField, field+".name", l.Name, "must be 1 to 64 of a-z 0-9 _ . - and not begin with a sign; "+PortLimit+" is the port's own")
	}
	field = fmt.Sprintf("%s (%s)", field, l.Name)
	labels := Labels(l.Match)
	for _, d := range Pers {
		if err := CheckText(field+".match."+string(d), labels.Of(d), maxPatternChars, false); err != nil {
			return err
		}
		if strings.Contains(strings.TrimSuffix(labels.Of(d), "*"), "*") {
			return Refuse(ReasonInvalidField, field+".match."+string(d), labels.Of(d), "may have a * at its end only, where it stands for anything")
		}
	}
	if l.Per != "" && !slices.Contains(Pers[:], l.Per) {
		return Refuse(ReasonInvalidField, field+".per", l.Per, "must be feature, provider, model, user_id or run_id, or be left out")
	}
	if !l.Window.ValidWindow() {
		return Refuse(ReasonInvalidField, field+".window", l.Window, "must be hour, day, week, month or total")
	}
	switch l.unit() {
	case Tokens, Requests:
		if l.Weights != (Weights{}) {
			return Refuse(ReasonInvalidField, field+".weights", "…", "are for unit weighted only")
		}
	case Weighted:
		if err := l.Weights.validate(field + ".weights"); err != nil {
			return err
		}
	default:
		return Refuse(ReasonInvalidField, field+".unit", l.Unit, "must be tokens, requests or weighted")
	}
	if l.Soft == nil && l.Hard == nil {
		return Refuse(ReasonInvalidField, field+".hard", "null", "or soft must be set: a limit without a cap limits nothing")
	}
	if err := validateCaps(field+".soft", field+".hard", l.Soft, l.Hard); err != nil {
		return err
	}
	return l.validateAlertAt(field + ".alert_at")
}

// validateLimits is for those of one budget.
func validateLimits(limits []Limit) error {
	if len(limits) > MaxLimits {
		return Refuse(ReasonInvalidField, "limits", int64(len(limits)), fmt.Sprintf("must be at most %d", MaxLimits))
	}
	for i := range limits {
		if err := limits[i].Validate(fmt.Sprintf("limits[%d]", i)); err != nil {
			return err
		}
		for j := range i {
			if limits[i].Name == limits[j].Name {
				return Refuse(ReasonInvalidField, fmt.Sprintf("limits[%d].name", i), limits[i].Name, fmt.Sprintf("is the name of limits[%d] too; each needs its own", j))
			}
		}
	}
	return nil
}

func validateCaps(softField, hardField string, soft, hard *int64) error {
	for _, c := range []struct {
		name  string
		value *int64
	}{{softField, soft}, {hardField, hard}} {
		if c.value != nil && (*c.value < 0 || *c.value > MaxCapTokens) {
			return Refuse(ReasonInvalidField, c.name, *c.value, fmt.Sprintf("must be a whole number from 0 to %d, or null for no cap", int64(MaxCapTokens)))
		}
	}
	if soft != nil && hard != nil && *soft > *hard {
		return Refuse(ReasonInvalidField, softField, *soft, fmt.Sprintf("must be at most %s (%d)", hardField, *hard))
	}
	return nil
}
