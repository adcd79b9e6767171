package identity

import (
	"context"
	"crypto/rand"
	"crypto/subtle"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/coreos/go-oidc/v3/oidc"
	"golang.org/x/oauth2"
)

// CallbackPath is where the OIDC provider sends people back to. Register the
// server's public address and this path with it.
const CallbackPath = "/login/oidc/callback"

// stateLifetime is how long signing in at the provider may take.
const stateLifetime = 10 * time.Minute

const stateCookie = "__Host-tidegate-login"

// ProviderConfig configures [NewProvider].
type ProviderConfig struct {
	// OIDC is the issuer, and the claims that permissions and ports are read from.
	// People's are read from the ID token: have the provider put them there.
	OIDC         *OIDC
	ClientID     string
	ClientSecret string // empty for a public client: PKCE protects the code either way
	PublicURL    string // this server as browsers reach it, like https://tidegate.example.com
}

// Provider lets people sign in at an OIDC provider: authorization code flow with
// PKCE, state and nonce.
type Provider struct {
	cfg      ProviderConfig
	callback string
}

// NewProvider checks the configuration. It does not contact the provider.
func NewProvider(cfg ProviderConfig) (*Provider, error) {
	if cfg.OIDC == nil || cfg.ClientID == "" {
		return nil, errors.New("identity: signing in at an OIDC provider needs the issuer and the client id that it knows this server by")
	}
	if err := secureURL(cfg.PublicURL); err != nil {
		return nil, fmt.Errorf("identity: the public address of this server: %w", err)
	}
	return &Provider{cfg: cfg, callback: strings.TrimSuffix(cfg.PublicURL, "/") + CallbackPath}, nil
}

// name is the issuer's host, on the button.
func (p *Provider) name() string {
	issuer, err := url.Parse(p.cfg.OIDC.cfg.Issuer)
	if err != nil { // NewOIDC parsed it
		return "OIDC"
	}
	return issuer.Host
}

func (p *Provider) oauth(known *published) *oauth2.Config {
	return &oauth2.Config{ClientID: p.cfg.ClientID, ClientSecret: p.cfg.ClientSecret, Endpoint: known.provider.Endpoint(), RedirectURL: p.callback,
		Scopes: []string{oidc.ScopeOpenID, oidc.ScopeProfile, oidc.ScopeEmail}}
}

// state is what the browser keeps, signed, while it is away at the provider. It
// binds the answer to this browser.
type state struct {
	State    string    `json:"state"`
	Nonce    string    `json:"nonce"`
	Verifier string    `json:"verifier"`
	Next     string    `json:"next"`
	Expires  time.Time `json:"expires"`
}

// toProvider sends the browser to the provider. It is a link and not a form: the
// page's form-action 'self' would hold the redirect back.
func (l *Login) toProvider(w http.ResponseWriter, r *http.Request) {
	next := localPath(r.URL.Query().Get("next"))
	known, err := l.cfg.Provider.cfg.OIDC.issuer.current(r.Context())
	if err != nil {
		l.refuse(w, r, err, next)
		return
	}
	s := state{State: rand.Text(), Nonce: rand.Text(), Verifier: oauth2.GenerateVerifier(), Next: next, Expires: time.Now().Add(stateLifetime).UTC()}
	payload, err := json.Marshal(s)
	if err != nil { // texts and a time
		panic(err)
	}
	setState(w, l.states.close(payload), int(stateLifetime.Seconds()))
	redirect(w, r, l.cfg.Provider.oauth(known).AuthCodeURL(s.State, oidc.Nonce(s.Nonce), oauth2.S256ChallengeOption(s.Verifier)))
}

func setState(w http.ResponseWriter, value string, maxAge int) {
	http.SetCookie(w, &http.Cookie{Name: stateCookie, Value: value, Path: "/", MaxAge: maxAge, Secure: true, HttpOnly: true, SameSite: http.SameSiteLaxMode})
}

// fromProvider is where the provider sends the browser back to, with a code that
// is worth an ID token.
func (l *Login) fromProvider(w http.ResponseWriter, r *http.Request) {
	s, ok := l.readState(r)
	setState(w, "", -1)
	if !ok {
		l.refuse(w, r, loginFailed("the login took longer than "+stateLifetime.String()+", or began in another browser or tab; begin again", nil), "/")
		return
	}
	var caller Caller
	err := l.attempt(r, func() (err error) {
		caller, err = l.cfg.Provider.exchange(r, s)
		return err
	})
	if err != nil {
		l.refuse(w, r, err, s.Next)
		return
	}
	l.signIn(w, r, caller, s.Next)
}

func (l *Login) readState(r *http.Request) (state, bool) {
	cookie, err := r.Cookie(stateCookie)
	if err != nil || len(cookie.Value) > maxCookieChars {
		return state{}, false
	}
	payload, ok := l.states.open(cookie.Value)
	var s state
	if !ok || json.Unmarshal(payload, &s) != nil || !time.Now().Before(s.Expires) {
		return state{}, false
	}
	given := r.URL.Query().Get("state")
	return s, subtle.ConstantTimeCompare([]byte(given), []byte(s.State)) == 1
}

// exchange turns the provider's answer into a caller. Every error is a [*Refusal].
func (p *Provider) exchange(r *http.Request, s state) (Caller, error) {
	query := r.URL.Query()
	if said := query.Get("error"); said != "" {
		return Caller{}, loginFailed("the provider says: "+printable(firstRunes(said+" "+query.Get("error_description"), 200)), nil)
	}
	if iss := query.Get("iss"); iss != "" && iss != p.cfg.OIDC.cfg.Issuer {
		return Caller{}, loginFailed("the answer comes from another provider", nil) // RFC 9207
	}
	ctx := r.Context()
	known, err := p.cfg.OIDC.issuer.current(ctx)
	if err != nil {
		return Caller{}, err
	}
	raw, err := p.idToken(ctx, known, query.Get("code"), s.Verifier)
	if err != nil {
		return Caller{}, err
	}
	verified, err := p.cfg.OIDC.verify(ctx, raw, p.cfg.ClientID)
	if err != nil {
		return Caller{}, err
	}
	if subtle.ConstantTimeCompare([]byte(verified.Nonce), []byte(s.Nonce)) != 1 {
		return Caller{}, loginFailed("the provider's answer belongs to another login", nil)
	}
	return p.cfg.OIDC.caller(verified)
}

func (p *Provider) idToken(ctx context.Context, known *published, code, verifier string) (string, error) {
	ctx, cancel := context.WithTimeout(oidc.ClientContext(ctx, p.cfg.OIDC.issuer.client), issuerTimeout)
	defer cancel()
	token, err := p.oauth(known).Exchange(ctx, code, oauth2.VerifierOption(verifier))
	var said *oauth2.RetrieveError
	switch {
	case errors.As(err, &said) && said.Response.StatusCode < http.StatusInternalServerError:
		return "", loginFailed("the provider does not accept its own code: it was used already, has expired, or the client id or secret is wrong", err)
	case err != nil:
		return "", unavailable("the OIDC provider does not answer as it should; try again", issuerRetry, err)
	}
	raw, _ := token.Extra("id_token").(string)
	if !isToken(raw) {
		return "", loginFailed("the provider sent no ID token: is the scope openid allowed for this client?", nil)
	}
	return raw, nil
}

func loginFailed(detail string, cause error) *Refusal {
	r := refusal(http.StatusUnauthorized, "login-failed", "The login did not succeed", detail)
	r.cause = cause
	return r
}
