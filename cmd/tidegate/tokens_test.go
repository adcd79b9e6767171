package main

import (
	"encoding/json"
	"os"
	"testing"
)

// The command line reads numbers of tokens as the admin page does.
func TestParseTokens(t *testing.T) {
	var table struct {
		Cases []struct {
			Text  string `json:"text"`
			Value *int64 `json:"value"`
			Rule  string `json:"rule"`
		} `json:"cases"`
	}
	file, err := os.ReadFile("../../admin/page/testdata/tokens.json")
	if err == nil {
		err = json.Unmarshal(file, &table)
	}
	if err != nil || len(table.Cases) < 70 {
		t.Fatalf("%d cases, %v", len(table.Cases), err)
	}
	for _, c := range table.Cases {
		got, err := parseTokens(c.Text)
		switch {
		case c.Rule != "" && (err == nil || err.Error() != c.Rule):
			t.Errorf("%q: %v, want it refused: it %s", c.Text, err, c.Rule)
		case c.Rule == "" && (err != nil || (got == nil) != (c.Value == nil) || got != nil && *got != *c.Value):
			t.Errorf("%q: %v, %v", c.Text, got, err)
		}
	}
	var cap tokens
	if err := cap.UnmarshalText([]byte("1,5M")); err == nil || err.Error() != `"1,5M" `+errGroups.Error() {
		t.Error(err)
	}
	if err := cap.UnmarshalText([]byte("1.5M")); err != nil || *cap.n != 1_500_000 {
		t.Error(err)
	}
}
