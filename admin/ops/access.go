package ops

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/tidegate/tidegate/budget"
	"github.com/tidegate/tidegate/identity"
)

const (
	subjectTokenCreate = subjectAdmin + ".tokens.create"
	subjectTokenList   = subjectAdmin + ".tokens.list"
	subjectTokenRevoke = subjectAdmin + ".tokens.revoke"
	subjectLoginLink   = subjectAdmin + ".login.link"
	subjectSimulate    = subjectAdmin + ".simulate"
	subjectTryLimit    = subjectAdmin + ".simulate.limit"
)

// NewToken asks for an API token.
type NewToken struct {
	Name        string    `json:"name"`
	Permissions []string  `json:"permissions"`
	Ports       []string  `json:"ports"` // nil: every port
	ExpiresAt   time.Time `json:"expires_at,omitzero"`
	CreatedBy   string    `json:"created_by"`
}

// CreatedToken is a token as its owner must keep it: Secret is shown this once.
type CreatedToken struct {
	Secret string         `json:"token"`
	Token  identity.Token `json:"details"`
}

type tokenRevokeRequest struct {
	ID string `json:"id"`
	By string `json:"by"`
}

type tokensRequest struct {
	After string `json:"after"` // an id
	Limit int    `json:"limit"`
}

type tokensReply struct{ Tokens []identity.Token }

// LoginLink signs one browser in, once, until ExpiresAt.
type LoginLink struct {
	URL       string    `json:"url"`  // as the answering process knows itself
	Path      string    `json:"path"` // of it, behind the address of the admin page
	ExpiresAt time.Time `json:"expires_at"`
}

// SimulateRequest asks what a budget would have done to a port's last period.
type SimulateRequest struct {
	PortID        string        `json:"port_id"`
	SoftCapTokens *int64        `json:"soft_cap_tokens"`
	HardCapTokens *int64        `json:"hard_cap_tokens"`
	Period        budget.Period `json:"period"`
}

// SimulateLimitRequest asks what a limit would have done to a port's last window.
type SimulateLimitRequest struct {
	PortID string       `json:"port_id"`
	Limit  budget.Limit `json:"limit"`
}

// CreateToken makes an API token.
func (c *Client) CreateToken(ctx context.Context, r NewToken) (t CreatedToken, err error) {
	err = c.ask(ctx, subjectTokenCreate, r, &t)
	return t, err
}

// Tokens lists every API token, newest first, revoked ones too. Secrets are not stored.
func (c *Client) Tokens(ctx context.Context) ([]identity.Token, error) {
	all, after := []identity.Token{}, ""
	err := pages(maxTokens, func(limit int) (int, error) {
		var page tokensReply
		err := c.ask(ctx, subjectTokenList, tokensRequest{After: after, Limit: limit}, &page)
		for _, t := range page.Tokens {
			all, after = append(all, t), t.ID
		}
		return len(page.Tokens), err
	})
	return all, err
}

// RevokeToken ends a token for ever. Code 404: there is none.
func (c *Client) RevokeToken(ctx context.Context, id, by string) error {
	return c.ask(ctx, subjectTokenRevoke, tokenRevokeRequest{id, by}, &struct{}{})
}

// LoginLink mints a one-time login link. Code 404: this installation has none.
func (c *Client) LoginLink(ctx context.Context) (l LoginLink, err error) {
	err = c.ask(ctx, subjectLoginLink, struct{}{}, &l)
	return l, err
}

// Simulate replays the port's previous period against a budget.
func (c *Client) Simulate(ctx context.Context, r SimulateRequest) (s budget.Simulation, err error) {
	err = c.ask(ctx, subjectSimulate, r, &s)
	return s, err
}

// SimulateLimit replays the port's previous window (a day for hours, a month for a total)
// against a limit.
func (c *Client) SimulateLimit(ctx context.Context, r SimulateLimitRequest) (s budget.LimitSimulation, err error) {
	err = c.ask(ctx, subjectTryLimit, r, &s)
	return s, err
}

func (s *Service) createToken(ctx context.Context, r NewToken) (any, error) {
	for _, p := range r.Permissions {
		if !slices.Contains(s.cfg.Permissions, p) {
			return nil, fmt.Errorf("%w: %q is no permission here; there are %s", identity.ErrBadTokenRequest, p, strings.Join(s.cfg.Permissions, ", "))
		}
	}
	secret, token, err := s.cfg.Tokens.Create(ctx, identity.TokenRequest{Name: r.Name, Permissions: r.Permissions, Ports: r.Ports, ExpiresAt: r.ExpiresAt, CreatedBy: r.CreatedBy})
	return CreatedToken{secret, token}, err
}

func (s *Service) listTokens(ctx context.Context, r tokensRequest) (any, error) {
	tokens, err := s.cfg.Tokens.List(ctx, r.After, clamp(r.Limit, maxTokens))
	return tokensReply{tokens}, err
}

func (s *Service) revokeToken(ctx context.Context, r tokenRevokeRequest) (any, error) {
	return struct{}{}, s.cfg.Tokens.Revoke(ctx, r.ID, r.By)
}

func (s *Service) loginLink(context.Context, struct{}) (any, error) {
	if s.cfg.NewLink == nil {
		return nil, errNoLinks
	}
	path, expires := s.cfg.NewLink(s.cfg.Now())
	return LoginLink{URL: strings.TrimSuffix(s.cfg.PageURL, "/") + path, Path: path, ExpiresAt: expires}, nil
}

func (s *Service) simulate(ctx context.Context, r SimulateRequest) (any, error) {
	if r.Period == "" {
		stored, err := s.cfg.Ledger.Budget(ctx, r.PortID)
		if err != nil {
			return nil, err
		}
		r.Period = stored.Period
	}
	b := budget.Budget{Enabled: true, SoftCapTokens: r.SoftCapTokens, HardCapTokens: r.HardCapTokens, Period: r.Period}
	if err := b.Validate(); err != nil {
		return nil, err
	}
	of, err := budget.ParseNamed("of", budget.Previous, r.Period, s.cfg.Now())
	if err != nil {
		return nil, err
	}
	return s.cfg.Ledger.Simulate(ctx, r.PortID, b, of.Start, of.End)
}

func (s *Service) simulateLimit(ctx context.Context, r SimulateLimitRequest) (any, error) {
	if err := r.Limit.Validate("limit"); err != nil {
		return nil, err
	}
	of, err := budget.ParseNamed("of", budget.Previous, r.Limit.Span(), s.cfg.Now())
	if err != nil {
		return nil, err
	}
	return s.cfg.Ledger.SimulateLimit(ctx, r.PortID, &r.Limit, of.Start, of.End)
}
