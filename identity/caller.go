// Package identity says who a caller is and what it may do: OIDC bearer tokens,
// API tokens, and browser sessions that begin with a one-time login link or with
// the OIDC provider. It never knows what a permission permits.
//
// Everything is denied by default: a caller without the permission, a port that is
// not named, a claim that is absent, a store that does not answer.
package identity

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"slices"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"
)

// Via says how the caller proved who it is.
type Via string

// The ways. A browser session keeps the one it began with.
const (
	ViaOIDC      Via = "oidc"
	ViaToken     Via = "token"
	ViaLoginLink Via = "login-link"
)

// Caller is who makes a request. The zero value may do nothing.
type Caller struct {
	Subject     string   `json:"subject"` // unique among callers with the same Via
	Name        string   `json:"name"`    // for people to read; may be empty
	Permissions []string `json:"permissions"`
	Ports       []string `json:"ports"` // nil: every port; otherwise only these
	Via         Via      `json:"via"`
	// ExpiresAt is when the token or the session ends at the latest; zero: never.
	ExpiresAt time.Time `json:"-"`
}

// Has reports whether the caller holds the permission, for whichever ports. Use it
// where the answer is then filtered by [Caller.Can].
func (c Caller) Has(permission string) bool {
	return permission != "" && slices.Contains(c.Permissions, permission)
}

// Can reports whether the caller holds the permission for port. The empty port
// stands for all of them, so a caller limited to some cannot.
func (c Caller) Can(permission, port string) bool {
	return c.Has(permission) && c.reaches(port)
}

func (c Caller) reaches(port string) bool {
	return c.Ports == nil || port != "" && slices.Contains(c.Ports, port)
}

const maxActorChars = 128

// Actor names the caller in an audit log: "Ada (oidc:auth0|5f1)". It has at most
// 128 characters and no control characters. The name is the caller's own to
// choose at its provider; what stands in the parentheses is not.
func (c Caller) Actor() string {
	proof := string(c.Via) + ":" + printable(c.Subject)
	if utf8.RuneCountInString(proof) > maxActorChars-2 {
		sum := sha256.Sum256([]byte(c.Subject)) // cut, two long subjects could look the same
		proof = firstRunes(proof, 100) + "~" + hex.EncodeToString(sum[:8])
	}
	name := strings.TrimSpace(firstRunes(printable(c.Name), maxActorChars-3-utf8.RuneCountInString(proof)))
	if name == "" {
		return proof
	}
	return name + " (" + proof + ")"
}

func printable(s string) string {
	return strings.Map(func(r rune) rune {
		if r == utf8.RuneError || !unicode.IsPrint(r) {
			return -1
		}
		return r
	}, s)
}

func firstRunes(s string, n int) string {
	for i := range s {
		if n <= 0 {
			return s[:i]
		}
		n--
	}
	return s
}

type callerKey struct{}

// WithCaller returns a context that carries the caller.
func WithCaller(ctx context.Context, c Caller) context.Context {
	return context.WithValue(ctx, callerKey{}, c)
}

// CallerFrom returns the caller that [Authenticator.Admit] let through, or one that
// may do nothing.
func CallerFrom(ctx context.Context) (Caller, bool) {
	c, ok := ctx.Value(callerKey{}).(Caller)
	return c, ok
}
