package compose

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/tidegate/tidegate/consumer/stream"
	"github.com/tidegate/tidegate/events"
)

// environment has the passwords, which are the same in each test, for nats-servers in this process.
var environment sync.Once

// serve runs deploy/nats.conf as docker-compose.yml does, but for the addresses
// and the place of the store.
func serve(t *testing.T) *server.Server {
	t.Helper()
	return serveFile(t, filepath.Join(root, "deploy", "nats.conf"))
}

func serveFile(t *testing.T, file string) *server.Server {
	t.Helper()
	environment.Do(func() {
		for name, value := range exampleEnv(t) {
			_ = os.Setenv(name, value)
		}
	})
	options, err := server.ProcessConfigFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if !options.SyncAlways || !options.JetStream {
		t.Fatalf("sync always %t, JetStream %t", options.SyncAlways, options.JetStream)
	}
	options.Host, options.Port, options.HTTPPort = "127.0.0.1", server.RANDOM_PORT, 0
	options.StoreDir, options.NoSigs, options.NoLog = t.TempDir(), true, true
	s, err := server.NewServer(options)
	if err != nil {
		t.Fatal(err)
	}
	s.Start()
	t.Cleanup(func() {
		s.Shutdown()
		s.WaitForShutdown()
	})
	if !s.ReadyForConnections(10 * time.Second) {
		t.Fatal("the server is not ready")
	}
	return s
}

// client is one user's connection and what the server forbade it.
type client struct {
	*nats.Conn
	mu        sync.Mutex
	forbidden []string
}

func login(t *testing.T, s *server.Server, user, password string, opts ...nats.Option) *client {
	t.Helper()
	c := &client{}
	opts = append(opts, nats.UserInfo(user, password),
		nats.ErrorHandler(func(_ *nats.Conn, _ *nats.Subscription, err error) {
			c.mu.Lock()
			defer c.mu.Unlock()
			c.forbidden = append(c.forbidden, err.Error())
		}))
	nc, err := nats.Connect(s.ClientURL(), opts...)
	if err != nil {
		t.Fatalf("%s: %v", user, err)
	}
	t.Cleanup(nc.Close)
	c.Conn = nc
	return c
}

func password(t *testing.T, user string) string {
	return exampleEnv(t)["NATS_"+strings.ToUpper(strings.ReplaceAll(user, "-", "_"))+"_PASSWORD"]
}

func tidegate(t *testing.T, s *server.Server) *client {
	return login(t, s, "tidegate", password(t, "tidegate"))
}

func port1(t *testing.T, s *server.Server) *client {
	return login(t, s, "p1", password(t, "p1"), events.PortInbox("p1"))
}

// wasForbidden reports whether the server forbids what act does.
func (c *client) wasForbidden(t *testing.T, act func() error) bool {
	t.Helper()
	c.mu.Lock()
	c.forbidden = nil
	c.mu.Unlock()
	if err := errors.Join(act(), c.Flush()); err != nil {
		t.Fatal(err)
	}
	// The complaint came before the flush's answer; its handler may yet be running.
	deadline := time.Now().Add(50 * time.Millisecond)
	for {
		c.mu.Lock()
		n := len(c.forbidden)
		c.mu.Unlock()
		if n > 0 || time.Now().After(deadline) {
			return n > 0
		}
		time.Sleep(time.Millisecond)
	}
}

func streams(t *testing.T, c *client) jetstream.JetStream {
	t.Helper()
	js, err := jetstream.New(c.Conn)
	if err != nil {
		t.Fatal(err)
	}
	if _, _, err := stream.Ensure(t.Context(), js, 1, uuid.Nil, false); err != nil {
		t.Fatal(err)
	}
	return js
}

func stored(t *testing.T, js jetstream.JetStream, stream string) uint64 {
	t.Helper()
	s, err := js.Stream(t.Context(), stream)
	if err != nil {
		t.Fatal(err)
	}
	return s.CachedInfo().State.Msgs
}

func TestNATSKnowsNoStrangers(t *testing.T) {
	t.Parallel()
	s := serve(t)
	for _, user := range []nats.Option{nats.Name("nobody"), nats.UserInfo("tidegate", "wrong"), nats.UserInfo("p2", "p2")} {
		if nc, err := nats.Connect(s.ClientURL(), user); err == nil {
			nc.Close()
			t.Error("a stranger was let in")
		}
	}
}

