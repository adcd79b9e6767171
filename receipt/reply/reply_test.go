package reply_test

import (
	"encoding/json"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/tidegate/tidegate/receipt"
	"github.com/tidegate/tidegate/receipt/reply"
)

var today = time.Date(2026, 11, 24, 12, 0, 0, 0, time.UTC)

func TestReadsAnAnswer(t *testing.T) {
	r, err := reply.Read([]byte(`{"merchant":" Harbour\n Supply ","date":"2025-03-14","total":103.9,"currency":"MYR",
		"items":[{"description":"Rope","quantity":2,"amount":84},{"description":"Brush","quantity":null,"amount":null},{"description":"","quantity":1,"amount":1}]}`), today)
	if err != nil {
		t.Fatal(err)
	}
	if r.Merchant != "Harbour Supply" || r.Date.Format(time.DateOnly) != "2025-03-14" || *r.Total != 10390 || r.Currency != "MYR" {
		t.Errorf("%+v", r)
	}
	if len(r.Items) != 2 || r.Items[0].Description != "Rope" || r.Items[0].Quantity != 2 || *r.Items[0].Amount != 8400 || r.Items[1].Amount != nil || r.Items[1].Quantity != 0 {
		t.Errorf("%+v", r.Items)
	}
}

func TestAmountsAreExact(t *testing.T) {
	for printed, want := range map[string]string{
		`9`: "9.00", `9.5`: "9.50", `0.07`: "0.07", `1.005`: "1.01", `1.0049`: "1.00", `-0.02`: "-0.02", `1e2`: "100.00", `"9.00"`: "9.00",
		`123456789.01`: "123456789.01", `1e30`: "", `null`: "", `0`: "0.00", `0.1`: "0.10",
	} {
		r, err := reply.Read([]byte(`{"merchant":null,"date":null,"total":`+printed+`,"currency":null,"items":[]}`), today)
		got := ""
		if r.Total != nil {
			got = r.Total.String()
		}
		if err != nil || got != want {
			t.Errorf("%s: %q, %v, want %q", printed, got, err, want)
		}
	}
}

func TestWhatCannotBeTrueIsLeftOut(t *testing.T) {
	for field, value := range map[string]string{
		"date": `"2026-12-24"`, "currency": `"ringgit"`, "merchant": `" \u0000\u001b "`,
	} {
		for _, v := range []string{value, `""`, `null`} {
			r, err := reply.Read([]byte(`{"`+field+`":`+v+`}`), today)
			if err != nil || !r.Empty() || r.Currency != "" {
				t.Errorf("%s %s: %+v, %v", field, v, r, err)
			}
		}
	}
	for _, date := range []string{"14/03/2025", "yesterday", "1890-01-01", "2025-02-30"} {
		if r, err := reply.Read([]byte(`{"date":"`+date+`"}`), today); err != nil || !r.Date.IsZero() {
			t.Errorf("%s: %v, %v", date, r.Date, err)
		}
	}
	r, err := reply.Read([]byte(`{"merchant":"`+strings.Repeat("ä", 5000)+`","items":[`+strings.Repeat(`{"description":"x","quantity":-1,"amount":1},`, 999)+`{"description":"x"}]}`), today)
	if err != nil || len([]rune(r.Merchant)) != 200 || len(r.Items) != 500 || r.Items[0].Quantity != 0 {
		t.Errorf("%d letters, %d items, %v", len([]rune(r.Merchant)), len(r.Items), err)
	}
}

func TestNonsense(t *testing.T) {
	for _, s := range []string{"", "I cannot read this.", "null", "[]", "7", `"receipt"`, `{"total":"nine"}`, `{"total":true}`, `{"total":{}}`, `{"merchant":7}`, `{"items":{}}`, `{"items":[{"amount":"x","description":"y"}]}`, `{"merchant":"cut of`} {
		if _, err := reply.Read([]byte(s), today); !errors.Is(err, receipt.ErrUnreadableReply) {
			t.Errorf("%q: %v, want ErrUnreadableReply", s, err)
		}
	}
}

// OpenAI's strict mode refuses a schema in which a property is not required, or
// more properties are allowed.
func TestTheSchemaIsStrict(t *testing.T) {
	var check func(path string, schema map[string]any)
	check = func(path string, schema map[string]any) {
		if items, ok := schema["items"].(map[string]any); ok {
			check(path+"[]", items)
		}
		properties, ok := schema["properties"].(map[string]any)
		if !ok {
			return
		}
		if schema["additionalProperties"] != false {
			t.Errorf("%s allows more properties", path)
		}
		if required, _ := schema["required"].([]any); len(required) != len(properties) {
			t.Errorf("%s requires %v of %d properties", path, required, len(properties))
		}
		for name, property := range properties {
			check(path+"."+name, property.(map[string]any))
		}
	}
	text, err := json.Marshal(reply.Schema())
	if err != nil {
		t.Fatal(err)
	}
	var schema map[string]any
	if err := json.Unmarshal(text, &schema); err != nil {
		t.Fatal(err)
	}
	check("receipt", schema)
}

func FuzzRead(f *testing.F) {
	f.Add([]byte(`{"merchant":"x","date":"2025-03-14","total":103.9,"currency":"MYR","items":[{"description":"Rope","quantity":2,"amount":84}]}`))
	f.Add([]byte(`{"total":1e99}`))
	f.Fuzz(func(t *testing.T, answered []byte) {
		r, err := reply.Read(answered, today)
		if err != nil && !errors.Is(err, receipt.ErrUnreadableReply) {
			t.Errorf("%v", err)
		}
		if r.Total != nil && (*r.Total > receipt.MaxAmount || *r.Total < -receipt.MaxAmount) {
			t.Errorf("total %s", r.Total)
		}
	})
}
