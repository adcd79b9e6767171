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
	known := map[string]bool{"localhost": true}
	for _, address := range addresses {
		if _, rest, isURL := strings.Cut(address, "://"); isURL {
			address, _, _ = strings.Cut(rest, "/")
		}
		known[hostname(address)] = true
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		host := hostname(r.Host)
		_, err := netip.ParseAddr(host)
		if err == nil || known[host] || strings.HasSuffix(host, ".localhost") || strings.HasPrefix(r.Header.Get("Authorization"), "Bearer ") {
			next.ServeHTTP(w, r)
			return
		}
		WriteProblem(w, Problem{
			Type:   ProblemDocs + "unknown-host",
			Title:  "This server does not know that name",
			Status: http.StatusMisdirectedRequest,
			Detail: "this page answers at 127.0.0.1, at localhost and at the name in TIDEGATE_HTTP or TIDEGATE_PUBLIC_URL (--oidc-public-url): use one of them, or set the latter to the address that browsers use",
		})
	})
}

func hostname(host string) string {
	name := (&url.URL{Host: host}).Hostname()
	return strings.ToLower(strings.TrimSuffix(name, "."))
}
