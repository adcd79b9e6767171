package identity_test

import (
	"cmp"
	"context"
	"errors"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/tidegate/tidegate/identity"
	"github.com/tidegate/tidegate/identity/storetest"
)

// memory is a TokenStore for tests. fail makes every method fail.
type memory struct {
	mu      sync.Mutex
	tokens  map[string]identity.Token
	fail    error
	touches int
}

func newMemory() *memory { return &memory{tokens: make(map[string]identity.Token)} }

func (m *memory) CreateToken(_ context.Context, t identity.Token) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if _, known := m.tokens[t.ID]; known {
		return errors.New("the id is taken")
	}
	m.tokens[t.ID] = t
	return m.fail
}

func (m *memory) TokenByID(_ context.Context, id string) (identity.Token, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	t, known := m.tokens[id]
	if !known {
		return identity.Token{}, errors.Join(identity.ErrTokenNotFound, m.fail)
	}
	return t, m.fail
}

func (m *memory) RevokeToken(_ context.Context, id, by string, at time.Time) error {
	return m.change(id, func(t *identity.Token) {
		if t.RevokedAt.IsZero() {
			t.RevokedAt, t.RevokedBy = at, by
		}
	})
}

func (m *memory) TouchToken(_ context.Context, id string, at time.Time) error {
	return m.change(id, func(t *identity.Token) {
		m.touches++
		if at.After(t.LastUsedAt) {
			t.LastUsedAt = at
		}
	})
}

func (m *memory) change(id string, by func(*identity.Token)) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	t, known := m.tokens[id]
	if !known {
		return identity.ErrTokenNotFound
	}
	by(&t)
	m.tokens[id] = t
	return m.fail
}

func (m *memory) ListTokens(_ context.Context, after string, limit int) ([]identity.Token, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	var all []identity.Token
	for _, t := range m.tokens {
		all = append(all, t)
	}
	slices.SortFunc(all, func(a, b identity.Token) int {
		return cmp.Or(b.CreatedAt.Compare(a.CreatedAt), cmp.Compare(b.ID, a.ID))
	})
	all = all[slices.IndexFunc(all, func(t identity.Token) bool { return t.ID == after })+1:]
	return all[:min(len(all), limit)], m.fail
}

func TestMemoryStoreKeepsTheContract(t *testing.T) { storetest.Run(t, newMemory()) }
