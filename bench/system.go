package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/nats-io/nats.go"

	"github.com/tidegate/tidegate/dev"
	"github.com/tidegate/tidegate/events"
)

// built is the directory that tidegate made, if it did; main removes it.
var built string

// tidegate builds cmd/tidegate once, as users run it: without the race detector.
var tidegate = sync.OnceValues(func() (_ string, err error) {
	if built, err = os.MkdirTemp("", "tidegate-bench-bin-"); err != nil {
		return "", err
	}
	path := filepath.Join(built, "tidegate")
	cmd := exec.Command("go", "build", "-o", path, "github.com/tidegate/tidegate/cmd/tidegate")
	cmd.Stderr = os.Stderr
	return path, cmd.Run()
})

// system is a running Tidegate, in processes of its own.
type system struct {
	dir   string
	nats  string // URL, for services
	store string // of NATS, where its operator's password is
	http  string // address
	procs []*exec.Cmd
}

func newSystem() (*system, error) {
	dir, err := os.MkdirTemp("", "tidegate-bench-")
	if err != nil {
		return nil, err
	}
	if err := os.Chmod(dir, 0o755); err != nil {
		return nil, err
	}
	ports, err := freePorts(2)
	if err != nil {
		return nil, err
	}
	return &system{dir: dir, nats: "nats://" + ports[0], store: filepath.Join(dir, "data", "nats"), http: ports[1]}, nil
}

// keptSystem is one whose data are in a directory, or go at the end if that is "". filled: some are there,
// maybe not all.
func keptSystem(dir string) (s *system, filled bool, end func(), err error) {
	if s, err = newSystem(); err != nil || dir == "" {
		return s, false, s.remove, err
	}
	_ = os.Remove(s.dir)
	data := filepath.Join(dir, "data")
	s.dir, s.store = dir, filepath.Join(data, "nats")
	_, err = os.Stat(data)
	return s, err == nil, s.stop, nil
}

// freePorts returns addresses that differ: all are taken before the first is let go.
func freePorts(n int) (addrs []string, err error) {
	for range n {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			return nil, err
		}
		defer l.Close()
		addrs = append(addrs, l.Addr().String())
	}
	return addrs, nil
}

// run starts tidegate with embedded servers and waits until it is ready.
func (s *system) run(ctx context.Context, args ...string) error {
	bin, err := tidegate()
	if err != nil {
		return err
	}
	args = append([]string{"run", "--data", filepath.Join(s.dir, "data"), "--http", s.http, "--log-level", "error"}, args...)
	if !strings.Contains(strings.Join(args, " "), "--nats-url") {
		args = append(args, "--nats-addr", strings.TrimPrefix(s.nats, "nats://"))
	}
	cmd := exec.Command(bin, args...)
	cmd.Stderr = os.Stderr
	if err := s.spawn(cmd); err != nil {
		return err
	}
	return s.awaitReady(ctx)
}

// startSystem starts tidegate with embedded servers, and opens its database.
func startSystem(ctx context.Context) (s *system, db *pgxpool.Pool, stop func(), err error) {
	if s, err = newSystem(); err != nil {
		return nil, nil, nil, err
	}
	if err = s.run(ctx); err == nil {
		db, err = pgxpool.New(ctx, s.database())
	}
	if err != nil {
		s.remove()
		return nil, nil, nil, err
	}
	return s, db, func() { db.Close(); s.remove() }, nil
}

func (s *system) spawn(cmd *exec.Cmd) error {
	if err := cmd.Start(); err != nil {
		return err
	}
	s.procs = append(s.procs, cmd)
	return nil
}

func (s *system) awaitReady(ctx context.Context) error {
	for deadline := time.Now().Add(10 * time.Minute); time.Now().Before(deadline) && ctx.Err() == nil; time.Sleep(20 * time.Millisecond) {
		resp, err := http.Get("http://" + s.http + "/readyz")
		if err != nil {
			continue
		}
		resp.Body.Close()
		if resp.StatusCode == http.StatusOK {
			return nil
		}
	}
	return errors.New("tidegate did not become ready within 10 minutes")
}

