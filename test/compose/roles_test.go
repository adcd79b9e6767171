package compose

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/tidegate/tidegate/events"
	"github.com/tidegate/tidegate/gate"
	"github.com/tidegate/tidegate/internal/testenv"
	"github.com/tidegate/tidegate/ledger"
)

// Each role's user may do what that role does, and nothing else: TestTheWholeSystemWorksAsComposed
// shows that it is enough.
func TestRolesMayNotDoWhatOthersDo(t *testing.T) {
	t.Parallel()
	s := serve(t)
	roles := []string{"consumer", "gate", "admin", "edge"}
	for _, direction := range []struct {
		name, text string
		try        func(*client, string) error
		allowed    map[string]string // to which roles
	}{
		{"publish to", "Permissions Violation for Publish to ", func(c *client, subject string) error { return c.Publish(subject, nil) }, map[string]string{
			"ai.totals":                                             "consumer admin",
			"ai.holds":                                              "gate",
			"ai.budget.changed":                                     "gate admin",
			"ai.budgets":                                            "gate admin",
			"ai.budgets.p1":                                         "gate admin",
			"ai.alert.p1":                                           "gate",
			"ai.quarantine.malformed.p1":                            "consumer",
			"ai.usage":                                              "admin edge",
			"ai.usage.p1":                                           "admin edge", // where what is replayed came from; what only the quarantine takes
			"ai.budget.check.p1":                                    "edge",
			"ai.budget.reserve.p1":                                  "edge",
			"ai.budget.release.p1":                                  "edge",
			"ai.budget.get.p1":                                      "edge",
			"ai.budget.set.p1":                                      "",
			"ai.admin.gate.used":                                    "admin",
			"ai.admin.token.create":                                 "",
			"_INBOX.x":                                              "gate admin",
			"ai.services._INBOX.x":                                  "gate",
			"$SRV.PING.ai-budget-gate":                              "admin",
			"$JS.ACK.AI_USAGE.ai-usage-ledger.x":                    "consumer",
			"$JS.API.INFO":                                          "",
			"$JS.API.STREAM.INFO.AI_USAGE":                          "consumer gate admin edge",
			"$JS.API.STREAM.CREATE.AI_USAGE":                        "consumer",
			"$JS.API.STREAM.CREATE.AI_QUARANTINE":                   "consumer",
			"$JS.API.STREAM.CREATE.AI_ALERTS":                       "gate",
			"$JS.API.STREAM.CREATE.AI_BUDGETS":                      "gate",
			"$JS.API.STREAM.INFO.AI_BUDGETS":                        "gate",
			"$JS.API.STREAM.UPDATE.AI_USAGE":                        "",
			"$JS.API.STREAM.DELETE.AI_USAGE":                        "",
			"$JS.API.STREAM.PURGE.AI_USAGE":                         "",
			"$JS.API.STREAM.DELETE.AI_QUARANTINE":                   "",
			"$JS.API.STREAM.DELETE.AI_ALERTS":                       "",
			"$JS.API.STREAM.UPDATE.AI_BUDGETS":                      "",
			"$JS.API.STREAM.DELETE.AI_BUDGETS":                      "",
			"$JS.API.STREAM.PURGE.AI_BUDGETS":                       "",
			"$JS.API.STREAM.MSG.DELETE.AI_BUDGETS":                  "",
			"$JS.API.DIRECT.GET.AI_BUDGETS":                         "gate",
			"$JS.API.DIRECT.GET.AI_USAGE":                           "consumer gate admin edge",
			"$JS.API.DIRECT.GET.AI_QUARANTINE":                      "consumer admin",
			"$JS.API.STREAM.MSG.DELETE.AI_USAGE":                    "",
			"$JS.API.STREAM.MSG.DELETE.AI_QUARANTINE":               "admin",
			"$JS.API.CONSUMER.INFO.AI_USAGE.ai-usage-ledger":        "consumer gate admin edge",
			"$JS.API.CONSUMER.CREATE.AI_USAGE.ai-usage-ledger":      "consumer",
			"$JS.API.CONSUMER.MSG.NEXT.AI_USAGE.ai-usage-ledger":    "consumer",
			"$JS.API.CONSUMER.DELETE.AI_USAGE.ai-usage-ledger":      "",
			"$JS.API.CONSUMER.DELETE.AI_USAGE.ai-usage-rebook":      "consumer",
			"$JS.API.CONSUMER.CREATE.AI_QUARANTINE.ai-usage-ledger": "",
			"$SYS.REQ.SERVER.PING":                                  "",
		}},
		{"subscribe to", "Permissions Violation for Subscription to ", func(c *client, subject string) error {
			_, err := c.Subscribe(subject, func(*nats.Msg) {})
			return err
		}, map[string]string{
			">":                           "",
			"ai.>":                        "",
			"ai.usage.*":                  "",
			"ai.quarantine.>":             "",
			"ai.alert.*":                  "",
			"ai.budgets.*":                "",
			"ai.totals":                   "gate",
			"ai.holds":                    "gate",
			"ai.budget.check.*":           "gate",
			"ai.services.ai.budget.get.*": "gate",
			"ai.services._INBOX.>":        "",
			"ai.admin.gate.used":          "gate admin",
			"ai.admin.token.create":       "admin",
			"$SRV.PING":                   "gate admin",
			"$JS.>":                       "",
			"_INBOX.>":                    "",
			"_INBOX.ledger.>":             "consumer gate admin edge",
			"_INBOX.consumer.>":           "consumer",
			"_INBOX.gate.>":               "gate",
			"_INBOX.admin.>":              "admin",
			"_INBOX.edge.>":               "edge",
		}},
	} {
		for _, role := range roles {
			c := login(t, s, "tidegate-"+role, password(t, "tidegate-"+role))
			for subject := range direction.allowed {
				if err := direction.try(c, subject); err != nil {
					t.Fatal(err)
				}
			}
			forbidden := c.allForbidden(t, direction.text)
			for subject, to := range direction.allowed {
				if want := !slices.Contains(strings.Fields(to), role); slices.Contains(forbidden, subject) != want {
					t.Errorf("%s: to %s %s is forbidden: %t, want %t", role, direction.name, subject, !want, want)
				}
			}
		}
	}
}

