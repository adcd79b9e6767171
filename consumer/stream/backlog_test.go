package stream

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/tidegate/tidegate/events"
)

func TestABacklogThatDoesNotMoveIsTold(t *testing.T) {
	t.Parallel()
	now := time.Date(2026, 11, 28, 12, 0, 0, 0, time.UTC)
	at := func(seconds int) time.Time { return now.Add(time.Duration(seconds) * time.Second) }
	wait := func(floor uint64, messages int64, since int) waiting {
		return waiting{floor: floor, Backlog: events.Backlog{Messages: messages, OldestAt: at(since)}}
	}
	var p progress
	for _, c := range []struct {
		second int
		found  waiting
		err    error
		want   string // "" if nothing is wrong
	}{
		{0, waiting{}, errors.New("no NATS"), "not known"},
		{1, wait(7, 1000, -100), nil, ""}, // just started: it may move
		{9, wait(8, 1000, -90), nil, ""},
		{18, wait(8, 2000, -90), nil, ""},
		{20, wait(8, 2000, -90), nil, "2000 messages wait to be booked, the oldest for 1m50s"},
		{21, wait(9, 2000, 15), nil, ""},
		{40, waiting{floor: 2009}, nil, ""}, // nothing waits, for long
		{60, waiting{floor: 2009}, nil, ""},
		{61, wait(2009, 1, 61), nil, ""}, // and something new has only just come
		{62, waiting{floor: 2009, paused: time.Minute}, nil, "paused for another 1m0s: nothing waits"},
		{63, waiting{}, errors.New("no NATS"), "paused"}, // it says what it said last
		{73, waiting{}, errors.New("no NATS"), "not known what waits in the stream: no NATS"},
		{74, waiting{floor: 2010}, nil, ""},
	} {
		p = p.next(c.found, c.err, at(c.second))
		got := ""
		if err := p.stalled(at(c.second)); err != nil {
			got = err.Error()
		}
		if !strings.Contains(got, c.want) || c.want == "" && got != "" {
			t.Errorf("second %d: %q, want %q", c.second, got, c.want)
		}
	}
}