// stop ends the processes gracefully and waits for them.
func (s *system) stop() {
	for _, p := range s.procs {
		_ = p.Process.Signal(syscall.SIGTERM)
	}
	for _, p := range s.procs {
		_ = p.Wait()
	}
	s.procs = nil
}

func (s *system) remove() {
	s.stop()
	_ = os.RemoveAll(s.dir)
}

// connect connects as an operator.
func (s *system) connect() (*nats.Conn, error) {
	url, err := s.operator()
	if err != nil {
		return nil, err
	}
	return events.Connect(url, nats.RetryOnFailedConnect(false))
}

// operator is the operator's address, once NATS runs.
func (s *system) operator() (url string, err error) {
	for range 200 {
		if url, err = dev.OperatorURL(s.store); err == nil {
			break
		}
		time.Sleep(50 * time.Millisecond)
	}
	return url, err
}

// spawnNATS starts the hidden command, echo or nats, that has a server. What connects by
// s.nats from now on is an operator: a bare server knows no services.
func (s *system) spawnNATS(command string, args ...string) (err error) {
	s.store = filepath.Join(s.dir, "nats")
	if err := s.spawnSelf(append([]string{command, s.store, strings.TrimPrefix(s.nats, "nats://")}, args...)...); err != nil {
		return err
	}
	s.nats, err = s.operator()
	return err
}

func (s *system) database() string {
	return "postgres://tidegate@/tidegate?host=" + filepath.Join(s.dir, "data", "postgres", "socket")
}

// cpuSeconds is the CPU that a process and those it started have used.
func cpuSeconds(pid int) float64 {
	total := cpuOf(pid)
	threads, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", pid))
	for _, t := range threads {
		children, _ := os.ReadFile(t)
		for _, child := range strings.Fields(string(children)) {
			if n, err := strconv.Atoi(child); err == nil {
				total += cpuSeconds(n)
			}
		}
	}
	return total
}

// cpuOf counts one process, with the children that it has waited for.
func cpuOf(pid int) float64 {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0
	}
	fields := strings.Fields(string(stat[strings.LastIndexByte(string(stat), ')')+1:]))
	var ticks float64
	for _, i := range []int{11, 12, 13, 14} {
		n, _ := strconv.ParseFloat(fields[i], 64)
		ticks += n
	}
	return ticks / 100
}

type echoCmd struct {
	Dir  string `arg:""`
	Addr string `arg:""`
	Body int    `help:"Bytes of the answer." default:"420"`
}

// Run serves the yardstick: the same server in the same process as the gate has,
// and a responder that does nothing but answer.
func (c *echoCmd) Run(ctx context.Context, _ *report) error {
	server, err := dev.StartNATS(dev.NATSConfig{Dir: c.Dir, Addr: c.Addr})
	if err != nil {
		return err
	}
	defer server.Shutdown()
	nc, err := server.Conn()
	if err != nil {
		return err
	}
	defer nc.Close()
	body := []byte(strings.Repeat("x", c.Body))
	if _, err := nc.Subscribe("echo.*", func(m *nats.Msg) { _ = m.Respond(body) }); err != nil {
		return err
	}
	<-ctx.Done()
	return nil
}

type natsCmd struct {
	Dir  string `arg:""`
	Addr string `arg:""`
}

func (c *natsCmd) Run(ctx context.Context, _ *report) error {
	server, err := dev.StartNATS(dev.NATSConfig{Dir: c.Dir, Addr: c.Addr})
	if err != nil {
		return err
	}
	defer server.Shutdown()
	<-ctx.Done()
	return nil
}

// spawnSelf starts a hidden command of this program.
func (s *system) spawnSelf(args ...string) error {
	self, err := os.Executable()
	if err != nil {
		return err
	}
	cmd := exec.Command(self, args...)
	cmd.Stderr = os.Stderr
	return s.spawn(cmd)
}
