package main

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"path/filepath"
	"time"

	"github.com/tidegate/tidegate/identity"
	"github.com/tidegate/tidegate/internal/private"
	"github.com/tidegate/tidegate/receipt"
)

type oidcFlags struct {
	Issuer           string `help:"Issuer whose tokens are accepted; there are no login links then." env:"TIDEGATE_OIDC_ISSUER" placeholder:"URL"`
	Audience         string `help:"Audience that its tokens must name." env:"TIDEGATE_OIDC_AUDIENCE" placeholder:"NAME"`
	PermissionsClaim string `help:"Claim that holds the permissions; expenses.scan must be among them." default:"permissions" env:"TIDEGATE_OIDC_PERMISSIONS_CLAIM" placeholder:"CLAIM"`
	PortsClaim       string `help:"Claim that limits the ports a caller may scan for; default: none does." env:"TIDEGATE_OIDC_PORTS_CLAIM" placeholder:"CLAIM"`
}

// local is whom a login link signs in. It is the same person as at tidegate run:
// browsers send one cookie to every port of a host, so a session that began here
// replaces one that began there, and must be worth as much.
var local = identity.Caller{Subject: "local", Name: "local admin", Permissions: []string{"admin.manage_settings", receipt.Permission}}

// access is who may do what here. API tokens are not among it: they are in Postgres,
// which this service does not know. tidegate run, which serves the same scan,
// takes them.
type access struct {
	auth  *identity.Authenticator
	login *identity.Login
	links bool
}

func (c *cli) access(log *slog.Logger) (*access, error) {
	if err := private.CheckDir(c.Data); err != nil {
		return nil, fmt.Errorf("--data: %w", err)
	}
	key, err := identity.LoadKey(filepath.Join(c.Data, "identity", "session.key"))
	if err != nil {
		return nil, err
	}
	sessions, err := identity.NewSessions(identity.SessionConfig{Key: key, SpentDir: filepath.Join(c.Data, "identity", "spent")})
	if err != nil {
		return nil, err
	}
	a := &access{auth: &identity.Authenticator{Sessions: sessions, LoginPath: "/login", Log: log}}
	login := identity.LoginConfig{Sessions: sessions, Log: log}
	switch {
	case c.OIDC.Issuer != "":
		a.auth.OIDC, err = identity.NewOIDC(identity.OIDCConfig{Issuer: c.OIDC.Issuer, Audience: c.OIDC.Audience,
			PermissionsClaim: c.OIDC.PermissionsClaim, PortsClaim: c.OIDC.PortsClaim, Log: log})
		if err != nil {
			return nil, err
		}
	case c.OIDC.Audience != "":
		return nil, errors.New("--oidc-audience needs --oidc-issuer")
	default:
		a.links, login.LinkCaller = true, &local
	}
	a.login, err = identity.NewLogin(login)
	return a, err
}

// screen says where to go.
func (a *access) screen(w io.Writer, addr, provider string) {
	path, note := "", ""
	if a.links {
		link, expires := a.login.NewLink(time.Now())
		path, note = link, "  (signs one browser in, until "+expires.Local().Format("15:04")+")"
	}
	fmt.Fprintf(w, "Receipts  http://%s%s%s\nReader    %s\n", addr, path, note, provider)
}
