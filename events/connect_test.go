package events_test

import (
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"

	"github.com/tidegate/tidegate/events"
	"github.com/tidegate/tidegate/internal/testenv"
)

func TestConnect_WaitsForTheServer(t *testing.T) {
	b := startBus(t)
	b.stop()
	nc := b.connect()
	if nc.IsConnected() {
		t.Fatal("connected to a stopped server")
	}
	b.start()
	testenv.Eventually(t, "it connects by itself", nc.IsConnected)
	if nc.Opts.MaxReconnect != -1 {
		t.Errorf("MaxReconnect is %d: it would give up", nc.Opts.MaxReconnect)
	}
}

// nats.go gives up when a server refuses the same credentials twice.
func TestConnect_WrongCredentialsAreTriedAgain(t *testing.T) {
	t.Parallel()
	users := func(password string) []*server.User { return []*server.User{{Username: "svc", Password: password}} }
	b := startBus(t, func(o *server.Options) { o.Users = users("new") })
	nc := b.connect(nats.UserInfo("svc", "old"))
	time.Sleep(1200 * time.Millisecond) // three tries or so
	if nc.IsClosed() {
		t.Fatal("it gave up")
	}
	opts := b.opts
	opts.Users = users("old")
	if err := b.srv.ReloadOptions(&opts); err != nil {
		t.Fatal(err)
	}
	testenv.Eventually(t, "it connects once the server agrees", nc.IsConnected)
}

func TestConnect_ToolsCanFailAtOnce(t *testing.T) {
	url := strings.Replace(deadURL(t), "nats://", "nats://svc:secret@", 1)
	nc, err := events.Connect(url, nats.RetryOnFailedConnect(false))
	if err == nil {
		nc.Close()
		t.Fatal("connected to nothing")
	}
	if strings.Contains(err.Error(), "secret") || !strings.Contains(err.Error(), "127.0.0.1") {
		t.Errorf("want the address without the password: %v", err)
	}
}

// A password that is not written as a URL wants it reaches neither the error nor, by way
// of the parser's own words, a log.
func TestConnect_APasswordThatIsNotEscaped(t *testing.T) {
	for _, url := range []string{"nats://svc:sec/ret@127.0.0.1:4222", "nats://svc:12/secret@127.0.0.1:4222", "nats://svc:sec%ret@127.0.0.1", "nats://svc:sec,ret@127.0.0.1"} {
		nc, err := events.Connect(url)
		if err == nil {
			nc.Close()
			t.Errorf("%s was taken for an address", url)
		} else if strings.Contains(err.Error(), "sec") || strings.Contains(err.Error(), "ret") || !strings.Contains(err.Error(), "%2F") {
			t.Errorf("want the address without the password, and how to write it: %v", err)
		}
	}
}
