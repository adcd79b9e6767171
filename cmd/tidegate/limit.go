package main

import (
	"cmp"
	"encoding/json"
	"fmt"
	"strconv"
	"strings"

	"github.com/tidegate/tidegate/budget"
	"github.com/tidegate/tidegate/events"
)

// dimension is a --match: what a limit looks at, and for which values.
type dimension struct {
	in      func(*budget.Match) *string
	pattern string
}

var dimensions = []struct {
	per budget.Per
	in  func(*budget.Match) *string
}{
	{budget.PerFeature, func(m *budget.Match) *string { return &m.Feature }},
	{budget.PerProvider, func(m *budget.Match) *string { return &m.Provider }},
	{budget.PerModel, func(m *budget.Match) *string { return &m.Model }},
	{budget.PerUser, func(m *budget.Match) *string { return &m.UserID }},
	{budget.PerRun, func(m *budget.Match) *string { return &m.RunID }},
}

func (d *dimension) UnmarshalText(text []byte) error {
	name, pattern, ok := strings.Cut(string(text), "=")
	for _, known := range dimensions {
		if ok && name == string(known.per) {
			d.in, d.pattern = known.in, pattern
			return nil
		}
	}
	return fmt.Errorf("%q must be feature, provider, model, user_id or run_id, then = and what it must be, such as model=gpt-5*", text)
}

// weight is a --weight: what a kind of token counts.
type weight struct {
	in     func(*budget.Weights) **budget.Weight
	weight budget.Weight
}

var kinds = []struct {
	name string
	in   func(*budget.Weights) **budget.Weight
}{
	{"input", func(w *budget.Weights) **budget.Weight { return &w.Input }},
	{"cache_read", func(w *budget.Weights) **budget.Weight { return &w.CacheRead }},
	{"cache_write", func(w *budget.Weights) **budget.Weight { return &w.CacheWrite }},
	{"output", func(w *budget.Weights) **budget.Weight { return &w.Output }},
}

func (w *weight) UnmarshalText(text []byte) error {
	name, number, _ := strings.Cut(string(text), "=")
	for _, known := range kinds {
		if name == known.name && json.Unmarshal([]byte(number), &w.weight) == nil {
			w.in = known.in
			return nil
		}
	}
	return fmt.Errorf("%q must be input, cache_read, cache_write or output, then = and a number from 0 to 1000000 with at most 3 decimals, such as output=4", text)
}

// matchText says which calls a limit is about.
func matchText(m budget.Match) string {
	var all []string
	for _, d := range dimensions {
		if pattern := *d.in(&m); pattern != "" {
			all = append(all, string(d.per)+"="+pattern)
		}
	}
	if all == nil {
		return "any"
	}
	return strings.Join(all, " ")
}

func perText(p budget.Per) string { return string(cmp.Or(p, "none")) }

func unitText(l events.Limit) string {
	text := unitOr(l.Unit)
	for _, k := range kinds {
		if w := *k.in(&l.Weights); w != nil {
			number, _ := w.MarshalJSON()
			text += " " + k.name + "=" + string(number)
		}
	}
	return text
}

// threshold is one of an --alert-at; the zero one is none.
type threshold struct{ budget.Threshold }

func (t *threshold) UnmarshalText(text []byte) error {
	word := strings.TrimSpace(string(text))
	if word == "none" {
		return nil
	}
	number, percent := strings.CutSuffix(word, "%")
	if n, err := parseTokens(number); err == nil && n != nil {
		word = strconv.FormatInt(*n, 10)
		if percent {
			word += "%"
		}
		var ok bool
		if t.Threshold, ok = budget.ParseThreshold(word); ok {
			return nil
		}
	}
	return fmt.Errorf("%q must be a percentage of the hard cap from 1%% to 100%%, or a number from 1 such as 800000 or 800k; none: none", text)
}

func alertText(all []budget.Threshold) string {
	words := make([]string, len(all))
	for i, t := range all {
		words[i] = t.String()
		if t.Percent == 0 {
			words[i] = count(t.Value)
		}
	}
	return strings.Join(words, ", ")
}
