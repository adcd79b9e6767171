package main

import (
	"cmp"
	"fmt"
	"os"
	"strings"

	"github.com/alecthomas/kong"

	"github.com/tidegate/tidegate/internal/dsn"
)

// A flag overrides the variable of its own name, except where the two name different
// servers: see contradicts. Whatever else was given on purpose is never ignored
// without a word.

// given is where the values come from that are not defaults, by the flag's name.
type given map[string]source

type source struct {
	flag     bool   // on the command line
	variable string // its environment variable, if that is set
}

// name is how its user gave the flag.
func (g given) name(flag string) string {
	if g[flag].flag {
		return "--" + flag
	}
	return g[flag].variable
}

func givenTo(k *kong.Context) given {
	g := given{}
	for _, flag := range k.Flags() {
		for _, name := range flag.Envs {
			if os.Getenv(name) != "" { // kong takes the first of them, too
				g[flag.Name] = source{variable: name}
				break
			}
		}
	}
	for _, p := range k.Path {
		if p.Flag != nil {
			s := g[p.Flag.Name]
			s.flag = true
			g[p.Flag.Name] = s
		}
	}
	return g
}

// check reports the first of the settings that exclude each other, need each other, or
// cannot be meant.
func (c *runCmd) check(g given) error {
	err := cmp.Or(
		contradicts(g, "nats-url", c.NatsURL, "TIDEGATE_NATS_URL"),
		contradicts(g, "database-url", c.DatabaseURL, "TIDEGATE_DATABASE_URL"),
		c.checkNATS(g), c.checkOIDC(g))
	if err != nil {
		return err
	}
	if c.Demo && !c.has("gate") {
		return fmt.Errorf("%s needs the role gate, which answers its calls", g.name("demo"))
	}
	if c.AdoptStreams && !c.has("consumer") {
		return fmt.Errorf("%s needs the role consumer, which takes them over", g.name("adopt-streams"))
	}
	for _, flag := range []string{"proxy-listen", "proxy-upstream", "proxy-max-call", "proxy-pass-unmetered"} {
		if _, ok := g[flag]; ok && !c.has("proxy") {
			return fmt.Errorf("%s needs the role proxy", g.name(flag))
		}
	}
	if c.Receipts != "" && !c.has("admin") {
		return fmt.Errorf("%s needs the role admin, with which people sign in", g.name("receipts"))
	}
	if c.Alerts != "" && !c.has("admin") {
		return fmt.Errorf("%s needs the role admin, which delivers them", g.name("alerts"))
	}
	if err := dsn.Check(c.DatabaseURL); err != nil {
		return fmt.Errorf("%s: %w", g.name("database-url"), err)
	}
	for flag, address := range map[string]string{"nats-url": c.NatsURL, "database-url": c.DatabaseURL} {
		if strings.Contains(address, ":ChangeThis") { // those of .env.example, once
			return fmt.Errorf("%s has a password that everybody knows: replace each ChangeThis in .env, and in Postgres if it has it already", g.name(flag))
		}
	}
	return nil
}

// contradicts refuses a server named by a flag and another one by our own variable: to
// join the wrong one would mix two installations. (DATABASE_URL is everybody's.)
func contradicts(g given, flag, value, variable string) error {
	if s := g[flag]; s.flag && s.variable == variable && os.Getenv(variable) != value {
		return fmt.Errorf("--%s and the environment variable %s name different servers: leave the flag out, or unset the variable", flag, variable)
	}
	return nil
}

func (c *runCmd) checkNATS(g given) error {
	_, addr := g["nats-addr"]
	_, replicas := g["replicas"]
	switch {
	case c.NatsURL != "" && addr:
		return fmt.Errorf("%s and %s exclude each other: the first is a server that runs elsewhere, the second is where an embedded one would listen: leave one of them out%s",
			g.name("nats-url"), g.name("nats-addr"), g.howToUnset("nats-url", "nats-addr"))
	case replicas && (c.Replicas < 1 || c.Replicas > 5):
		return fmt.Errorf("%s is %d: a stream has 1 to 5 copies", g.name("replicas"), c.Replicas)
	case c.Replicas > 1 && c.NatsURL == "":
		return fmt.Errorf("%s is %d, and the embedded NATS can keep one copy: name a cluster with --nats-url", g.name("replicas"), c.Replicas)
	case c.NatsURL != "":
		if err := dsn.CheckList(c.NatsURL); err != nil {
			return fmt.Errorf("%s: %w", g.name("nats-url"), err)
		}
	}
	return nil
}

func (g given) howToUnset(flags ...string) (how string) {
	for _, f := range flags {
		if s := g[f]; !s.flag {
			how += " (unset " + s.variable + ")"
		}
	}
	return how
}

// checkOIDC refuses what would be ignored: whoever asks for an audience believes that
// tokens are checked.
func (c *runCmd) checkOIDC(g given) error {
	if c.OIDC.Issuer == "" {
		for _, flag := range []string{"oidc-audience", "oidc-permissions-claim", "oidc-ports-claim", "oidc-client-id", "oidc-client-secret"} {
			if _, ok := g[flag]; ok {
				return fmt.Errorf("%s needs --oidc-issuer (TIDEGATE_OIDC_ISSUER)", g.name(flag))
			}
		}
	}
	if c.OIDC.ClientID == "" && c.OIDC.ClientSecret != "" {
		return fmt.Errorf("%s needs --oidc-client-id (TIDEGATE_OIDC_CLIENT_ID)", g.name("oidc-client-secret"))
	}
	return nil
}
