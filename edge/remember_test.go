package edge

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/tidegate/tidegate/identity"
)

type fakeStore struct {
	identity.TokenStore
	tokens map[string]identity.Token
	away   bool
	asked  int
}

func (s *fakeStore) TokenByID(_ context.Context, id string) (identity.Token, error) {
	s.asked++
	if s.away {
		time.Sleep(lookupTimeout)
		return identity.Token{}, errors.New("outage")
	}
	if t, ok := s.tokens[id]; ok {
		return t, nil
	}
	return identity.Token{}, identity.ErrTokenNotFound
}

// The store is asked once a second and token, and an outage delays one request a second.
func TestRemember(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := &fakeStore{tokens: map[string]identity.Token{"a": {ID: "a"}}}
		r := remember(store)
		look := func(id string, want error, asked int) {
			t.Helper()
			store.asked = 0
			_, err := r.TokenByID(t.Context(), id)
			if (err == nil) != (want == nil) || errors.Is(err, identity.ErrTokenNotFound) != errors.Is(want, identity.ErrTokenNotFound) || store.asked != asked {
				t.Errorf("%s: %v, and the store was asked %d times; want %v, %d", id, err, store.asked, want, asked)
			}
		}
		outage := errors.New("any")
		look("a", nil, 1)
		look("a", nil, 0)
		look("b", identity.ErrTokenNotFound, 1)
		look("b", identity.ErrTokenNotFound, 1)
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
		look("a", identity.ErrTokenNotFound, 1)
		store.away = true
		look("a", outage, 1)

		store.away = false
		for i := range maxRemembered + 10 {
			id := fmt.Sprint(i)
			store.tokens[id] = identity.Token{ID: id}
			look(id, nil, 1)
		}
		if len(r.tokens) != maxRemembered {
			t.Errorf("%d tokens are remembered", len(r.tokens))
		}
	})
}
