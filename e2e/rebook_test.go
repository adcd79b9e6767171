package e2e

import (
	"testing"
	"time"
)

// Rows that went missing in another way come back by hand, from a time on.
func TestRebook(t *testing.T) {
	t.Parallel()
	s := start(t, options{})
	s.spend("p1", 100, time.Now())
	since := time.Now()
	s.spend("p1", 200, time.Now())
	s.spend("p2", 300, time.Now())
	s.forget("ai_usage_ledger", "ai_usage_totals", "ai_usage_port_days")
	rebook := func(since time.Time, messages uint64) {
		t.Helper()
		at, err := s.ops.Rebook(t.Context(), since)
		if err != nil || at.Behind() != messages {
			t.Fatalf("rebook: %+v, %v, want %d messages behind", at, err, messages)
		}
		s.eventually("it is booked again", func() bool {
			at, err := s.ops.Position(t.Context())
			return err == nil && at.Behind() == 0
		})
	}
	rebook(since, 2)
	if p1, p2 := s.booked("p1"), s.booked("p2"); p1 != 200 || p2 != 300 {
		t.Errorf("p1 has %d and p2 %d tokens, want 200 and 300: what came after", p1, p2)
	}
	rebook(time.Time{}, 3)
	if p1, p2 := s.booked("p1"), s.booked("p2"); p1 != 300 || p2 != 300 {
		t.Errorf("p1 has %d and p2 %d tokens, want 300 each", p1, p2)
	}
	s.eventually("everything agrees", s.verified)

	// A copy of the database that is older than the stream does not know of it.
	s.forget("ai_usage_ledger", "ai_usage_totals", "ai_usage_port_days", "ai_usage_streams", "ai_booked_shares")
	s.eventually("all of the stream is booked again", func() bool { return s.booked("p1") == 300 && s.booked("p2") == 300 })
	s.eventually("everything agrees again", s.verified)
}

// forget makes the database one that lacks all rows of some tables.
func (s *system) forget(tables ...string) {
	s.t.Helper()
	for _, table := range tables {
		if _, err := s.db.Exec(s.t.Context(), "delete from "+table); err != nil {
			s.t.Fatal(err)
		}
	}
}
