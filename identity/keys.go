package identity

import (
	"context"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rsa"
	"errors"

	"github.com/coreos/go-oidc/v3/oidc"
	"github.com/go-jose/go-jose/v4"
)

// signatures are the algorithms accepted: those with a private and a public key.
// A token that claims none, or an HMAC made with the public key, does not even
// parse.
var signatures = []jose.SignatureAlgorithm{
	jose.RS256, jose.RS384, jose.RS512, jose.PS256, jose.PS384, jose.PS512,
	jose.ES256, jose.ES384, jose.ES512, jose.EdDSA,
}

func signatureNames() []string {
	names := make([]string, len(signatures))
	for i, alg := range signatures {
		names[i] = string(alg)
	}
	return names
}

const minRSABits = 2048 // RFC 7518 section 3.3

// verifies reports whether the key is one to check signatures with.
func verifies(key jose.JSONWebKey) bool {
	if !key.Valid() || key.Use != "" && key.Use != "sig" {
		return false
	}
	switch public := key.Key.(type) {
	case *rsa.PublicKey:
		return public.N.BitLen() >= minRSABits
	case *ecdsa.PublicKey, ed25519.PublicKey:
		return true
	}
	return false
}

// keySet checks one token's signature with the keys of one visit to the issuer.
// Unlike go-oidc's own, which asks the issuer again for every token it cannot
// verify, it says so and leaves the asking, and its limits, to the issuer.
type keySet struct {
	known   *published
	unknown bool // no key has the token's key id, or, where it names none, no key fits
}

var _ oidc.KeySet = (*keySet)(nil)

// VerifySignature returns the token's payload if one of the keys signed it.
func (k *keySet) VerifySignature(_ context.Context, token string) ([]byte, error) {
	jws, err := jose.ParseSignedCompact(token, signatures)
	if err != nil {
		return nil, err
	}
	header := jws.Signatures[0].Protected
	for _, key := range k.known.keys {
		if header.KeyID != "" && key.KeyID != header.KeyID || key.Algorithm != "" && key.Algorithm != header.Algorithm {
			continue
		}
		if payload, err := jws.Verify(key.Key); err == nil {
			return payload, nil
		}
	}
	k.unknown = header.KeyID == "" || !k.known.hasKey(header.KeyID)
	return nil, errors.New("no key of the issuer made this signature")
}
