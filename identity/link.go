package identity

import (
	"crypto/hmac"
	"crypto/rand"
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
	"net/http"
	"time"
)

// LinkLifetime is how long a login link works, unless it is used before.
const LinkLifetime = 10 * time.Minute

// A login code is 16 random bytes, the second it expires and 16 bytes of signature:
// 128 bits that only the key can make. So it needs no memory before it is used: a
// command beside the running server can mint one, and a code printed before a
// restart works after it.
const (
	codeIDBytes  = 16
	codeMACBytes = 16
	codeBytes    = codeIDBytes + 8 + codeMACBytes
)

type links struct {
	seal  seal
	spent *spent
}

func newLinks(s *Sessions) (links, error) {
	seal, err := newSeal(s.key, "login link")
	return links{seal: seal, spent: s.spent}, err
}

// mint returns a code that works once, until expires.
func (l links) mint(now time.Time) (code string, expires time.Time) {
	expires = now.Add(LinkLifetime).Truncate(time.Second).UTC()
	raw := make([]byte, codeIDBytes, codeBytes)
	rand.Read(raw)
	raw = binary.BigEndian.AppendUint64(raw, uint64(expires.Unix()))
	raw = append(raw, l.seal.mac(raw)[:codeMACBytes]...)
	return base64.RawURLEncoding.EncodeToString(raw), expires
}

// decodeCode returns a code's bytes. Every error is a [*Refusal].
func decodeCode(code string) ([]byte, error) {
	raw, err := base64.RawURLEncoding.Strict().DecodeString(code)
	if err != nil || len(raw) != codeBytes {
		return nil, invalidLink("the link is not whole: copy it again, up to its last character")
	}
	return raw, nil
}

// made reports whether the key's owner made the code.
func (l links) made(raw []byte) bool {
	return hmac.Equal(raw[codeIDBytes+8:], l.seal.mac(raw[:codeIDBytes+8])[:codeMACBytes])
}

// redeem uses a code up that was made here. Every error is a [*Refusal].
func (l links) redeem(raw []byte, now time.Time) error {
	body := raw[:codeIDBytes+8]
	expires := time.Unix(int64(binary.BigEndian.Uint64(body[codeIDBytes:])), 0)
	if !now.Before(expires) {
		return invalidLink("the link has expired: each works for " + LinkLifetime.String() + ", once")
	}
	first, err := l.spent.add(hex.EncodeToString(body[:codeIDBytes]), expires, now)
	if err != nil {
		return unavailable("the use of the link could not be recorded; try again", storeRetryAfter, err)
	}
	if !first {
		return invalidLink("the link was used already: each works once")
	}
	return nil
}

func invalidLink(detail string) *Refusal {
	return refusal(http.StatusUnauthorized, "invalid-login-link", "The login link does not work", detail)
}
