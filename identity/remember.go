package identity

import (
	"context"
	"errors"
	"sync"
	"time"

	"golang.org/x/sync/singleflight"
)

const (
	// rememberFor is how long a revoked token may still be accepted here.
	rememberFor = time.Second
	// rememberThrough is how long a token that was found stays good while the store of tokens
	// does not answer: gates and JetStream go on then, and so should whoever asks them.
	rememberThrough = 15 * time.Minute

	maxRemembered = 10_000 // tokens
	maxLookups    = 64     // at once
	lookupTimeout = 2 * time.Second
)

var errManyLookups = errors.New("too many API tokens are being looked up")

// remembered is a store of tokens that does not ask for each request. Only tokens that exist
// are remembered, so that guesses fill nothing.
type remembered struct {
	TokenStore
	mu      sync.Mutex
	tokens  map[string]*rememberedToken // by id
	asking  singleflight.Group
	lookups chan struct{}
}

type rememberedToken struct {
	Token
	found time.Time // the store last had it
	asked time.Time // the store last had it, or did not answer
}

// Remember returns a store that asks the given one once a second for each token that it knows. While
// that does not answer, such a token stays good for 15 minutes. It is for servers that answer in
// microseconds, and should not stop with Postgres.
func Remember(store TokenStore) TokenStore { return remember(store) }

func remember(store TokenStore) *remembered {
	return &remembered{TokenStore: store, tokens: map[string]*rememberedToken{}, lookups: make(chan struct{}, maxLookups)}
}

func (r *remembered) TokenByID(ctx context.Context, id string) (Token, error) {
	if token, ok := r.recall(id); ok {
		return token, nil
	}
	// Whoever asks first asks for all who wait, so it does not give up with its own request.
	found, err, _ := r.asking.Do(id, func() (any, error) {
		select {
		case r.lookups <- struct{}{}:
			defer func() { <-r.lookups }()
		default:
			return Token{}, errManyLookups
		}
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), lookupTimeout)
		defer cancel()
		token, err := r.TokenStore.TokenByID(ctx, id)
		return r.learn(id, token, err)
	})
	return found.(Token), err
}

func (r *remembered) recall(id string) (Token, bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	t := r.tokens[id]
	if t == nil || time.Since(t.asked) > rememberFor {
		return Token{}, false
	}
	return t.Token, true
}

// learn takes in what the store said.
func (r *remembered) learn(id string, token Token, err error) (Token, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	now := time.Now()
	switch t := r.tokens[id]; {
	case err == nil:
		for other := range r.tokens {
			if len(r.tokens) < maxRemembered {
				break
			}
			delete(r.tokens, other)
		}
		r.tokens[id] = &rememberedToken{Token: token, found: now, asked: now}
	case errors.Is(err, ErrTokenNotFound):
		delete(r.tokens, id)
	case t != nil && now.Sub(t.found) < rememberThrough:
		t.asked = now
		return t.Token, nil
	}
	return token, err
}

// TouchToken notes the use in memory first: of the requests that follow at once, none does it again.
func (r *remembered) TouchToken(ctx context.Context, id string, at time.Time) error {
	r.mu.Lock()
	if t := r.tokens[id]; t != nil {
		t.LastUsedAt = at
	}
	r.mu.Unlock()
	ctx, cancel := context.WithTimeout(ctx, lookupTimeout)
	defer cancel()
	return r.TokenStore.TouchToken(ctx, id, at)
}