// allForbidden is every subject that the server has forbidden so far with that text. What it
// says of one more, which it forbids too, comes last.
func (c *client) allForbidden(t *testing.T, text string) (subjects []string) {
	t.Helper()
	const last = "nobody.may"
	if err := errors.Join(c.Publish(last, nil), c.Flush()); err != nil {
		t.Fatal(err)
	}
	for {
		c.mu.Lock()
		said := slices.Clone(c.forbidden)
		c.mu.Unlock()
		if len(said) > 0 && strings.Contains(said[len(said)-1], `"`+last+`"`) {
			for _, s := range said[:len(said)-1] {
				if _, quoted, ok := strings.Cut(s, text+`"`); ok {
					subject, _, _ := strings.Cut(quoted, `"`)
					subjects = append(subjects, subject)
				}
			}
			return subjects
		}
		time.Sleep(time.Millisecond)
	}
}

// A configuration from before alerts had a stream, and to which the imports of checks as streams
// were added while those as services stayed: the gate answers, and says what is wrong.
func TestAGateSaysWhatIsWrongWithItsNATS(t *testing.T) {
	t.Parallel()
	older := string(testenv.Must(os.ReadFile(filepath.Join(root, "deploy", "nats.conf"))))
	for shipped, was := range map[string]string{
		`"$JS.API.STREAM.CREATE.AI_ALERTS", "$JS.API.STREAM.INFO.AI_ALERTS"`:                                    "",
		`"$JS.API.STREAM.CREATE.AI_BUDGETS", "$JS.API.STREAM.INFO.AI_BUDGETS", "$JS.API.DIRECT.GET.AI_BUDGETS"`: "",
		`{ service: "ai.usage.*", accounts: [SERVICES] }`:                                                       "{ service: \"ai.usage.*\", accounts: [SERVICES] }\n" + `{ service: "ai.budget.check.*", accounts: [SERVICES] }`,
		`{ service: { account: TIDEGATE, subject: "ai.usage.*" } }`:                                             "{ service: { account: TIDEGATE, subject: \"ai.usage.*\" } }\n" + `{ service: { account: TIDEGATE, subject: "ai.budget.check.*" } }`,
	} {
		if !strings.Contains(older, shipped) {
			t.Fatalf("deploy/nats.conf has no %s", shipped)
		}
		older = strings.ReplaceAll(older, shipped, was)
	}
	file := filepath.Join(t.TempDir(), "nats.conf")
	if err := os.WriteFile(file, []byte(older), 0o600); err != nil {
		t.Fatal(err)
	}
	s := serveFile(t, file)
	l := testenv.Must(ledger.Open(t.Context(), ledger.Config{URL: testenv.Database(t)}))
	t.Cleanup(l.Close)
	said := make(chan string, 100)
	log := slog.New(slog.NewTextHandler(lines(said), nil))
	g := testenv.Must(gate.New(gate.Config{Conn: login(t, s, "tidegate-gate", password(t, "tidegate-gate")).Conn, Ledger: l, Logger: log}))
	ctx, stop := context.WithTimeout(t.Context(), time.Minute)
	ended := make(chan error)
	go func() { ended <- g.Run(ctx) }()
	select {
	case <-g.Ready():
	case <-ctx.Done():
		t.Fatal("it does not begin to answer")
	}
	if v, err := budgets(t, port1(t, s)).Check(ctx, events.CheckRequest{PortID: "p1"}); err != nil || !v.Allowed {
		t.Errorf("a check: %+v, %v", v, err)
	}
	for wrong := []string{"$JS.API.STREAM.CREATE.AI_ALERTS", "$JS.API.STREAM.CREATE.AI_BUDGETS", "each is asked twice"}; len(wrong) > 0; {
		select {
		case line := <-said:
			wrong = slices.DeleteFunc(wrong, func(what string) bool { return strings.Contains(line, what) })
		case <-ctx.Done():
			t.Fatalf("it does not say %q", wrong)
		}
	}
	stop()
	if err := <-ended; err != nil {
		t.Error(err)
	}
}

// lines is a writer of a log.
type lines chan string

func (l lines) Write(line []byte) (int, error) {
	l <- string(line)
	return len(line), nil
}
