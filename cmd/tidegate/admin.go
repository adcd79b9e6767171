package main

import (
	"cmp"
	"context"
	"path/filepath"

	"github.com/tidegate/tidegate/admin"
	"github.com/tidegate/tidegate/admin/ops"
	"github.com/tidegate/tidegate/edge"
	"github.com/tidegate/tidegate/identity"
	"github.com/tidegate/tidegate/identity/pgstore"
	"github.com/tidegate/tidegate/receipt"
)

// oidcFlags configure who may use the admin page. Without an issuer, whoever has a
// one-time login link, which the console prints, may do everything.
type oidcFlags struct {
	Issuer           string `help:"OIDC issuer whose tokens are accepted; there are no login links then." env:"TIDEGATE_OIDC_ISSUER" placeholder:"URL"`
	Audience         string `help:"Audience that its tokens must name." env:"TIDEGATE_OIDC_AUDIENCE" placeholder:"NAME"`
	PermissionsClaim string `help:"Claim that holds the permissions." default:"permissions" env:"TIDEGATE_OIDC_PERMISSIONS_CLAIM" placeholder:"CLAIM"`
	PortsClaim       string `help:"Claim that limits the ports a caller may manage; default: none does." env:"TIDEGATE_OIDC_PORTS_CLAIM" placeholder:"CLAIM"`
	ClientID         string `help:"Client id of the admin page at the issuer, for people to sign in there." env:"TIDEGATE_OIDC_CLIENT_ID" placeholder:"ID"`
	ClientSecret     string `help:"Its secret, if it has one." env:"TIDEGATE_OIDC_CLIENT_SECRET" placeholder:"SECRET"`
	PublicURL        string `help:"The admin page's address as browsers reach it." env:"TIDEGATE_PUBLIC_URL" placeholder:"URL"`
}

// access is who may do what in this process.
type access struct {
	auth  *identity.Authenticator
	login *identity.Login
	links bool
}

// permissions are those that mean something here.
var permissions = []string{admin.Permission, admin.View, receipt.Permission, edge.PermissionReport, edge.PermissionReserve}

// localAdmin is whom a login link signs in: whoever can read the console. No session
// opens what services use.
var localAdmin = identity.Caller{Subject: "local", Name: "local admin", Permissions: []string{admin.Permission, receipt.Permission}}

// newAccess leaves API tokens to be added once there is a ledger.
func (s *system) newAccess() (*access, error) {
	c := s.cmd
	key, err := identity.LoadKey(filepath.Join(c.Data, "identity", "session.key"))
	if err != nil {
		return nil, err
	}
	sessions, err := identity.NewSessions(identity.SessionConfig{Key: key, SpentDir: filepath.Join(c.Data, "identity", "spent")})
	if err != nil {
		return nil, err
	}
	a := &access{auth: &identity.Authenticator{Sessions: sessions, LoginPath: "/login", Log: s.log}}
	login := identity.LoginConfig{Sessions: sessions, Auth: a.auth, Log: s.log}
	if c.OIDC.Issuer == "" {
		a.links, login.LinkCaller = true, &localAdmin
	} else {
		a.auth.OIDC, err = identity.NewOIDC(identity.OIDCConfig{Issuer: c.OIDC.Issuer, Audience: c.OIDC.Audience,
			PermissionsClaim: c.OIDC.PermissionsClaim, PortsClaim: c.OIDC.PortsClaim, Log: s.log})
		if err != nil {
			return nil, err
		}
	}
	if c.OIDC.ClientID != "" {
		login.Provider, err = identity.NewProvider(identity.ProviderConfig{OIDC: a.auth.OIDC, ClientID: c.OIDC.ClientID,
			ClientSecret: c.OIDC.ClientSecret, PublicURL: c.OIDC.PublicURL})
		if err != nil {
			return nil, err
		}
	}
	a.login, err = identity.NewLogin(login)
	return a, err
}

func (s *system) startAdmin() (func(context.Context) error, error) {
	if err := s.openTokens(); err != nil {
		return nil, err
	}
	s.access.auth.Tokens = identity.NewTokens(s.tokens, s.log)
	nc, err := s.connectChecked("admin")
	if err != nil {
		return nil, err
	}
	config := ops.Config{Conn: nc, Ledger: s.ledger, Tokens: s.access.auth.Tokens, Permissions: permissions, Alerts: s.alerts, PageURL: s.pageURL(), Logger: s.log}
	if s.access.links {
		config.NewLink, s.newLink = s.access.login.NewLink, s.access.login.NewLink
	}
	o, err := ops.New(config)
	if err != nil {
		return nil, err
	}
	page, err := admin.New(admin.Config{Ledger: s.ledger, Conn: nc, Auth: s.access.auth, Login: s.access.login, Backlog: s.watcher.Backlog, Logger: s.log})
	if err != nil {
		return nil, err
	}
	s.checks.Add("admin", func(context.Context) error { return o.Health() })
	return func(ctx context.Context) error {
		s.admin.pages.Set(page)
		return o.Run(ctx)
	}, nil
}

// openTokens opens the store of API tokens, which roles share.
func (s *system) openTokens() (err error) {
	if s.tokens == nil {
		s.tokens, err = pgstore.Open(context.Background(), s.dbURL)
	}
	return err
}

// pageURL is where people on this machine reach the admin page, unless the operator has
// said where everybody does.
func (s *system) pageURL() string {
	return cmp.Or(s.cmd.OIDC.PublicURL, s.admin.url())
}
