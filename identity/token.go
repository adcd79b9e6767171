package identity

import (
	"crypto/rand"
	"crypto/sha256"
	"fmt"
	"hash/crc32"
	"strings"
	"time"
)

// An API token reads tg_<id>_<secret><checksum>: 12 characters that name it, 52
// that are 260 random bits, 8 hex digits of CRC-32. Prefix and checksum let secret
// scanners find it without asking anyone, and typing errors be told from guesses:
//
//	\btg_[a-z2-7]{12}_[a-z2-7]{52}[0-9a-f]{8}\b
const (
	tokenPrefix    = "tg_"
	tokenIDChars   = 12
	secretChars    = 52
	checksumChars  = 8
	tokenChars     = len(tokenPrefix) + tokenIDChars + 1 + secretChars + checksumChars
	base32Alphabet = "abcdefghijklmnopqrstuvwxyz234567"
)

// Token is what is kept of an API token: everything but the secret.
type Token struct {
	ID   string `json:"id"`
	Name string `json:"name"`
	// Hash is the SHA-256 of the secret. A slow, salted password hash would protect
	// a secret that can be guessed; nobody guesses 260 random bits, and this one is
	// computed on every request.
	Hash        [sha256.Size]byte `json:"-"`
	Permissions []string          `json:"permissions"`
	Ports       []string          `json:"ports"` // nil: every port; empty: none. A store must keep the difference
	CreatedAt   time.Time         `json:"created_at"`
	CreatedBy   string            `json:"created_by"`
	ExpiresAt   time.Time         `json:"expires_at,omitzero"`   // zero: never
	LastUsedAt  time.Time         `json:"last_used_at,omitzero"` // within an hour; zero: never used
	RevokedAt   time.Time         `json:"revoked_at,omitzero"`   // zero: not revoked
	RevokedBy   string            `json:"revoked_by,omitempty"`
}

// State is active, expired or revoked.
func (t Token) State(now time.Time) string {
	switch {
	case !t.RevokedAt.IsZero():
		return "revoked"
	case !t.ExpiresAt.IsZero() && !now.Before(t.ExpiresAt):
		return "expired"
	}
	return "active"
}

// ended says when the token came to an end, and how; "": it is active.
func (t Token) ended(now time.Time) string {
	switch t.State(now) {
	case "revoked":
		return "was revoked at " + t.RevokedAt.UTC().Format(time.RFC3339)
	case "expired":
		return "expired at " + t.ExpiresAt.UTC().Format(time.RFC3339)
	}
	return ""
}

// caller is whom the token stands for.
func (t Token) caller() Caller {
	return Caller{Subject: t.ID, Name: t.Name, Permissions: t.Permissions, Ports: t.Ports, Via: ViaToken, ExpiresAt: t.ExpiresAt}
}

// mintToken returns a new token as it is shown to its owner, once, and its parts.
func mintToken() (shown, id string, hash [sha256.Size]byte) {
	random := strings.ToLower(rand.Text() + rand.Text() + rand.Text()) // 26 base32 characters each
	id, secret := random[:tokenIDChars], random[tokenIDChars:tokenIDChars+secretChars]
	shown = tokenPrefix + id + "_" + secret
	return shown + checksum(shown), id, sha256.Sum256([]byte(secret))
}

func checksum(s string) string { return fmt.Sprintf("%08x", crc32.ChecksumIEEE([]byte(s))) }

// parseToken takes a token apart. ok says that it is well formed, not that it exists.
func parseToken(shown string) (id string, hash [sha256.Size]byte, ok bool) {
	if len(shown) != tokenChars || !strings.HasPrefix(shown, tokenPrefix) {
		return "", hash, false
	}
	body, sum := shown[:tokenChars-checksumChars], shown[tokenChars-checksumChars:]
	id, secret := body[len(tokenPrefix):len(tokenPrefix)+tokenIDChars], body[len(body)-secretChars:]
	if body[len(tokenPrefix)+tokenIDChars] != '_' || strings.Trim(id+secret, base32Alphabet) != "" || checksum(body) != sum {
		return "", hash, false
	}
	return id, sha256.Sum256([]byte(secret)), true
}
