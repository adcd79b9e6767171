package identity

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	"github.com/coreos/go-oidc/v3/oidc"
)

const maxSubjectBytes = 255 // OpenID Connect Core section 2

// caller reads who the token is about and what it may do. What is absent is denied.
func (o *OIDC) caller(token *oidc.IDToken) (Caller, error) {
	var claims map[string]json.RawMessage
	if err := token.Claims(&claims); err != nil {
		return Caller{}, invalidToken("its claims are no JSON object", err)
	}
	if token.Subject == "" || len(token.Subject) > maxSubjectBytes || printable(token.Subject) != token.Subject {
		return Caller{}, invalidToken("its sub claim must be 1 to 255 printable characters", nil)
	}
	permissions, _, err := words(claims, o.cfg.PermissionsClaim)
	if err != nil {
		return Caller{}, err
	}
	c := Caller{Subject: token.Subject, Name: displayName(claims), Permissions: permissions, Via: ViaOIDC, ExpiresAt: token.Expiry}
	if o.cfg.PortsClaim == "" {
		return c, nil
	}
	ports, given, err := words(claims, o.cfg.PortsClaim)
	switch {
	case err != nil:
		return Caller{}, err
	case !given || len(ports) == 0:
		c.Ports = []string{}
	case slices.Contains(ports, "*"):
		c.Ports = nil
	default:
		c.Ports = ports
	}
	return c, nil
}

func displayName(claims map[string]json.RawMessage) string {
	for _, name := range []string{"name", "preferred_username", "email"} {
		var text string
		if json.Unmarshal(claims[name], &text) == nil && text != "" {
			return text
		}
	}
	return ""
}

// words reads a claim that lists words, as a list or with spaces between.
func words(claims map[string]json.RawMessage, name string) (list []string, given bool, err error) {
	raw, given := lookup(claims, name)
	if !given || string(raw) == "null" {
		return nil, false, nil
	}
	var text string
	if json.Unmarshal(raw, &text) == nil {
		return strings.Fields(text), true, nil
	}
	var texts []*string
	if json.Unmarshal(raw, &texts) != nil || slices.Contains(texts, nil) {
		return nil, true, invalidToken(fmt.Sprintf("its claim %s must be a list of texts, or one text with spaces between", name), nil)
	}
	for _, text := range texts {
		list = append(list, *text)
	}
	return list, true, nil
}

// lookup finds a claim by its name, which may contain dots (some issuers use
// URLs), and only then as a path into nested claims.
func lookup(claims map[string]json.RawMessage, name string) (json.RawMessage, bool) {
	if raw, ok := claims[name]; ok {
		return raw, true
	}
	head, rest, nested := strings.Cut(name, ".")
	if !nested {
		return nil, false
	}
	var inner map[string]json.RawMessage
	if json.Unmarshal(claims[head], &inner) != nil {
		return nil, false
	}
	return lookup(inner, rest)
}
