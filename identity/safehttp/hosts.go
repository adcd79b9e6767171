package safehttp

import (
	"net/http"
	"net/netip"
	"net/url"
	"strings"
)

// KnownHosts answers only what was sent to an IP address, to localhost, or to the host of
// one of the addresses, which are URLs or host:port; anything else gets 421. So a site
// whose name suddenly leads to this server reads nothing from it. A bearer token passes:
// no browser sends one by itself, and programs may know the server by any name.
func KnownHosts(next http.Handler, addresses ...string) http.Handler {
	hosts := NewHosts(addresses...)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if hosts.Know(r.Host) || strings.HasPrefix(r.Header.Get("Authorization"), "Bearer ") {
			next.ServeHTTP(w, r)
			return
		}
		Refuse(w, r, Problem{
			Type:   ProblemDocs + "unknown-host",
			Title:  "This server does not know that name",
			Status: http.StatusMisdirectedRequest,
			Detail: "this page answers at 127.0.0.1, at localhost and at the name in TIDEGATE_HTTP or TIDEGATE_PUBLIC_URL (--oidc-public-url): use one of them, or set the latter to the address that browsers use",
		})
	})
}

// Hosts are the names that lead to a server on purpose.
type Hosts map[string]bool

// NewHosts returns those of the addresses, which are URLs or host:port.
func NewHosts(addresses ...string) Hosts {
	hosts := Hosts{"localhost": true}
	for _, address := range addresses {
		if _, rest, isURL := strings.Cut(address, "://"); isURL {
			address, _, _ = strings.Cut(rest, "/")
		}
		hosts[hostname(address)] = true
	}
	return hosts
}

// Know reports whether a request's host is an IP address, localhost, or one of the names.
func (h Hosts) Know(host string) bool {
	host = hostname(host)
	_, err := netip.ParseAddr(host)
	return err == nil || h[host] || strings.HasSuffix(host, ".localhost")
}

func hostname(host string) string {
	name := (&url.URL{Host: host}).Hostname()
	return strings.ToLower(strings.TrimSuffix(name, "."))
}
