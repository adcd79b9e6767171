// Package storetest checks that a TokenStore keeps the promises that package
// identity relies on. Every implementation runs it in its own tests.
package storetest

import (
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/tidegate/tidegate/identity"
)

// Run checks an empty store.
func Run(t *testing.T, store identity.TokenStore) {
	ctx := t.Context()
	at := time.Date(2026, 11, 23, 15, 30, 6, 123_000_000, time.UTC) // milliseconds: every store keeps them
	token := func(id string, made time.Time, ports []string) identity.Token {
		t := identity.Token{
			ID: id, Name: "Ä name", Permissions: []string{"b.two", "a.one"}, Ports: ports,
			CreatedAt: made, CreatedBy: "ada", ExpiresAt: made.AddDate(1, 0, 0),
		}
		for i := range t.Hash {
			t.Hash[i] = byte(i) // a zero and high bytes among them
		}
		return t
	}
	every := token("aaaaaaaaaaaa", at, nil)
	none := token("bbbbbbbbbbbb", at.Add(time.Second), []string{})
	some := token("cccccccccccc", at.Add(2*time.Second), []string{"p2", "p1"})
	some.ExpiresAt = time.Time{}

	if list, err := store.ListTokens(ctx, "", 100); err != nil || len(list) != 0 {
		t.Fatalf("an empty store lists %v, %v", list, err)
	}
	for _, made := range []identity.Token{every, none, some} {
		if err := store.CreateToken(ctx, made); err != nil {
			t.Fatal(err)
		}
		same(t, "what was stored", stored(t, store, made.ID), made)
	}
	if err := store.CreateToken(ctx, every); err == nil {
		t.Error("the same id was stored twice")
	}

	missing := "zzzzzzzzzzzz"
	if _, err := store.TokenByID(ctx, missing); !errors.Is(err, identity.ErrTokenNotFound) {
		t.Errorf("reading an unknown token: %v, want ErrTokenNotFound", err)
	}
	if err := store.RevokeToken(ctx, missing, "ada", at); !errors.Is(err, identity.ErrTokenNotFound) {
		t.Errorf("revoking an unknown token: %v, want ErrTokenNotFound", err)
	}

	touched, revoked := at.Add(time.Hour), at.Add(2*time.Hour)
	must(t, store.TouchToken(ctx, some.ID, touched))
	must(t, store.TouchToken(ctx, some.ID, touched.Add(-time.Minute))) // another replica's clock: nothing moves back
	must(t, store.RevokeToken(ctx, some.ID, "grace", revoked))
	must(t, store.RevokeToken(ctx, some.ID, "someone else", revoked.Add(time.Hour)))
	some.LastUsedAt, some.RevokedAt, some.RevokedBy = touched, revoked, "grace"
	same(t, "what was touched and revoked, twice each", stored(t, store, some.ID), some)

	list, err := store.ListTokens(ctx, "", 100)
	must(t, err)
	ids := func(tokens []identity.Token) (ids []string) {
		for _, token := range tokens {
			ids = append(ids, token.ID)
		}
		return ids
	}
	if want := []string{some.ID, none.ID, every.ID}; !slices.Equal(ids(list), want) {
		t.Fatalf("the list is %v, want %v, newest first", ids(list), want)
	}
	same(t, "the list's first", list[0], some)
	same(t, "the list's second", list[1], none)
	same(t, "the list's third", list[2], every)

	var together sync.WaitGroup
	for i := range 8 {
		together.Go(func() {
			made := token(fmt.Sprintf("dddddddddd%02d", i), at, nil)
			must(t, store.CreateToken(ctx, made))
			must(t, store.TouchToken(ctx, made.ID, touched))
			must(t, store.RevokeToken(ctx, made.ID, "ada", revoked))
		})
	}
	together.Wait()
	if list, err := store.ListTokens(ctx, "", 100); err != nil || len(list) != 11 {
		t.Errorf("after eight goroutines made one each, there are %d tokens, %v", len(list), err)
	} else {
		var paged []string // among them eight of one moment
		for after := ""; len(paged) < len(list); after = paged[len(paged)-1] {
			page, err := store.ListTokens(ctx, after, 4)
			must(t, err)
			if len(page) == 0 || len(page) > 4 {
				t.Fatalf("a page of at most 4 after %q has %d tokens", after, len(page))
			}
			paged = append(paged, ids(page)...)
		}
		if !slices.Equal(paged, ids(list)) {
			t.Errorf("in pages the list is %v, want %v", paged, ids(list))
		}
	}
}

func stored(t *testing.T, store identity.TokenStore, id string) identity.Token {
	t.Helper()
	token, err := store.TokenByID(t.Context(), id)
	if err != nil {
		t.Fatal(err)
	}
	return token
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Error(err)
	}
}

// same compares whole tokens; nil ports (all) and empty ones (none) differ.
func same(t *testing.T, what string, got, want identity.Token) {
	t.Helper()
	if diff := cmp.Diff(want, got, cmp.Comparer(time.Time.Equal)); diff != "" {
		t.Errorf("%s differs (-want +got):\n%s", what, diff)
	}
}
