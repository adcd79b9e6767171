package events_test

import (
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/uuid"
	"pgregory.net/rapid"

	"github.com/tidegate/tidegate/events"
)

// printable is text as services send it: any script, quotes and backslashes, no
// control characters.
func printable(least, most int) *rapid.Generator[string] {
	return rapid.Custom(func(t *rapid.T) string {
		runes := rapid.OneOf(
			rapid.Rune(),
			rapid.SampledFrom([]rune{'"', '\\', '/', '<', '\u2028', 'a', ' ', 0xFFFD, 0x80}),
		)
		s := rapid.StringOfN(runes, least, most, -1).Draw(t, "text")
		return strings.Map(func(r rune) rune {
			if r < ' ' || r == 0x7f {
				return 'x'
			}
			return r
		}, s)
	})
}

var validUsage = rapid.Custom(func(t *rapid.T) events.Usage {
	u := events.Usage{
		ID:            printable(0, 128).Draw(t, "id"),
		PortID:        rapid.StringMatching(`[A-Za-z0-9_-]{1,64}`).Draw(t, "port"),
		UserID:        printable(0, 128).Draw(t, "user"),
		RunID:         printable(0, 128).Draw(t, "run"),
		Feature:       printable(1, 64).Draw(t, "feature"),
		Provider:      printable(1, 64).Draw(t, "provider"),
		Model:         printable(1, 128).Draw(t, "model"),
		RequestID:     printable(0, 256).Draw(t, "request"),
		ResponseID:    printable(0, 256).Draw(t, "response"),
		ReservationID: printable(0, 128).Draw(t, "reservation"),
		InputTokens:   rapid.Int64Range(0, events.MaxTokens).Draw(t, "input"),
		OutputTokens:  rapid.Int64Range(0, events.MaxTokens).Draw(t, "output"),
		MeasuredBy:    rapid.SampledFrom([]events.MeasuredBy{events.MeasuredByProvider, events.MeasuredByPartial, events.MeasuredByEstimate}).Draw(t, "measure"),
		Status:        rapid.SampledFrom([]events.Status{events.StatusOK, events.StatusPartial, events.StatusError}).Draw(t, "status"),
	}
	if rapid.Bool().Draw(t, "with time") || u.ID != "" {
		ms := rapid.Int64Range(1, 253402300799_999).Draw(t, "ms") // up to the year 9999
		zone := time.FixedZone("", rapid.IntRange(-14*60, 14*60).Draw(t, "zone")*60)
		u.OccurredAt = time.UnixMilli(ms).In(zone)
	}
	u.Details.CacheReadInputTokens = rapid.Int64Range(0, u.InputTokens).Draw(t, "cache read")
	u.Details.CacheWriteInputTokens = rapid.Int64Range(0, u.InputTokens-u.Details.CacheReadInputTokens).Draw(t, "cache write")
	u.Details.ReasoningOutputTokens = rapid.Int64Range(0, u.OutputTokens).Draw(t, "reasoning")
	return u
})

func TestUsage_WhatIsEncodedDecodesToTheSame(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		u := validUsage.Draw(t, "usage")
		if err := u.Validate(); err != nil {
			t.Fatal(err)
		}
		wire := u.AppendJSON(nil)
		got, err := events.DecodeUsage(events.Subject(events.SubjectUsage, u.PortID), wire)
		if err != nil {
			t.Fatalf("%v\n%s", err, wire)
		}
		if diff := cmp.Diff(u, got); diff != "" {
			t.Fatalf("%s\n(-in +out):\n%s", wire, diff)
		}
		if len(wire) > events.MaxPayloadBytes {
			t.Fatalf("a valid event takes %d bytes", len(wire))
		}
		var other map[string]any // any other JSON reader agrees
		if err := json.Unmarshal(wire, &other); err != nil || other["model"] != u.Model || other["total_tokens"] != float64(u.TotalTokens()) {
			t.Fatalf("encoding/json reads %v, %v", other, err)
		}
	})
}

// The hand-written encoding of a verdict says what its struct tags say.
func TestVerdict_AppendJSONMatchesItsTags(t *testing.T) {
	maybe := rapid.Ptr(rapid.Int64Range(0, events.MaxCapTokens), true)
	when := rapid.Custom(func(t *rapid.T) time.Time {
		return time.UnixMilli(rapid.Int64Range(0, 253402300799_999).Draw(t, "ms")).UTC()
	})
	rapid.Check(t, func(t *rapid.T) {
		v := events.Verdict{
			Allowed: rapid.Bool().Draw(t, "allowed"), SoftCapWarning: rapid.Bool().Draw(t, "warning"), Enabled: rapid.Bool().Draw(t, "enabled"),
			Reason:      rapid.SampledFrom([]events.RefusalReason{"", events.ReasonHardCapReached, events.ReasonGateStale}).Draw(t, "reason"),
			Period:      rapid.SampledFrom([]events.Period{events.PeriodDay, events.PeriodWeek, events.PeriodMonth}).Draw(t, "period"),
			PeriodStart: when.Draw(t, "start"), ResetsAt: when.Draw(t, "reset"), AsOf: when.Draw(t, "as of"),
			UsedTokens: rapid.Int64().Draw(t, "used"), HeldTokens: rapid.Int64().Draw(t, "held"),
			SoftCapTokens: maybe.Draw(t, "soft"), HardCapTokens: maybe.Draw(t, "hard"), RemainingTokens: maybe.Draw(t, "left"),
		}
		if rapid.Bool().Draw(t, "reserved") {
			v.ReservationID, v.ExpiresAt = printable(1, 64).Draw(t, "reservation"), when.Draw(t, "expiry")
			v.GrantedTokens = rapid.Int64Range(1, events.MaxTokens).Draw(t, "granted")
		}
		var got events.Verdict
		if err := json.Unmarshal(v.AppendJSON(nil), &got); err != nil {
			t.Fatalf("%v\n%s", err, v.AppendJSON(nil))
		}
		if diff := cmp.Diff(v, got); diff != "" {
			t.Fatalf("%s\n(-in +out):\n%s", v.AppendJSON(nil), diff)
		}
		byTags, err := json.Marshal(v)
		if err != nil {
			t.Fatal(err)
		}
		if a, b := fields(t, byTags), fields(t, v.AppendJSON(nil)); !cmp.Equal(a, b) {
			t.Fatalf("field names differ (-tags +hand):\n%s", cmp.Diff(a, b))
		}
	})
}

func fields(t *rapid.T, object []byte) map[string]bool {
	var m map[string]any
	if err := json.Unmarshal(object, &m); err != nil {
		t.Fatal(err)
	}
	names := map[string]bool{}
	for name := range m {
		names[name] = true
	}
	return names
}

// An id carries the time that it was made for, to the millisecond.
func TestNewUUIDv7_CarriesItsTime(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		at := time.UnixMilli(rapid.Int64Range(0, 1<<48-1).Draw(t, "ms")).UTC()
		if id := events.NewUUIDv7(at); id.Version() != 7 || !events.UUIDv7Time(id).Equal(at) {
			t.Fatalf("NewUUIDv7(%s) = %s of %s", at, id, events.UUIDv7Time(id))
		}
	})
}

func TestNewUUIDv7_IsRandom(t *testing.T) {
	seen := map[uuid.UUID]bool{}
	for range 10_000 {
		seen[events.NewUUIDv7(time.Now())] = true
	}
	if len(seen) != 10_000 {
		t.Errorf("%d ids of 10,000 for one millisecond", len(seen))
	}
}
