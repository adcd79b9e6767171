package main

import (
	"context"
	"strings"
	"testing"

	"github.com/tidegate/tidegate/budget"
)

// What is said of a limit is read as it is meant, or refused in words that say how to write it.
func TestLimitFlags(t *testing.T) {
	for args, want := range map[string]string{
		"--match feature=a,b;c=d --match model=gpt-5* --match user_id=": "", // of model ids nobody says what is in them
		"--weight output=4 --weight cache_read=0.125":                   "",
		"--match user=u1":        "provider, model, user_id or run_id",
		"--match feature":        "then = and what it must be",
		"--weight reasoning=2":   "must be input, cache_read, cache_write or output",
		"--weight output=1.2345": "at most 3 decimals",
		"--weight output":        "then = and a number",
		"--weight output=NaN":    "a number from 0",
		"--weight output=-1":     "a number from 0",
		"--per user":             "--per must be one of",
		"--window year":          "--window must be one of",
		"--unit euro":            "--unit must be one of",
		"--hard 1,5M":            "has a comma",
	} {
		var all cli
		_, err := newParser(context.Background(), &all).Parse(append([]string{"budget", "limits", "set", "p1", "a", "--hard", "1"}, strings.Fields(args)...))
		if want != "" {
			if err == nil || !strings.Contains(err.Error(), want) {
				t.Errorf("%s: %v, want an error with %q", args, err, want)
			}
			continue
		}
		if err != nil {
			t.Errorf("%s: %v", args, err)
		}
		c := all.Budget.Limits.Set
		c.Window = new("day")
		b := budget.Budget{Limits: []budget.Limit{{Name: "a", Match: budget.Match{UserID: "u", RunID: "r"}}}}
		if err := c.edit(&b); err != nil {
			t.Fatal(err)
		}
		l := b.Limits[0]
		switch {
		case c.Match != nil && l.Match != budget.Match{Feature: "a,b;c=d", Model: "gpt-5*", RunID: "r"}:
			t.Errorf("%s: %+v", args, l.Match)
		case c.Weight != nil && unitText(l) != "tokens cache_read=0.125 output=4":
			t.Errorf("%s: %s", args, unitText(l))
		}
	}
}
