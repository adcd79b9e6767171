package identity

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/netip"
	"net/url"
	"slices"
	"sync"
	"time"

	"github.com/coreos/go-oidc/v3/oidc"
	"github.com/go-jose/go-jose/v4"
)

const (
	// issuerRetry is the shortest time between two visits to the issuer. Whoever
	// sends tokens with made-up key ids cannot make us visit it more often.
	issuerRetry = 5 * time.Second
	// keysFresh is how long a key that the issuer withdraws is still accepted.
	keysFresh = 15 * time.Minute
	// keysUsable is how long the keys are used while the issuer does not answer.
	keysUsable    = 24 * time.Hour
	issuerTimeout = 5 * time.Second
	maxKeySet     = 1 << 20
)

// published is what the issuer says about itself, as of one visit.
type published struct {
	provider *oidc.Provider
	keys     []jose.JSONWebKey
	at       time.Time
}

func (p *published) hasKey(id string) bool {
	return slices.ContainsFunc(p.keys, func(key jose.JSONWebKey) bool { return key.KeyID == id })
}

// issuer visits the OIDC issuer when it must, and not before: a process starts
// while the issuer is down, and works with the keys it knows when it goes down
// later. There is no background work; a request that needs news fetches it.
type issuer struct {
	url     string
	client  *http.Client
	log     *slog.Logger
	visitor chan struct{} // holds one token: one visit at a time

	mu     sync.Mutex
	known  *published
	tried  time.Time
	failed error // of the last visit
}

func newIssuer(address string, client *http.Client, log *slog.Logger) (*issuer, error) {
	if err := secureURL(address); err != nil {
		return nil, fmt.Errorf("identity: the OIDC issuer: %w", err)
	}
	return &issuer{url: address, client: cmp.Or(client, &http.Client{Timeout: issuerTimeout}), log: log, visitor: make(chan struct{}, 1)}, nil
}

// current returns what is known of the issuer, asking again what is no longer
// fresh. Its error is a [*Refusal].
func (i *issuer) current(ctx context.Context) (*published, error) {
	known, wait := i.state()
	switch {
	case known != nil && time.Since(known.at) < keysFresh:
		return known, nil
	case known != nil && time.Since(known.at) < keysUsable:
		if wait == 0 && i.tryVisit() {
			i.visit(ctx)
			known, _ = i.state()
		}
		return known, nil
	}
	return i.news(ctx, known)
}

// news returns what the issuer says now, for someone to whom old was not enough.
// Soon after a visit there are no news: it returns old again.
func (i *issuer) news(ctx context.Context, old *published) (*published, error) {
	select {
	case i.visitor <- struct{}{}:
	case <-ctx.Done():
		return nil, i.down(issuerRetry)
	}
	if known, wait := i.state(); known != old || wait > 0 {
		<-i.visitor
	} else {
		i.visit(ctx)
	}
	known, wait := i.state()
	if known == nil || time.Since(known.at) >= keysUsable {
		return nil, i.down(wait)
	}
	return known, nil
}

func (i *issuer) tryVisit() bool {
	select {
	case i.visitor <- struct{}{}:
		return true
	default:
		return false
	}
}

// state returns what is known, and how long to wait before the next visit.
func (i *issuer) state() (*published, time.Duration) {
	i.mu.Lock()
	defer i.mu.Unlock()
	return i.known, max(0, issuerRetry-time.Since(i.tried))
}

func (i *issuer) down(wait time.Duration) error {
	i.mu.Lock()
	defer i.mu.Unlock()
	return unavailable("the OIDC issuer does not answer as it should, so its tokens cannot be checked; try again", max(wait, time.Second), i.failed)
}

// visit asks the issuer and gives the visitor's token back. The visit goes on when
// the request that began it is given up: others wait for it.
func (i *issuer) visit(ctx context.Context) {
	defer func() { <-i.visitor }()
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), issuerTimeout)
	defer cancel()
	found, err := i.discover(ctx)

	i.mu.Lock()
	defer i.mu.Unlock()
	i.tried, i.failed = time.Now(), err
	if err != nil {
		i.log.LogAttrs(ctx, slog.LevelWarn, "identity: the OIDC issuer does not answer as it should", slog.String("issuer", i.url), slog.Any("error", err))
		return
	}
	i.known = found
}

// discover reads the discovery document and the key set that it names.
func (i *issuer) discover(ctx context.Context) (*published, error) {
	at := time.Now()
	provider, err := oidc.NewProvider(oidc.ClientContext(ctx, i.client), i.url)
	if err != nil {
		return nil, fmt.Errorf("discovery: %w", err)
	}
	var document struct {
		KeySet string `json:"jwks_uri"`
	}
	if err := provider.Claims(&document); err != nil {
		return nil, fmt.Errorf("discovery: %w", err)
	}
	if err := secureURL(document.KeySet); err != nil {
		return nil, fmt.Errorf("jwks_uri: %w", err)
	}
	keys, err := i.fetchKeys(ctx, document.KeySet)
	if err != nil {
		return nil, fmt.Errorf("key set %s: %w", document.KeySet, err)
	}
	return &published{provider: provider, keys: keys, at: at}, nil
}

func (i *issuer) fetchKeys(ctx context.Context, address string) ([]jose.JSONWebKey, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, address, nil)
	if err != nil {
		return nil, err
	}
	resp, err := i.client.Do(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return nil, errors.New(resp.Status)
	}
	var set struct {
		Keys []json.RawMessage `json:"keys"`
	}
	if err := json.NewDecoder(io.LimitReader(resp.Body, maxKeySet)).Decode(&set); err != nil {
		return nil, err
	}
	var keys []jose.JSONWebKey
	for _, raw := range set.Keys {
		var key jose.JSONWebKey
		if key.UnmarshalJSON(raw) == nil && verifies(key) { // other kinds may stand beside ours, RFC 7517 section 5
			keys = append(keys, key)
		}
	}
	if len(keys) == 0 {
		return nil, errors.New("it holds no public key for signatures")
	}
	return keys, nil
}

// secureURL wants https; plain http only where nobody can listen in.
func secureURL(address string) error {
	u, err := url.Parse(address)
	if err != nil {
		return err
	}
	if u.Host == "" || u.Fragment != "" || u.User != nil {
		return fmt.Errorf("%q is not an address like https://login.example.com", address)
	}
	loopback := u.Hostname() == "localhost"
	if addr, err := netip.ParseAddr(u.Hostname()); err == nil {
		loopback = addr.IsLoopback()
	}
	if u.Scheme != "https" && !(u.Scheme == "http" && loopback) {
		return fmt.Errorf("%q must begin with https:// (http:// only for 127.0.0.1 and localhost)", address)
	}
	return nil
}
