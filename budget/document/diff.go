package document

import (
	"bytes"
	"encoding/json"
	"maps"
	"slices"

	"github.com/tidegate/tidegate/budget"
)

// Change is one difference between two budgets, in JSON. Old or New is nil where there is
// nothing.
type Change struct {
	Limit string          `json:"limit,omitempty"` // "": of the budget itself
	Field string          `json:"field,omitempty"` // "": the whole limit is added, or removed
	Old   json.RawMessage `json:"old"`
	New   json.RawMessage `json:"new"`
}

// Diff returns what makes after of before. What means the same is the same: a unit that is left
// out is tokens, and a weight that is left out is 1.
func Diff(before, after budget.Budget) []Change {
	if before.Default {
		before = budget.Budget{Default: true} // the rest is not the port's own
	}
	changes := append([]Change{}, diffFields("", settings(before), settings(after))...)
	old, kept := map[string]budget.Limit{}, []string{}
	for _, l := range before.Limits {
		old[l.Name] = plain(l)
	}
	for _, l := range after.Limits {
		l = plain(l)
		was, ok := old[l.Name]
		if !ok {
			changes = append(changes, Change{Limit: l.Name, New: raw(l)})
			continue
		}
		changes = append(changes, diffFields(l.Name, fields(was), fields(l))...)
		kept = append(kept, l.Name)
		delete(old, l.Name)
	}
	var were []string
	for _, l := range before.Limits {
		if was, gone := old[l.Name]; gone {
			changes = append(changes, Change{Limit: l.Name, Old: raw(was)})
			continue
		}
		were = append(were, l.Name)
	}
	if !slices.Equal(were, kept) { // it decides which of several limits refuses
		changes = append(changes, Change{Field: "limits", Old: raw(were), New: raw(kept)})
	}
	return changes
}

// settings are a budget's fields without its limits and without what Tidegate says of it.
func settings(b budget.Budget) map[string]json.RawMessage {
	b.Limits, b.ExtraUntil = nil, b.ExtraUntil.UTC()
	if b.ExtraTokens != nil && *b.ExtraTokens == 0 {
		b.ExtraTokens = nil
	}
	all := fields(b)
	if b.Default {
		all = map[string]json.RawMessage{"default": all["default"]}
	}
	for _, name := range []string{"version", "updated_at", "updated_by"} {
		delete(all, name)
	}
	return all
}

// plain is a limit that says what others leave out.
func plain(l budget.Limit) budget.Limit {
	l.Counter = 0
	if l.Unit == "" {
		l.Unit = budget.Tokens
	}
	if l.Unit == budget.Weighted {
		for _, w := range []**budget.Weight{&l.Weights.Input, &l.Weights.CacheRead, &l.Weights.CacheWrite, &l.Weights.Output} {
			if *w == nil {
				*w = new(budget.Weight(budget.WeightScale))
			}
		}
	}
	return l
}

// fields are those of an object, and of the objects in it as "match.model". They are read from
// its JSON, so that none that is added some day is forgotten here. Those that are null are not there.
func fields(v any) map[string]json.RawMessage {
	all := map[string]json.RawMessage{}
	addFields(all, "", raw(v))
	return all
}

func addFields(all map[string]json.RawMessage, prefix string, object json.RawMessage) {
	var members map[string]json.RawMessage
	if err := json.Unmarshal(object, &members); err != nil {
		panic(err) // it was an object that was encoded
	}
	for name, value := range members {
		switch {
		case value[0] == '{':
			addFields(all, prefix+name+".", value)
		case !bytes.Equal(value, []byte("null")):
			all[prefix+name] = value
		}
	}
}

func diffFields(limit string, before, after map[string]json.RawMessage) (changes []Change) {
	both := maps.Clone(before)
	maps.Copy(both, after)
	for _, name := range sorted(both) {
		if !bytes.Equal(before[name], after[name]) {
			changes = append(changes, Change{limit, name, before[name], after[name]})
		}
	}
	return changes
}

func raw(v any) json.RawMessage {
	text, err := json.Marshal(v)
	if err != nil {
		panic(err) // plain fields only
	}
	return text
}

func sorted[V any](m map[string]V) []string { return slices.Sorted(maps.Keys(m)) }
