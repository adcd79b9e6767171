package dev_test

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/tidegate/tidegate/dev"
	"github.com/tidegate/tidegate/internal/testenv"
)

func TestNATSListensOnLoopbackOnly(t *testing.T) {
	for addr, want := range map[string]string{
		"0.0.0.0:4222":       "--nats-url",
		"[::]:4222":          "--nats-url",
		":4222":              "--nats-addr 127.0.0.1:4222",
		"192.0.2.1:4222":     "no password",
		"example.com:4222":   "no password",
		"127.0.0.1":          "must be host:port",
		"127.0.0.1:70000":    "0 to 65535",
		"127.0.0.1:natsnats": "must be a number",
	} {
		n, err := dev.StartNATS(dev.NATSConfig{Dir: t.TempDir(), Addr: addr})
		if err == nil {
			n.Shutdown()
			t.Errorf("%s: started", addr)
			continue
		}
		wantError(t, err, want)
	}
}

func TestNATSSaysWhenThePortIsTaken(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	_, err = dev.StartNATS(dev.NATSConfig{Dir: t.TempDir(), Addr: l.Addr().String()})
	wantError(t, err, l.Addr().String()+" is taken", "--nats-addr", "--nats-url")
}

func TestNATSRefusesAStoreInUse(t *testing.T) {
	dir := t.TempDir()
	first, err := dev.StartNATS(dev.NATSConfig{Dir: dir, Addr: "localhost:0"})
	if err != nil {
		t.Fatal(err)
	}
	_, err = dev.StartNATS(dev.NATSConfig{Dir: dir, Addr: "127.0.0.1:0"})
	wantError(t, err, dir+" is in use by process "+strconv.Itoa(os.Getpid()), "--data")
	first.Shutdown()
	first.Shutdown() // does nothing

	again, err := dev.StartNATS(dev.NATSConfig{Dir: dir, Addr: first.Addr()})
	if err != nil {
		t.Fatalf("after Shutdown store and port are free, but: %v", err)
	}
	again.Shutdown()
}

func TestNATSSaysWhyAStoreCannotBeUsed(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "jetstream"), []byte("not a directory"), 0o600); err != nil {
		t.Fatal(err)
	}
	_, err := dev.StartNATS(dev.NATSConfig{Dir: dir, Addr: "127.0.0.1:0"})
	wantError(t, err, dir, "not a directory")
}

func TestNATSConnectsWithinTheProcess(t *testing.T) {
	n := testenv.NATS(t)
	nc, err := n.Conn()
	if err != nil {
		t.Fatal(err)
	}
	defer nc.Close()
	if _, err := net.ResolveTCPAddr("tcp", nc.ConnectedAddr()); err == nil && nc.ConnectedAddr() != "" {
		t.Errorf("connected over TCP, to %s", nc.ConnectedAddr())
	}
	if _, err := nc.RequestWithContext(t.Context(), "$JS.API.INFO", nil); err != nil {
		t.Errorf("JetStream does not answer: %v", err)
	}
}

func TestNATSKeepsAcknowledgedMessagesThroughKill9(t *testing.T) {
	dir := t.TempDir()
	var acknowledged uint64
	for round := range 3 {
		program := startProgram(t, "write-messages", dir)
		for range 50 {
			acknowledged = number(t, program.line(t))
		}
		if last := program.kill(t); last != "" {
			acknowledged = number(t, last)
		}
		program.cmd.Wait()

		n, err := dev.StartNATS(dev.NATSConfig{Dir: dir, Addr: "127.0.0.1:0"})
		if err != nil {
			t.Fatal(err)
		}
		stored := storedMessages(t, n)
		n.Shutdown()
		// One more may be stored whose acknowledgement was not printed.
		if stored < acknowledged || stored > acknowledged+uint64(round)+1 {
			t.Fatalf("round %d: %d messages acknowledged, %d stored", round, acknowledged, stored)
		}
	}
}

// writeMessages publishes until killed and prints the sequence of each
// acknowledged message.
func writeMessages(dir string) error {
	n, err := dev.StartNATS(dev.NATSConfig{Dir: dir, Addr: "127.0.0.1:0"})
	if err != nil {
		return err
	}
	nc, err := n.Conn()
	if err != nil {
		return err
	}
	js, err := jetstream.New(nc)
	if err != nil {
		return err
	}
	ctx, cancel := programContext()
	defer cancel()
	if _, err := js.CreateOrUpdateStream(ctx, jetstream.StreamConfig{Name: "LETTERS", Subjects: []string{"letters"}}); err != nil {
		return err
	}
	for {
		ack, err := js.Publish(ctx, "letters", []byte("dear reader"))
		if err != nil {
			return err
		}
		fmt.Println(ack.Sequence)
	}
}

func storedMessages(t *testing.T, n *dev.NATS) uint64 {
	t.Helper()
	js, err := jetstream.New(testenv.Connect(t, n))
	if err != nil {
		t.Fatal(err)
	}
	stream, err := js.Stream(t.Context(), "LETTERS")
	if err != nil {
		t.Fatal(err)
	}
	return stream.CachedInfo().State.Msgs
}

func number(t *testing.T, s string) uint64 {
	t.Helper()
	n, err := strconv.ParseUint(s, 10, 64)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

var programLifetime = time.Minute // a test that dies must not leave its program for ever
