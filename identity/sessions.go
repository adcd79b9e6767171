package identity

import (
	"cmp"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"time"
)

// CookieName is the session cookie's. The prefix makes browsers refuse it unless it
// is Secure, for this host alone and for every path. On http://127.0.0.1 and
// http://localhost browsers keep Secure cookies as if over TLS; Safari does not, at
// least before macOS 26.
const CookieName = "__Host-tidegate"

// The limits of a session, unless configured.
const (
	DefaultLifetime = 12 * time.Hour
	DefaultIdle     = time.Hour
)

// maxCookieChars is what every browser keeps of one cookie, name and value.
const maxCookieChars = 4096

// SessionConfig configures [NewSessions].
type SessionConfig struct {
	Key []byte // signs the cookies; from [LoadKey]. Processes with the same key share their sessions
	// SpentDir is a directory where sessions that were signed out, and login codes
	// that were used, are remembered. Processes on one machine should share it.
	// Empty: in memory; then a sign-out holds in this process, until it ends.
	SpentDir string
	Lifetime time.Duration // from signing in; default 12h
	Idle     time.Duration // since the last request; default 1h
}

// Sessions are what browsers hold between requests: a cookie that carries the
// caller, signed. Nothing is kept on the server but what was signed out, so every
// process with the key knows every session, even across a restart.
type Sessions struct {
	key            []byte
	seal           seal
	spent          *spent
	lifetime, idle time.Duration
}

// NewSessions returns sessions signed with the config's key.
func NewSessions(cfg SessionConfig) (*Sessions, error) {
	seal, err := newSeal(cfg.Key, "session")
	if err != nil {
		return nil, err
	}
	spent, err := newSpent(cfg.SpentDir)
	if err != nil {
		return nil, err
	}
	s := &Sessions{key: cfg.Key, seal: seal, spent: spent, lifetime: cmp.Or(cfg.Lifetime, DefaultLifetime), idle: cmp.Or(cfg.Idle, DefaultIdle)}
	if s.lifetime < 0 || s.idle < 0 {
		return nil, fmt.Errorf("identity: a session's lifetime (%s) and idle limit (%s) must be positive", cfg.Lifetime, cfg.Idle)
	}
	return s, nil
}

// session is the content of the cookie.
type session struct {
	ID      string    `json:"id"`
	Caller  Caller    `json:"caller"`
	Started time.Time `json:"started"`
	Seen    time.Time `json:"seen"` // coarse, see keep
}

// start signs the caller in. It fails when the caller has more ports and
// permissions than a cookie can hold.
func (s *Sessions) start(w http.ResponseWriter, caller Caller) error {
	var id [16]byte
	rand.Read(id[:])
	now := time.Now().UTC().Truncate(time.Second)
	return s.set(w, session{ID: hex.EncodeToString(id[:]), Caller: caller, Started: now, Seen: now})
}

func (s *Sessions) set(w http.ResponseWriter, content session) error {
	payload, err := json.Marshal(content)
	if err != nil {
		return err
	}
	value := s.seal.close(payload)
	if len(CookieName)+len(value) > maxCookieChars {
		return fmt.Errorf("identity: the session of %s, with %d permissions and %d ports, takes %d bytes, and a cookie holds %d: name fewer, or * for every port", content.Caller.Actor(), len(content.Caller.Permissions), len(content.Caller.Ports), len(value), maxCookieChars)
	}
	http.SetCookie(w, sessionCookie(value))
	return nil
}

// sessionCookie is Lax, not Strict: a login link opened from a mail or a chat, and
// the way back from an OIDC provider, are navigations that begin on another site,
// and the browser would hold a Strict cookie back on the redirect that follows.
// What Lax lets through besides, a link to one of our pages, changes nothing.
func sessionCookie(value string) *http.Cookie {
	return &http.Cookie{Name: CookieName, Value: value, Path: "/", Secure: true, HttpOnly: true, SameSite: http.SameSiteLaxMode}
}

// read returns the request's session. Every error is a [*Refusal].
func (s *Sessions) read(r *http.Request) (session, error) {
	cookie, err := r.Cookie(CookieName)
	if err != nil {
		return session{}, unauthenticated(true)
	}
	content, ok := s.parse(cookie.Value)
	if !ok {
		return session{}, invalidSession("its cookie is not one that this server made")
	}
	now := time.Now()
	switch {
	case !now.Before(content.Started.Add(s.lifetime)):
		return session{}, invalidSession(fmt.Sprintf("it began more than %s ago", s.lifetime))
	case !now.Before(content.Seen.Add(s.idle)):
		return session{}, invalidSession(fmt.Sprintf("it was not used for %s", s.idle))
	}
	gone, err := s.spent.has(content.ID)
	if err != nil {
		return session{}, unavailable("the sessions that were signed out cannot be read; try again", storeRetryAfter, err)
	}
	if gone {
		return session{}, invalidSession("it was signed out")
	}
	content.Caller.ExpiresAt = content.Started.Add(s.lifetime)
	return content, nil
}

func (s *Sessions) parse(value string) (session, bool) {
	if len(value) > maxCookieChars {
		return session{}, false
	}
	payload, ok := s.seal.open(value)
	if !ok {
		return session{}, false
	}
	var content session
	if json.Unmarshal(payload, &content) != nil {
		return session{}, false
	}
	return content, true
}

// keep moves the idle limit on, at most ten times within it.
func (s *Sessions) keep(w http.ResponseWriter, content session) {
	now := time.Now().UTC().Truncate(time.Second)
	if now.Sub(content.Seen) < s.idle/10 {
		return
	}
	content.Seen = now
	_ = s.set(w, content) // no longer than the cookie it came from
}

// end signs the request's session out, for good, and takes the cookie back.
// A request without a session has nothing to end.
func (s *Sessions) end(w http.ResponseWriter, r *http.Request) error {
	taken := sessionCookie("")
	taken.MaxAge = -1
	http.SetCookie(w, taken)
	content, err := s.read(r)
	var refused *Refusal
	if errors.As(err, &refused) && refused.Status == http.StatusUnauthorized {
		return nil
	}
	if err != nil {
		return err
	}
	if _, err := s.spent.add(content.ID, content.Started.Add(s.lifetime), time.Now()); err != nil {
		return unavailable("the sign-out could not be recorded; try again", storeRetryAfter, err)
	}
	return nil
}