func TestServiceMayActForItsOwnPortOnly(t *testing.T) {
	t.Parallel()
	s := serve(t)
	streams(t, tidegate(t, s))
	p1 := port1(t, s)
	for subject, allowed := range map[string]bool{
		"ai.usage.p1":          true,
		"ai.budget.check.p1":   true,
		"ai.budget.reserve.p1": true,
		"ai.budget.release.p1": true,
		"ai.budget.get.p1":     true,
		"ai.budget.usage.p1":   true,

		"ai.usage":             false,
		"ai.usage.p2":          false,
		"ai.budget.check":      false,
		"ai.budget.check.p2":   false,
		"ai.budget.release.p2": false,
		"ai.budget.set.p1":     false,
		"ai.budget.set":        false,
		"ai.budget.changed":    false,
		"ai.totals":            false,
		"ai.alert.p1":          false,
		"ai.admin.verify":      false,
		"ai.quarantine.x":      false,
		"_INBOX.p2.x":          false,
		"_R_.x":                false,
		"ai.services._INBOX.x": false,
		"$SRV.PING":            false,
		"$JS.API.INFO":         false,

		"$JS.API.STREAM.PURGE.AI_USAGE":      false,
		"$JS.API.STREAM.DELETE.AI_USAGE":     false,
		"$JS.API.STREAM.UPDATE.AI_USAGE":     false,
		"$JS.API.STREAM.MSG.DELETE.AI_USAGE": false,
		"$JS.API.STREAM.MSG.GET.AI_USAGE":    false,
		"$JS.API.DIRECT.GET.AI_USAGE":        false,
		"$JS.ACK.AI_USAGE.ai-usage-ledger.1": false,
	} {
		if forbidden := p1.wasForbidden(t, func() error { return p1.Publish(subject, nil) }); forbidden == allowed {
			t.Errorf("publish to %s: forbidden %t", subject, forbidden)
		}
	}
	for subject, allowed := range map[string]bool{
		"_INBOX.p1.>": true,
		"ai.alert.p1": true,

		"_INBOX.>":           false,
		"_INBOX.p2.>":        false,
		">":                  false,
		"ai.>":               false,
		"ai.usage.p2":        false,
		"ai.alert.p2":        false,
		"ai.alert.*":         false,
		"ai.budget.check.p1": false, // or it could answer in the gate's place
		"ai.services.>":      false,
	} {
		if forbidden := p1.wasForbidden(t, func() error { _, err := p1.SubscribeSync(subject); return err }); forbidden == allowed {
			t.Errorf("subscribe to %s: forbidden %t", subject, forbidden)
		}
	}
}

func TestServiceGetsItsAnswersAndAlerts(t *testing.T) {
	t.Parallel()
	s := serve(t)
	server, p1 := tidegate(t, s), port1(t, s)
	js := streams(t, server)

	jsAsService, err := jetstream.New(p1.Conn)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := jsAsService.Publish(t.Context(), "ai.usage.p1", []byte(`{}`)); err != nil {
		t.Fatalf("an event is not acknowledged: %v", err)
	}
	if n := stored(t, js, events.UsageStream); n != 1 {
		t.Errorf("%d events stored, want 1", n)
	}

	if _, err := server.Subscribe("ai.services.ai.budget.check.*", func(m *nats.Msg) { _ = server.Publish("ai.services."+m.Reply, []byte("yes")) }); err != nil {
		t.Fatal(err)
	}
	if err := server.Flush(); err != nil {
		t.Fatal(err)
	}
	answer, err := p1.RequestWithContext(t.Context(), "ai.budget.check.p1", nil)
	if err != nil || string(answer.Data) != "yes" {
		t.Fatalf("a check is answered with %v, %v", answer, err)
	}

	alerts, err := p1.SubscribeSync("ai.alert.p1")
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(p1.Flush(), server.Publish("ai.alert.p1", []byte("soft cap"))); err != nil {
		t.Fatal(err)
	}
	if alert, err := alerts.NextMsgWithContext(t.Context()); err != nil || string(alert.Data) != "soft cap" {
		t.Errorf("an alert arrives as %v, %v", alert, err)
	}
}

