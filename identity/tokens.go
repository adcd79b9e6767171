package identity

import (
	"cmp"
	"context"
	"crypto/subtle"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"time"
	"unicode/utf8"
)

// ErrTokenNotFound is what a [TokenStore] returns for an id it does not hold.
var ErrTokenNotFound = errors.New("identity: there is no API token with this id")

// TokenStore keeps API tokens. Its methods are called by many goroutines at once.
type TokenStore interface {
	// CreateToken stores a new token, whole.
	CreateToken(ctx context.Context, t Token) error
	// TokenByID returns the token, revoked or not, or ErrTokenNotFound.
	TokenByID(ctx context.Context, id string) (Token, error)
	// RevokeToken sets RevokedAt and RevokedBy, or returns ErrTokenNotFound. A token
	// that is revoked already stays as it is, without an error.
	RevokeToken(ctx context.Context, id, by string, at time.Time) error
	// ListTokens returns at most limit tokens, revoked ones too, newest first: those
	// after the one with the given id, "" for the first.
	ListTokens(ctx context.Context, after string, limit int) ([]Token, error)
	// TouchToken sets LastUsedAt, unless it is later already.
	TouchToken(ctx context.Context, id string, at time.Time) error
}

// touchEvery is how coarse LastUsedAt is: one write an hour and token, not one a request.
const touchEvery = time.Hour

const storeRetryAfter = 5 * time.Second

// Tokens makes, revokes and verifies API tokens. It keeps nothing in memory: a
// token revoked is refused at the next request, by every replica.
type Tokens struct {
	store TokenStore
	log   *slog.Logger
}

// NewTokens returns the API tokens of the store. log takes what no caller is to
// see; nil is slog.Default().
func NewTokens(store TokenStore, log *slog.Logger) *Tokens {
	return &Tokens{store: store, log: cmp.Or(log, slog.Default())}
}

// TokenRequest describes a token to make.
type TokenRequest struct {
	Name        string    // for people: which program, where; 1 to 64 characters
	Permissions []string  // at least one
	Ports       []string  // nil: every port
	ExpiresAt   time.Time // zero: never
	CreatedBy   string    // who makes it
}

// ErrBadTokenRequest is what [Tokens.Create] says of a request that no token can be
// made of: asking again will not help.
var ErrBadTokenRequest = errors.New("identity: such a token cannot be made")

type badTokenRequest struct{ error }

func (badTokenRequest) Is(target error) bool { return target == ErrBadTokenRequest }

// Create makes a token and returns it as its owner must keep it: it is shown now
// and can never be shown again. Nothing is stored when an error is returned.
func (t *Tokens) Create(ctx context.Context, req TokenRequest) (shown string, token Token, err error) {
	now := time.Now().UTC()
	if err := req.validate(now); err != nil {
		return "", Token{}, badTokenRequest{err}
	}
	shown, id, hash := mintToken()
	token = Token{
		ID: id, Name: req.Name, Hash: hash,
		Permissions: slices.Clone(req.Permissions), Ports: slices.Clone(req.Ports),
		CreatedAt: now, CreatedBy: req.CreatedBy, ExpiresAt: req.ExpiresAt,
	}
	if err := t.store.CreateToken(ctx, token); err != nil {
		return "", Token{}, fmt.Errorf("identity: storing the API token %q: %w", req.Name, err)
	}
	return shown, token, nil
}

func (req TokenRequest) validate(now time.Time) error {
	if chars := utf8.RuneCountInString(req.Name); chars < 1 || chars > 64 || printable(req.Name) != req.Name {
		return fmt.Errorf("identity: the token's name %q must be 1 to 64 printable characters", req.Name)
	}
	if len(req.Permissions) == 0 {
		return errors.New("identity: a token without a permission could do nothing: name at least one")
	}
	if req.Ports != nil && len(req.Ports) == 0 {
		return errors.New("identity: a token limited to no port could do nothing: name at least one, or do not limit it")
	}
	for _, word := range slices.Concat(req.Permissions, req.Ports) {
		if word == "" || printable(word) != word || strings.ContainsAny(word, " ,*") {
			return fmt.Errorf("identity: %q must be the name of one permission or port, without space, comma or *", word)
		}
	}
	if !req.ExpiresAt.IsZero() && !req.ExpiresAt.After(now) {
		return fmt.Errorf("identity: the token would have expired already, at %s", req.ExpiresAt.Format(time.RFC3339))
	}
	return nil
}

// Revoke ends a token for ever, from the next request on. The only error to
// handle is [ErrTokenNotFound]; after any other, try again.
func (t *Tokens) Revoke(ctx context.Context, id, by string) error {
	if err := t.store.RevokeToken(ctx, id, by, time.Now().UTC()); err != nil {
		return fmt.Errorf("identity: revoking the API token %q: %w", id, err)
	}
	return nil
}

// List returns at most limit tokens, revoked ones too, newest first: those after the one
// with the given id, "" for the first.
func (t *Tokens) List(ctx context.Context, after string, limit int) ([]Token, error) {
	tokens, err := t.store.ListTokens(ctx, after, limit)
	if err != nil {
		return nil, fmt.Errorf("identity: listing the API tokens: %w", err)
	}
	return tokens, nil
}

// Verify returns the caller that the token stands for. Every error is a [*Refusal].
func (t *Tokens) Verify(ctx context.Context, shown string) (Caller, error) {
	id, hash, ok := parseToken(shown)
	if !ok {
		return Caller{}, invalidToken("this is not a whole API token: some of its characters are missing or changed", nil)
	}
	token, err := t.find(ctx, id)
	if err != nil && !errors.Is(err, ErrTokenNotFound) {
		return Caller{}, err
	}
	if err != nil || subtle.ConstantTimeCompare(hash[:], token.Hash[:]) != 1 {
		return Caller{}, invalidToken("there is no such API token", nil)
	}
	now := time.Now().UTC()
	if ended := token.ended(now); ended != "" {
		return Caller{}, invalidToken("the API token "+ended, nil)
	}
	t.touch(ctx, token, now)
	return token.caller(), nil
}

// resume returns the caller of a session that began with the token of this id. So a session
// is worth what its token is worth at the moment, and nothing when that is revoked. Every
// error is a [*Refusal].
func (t *Tokens) resume(ctx context.Context, id string) (Caller, error) {
	token, err := t.find(ctx, id)
	if errors.Is(err, ErrTokenNotFound) {
		return Caller{}, invalidSession("the API token that it began with is gone")
	}
	if err != nil {
		return Caller{}, err
	}
	now := time.Now().UTC()
	if ended := token.ended(now); ended != "" {
		return Caller{}, invalidSession("the API token that it began with " + ended)
	}
	t.touch(ctx, token, now)
	return token.caller(), nil
}

// find returns the token of an id, [ErrTokenNotFound], or a [*Refusal].
func (t *Tokens) find(ctx context.Context, id string) (Token, error) {
	token, err := t.store.TokenByID(ctx, id)
	if err != nil && !errors.Is(err, ErrTokenNotFound) {
		err = unavailable("the store of API tokens does not answer; try again", storeRetryAfter, err)
	}
	return token, err
}

// touch notes the use, now and then. That it fails is no reason to refuse anyone.
func (t *Tokens) touch(ctx context.Context, token Token, now time.Time) {
	if now.Sub(token.LastUsedAt) < touchEvery {
		return
	}
	if err := t.store.TouchToken(ctx, token.ID, now); err != nil {
		t.log.LogAttrs(ctx, slog.LevelWarn, "identity: the last use of an API token was not noted", slog.String("token", token.ID), slog.Any("error", err))
	}
}
