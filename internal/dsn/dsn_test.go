package dsn

import (
	"strings"
	"testing"
)

// Whatever is written in place of the password, no piece of it is shown.
func TestRedact(t *testing.T) {
	for _, scheme := range []string{"nats://", "tls://", "postgres://", "postgresql://", ""} {
		for _, password := range []string{"secret", "sec/ret", "12/34sec", "sec?ret", "1?sec", "sec#ret", "sec@ret", "sec:ret", "sec%ret", "sec ret", "sec,ret", "s/e@c/ret", "sec%2Fret", "sec[ret", "/sec", "sec/"} {
			for _, rest := range []string{"host:4222", "host:5432/db?sslmode=disable", "h1:4222,h2:4222", "h1:4222,nats://u:" + password + "@h2"} {
				shown := Redact(scheme + "u:" + password + "@" + rest)
				for _, piece := range []string{"sec", "ret", "12", "34"} {
					if strings.Contains(shown, piece) {
						t.Errorf("%su:%s@%s is shown as %s", scheme, password, rest, shown)
					}
				}
				if !strings.Contains(shown, "h") || !strings.HasPrefix(shown, scheme+"u:xxxxx@") {
					t.Errorf("%su:%s@%s is shown as %s: the rest is gone", scheme, password, rest, shown)
				}
			}
		}
	}
	for address, want := range map[string]string{
		"nats://127.0.0.1:4222":                       "nats://127.0.0.1:4222",
		"nats://a:1,nats://b:2":                       "nats://a:1,nats://b:2",
		"127.0.0.1:4222":                              "127.0.0.1:4222",
		"nats://token@host":                           "nats://xxxxx@host",
		"host=h password=secret":                      "(a connection string)",
		"postgres://h/db?password=secret&sslmode=x":   "postgres://h/db?password=xxxxx&sslmode=x",
		"postgres://h/db?sslpassword=secret":          "postgres://h/db?sslpassword=xxxxx",
		"postgres://u:p@h/db?application_name=me":     "postgres://u:xxxxx@h/db?application_name=me",
		"postgres:///tidegate?host=/data/sock&user=u": "postgres:///tidegate?host=/data/sock&user=u",
		"postgres://tidegate@/tidegate?host=/data":    "postgres://tidegate@/tidegate?host=/data",
	} {
		if got := Redact(address); got != want {
			t.Errorf("%s is shown as %s, want %s", address, got, want)
		}
	}
}

func TestCheck(t *testing.T) {
	for _, good := range []string{"nats://127.0.0.1:4222", "a:1", "localhost", "nats://u:p@a:1, tls://u:p@b:2", "nats://u:p%2Fw@h", "nats://token@h", "wss://h/path", "nats://[::1]:4222"} {
		if err := CheckList(good); err != nil {
			t.Errorf("%s: %v", good, err)
		}
	}
	for _, good := range []string{"postgres://u:p@h/db?application_name=a@b", "postgres://h:5432/db?user=a@b", "postgres:///tidegate?host=/data/sock&user=u@x",
		"postgres://u:a,b@h1:5432,h2:5433/db", "host=h user=u password=a/b@c"} {
		if err := Check(good); err != nil {
			t.Errorf("%s: %v", good, err)
		}
	}
	for _, bad := range []string{"nats://u:sec/ret@h", "nats://u:12/sec@h", "nats://u:1#sec@h", "nats://u:sec,ret@h", "u:sec/ret@h", "nats://u:sec%ret@h", "nats://u:a@sec/b@h", "nats://[::1"} {
		refused(t, bad, CheckList(bad))
	}
	for _, bad := range []string{"postgres://u:12/sec@h/db", "postgres://u:1?sec@h", "postgres://u:sec?a=b@h/db", "postgres://u:1#sec@h/db"} {
		refused(t, bad, Check(bad))
	}
}

func refused(t *testing.T, address string, err error) {
	t.Helper()
	if err == nil {
		t.Errorf("%s is taken", address)
	} else if strings.Contains(err.Error(), "sec") {
		t.Errorf("%s: %v", address, err)
	}
}