// A reply subject is not checked against the sender's permissions. Naming one
// that belongs to somebody else makes JetStream and the gate act in the sender's
// stead; here it must lead nowhere.
func TestServiceCannotMakeOthersActForIt(t *testing.T) {
	t.Parallel()
	s := serve(t)
	server, p1 := tidegate(t, s), port1(t, s)
	js := streams(t, server)
	for range 5 {
		for _, subject := range []string{"ai.usage.p9", "ai.quarantine.malformed"} {
			if _, err := js.Publish(t.Context(), subject, []byte(`{}`)); err != nil {
				t.Fatal(err)
			}
		}
	}
	if _, err := server.Subscribe("ai.services.ai.budget.check.*", func(m *nats.Msg) { _ = server.Publish("ai.services."+m.Reply, nil) }); err != nil { // a careless gate
		t.Fatal(err)
	}
	admin := login(t, s, "admin", password(t, "admin"))
	everything, err := admin.SubscribeSync(">")
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(server.Flush(), admin.Flush()); err != nil {
		t.Fatal(err)
	}
	mine, refused := uint64(0), []string(nil)
	for _, reply := range []string{
		"$JS.API.STREAM.PURGE.AI_USAGE",
		"$JS.API.STREAM.DELETE.AI_USAGE",
		"$JS.API.STREAM.PURGE.AI_QUARANTINE",
		"$JS.API.STREAM.MSG.DELETE.AI_QUARANTINE",
		"$JS.API.CONSUMER.RESET.AI_USAGE.ai-usage-ledger",
		"ai.usage.p2",
		"ai.budget.set.p1",
		"ai.quarantine.forged",
		"ai.totals",
		"ai.admin.port.rm",
	} {
		for _, subject := range []string{"ai.usage.p1", "ai.budget.check.p1"} {
			if err := p1.PublishRequest(subject, reply, []byte(`{"seq":3}`)); err != nil {
				t.Fatal(err)
			}
		}
		if strings.HasPrefix(reply, "$JS.") { // nats-server 2.15.3 and later do not even take it
			refused = append(refused, reply, reply)
		} else {
			mine++
		}
	}
	if got := p1.allForbidden(t, "Permissions Violation for Publish with Reply of "); !slices.Equal(got, refused) {
		t.Errorf("messages are refused for these replies: %q, want %q", got, refused)
	}
	for {
		msg, err := everything.NextMsg(300 * time.Millisecond)
		if errors.Is(err, nats.ErrTimeout) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		if msg.Subject != "ai.usage.p1" && !strings.HasPrefix(msg.Subject, "ai.services.") && !strings.HasPrefix(msg.Subject, "_R_.") {
			t.Errorf("%s received %q", msg.Subject, msg.Data)
		}
	}
	if n := stored(t, js, events.UsageStream); n != 5+mine {
		t.Errorf("%d events stored, want %d", n, 5+mine)
	}
	if n := stored(t, js, events.QuarantineStream); n != 5 {
		t.Errorf("%d events in the quarantine, want 5", n)
	}
}

// Tidegate itself could lose no event even if it were taken over.
func TestTidegateMayNotDestroy(t *testing.T) {
	t.Parallel()
	s := serve(t)
	c := tidegate(t, s)
	streams(t, c)
	for _, subject := range []string{
		"$JS.API.STREAM.PURGE.AI_USAGE", "$JS.API.STREAM.DELETE.AI_USAGE", "$JS.API.STREAM.UPDATE.AI_USAGE",
		"$JS.API.STREAM.MSG.DELETE.AI_USAGE", "$JS.API.STREAM.DELETE.AI_QUARANTINE", "$JS.API.STREAM.PURGE.AI_QUARANTINE",
		"$JS.API.STREAM.DELETE.AI_ALERTS", "$JS.API.STREAM.PURGE.AI_ALERTS", "$JS.API.STREAM.UPDATE.AI_ALERTS", "$JS.API.STREAM.MSG.DELETE.AI_ALERTS",
		"$JS.API.STREAM.DELETE.AI_BUDGETS", "$JS.API.STREAM.PURGE.AI_BUDGETS", "$JS.API.STREAM.UPDATE.AI_BUDGETS", "$JS.API.STREAM.MSG.DELETE.AI_BUDGETS",
		"$JS.API.CONSUMER.DELETE.AI_USAGE.ai-usage-ledger", "$JS.API.CONSUMER.RESET.AI_USAGE.ai-usage-ledger",
		"$JS.API.STREAM.CREATE.OTHER", "$SYS.REQ.SERVER.PING",
	} {
		if !c.wasForbidden(t, func() error { return c.Publish(subject, nil) }) {
			t.Errorf("publish to %s is allowed", subject)
		}
	}
}

// Nor may it change a stream. One that remembers message ids for too long it therefore does
// not use, and says what an operator has to do.
func TestTidegateSaysHowToMendAnOlderStream(t *testing.T) {
	s := serve(t)
	js := streams(t, tidegate(t, s))
	admin, err := jetstream.New(login(t, s, "admin", password(t, "admin")).Conn)
	if err != nil {
		t.Fatal(err)
	}
	usage, err := admin.Stream(t.Context(), events.UsageStream)
	if err != nil {
		t.Fatal(err)
	}
	cfg := usage.CachedInfo().Config
	ours := cfg.Duplicates
	for _, c := range []struct {
		window, patience time.Duration
		mend             string
	}{
		{10 * time.Minute, 500 * time.Millisecond, "nats stream edit AI_USAGE --dupe-window=100ms"},
		{ours, 10 * time.Second, ""},
	} {
		cfg.Duplicates = c.window
		if _, err := admin.UpdateStream(t.Context(), cfg); err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), c.patience)
		_, _, err := stream.Ensure(ctx, js, 1, uuid.Nil, false)
		cancel()
		if said := fmt.Sprint(err); (err == nil) != (c.mend == "") || !strings.Contains(said, c.mend) {
			t.Errorf("a window of %s: %v, want %q", c.window, err, c.mend)
		}
	}
}
