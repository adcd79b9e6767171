package proxy

import (
	"errors"
	"net/http"

	"github.com/tidegate/tidegate/events"
	"github.com/tidegate/tidegate/identity"
)

// What calls say about themselves to Tidegate. Headers with this prefix reach no provider.
const (
	headerPrefix  = "X-Tidegate-"
	headerToken   = headerPrefix + "Token"
	headerPort    = headerPrefix + "Port"
	headerFeature = headerPrefix + "Feature"
	headerUser    = headerPrefix + "User"
	headerRun     = headerPrefix + "Run"
)

// payer is whom a call counts for.
type payer struct {
	caller                   string // who takes room: a token's id, or "" for all who need none
	port, feature, user, run string
}

// payer finds it, or says why the call may not be made.
func (p *Proxy) payer(r *http.Request) (payer, error) {
	said := map[string]string{}
	for _, name := range []string{headerToken, headerPort, headerFeature, headerUser, headerRun} {
		switch values := r.Header.Values(name); len(values) {
		case 0:
		case 1:
			said[name] = values[0]
		default:
			return payer{}, &fault{kind: badRequest, message: "the header " + name + " must be given once"}
		}
	}
	if err := p.origin.Check(r); err != nil {
		return payer{}, &fault{kind: forbidden, message: "a browser sent this from a page of another origin; pages may not spend what a port has"}
	}
	who := payer{port: said[headerPort], feature: said[headerFeature], user: said[headerUser], run: said[headerRun]}
	identify := p.byToken
	if p.cfg.Port != "" {
		identify = p.byAddress
	}
	if err := identify(r, said[headerToken], &who); err != nil {
		return payer{}, err
	}
	err := events.CheckRequest{PortID: who.port, Feature: who.feature, UserID: who.user, RunID: who.run}.Validate()
	if broken := (*events.FieldError)(nil); errors.As(err, &broken) {
		return payer{}, &fault{kind: badRequest, message: "the header " + headerOf[broken.Field] + " = " + broken.Value + ": " + broken.Rule}
	}
	return who, err
}

var headerOf = map[string]string{"port_id": headerPort, "feature": headerFeature, "user_id": headerUser, "run_id": headerRun}

// byAddress lets through whoever reaches the address, for one port.
func (p *Proxy) byAddress(r *http.Request, token string, who *payer) error {
	switch {
	case token != "":
		return &fault{kind: unauthenticated, message: "this proxy pays from port " + p.cfg.Port + " and checks no tokens: leave " + headerToken + " out, or use the role proxy of tidegate run"}
	case !p.hosts.Know(r.Host):
		return &fault{kind: forbidden, message: "this proxy answers at 127.0.0.1 and at localhost, and does not know the name that the request was sent to"}
	case who.port != "" && who.port != p.cfg.Port:
		return &fault{kind: forbidden, message: "this proxy pays from port " + p.cfg.Port + " only"}
	}
	who.port = p.cfg.Port
	return nil
}

// byToken lets through who has a token that may report and reserve for the port.
func (p *Proxy) byToken(r *http.Request, token string, who *payer) error {
	if token == "" {
		return &fault{kind: unauthenticated, message: "this needs the header " + headerToken + " with an API token of Tidegate (tidegate token create), beside the provider's own key"}
	}
	caller, err := p.tokens.Verify(r.Context(), token)
	if refused := (*identity.Refusal)(nil); errors.As(err, &refused) && refused.Status < http.StatusInternalServerError {
		return &fault{kind: unauthenticated, message: "the API token in " + headerToken + " is not accepted: " + refused.Detail}
	} else if err != nil {
		return &fault{kind: unavailable, message: "API tokens cannot be looked up right now", cause: err}
	}
	if who.port == "" {
		if len(caller.Ports) != 1 {
			return &fault{kind: badRequest, message: "the API token is good for several ports: name the one that pays in the header " + headerPort}
		}
		who.port = caller.Ports[0]
	}
	for _, permission := range p.cfg.Permissions {
		switch {
		case !caller.Has(permission):
			return &fault{kind: forbidden, message: "the API token lacks the permission " + permission}
		case !caller.Can(permission, who.port):
			return &fault{kind: forbidden, message: "the API token may not spend what port " + quoted(who.port) + " has"}
		}
	}
	who.caller = caller.Subject
	return nil
}
