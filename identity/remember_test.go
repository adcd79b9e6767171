package identity

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"testing/synctest"
	"time"
)

type fakeStore struct {
	TokenStore
	tokens map[string]Token
	away   bool
	asked  int
}

func (s *fakeStore) TokenByID(_ context.Context, id string) (Token, error) {
	s.asked++
	if s.away {
		time.Sleep(lookupTimeout)
		return Token{}, errors.New("outage")
	}
	if t, ok := s.tokens[id]; ok {
		return t, nil
	}
	return Token{}, ErrTokenNotFound
}

// The store is asked once a second and token, and an outage delays one request a second.
func TestRemember(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := &fakeStore{tokens: map[string]Token{"a": {ID: "a"}}}
		r := remember(store)
		look := func(id string, want error, asked int) {
			t.Helper()
			store.asked = 0
			_, err := r.TokenByID(t.Context(), id)
			if (err == nil) != (want == nil) || errors.Is(err, ErrTokenNotFound) != errors.Is(want, ErrTokenNotFound) || store.asked != asked {
				t.Errorf("%s: %v, and the store was asked %d times; want %v, %d", id, err, store.asked, want, asked)
			}
		}
		outage := errors.New("any")
		look("a", nil, 1)
		look("a", nil, 0)
		look("b", ErrTokenNotFound, 1)
		look("b", ErrTokenNotFound, 1)
		time.Sleep(rememberFor + time.Millisecond)
		look("a", nil, 1)

		store.away = true
		time.Sleep(rememberFor + time.Millisecond)
		look("a", nil, 1)
		look("a", nil, 0) // who comes next does not wait
		look("b", outage, 1)
		time.Sleep(rememberThrough)
		look("a", outage, 1)

		// What is gone is forgotten, and no later outage brings it back.
		store.away = false
		look("a", nil, 1)
		delete(store.tokens, "a")
		time.Sleep(rememberFor + time.Millisecond)
		look("a", ErrTokenNotFound, 1)
		store.away = true
		look("a", outage, 1)

		store.away = false
		for i := range maxRemembered + 10 {
			id := fmt.Sprint(i)
			store.tokens[id] = Token{ID: id}
			look(id, nil, 1)
		}
		if len(r.tokens) != maxRemembered {
			t.Errorf("%d tokens are remembered", len(r.tokens))
		}
	})
}
