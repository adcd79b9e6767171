package dev_test

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/tidegate/tidegate/dev"
	"github.com/tidegate/tidegate/internal/testenv"
)

// Whoever connects without a user may do what a service does, and no more.
func TestNATSIsSafeFromItsServices(t *testing.T) {
	n := testenv.NATS(t)
	operator := testenv.Connect(t, n)
	js := testenv.Must(jetstream.New(operator))
	usage := testenv.Must(js.CreateStream(t.Context(), jetstream.StreamConfig{Name: "AI_USAGE", Subjects: []string{"ai.usage", "ai.usage.*"}}))
	for _, subject := range []string{"ai.admin.>", "ai.budget.set.*"} {
		testenv.Must(operator.Subscribe(subject, func(m *nats.Msg) { _ = m.Respond([]byte("yes")) }))
	}
	testenv.Must(operator.Subscribe("ai.services.ai.budget.check.*", func(m *nats.Msg) { _ = operator.Publish("ai.services."+m.Reply, []byte("yes")) }))
	if err := operator.Flush(); err != nil {
		t.Fatal(err)
	}

	forbidden := make(chan string, 100)
	service, err := nats.Connect(n.ServiceURL(), nats.ErrorHandler(func(_ *nats.Conn, _ *nats.Subscription, err error) { forbidden <- err.Error() }))
	if err != nil {
		t.Fatal(err)
	}
	defer service.Close()
	asService := testenv.Must(jetstream.New(service))
	for _, subject := range []string{"ai.usage.p1", "ai.usage"} {
		if _, err := asService.Publish(t.Context(), subject, []byte(`{}`)); err != nil {
			t.Errorf("a report on %s is not acknowledged: %v", subject, err)
		}
	}
	if m, err := service.Request("ai.budget.check.p1", nil, time.Second); err != nil || string(m.Data) != "yes" {
		t.Errorf("a check is answered with %v, %v", m, err)
	}
	alerts := testenv.Must(service.SubscribeSync("ai.alert.*"))
	if err := errors.Join(service.Flush(), operator.Publish("ai.alert.p1", []byte("soft cap"))); err != nil {
		t.Fatal(err)
	}
	if m, err := alerts.NextMsg(time.Second); err != nil || string(m.Data) != "soft cap" {
		t.Errorf("an alert arrives as %v, %v", m, err)
	}

	said := func() string {
		select {
		case text := <-forbidden:
			return text
		case <-time.After(2 * time.Second):
			return "it is allowed"
		}
	}
	overheard := testenv.Must(service.SubscribeSync("_INBOX.>"))
	for _, subject := range []string{"ai.admin.token.create", "ai.budget.set.p1", "ai.alert.p1", "ai.totals", "ai.quarantine.x",
		"$JS.API.INFO", "$JS.API.STREAM.DELETE.AI_USAGE", "$SRV.PING", "$SYS.REQ.SERVER.PING", "_INBOX.x", "_R_.x",
		"ai.services.ai.budget.check.p1", "ai.services._INBOX.x"} {
		if err := errors.Join(service.Publish(subject, nil), service.Flush()); err != nil {
			t.Fatal(err)
		}
		if got := said(); !strings.Contains(got, `"`+subject+`"`) {
			t.Errorf("publish to %s: %s", subject, got)
		}
	}
	for _, subject := range []string{">", "ai.>", "ai.usage.*", "ai.budget.check.*", "$JS.>", "_R_.>", "ai.services.>"} {
		sub := testenv.Must(service.SubscribeSync(subject))
		if got := said(); !strings.Contains(got, `"`+subject+`"`) {
			t.Errorf("subscribe to %s: %s", subject, got)
		}
		_ = sub.Unsubscribe()
	}

	// Nor does it hear what operators are answered, or make others act for it.
	testenv.Must(operator.Request("ai.admin.token.create", nil, time.Second))
	for _, reply := range []string{"$JS.API.STREAM.PURGE.AI_USAGE", "ai.admin.port.rm", "ai.budget.set.p1"} {
		for _, subject := range []string{"ai.usage.p1", "ai.budget.check.p1"} {
			if err := service.PublishRequest(subject, reply, []byte(`{"seq":9}`)); err != nil {
				t.Fatal(err)
			}
		}
	}
	if m, err := overheard.NextMsg(200 * time.Millisecond); err == nil {
		t.Errorf("it overhears %s: %q", m.Subject, m.Data)
	}
	if state := testenv.Must(usage.Info(t.Context())).State; state.Msgs < 4 || state.FirstSeq != 1 || state.LastSeq != state.Msgs {
		t.Errorf("%+v, want every event, but for one whose reply the server may refuse", state)
	}
	if nc, err := nats.Connect(n.ServiceURL(), nats.UserInfo("operator", "guessed")); err == nil {
		nc.Close()
		t.Error("a wrong password is taken")
	}
}

