package proxy

import (
	"cmp"
	"fmt"
	"net/http/httputil"
	"net/url"
	"regexp"
	"slices"
	"strings"
)

// upstream is one provider that calls may go to. There are no others: the path only chooses.
type upstream struct {
	name     string
	base     string         // with a placeholder, where there is a part
	url      *url.URL       // base, without one
	part     *regexp.Regexp // what the path's next segment must look like, nil: none belongs to the address
	hole     string         // its place in the base
	provider string         // as usage events name it; "": path and host tell
	shape    shape          // of its errors
}

const compatible = "compatible"

var (
	resourceRule = regexp.MustCompile(`^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$`)
	regionRule   = regexp.MustCompile(`^[a-z]{2}(-[a-z]{2,12}){1,3}-[0-9]{1,2}$`)
	nameRule     = regexp.MustCompile(`^[a-z0-9]([a-z0-9._-]{0,62}[a-z0-9])?$`)
)

// builtIn are the upstreams that need no configuration.
var builtIn = []upstream{
	{name: "openai", base: "https://api.openai.com", shape: openAIShape},
	{name: "anthropic", base: "https://api.anthropic.com", shape: anthropicShape},
	{name: "gemini", base: "https://generativelanguage.googleapis.com", shape: googleShape},
	{name: "azure", base: "https://{resource}.openai.azure.com", hole: "{resource}", part: resourceRule, shape: openAIShape},
	{name: "bedrock", base: "https://bedrock-runtime.{region}.amazonaws.com", hole: "{region}", part: regionRule, shape: awsShape},
}

// unknown stands for an upstream that there is not.
var unknown = &upstream{name: "unknown", shape: openAIShape}

// upstreamsOf is the table of upstreams with what is configured in it.
func upstreamsOf(configured map[string]string) (map[string]*upstream, error) {
	all := map[string]*upstream{}
	for _, u := range builtIn {
		u.base = cmp.Or(configured[u.name], u.base)
		if u.hole != "" && !strings.Contains(u.base, u.hole) {
			return nil, fmt.Errorf("proxy: upstream %s = %q: must have %s in it, where the next part of the path goes", u.name, u.base, u.hole)
		}
		all[u.name] = &u
	}
	for name, base := range configured {
		if all[name] == nil {
			if !nameRule.MatchString(name) {
				return nil, fmt.Errorf("proxy: the name of upstream %q must be at most 64 of a-z 0-9 . _ -, and begin and end with a letter or digit", name)
			}
			all[compatible+"/"+name] = &upstream{name: name, base: base, provider: name, shape: openAIShape}
		}
	}
	for _, u := range all {
		var err error
		if u.url, err = u.parse("x"); err != nil {
			return nil, err
		}
	}
	return all, nil
}

// parse is the address of the upstream for a part that keeps its rule.
func (u *upstream) parse(part string) (*url.URL, error) {
	base := u.base
	if u.hole != "" {
		base = strings.ReplaceAll(base, u.hole, part)
	}
	parsed, err := url.Parse(strings.TrimRight(base, "/"))
	if err != nil || parsed.Scheme != "https" && parsed.Scheme != "http" || parsed.Hostname() == "" || parsed.User != nil || parsed.RawQuery != "" || parsed.Fragment != "" {
		return nil, fmt.Errorf("proxy: upstream %s must be an address such as https://api.example.com/v1, without user, password, query or fragment", u.name)
	}
	return parsed, nil
}

// route finds where a request goes. The upstream is never nil: it has the shape of the error.
func (p *Proxy) route(in *url.URL) (u *upstream, to *url.URL, err error) {
	name, rest := segment(in.EscapedPath())
	if name == compatible {
		name, rest = segment(rest)
		name = compatible + "/" + name
	}
	if u = p.upstreams[name]; u == nil {
		return unknown, nil, &fault{kind: notFound, message: "Tidegate's proxy has no upstream of that name: the path begins with " + p.names() + "; more are configured with --upstream NAME=URL"}
	}
	if slices.ContainsFunc(strings.Split(in.Path, "/"), func(s string) bool { return s == "." || s == ".." }) {
		return u, nil, &fault{kind: badRequest, message: "the path must not have . or .. in it"}
	}
	to = u.url
	if u.part != nil {
		var part string
		if part, rest = segment(rest); !u.part.MatchString(part) {
			return u, nil, &fault{kind: badRequest, message: fmt.Sprintf("after /%s the path must name the %s, as %s", u.name, strings.Trim(u.hole, "{}"), u.part)}
		}
		if to, err = u.parse(part); err != nil {
			return u, nil, err
		}
	}
	if to, err = url.Parse(to.String() + rest); err != nil {
		return u, nil, &fault{kind: badRequest, message: "the path cannot be read"}
	}
	return u, to, nil
}

// segment cuts the first part off a path.
func segment(path string) (first, rest string) {
	first, rest, found := strings.Cut(strings.TrimPrefix(path, "/"), "/")
	if found {
		rest = "/" + rest
	}
	return first, rest
}

func (p *Proxy) names() string {
	var names []string
	for name := range p.upstreams {
		names = append(names, "/"+name)
	}
	slices.Sort(names)
	return strings.Join(names, ", ")
}

// rewrite makes the request that leaves: nothing of Tidegate's is in it.
func rewrite(r *httputil.ProxyRequest) {
	query := r.Out.URL.RawQuery
	to := *targetOf(r.In.Context()).url
	to.RawQuery = query
	r.Out.URL, r.Out.Host, r.Out.Trailer = &to, "", nil
	for name := range r.Out.Header {
		if strings.HasPrefix(name, headerPrefix) {
			delete(r.Out.Header, name)
		}
	}
	// A reply that is not compressed is read as it passes, whoever asked. An upgrade would be a
	// connection that nobody meters. The body is here already: nobody need wait for leave to send it.
	for _, name := range []string{"Accept-Encoding", "Connection", "Upgrade", "Expect"} {
		r.Out.Header.Del(name)
	}
}
