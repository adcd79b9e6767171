package main

import (
	"context"
	"os"
	"strings"
	"testing"
)

// What was given on purpose is used, or refused by the names under which it was given.
func TestRunFlags(t *testing.T) {
	for _, e := range os.Environ() { // those of whoever runs this test
		if name, _, _ := strings.Cut(e, "="); strings.HasPrefix(name, "TIDEGATE_") || name == "DATABASE_URL" {
			t.Setenv(name, "")
		}
	}
	const url, other = "nats://10.0.0.1:4222", "nats://10.0.0.2:4222"
	for _, c := range []struct {
		args string
		env  string
		want string // words of the error; empty: none
	}{
		{"", "", ""},
		{"--nats-addr 127.0.0.1:0", "", ""},
		{"--nats-url " + url, "", ""},
		{"", "TIDEGATE_NATS_URL=" + url, ""},
		{"--nats-url " + url, "TIDEGATE_NATS_URL=" + url, ""},
		{"--nats-url " + url + " --replicas 3", "", ""},
		{"--http 127.0.0.1:0", "TIDEGATE_HTTP=127.0.0.1:1", ""}, // the flag wins
		{"--database-url postgres://u:p@h/db", "DATABASE_URL=postgres://other/db", ""},
		{"--oidc-issuer https://i --oidc-audience a", "TIDEGATE_PUBLIC_URL=https://tidegate", ""},

		{"--nats-addr 127.0.0.1:4222", "TIDEGATE_NATS_URL=" + url, "TIDEGATE_NATS_URL --nats-addr unset"},
		{"--nats-url " + url, "TIDEGATE_NATS_ADDR=127.0.0.1:0", "--nats-url TIDEGATE_NATS_ADDR unset"},
		{"--nats-url " + url + " --nats-addr 127.0.0.1:0", "", "--nats-url --nats-addr"},
		{"", "TIDEGATE_NATS_URL=" + url + " TIDEGATE_NATS_ADDR=127.0.0.1:0", "TIDEGATE_NATS_URL TIDEGATE_NATS_ADDR"},
		{"--nats-url " + url, "TIDEGATE_NATS_URL=" + other, "--nats-url TIDEGATE_NATS_URL different"},
		{"--database-url postgres://a/db", "TIDEGATE_DATABASE_URL=postgres://b/db", "--database-url TIDEGATE_DATABASE_URL different"},
		{"--replicas 3", "", "--replicas --nats-url"},
		{"", "TIDEGATE_REPLICAS=3", "TIDEGATE_REPLICAS --nats-url"},
		{"--replicas 0", "", "--replicas"},
		{"--nats-url " + url + " --replicas 6", "", "--replicas"},
		{"--oidc-audience a", "", "--oidc-audience --oidc-issuer"},
		{"", "TIDEGATE_OIDC_CLIENT_ID=a", "TIDEGATE_OIDC_CLIENT_ID --oidc-issuer"},
		{"--oidc-issuer https://i --oidc-audience a --oidc-client-secret s", "", "--oidc-client-secret --oidc-client-id"},
		{"--demo --roles consumer", "", "--demo gate"},
		{"--receipts 127.0.0.1:0 --roles consumer", "", "--receipts admin"},
		{"--alerts a.yaml --roles gate", "", "--alerts admin"},
		{"--nats-url nats://u:a/b@h", "", "--nats-url %2F"},
		{"", "DATABASE_URL=postgres://u:1/b@h/db", "DATABASE_URL %2F"},
		{"", "TIDEGATE_NATS_URL=nats://tidegate:ChangeThis2@nats:4222", "TIDEGATE_NATS_URL everybody knows"},
		{"--database-url postgres://tidegate:ChangeThis1@h/db", "", "--database-url everybody knows"},
	} {
		t.Run(c.args+c.env, func(t *testing.T) {
			for _, e := range strings.Fields(c.env) {
				name, value, _ := strings.Cut(e, "=")
				t.Setenv(name, value)
			}
			var all cli
			parsed, err := newParser(context.Background(), &all).Parse(append([]string{"run"}, strings.Fields(c.args)...))
			if err != nil {
				t.Fatal(err)
			}
			err = all.Run.check(givenTo(parsed))
			if (err != nil) != (c.want != "") {
				t.Fatalf("%v, want an error with %q", err, c.want)
			}
			for _, word := range strings.Fields(c.want) {
				if !strings.Contains(err.Error(), word) {
					t.Errorf("%q does not name %s", err, word)
				}
			}
		})
	}
}

func TestMigrateHidesAPassword(t *testing.T) {
	err := (&migrateCmd{DatabaseURL: "postgres://u:12/secret@127.0.0.1:1/db"}).Run(t.Context())
	if err == nil || strings.Contains(err.Error(), "secret") || !strings.Contains(err.Error(), "%2F") {
		t.Errorf("%v, want how to write the password, and none of it", err)
	}
}
