package budget

import (
	"cmp"
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// MaxAlertAt is how many thresholds a limit has at most, beside its caps.
const MaxAlertAt = 10

// Threshold is where a limit alerts beside its caps: a percentage of the hard cap, or a
// number in the limit's unit. One of them is 0.
type Threshold struct {
	Percent int64
	Value   int64
}

const thresholdRule = `must be a percentage of the hard cap, from "1%" to "100%", or a whole number from 1 to 9007199254740991 in the limit's unit`

// ParseThreshold reads "80%" or "8500000".
func ParseThreshold(text string) (t Threshold, ok bool) {
	digits, percent := strings.CutSuffix(text, "%")
	n, err := strconv.ParseInt(digits, 10, 64)
	if err != nil || n < 1 || n > MaxCapTokens || percent && n > 100 || digits != strconv.FormatInt(n, 10) {
		return Threshold{}, false
	}
	if percent {
		return Threshold{Percent: n}, true
	}
	return Threshold{Value: n}, true
}

// String is "80%" or "8500000".
func (t Threshold) String() string {
	if t.Percent != 0 {
		return strconv.FormatInt(t.Percent, 10) + "%"
	}
	return strconv.FormatInt(t.Value, 10)
}

// MarshalJSON writes "80%" as a string and a value as a number.
func (t Threshold) MarshalJSON() ([]byte, error) {
	if t.Percent != 0 {
		return json.Marshal(t.String())
	}
	return []byte(t.String()), nil
}

// UnmarshalJSON reads what [Threshold.MarshalJSON] writes, as a [*FieldError] if it is none.
func (t *Threshold) UnmarshalJSON(text []byte) (err error) {
	read := string(text)
	quoted := len(text) > 0 && text[0] == '"'
	if quoted {
		if err := json.Unmarshal(text, &read); err != nil {
			return err
		}
	}
	var ok bool
	if *t, ok = ParseThreshold(read); !ok || quoted != (t.Percent != 0) {
		return Refuse(ReasonInvalidField, "alert_at", string(text), thresholdRule)
	}
	return nil
}

// at is where the threshold is, in the limit's unit. Half a token is not reached by none.
func (t Threshold) at(hard *int64) int64 {
	if t.Percent == 0 {
		return t.Value
	}
	return (*hard*t.Percent + 99) / 100
}

func (l *Limit) validateAlertAt(field string) error {
	if len(l.AlertAt) > MaxAlertAt {
		return Refuse(ReasonInvalidField, field, int64(len(l.AlertAt)), fmt.Sprintf("must be at most %d thresholds", MaxAlertAt))
	}
	for i, t := range l.AlertAt {
		at := fmt.Sprintf("%s[%d]", field, i)
		if got, ok := ParseThreshold(t.String()); !ok || got != t {
			return Refuse(ReasonInvalidField, at, t.String(), thresholdRule)
		}
		if t.Percent != 0 && l.Hard == nil {
			return Refuse(ReasonInvalidField, at, t.String(), "is of the hard cap: give that, or a number in the limit's unit")
		}
		if j := slices.Index(l.AlertAt, t); j < i {
			return Refuse(ReasonInvalidField, at, t.String(), fmt.Sprintf("is there twice, as [%d] too", j))
		}
	}
	return nil
}

// The thresholds of a cap. Others are called by what alert_at says.
const (
	AtSoft = "soft"
	AtHard = "hard"
)

// Mark is a threshold of a limit: who reaches it is to be told of.
type Mark struct {
	Limit     string
	Unit      Unit
	Threshold string // [AtSoft], [AtHard], or of alert_at, such as 80%
	At        int64  // in the unit
	Count     int64  // the same as it is counted: of unit weighted in thousandths
}

// Marks are a limit's thresholds, the lowest first.
func (l *Limit) Marks() []Mark {
	var marks []Mark
	add := func(threshold string, at int64) {
		marks = append(marks, Mark{l.Name, l.unit(), threshold, at, times(at, l.scale())})
	}
	if l.Soft != nil {
		add(AtSoft, *l.Soft)
	}
	for _, t := range l.AlertAt {
		add(t.String(), t.at(l.Hard))
	}
	if l.Hard != nil {
		add(AtHard, *l.Hard)
	}
	SortMarks(marks)
	return marks
}

// InUnit is a count in the limit's unit, rounded up.
func (m *Mark) InUnit(count int64) int64 {
	if m.Unit == Weighted {
		return up(count, WeightScale)
	}
	return count
}

// SortMarks puts the lowest first.
func SortMarks(marks []Mark) {
	slices.SortStableFunc(marks, func(a, b Mark) int { return cmp.Compare(a.Count, b.Count) })
}
