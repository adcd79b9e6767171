package events

import (
	"fmt"
	"time"
)

// Backlog is what waits in the usage stream: events that were reported, and that no
// total counts yet.
type Backlog struct {
	Messages int64     `json:"backlog_messages,omitempty"` // one may hold several events
	OldestAt time.Time `json:"backlog_oldest_at,omitzero"` // when the stream got the oldest of them
}

// Age is how long the oldest message has been waiting.
func (b Backlog) Age(now time.Time) time.Duration {
	if b.Messages == 0 || b.OldestAt.IsZero() {
		return 0
	}
	return max(now.Sub(b.OldestAt), 0)
}

// Describe says in words what waits.
func (b Backlog) Describe(now time.Time) string {
	switch {
	case b.Messages == 0:
		return "nothing waits"
	case b.Messages == 1:
		return fmt.Sprintf("1 message waits to be booked, for %s", b.Age(now).Round(time.Millisecond))
	}
	return fmt.Sprintf("%d messages wait to be booked, the oldest for %s", b.Messages, b.Age(now).Round(time.Millisecond))
}

// appendJSON appends the two fields, if there is a backlog.
func (b Backlog) appendJSON(to []byte) []byte {
	if b.Messages == 0 {
		return to
	}
	to = appendInt(to, `,"backlog_messages":`, b.Messages)
	if b.OldestAt.IsZero() {
		return to
	}
	return appendTime(to, `,"backlog_oldest_at":`, b.OldestAt)
}
