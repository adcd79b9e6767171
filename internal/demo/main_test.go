package demo_test

import (
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/tidegate/tidegate/dev"
	"github.com/tidegate/tidegate/events"
	"github.com/tidegate/tidegate/internal/testenv"
)

func TestMain(m *testing.M) {
	if dir := os.Getenv("DEMO_TEST_NATS"); dir != "" {
		serveNATS(dir, os.Args[1])
		return
	}
	testenv.Main(m)
}

// serveNATS is the other end of [process]. It ends with its standard input.
func serveNATS(dir, addr string) {
	server, err := dev.StartNATS(dev.NATSConfig{Dir: dir, Addr: addr})
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	fmt.Println(server.Addr())
	fmt.Println(server.ClientURL())
	io.Copy(io.Discard, os.Stdin)
}

// process is a nats-server in a process of its own, so that it can be killed. It
// keeps its store and its address.
type process struct {
	t    *testing.T
	dir  string
	addr string
	url  string // the operator's
	stop func() // kill -9
}

func newProcess(t *testing.T) *process {
	p := &process{t: t, dir: t.TempDir(), addr: "127.0.0.1:0"}
	p.start()
	t.Cleanup(func() { p.stop() })
	return p
}

func (p *process) start() {
	p.t.Helper()
	cmd := exec.Command(os.Args[0], p.addr)
	cmd.Env, cmd.Stderr = append(os.Environ(), "DEMO_TEST_NATS="+p.dir), os.Stderr
	stdin, err := cmd.StdinPipe()
	if err != nil {
		p.t.Fatal(err)
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		p.t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		p.t.Fatal(err)
	}
	p.stop = sync.OnceFunc(func() {
		cmd.Process.Kill()
		cmd.Wait()
		stdin.Close()
	})
	if _, err := fmt.Fscan(stdout, &p.addr, &p.url); err != nil {
		p.stop()
		p.t.Fatalf("nats-server: %v", err)
	}
}

func connect(t *testing.T, url string) *nats.Conn {
	t.Helper()
	nc, err := events.Connect(url)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(nc.Close)
	return nc
}

func client(t *testing.T, nc *nats.Conn) *events.Client {
	t.Helper()
	c, err := events.NewClient(nc, events.ClientConfig{WhenUnavailable: events.FailClosed})
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// check asks until the gate answers.
func check(t *testing.T, c *events.Client, port string) events.Verdict {
	t.Helper()
	for end := time.Now().Add(20 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		v, err := c.Check(t.Context(), events.CheckRequest{PortID: port, EstimatedTokens: 500})
		if err == nil {
			return v
		}
		if !errors.Is(err, events.ErrUnavailable) || time.Now().After(end) {
			t.Fatal(err)
		}
	}
}
