package identity

import (
	"testing"
	"time"
)

func TestMemoryForgetsWhatHasExpired(t *testing.T) {
	s, err := newSpent("")
	if err != nil {
		t.Fatal(err)
	}
	now := time.Unix(0, 0)
	for id, until := range map[string]time.Duration{"a": time.Minute, "b": time.Hour} {
		if first, err := s.add(id, now.Add(until), now); !first || err != nil {
			t.Fatal(first, err)
		}
	}
	if first, _ := s.add("a", now.Add(time.Minute), now.Add(time.Minute)); first {
		t.Error("an id was spent twice")
	}
	if _, err := s.add("c", now.Add(time.Hour), now.Add(2*time.Minute)); err != nil {
		t.Fatal(err)
	}
	if len(s.ids) != 2 {
		t.Errorf("%v are held, want b and c", s.ids)
	}
}
