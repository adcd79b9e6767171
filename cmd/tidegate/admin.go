package main

import (
	"context"
	"os"
	"path/filepath"

	"github.com/sourcegraph/conc/pool"

	"github.com/tidegate/tidegate/admin"
	"github.com/tidegate/tidegate/admin/ops"
	"github.com/tidegate/tidegate/identity"
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

// localAdmin is whom a login link signs in: whoever can read the console.
var localAdmin = identity.Caller{Subject: "local", Name: "local admin", Permissions: []string{admin.Permission, "expenses.scan"}}

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
	a := &access{auth: &identity.Authenticator{Tokens: identity.NewTokens(s.ledger, s.log), Sessions: sessions, LoginPath: "/login", Log: s.log}}
	login := identity.LoginConfig{Sessions: sessions, Log: s.log}
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

func (s *system) startAdmin(group *pool.ContextPool) error {
	if err := os.MkdirAll(filepath.Join(s.cmd.Data, "identity"), 0o700); err != nil {
		return err
	}
	access, err := s.newAccess()
	if err != nil {
		return err
	}
	s.access = access
	nc, err := s.connectChecked("admin")
	if err != nil {
		return err
	}
	config := ops.Config{Conn: nc, Ledger: s.ledger, Logger: s.log}
	if access.links {
		config.NewLink, s.newLink = access.login.NewLink, access.login.NewLink
	}
	o, err := ops.New(config)
	if err != nil {
		return err
	}
	page, err := admin.New(admin.Config{Ledger: s.ledger, Conn: nc, Auth: access.auth, Login: access.login, Logger: s.log})
	if err != nil {
		return err
	}
	s.page = page
	group.Go(func(ctx context.Context) error {
		defer nc.Close()
		return o.Run(ctx)
	})
	return nil
}
