package events

import (
	"strconv"
	"time"

	"github.com/go-json-experiment/json/jsontext"
)

const wireTime = "2006-01-02T15:04:05.000Z" // UTC, milliseconds: what a UUIDv7 can hold

// AppendJSON appends the event in its wire form.
func (u Usage) AppendJSON(b []byte) []byte {
	b = append(b, `{"v":1`...)
	b = appendText(b, "id", u.ID)
	if !u.OccurredAt.IsZero() {
		b = appendTime(b, `,"occurred_at":`, u.OccurredAt)
	}
	b = appendText(b, "port_id", u.PortID)
	b = appendText(b, "user_id", u.UserID)
	b = appendText(b, "run_id", u.RunID)
	b = appendText(b, "feature", u.Feature)
	b = appendText(b, "provider", u.Provider)
	b = appendText(b, "model", u.Model)
	b = appendText(b, "request_id", u.RequestID)
	b = appendText(b, "response_id", u.ResponseID)
	b = appendText(b, "reservation_id", u.ReservationID)
	b = appendInt(b, `,"input_tokens":`, u.InputTokens)
	b = appendInt(b, `,"output_tokens":`, u.OutputTokens)
	b = appendInt(b, `,"total_tokens":`, u.TotalTokens())
	if u.Details != (Details{}) {
		b = appendInt(b, `,"details":{"cache_read_input_tokens":`, u.Details.CacheReadInputTokens)
		b = appendInt(b, `,"cache_write_input_tokens":`, u.Details.CacheWriteInputTokens)
		b = appendInt(b, `,"reasoning_output_tokens":`, u.Details.ReasoningOutputTokens)
		b = append(b, '}')
	}
	b = appendText(b, "measured_by", string(u.MeasuredBy))
	b = appendText(b, "status", string(u.Status))
	return append(b, '}')
}

// MarshalJSON returns the wire form.
func (u Usage) MarshalJSON() ([]byte, error) { return u.AppendJSON(nil), nil }

// UnmarshalJSON reads and validates the wire form; see [DecodeUsage] for its errors.
func (u *Usage) UnmarshalJSON(b []byte) error {
	decoded, err := DecodeUsage(SubjectUsage, b)
	if err != nil {
		return err
	}
	*u = decoded
	return nil
}

// appendText leaves empty text out: absent and empty mean the same on the wire.
func appendText(b []byte, name, value string) []byte {
	if value == "" {
		return b
	}
	b = append(b, ',', '"')
	b = append(b, name...)
	b = append(b, '"', ':')
	quoted, _ := jsontext.AppendQuote(b, value) // invalid UTF-8 is quoted all the same, with U+FFFD in its place
	return quoted
}

func appendInt(b []byte, key string, n int64) []byte {
	return strconv.AppendInt(append(b, key...), n, 10)
}

// appendTime writes RFC 3339 in UTC with milliseconds, what a UUIDv7 can hold.
// The gate writes three times an answer; time.AppendFormat would be a third of its work.
func appendTime(b []byte, key string, t time.Time) []byte {
	b = append(b, key...)
	b = append(b, '"')
	t = t.UTC()
	year, month, day := t.Date()
	if year < 0 || year > 9999 {
		return append(t.AppendFormat(b, wireTime), '"')
	}
	hour, minute, second := t.Clock()
	ms := t.Nanosecond() / 1_000_000
	return append(b,
		digit(year/1000), digit(year/100), digit(year/10), digit(year), '-',
		digit(int(month)/10), digit(int(month)), '-', digit(day/10), digit(day), 'T',
		digit(hour/10), digit(hour), ':', digit(minute/10), digit(minute), ':', digit(second/10), digit(second), '.',
		digit(ms/100), digit(ms/10), digit(ms), 'Z', '"')
}

func digit(n int) byte { return '0' + byte(n%10) }
