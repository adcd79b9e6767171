package identity

import (
	"cmp"
	"context"
	"errors"
	"log/slog"
	"net/http"
	"time"

	"github.com/coreos/go-oidc/v3/oidc"
)

// OIDCConfig configures [NewOIDC].
type OIDCConfig struct {
	// Issuer is the issuer's address, exactly as its tokens name it in iss: a slash
	// at the end counts. https, or http on loopback.
	Issuer string
	// Audience must be among the aud of a token: the name of this API at the issuer.
	Audience string
	// PermissionsClaim holds the permissions, as a list of texts or as one text
	// with spaces between, like scope. A name with dots also finds a nested claim
	// (realm_access.roles). Default: permissions.
	PermissionsClaim string
	// PortsClaim, when set, limits callers to the ports that this claim names, in the
	// same forms; * names every port. A token without it reaches no port at all.
	// Empty: tokens reach every port.
	PortsClaim string
	Client     *http.Client // to reach the issuer with; default: one with a timeout of 5s
	Log        *slog.Logger // default slog.Default()
}

// OIDC verifies bearer tokens of one OIDC issuer. It asks the issuer for its keys
// when the first token comes, keeps them for 15 minutes, or for up to a day while
// the issuer does not answer, and fetches them anew when a token names a key that
// it does not know.
type OIDC struct {
	cfg    OIDCConfig
	issuer *issuer
}

// NewOIDC checks the configuration. It does not contact the issuer.
func NewOIDC(cfg OIDCConfig) (*OIDC, error) {
	if cfg.Audience == "" {
		return nil, errors.New("identity: the OIDC audience is missing: without one, a token meant for any other service of the issuer would be accepted here")
	}
	cfg.PermissionsClaim = cmp.Or(cfg.PermissionsClaim, "permissions")
	cfg.Log = cmp.Or(cfg.Log, slog.Default())
	issuer, err := newIssuer(cfg.Issuer, cfg.Client, cfg.Log)
	if err != nil {
		return nil, err
	}
	return &OIDC{cfg: cfg, issuer: issuer}, nil
}

// Check contacts the issuer, to tell an operator at the start what callers would
// run into: an address with a typing error, say. It is never needed.
func (o *OIDC) Check(ctx context.Context) error {
	_, err := o.issuer.current(ctx)
	return err
}

// Verify returns the caller that the token stands for. Every error is a
// [*Refusal]: 401 for the token, 503 when the issuer's keys cannot be had.
func (o *OIDC) Verify(ctx context.Context, token string) (Caller, error) {
	verified, err := o.verify(ctx, token, o.cfg.Audience)
	if err != nil {
		return Caller{}, err
	}
	return o.caller(verified)
}

func (o *OIDC) verify(ctx context.Context, token, audience string) (*oidc.IDToken, error) {
	known, err := o.issuer.current(ctx)
	if err != nil {
		return nil, err
	}
	keys := &keySet{known: known}
	verified, err := o.verifyWith(ctx, keys, token, audience)
	if err != nil && keys.unknown {
		// The issuer may have begun to use another key.
		if known, err = o.issuer.news(ctx, known); err != nil {
			return nil, err
		}
		verified, err = o.verifyWith(ctx, &keySet{known: known}, token, audience)
	}
	return verified, err
}

// clockSkew is how far the issuer's clock may be ahead of ours.
const clockSkew = time.Minute

func (o *OIDC) verifyWith(ctx context.Context, keys oidc.KeySet, token, audience string) (*oidc.IDToken, error) {
	verifier := oidc.NewVerifier(o.cfg.Issuer, keys, &oidc.Config{ClientID: audience, SupportedSigningAlgs: signatureNames()})
	verified, err := verifier.Verify(ctx, token)
	var expired *oidc.TokenExpiredError
	switch {
	case errors.As(err, &expired):
		return nil, invalidToken("the token expired at "+expired.Expiry.UTC().Format(time.RFC3339), nil)
	case err != nil:
		return nil, invalidToken(err.Error(), nil)
	}
	var times struct {
		NotBefore float64 `json:"nbf"`
	}
	if err := verified.Claims(&times); err != nil {
		return nil, invalidToken("its nbf claim is no time", err)
	}
	// go-oidc lets five minutes pass here; the expiry above is strict.
	if times.NotBefore > float64(time.Now().Add(clockSkew).Unix()) {
		return nil, invalidToken("the token is not valid yet, says its nbf claim", nil)
	}
	return verified, nil
}