func TestNATSKeepsTheOperatorsPasswordForItself(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "operator.url")
	start := func() (*dev.NATS, error) { return dev.StartNATS(dev.NATSConfig{Dir: dir, Addr: "127.0.0.1:0"}) }
	n := testenv.Must(start())
	password := n.ClientURL()[:strings.Index(n.ClientURL(), "@")]
	if info := testenv.Must(os.Stat(file)); info.Mode().Perm() != 0o600 || len(password) < len("nats://operator:")+43 {
		t.Errorf("mode %v, %d characters", info.Mode(), len(password))
	}
	if url, err := dev.OperatorURL(dir); url != n.ClientURL() {
		t.Errorf("the operator's address is read as %q, %v", url, err)
	}
	n.Shutdown()
	if url, err := dev.OperatorURL(dir); err == nil || url != "" {
		t.Errorf("nothing runs, and whoever listens there would be sent %q", url)
	}
	for _, mode := range []os.FileMode{0o640, 0o604, 0o620, 0o602} {
		if err := os.Chmod(file, mode); err != nil {
			t.Fatal(err)
		}
		_, err := start()
		wantError(t, err, file, "other users", "chmod 0600")
	}
	if err := errors.Join(os.Chmod(file, 0o600), os.Chmod(dir, 0o775)); err != nil {
		t.Fatal(err)
	}
	_, err := start()
	wantError(t, err, dir, "other users", "chmod 0755")
	if err := errors.Join(os.Chmod(dir, 0o755), os.WriteFile(file, []byte("nats://operator:short@127.0.0.1:4222"), 0o600)); err != nil {
		t.Fatal(err)
	}
	_, err = start()
	wantError(t, err, file, "delete it")
	if err := os.Remove(file); err != nil {
		t.Fatal(err)
	}
	n = testenv.Must(start())
	defer n.Shutdown()
	if strings.HasPrefix(n.ClientURL(), password) {
		t.Error("the password is no new one")
	}
}

// A store that was written before the server had users is used on.
func TestNATSTakesAnOlderStoreOver(t *testing.T) {
	dir := t.TempDir()
	old := testenv.Must(server.NewServer(&server.Options{JetStream: true, StoreDir: dir, Host: "127.0.0.1", Port: server.RANDOM_PORT, NoSigs: true}))
	old.Start()
	if !old.ReadyForConnections(time.Minute) {
		t.Fatal("the server is not ready")
	}
	nc := testenv.Must(nats.Connect(old.ClientURL()))
	js := testenv.Must(jetstream.New(nc))
	testenv.Must(js.CreateStream(t.Context(), jetstream.StreamConfig{Name: "LETTERS", Subjects: []string{"letters"}}))
	testenv.Must(js.Publish(t.Context(), "letters", []byte("dear reader")))
	nc.Close()
	old.Shutdown()
	old.WaitForShutdown()

	for range 2 {
		n := testenv.Must(dev.StartNATS(dev.NATSConfig{Dir: dir, Addr: "127.0.0.1:0"}))
		if stored := storedMessages(t, n); stored != 1 {
			t.Errorf("%d messages, want 1", stored)
		}
		n.Shutdown()
	}
}
