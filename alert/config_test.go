package alert

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/tidegate/tidegate/internal/testenv"
)

// What is wrong is named with its line, and no secret with it.
func TestReadFile(t *testing.T) {
	t.Setenv("GOOD", key)
	t.Setenv("BAD", "very-secret")
	t.Setenv("URL", "hooks.slack.example/very-secret")
	path := filepath.Join(t.TempDir(), "alerts.yaml")
	hook := "  - name: pager\n    kind: webhook\n    url: https://example.com/x\n    secret: env:GOOD\n"
	email := "  - name: finance\n    kind: email\n    smtp: smtp.example.com:587\n    from: t@example.com\n    to: [a@example.com]\n"
	for text, want := range map[string]string{
		"": "one YAML document", "receivers: []": "1 to 100, not 0", "receivers:\n" + hook + "---\nreceivers: []": "one YAML document",
		"receivers:\n" + hook + "    urll: x":                                           `line 6: unknown field "urll"`,
		"receivers:\n" + hook + "    url: very-secret":                                  `line 6: `,
		"receivers:\n" + hook + "    ports: p1":                                         `line 6: `,
		"receivers: [":                                                                  `line 1: `,
		"receivers:\n" + hook + hook:                                                    "line 6: receiver pager: name: there is another",
		"receivers:\n  - name: a b\n    kind: slack":                                    "line 2: receiver a b: name: must be",
		"receivers:\n  - name: a\n    kind: pigeon":                                     `line 3: receiver a: kind: "pigeon" is none: there are webhook`,
		"receivers:\n  - name: a\n    kind: slack":                                      "line 2: receiver a: url: is required",
		"receivers:\n  - name: a\n    kind: slack\n    url: env:URL":                    "line 4: receiver a: url: must be an address",
		"receivers:\n  - name: a\n    kind: slack\n    url: env:UNSET":                  "line 4: receiver a: url: the environment variable UNSET is not set",
		"receivers:\n  - name: a\n    kind: slack\n    url: file:/nowhere/x":            "line 4: receiver a: url: open /nowhere/x",
		"receivers:\n  - name: a\n    kind: slack\n    url: http://example.com":         "line 4: receiver a: url: must begin with https",
		"receivers:\n  - name: a\n    kind: slack\n    url: https://x\n    secret: x":   "line 5: receiver a: secret: is for the kind webhook only",
		"receivers:\n" + strings.Replace(hook, "GOOD", "BAD", 1):                        "line 5: receiver pager: secret: must be whsec_",
		"receivers:\n" + strings.Replace(hook, "env:GOOD", key, 1):                      "line 5: receiver pager: secret: must be env:NAME or file:PATH",
		"receivers:\n" + hook + "    caps: [soft, hrad]":                                `line 6: receiver pager: caps: "hrad" is none`,
		"receivers:\n" + hook + "    from: t@example.com":                               "line 6: receiver pager: from: is for the kind email only",
		"receivers:\n" + strings.Replace(email, ":587", "", 1):                          "line 4: receiver finance: smtp: must be host:port",
		"receivers:\n" + email + "    username: u":                                      "line 2: receiver finance: password: is required",
		"receivers:\n" + email + "    password: env:GOOD":                               "line 2: receiver finance: username: is required",
		"receivers:\n" + email + "    plaintext: true":                                  "line 7: receiver finance: plaintext: needs allow_private",
		"receivers:\n" + strings.Replace(email, "t@example.com", "x", 1):                "line 5: receiver finance: from: must be an address",
		"receivers:\n" + strings.Replace(email, "a@example.com", "'a@b\\nBcc: c@d'", 1): "line 6: receiver finance: to: ",
		"receivers:\n" + hook + "# " + strings.Repeat("x", 1<<20):                       "at most 1048576 are read",
	} {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if list, err := ReadFile(path); err == nil || !strings.HasPrefix(err.Error(), path+": ") || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "very-secret") || strings.Contains(err.Error(), key) {
			t.Errorf("%.300s\n%v, %v; want %s", text, list, err, want)
		}
	}
	if err := os.WriteFile(path+"2", []byte(key+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	t.Setenv("PAGER_SECRET", key)
	t.Setenv("SMTP_PASSWORD", "x")
	t.Setenv("SLACK", "https://hooks.slack.example/x")
	_, example, _ := strings.Cut(string(testenv.Must(os.ReadFile("../docs/alerts.md"))), "```yaml\n")
	example, _, _ = strings.Cut(example, "```")
	if list := receivers(t, strings.Replace(example, "file:/run/secrets/slack-url", "env:SLACK", 1)); len(list) != 3 {
		t.Errorf("the example of docs/alerts.md has %d receivers", len(list))
	}
	list := receivers(t, "# who is told\nreceivers:\n"+strings.Replace(hook, "env:GOOD", "file:"+path+"2", 1)+email)
	if got := fmt.Sprint(list[0].Where, " ", list[1].Where); len(list) != 2 || got != "https://example.com a@example.com" {
		t.Errorf("%s", got)
	}
}
