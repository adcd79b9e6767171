package admin

import (
	"net/http"
	"time"
)

type sessionReply struct {
	Name        string     `json:"name" doc:"For people to read."`
	Permissions []string   `json:"permissions"`
	Ports       []string   `json:"ports" nullable:"true" doc:"The ports that the caller may manage; null: all of them."`
	ExpiresAt   *time.Time `json:"expires_at" doc:"When the session or the token ends at the latest; null: never."`
}

func (a *api) getSession(c *call) error {
	r := sessionReply{Name: c.caller.Name, Permissions: c.caller.Permissions, Ports: c.caller.Ports, ExpiresAt: timeOrNull(c.caller.ExpiresAt)}
	if r.Name == "" {
		r.Name = c.caller.Subject
	}
	return c.reply(r)
}

// logout is /logout at another address, for a page that knows the API only. A
// caller with a token has nothing to end.
func (a *api) logout(c *call) error {
	if a.cfg.Login == nil {
		c.w.WriteHeader(http.StatusNoContent)
		return nil
	}
	r := c.Clone(c.Context())
	r.URL.Path, r.URL.RawPath = "/logout", ""
	a.cfg.Login.Handler().ServeHTTP(c.w, r)
	return nil
}
