package cluster

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/tidegate/tidegate/events"
	"github.com/tidegate/tidegate/internal/replication"
	"github.com/tidegate/tidegate/internal/testenv"
)

const deploy = "../../deploy"

// passwords are those of deploy/cluster/.env.example, filled in.
func passwords(t *testing.T) map[string]string {
	t.Helper()
	f := testenv.Must(os.Open(filepath.Join(deploy, "cluster", ".env.example")))
	defer f.Close()
	all := map[string]string{}
	for lines := bufio.NewScanner(f); lines.Scan(); {
		if name, value, ok := strings.Cut(lines.Text(), "="); ok && !strings.HasPrefix(name, "#") {
			if value != "" {
				t.Errorf("%s has an example value", name)
			}
			all[name] = "pw" + strings.ReplaceAll(name, "_", "")
		}
	}
	return all
}

// nodes are the three nats-servers.
type nodes struct {
	t         *testing.T
	passwords map[string]string
	all       []*program
	addrs     []string
	disks     []string // where their data are
	admin     *nats.Conn
	js        jetstream.JetStream // the administrator's
}

// startNodes runs the shipped configuration, but for addresses and places.
func startNodes(t *testing.T) *nodes {
	t.Helper()
	n := &nodes{t: t, passwords: passwords(t)}
	server := testenv.NATSServer(t)
	var routes, env []string
	for range 3 {
		n.addrs = append(n.addrs, testenv.FreeAddr(t))
		routes = append(routes, testenv.FreeAddr(t))
	}
	for name, password := range n.passwords {
		env = append(env, name+"="+password)
	}
	for i, route := range routes {
		env = append(env, fmt.Sprintf("NATS_ROUTE_%d=nats://route:%s@%s", i+1, n.passwords["NATS_ROUTE_PASSWORD"], route))
	}
	for i := range 3 {
		dir := t.TempDir()
		disk := filepath.Join(dir, "data")
		n.disks = append(n.disks, disk)
		if err := os.Mkdir(disk, 0o700); err != nil {
			t.Fatal(err)
		}
		if allFaults() {
			ownDisk(t, disk)
		}
		here := strings.NewReplacer("0.0.0.0:4222", n.addrs[i], "127.0.0.1:8222", testenv.FreeAddr(t), "0.0.0.0:6222", routes[i], "/data", disk)
		for _, file := range []string{"nats.conf", "cluster/nats.conf"} {
			text := here.Replace(string(testenv.Must(os.ReadFile(filepath.Join(deploy, file)))))
			if err := os.MkdirAll(filepath.Join(dir, "cluster"), 0o700); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(filepath.Join(dir, file), []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		node := &program{t: t, path: server, args: []string{"--config", filepath.Join(dir, "cluster", "nats.conf")}, env: slices.Concat(os.Environ(), env, []string{fmt.Sprintf("NATS_NAME=nats-%d", i+1)})}
		node.start()
		n.all = append(n.all, node)
	}
	n.admin = n.connect("admin", 0)
	n.js = testenv.Must(jetstream.New(n.admin))
	testenv.Eventually(t, "JetStream has a leader", func() bool {
		_, err := n.js.AccountInfo(t.Context())
		return err == nil
	})
	return n
}

// urls are those of a user, the node of that index first.
func (n *nodes) urls(user string, first int) string {
	var all []string
	for i := range n.addrs {
		all = append(all, fmt.Sprintf("nats://%s:%s@%s", user, n.passwords["NATS_"+strings.ToUpper(strings.ReplaceAll(user, "-", "_"))+"_PASSWORD"], n.addrs[(first+i)%len(n.addrs)]))
	}
	return strings.Join(all, ",")
}

// connect connects as a service would, to the node of that index while that is there.
func (n *nodes) connect(user string, first int, opts ...nats.Option) *nats.Conn {
	n.t.Helper()
	nc := testenv.Must(events.Connect(n.urls(user, first), append(opts, nats.DontRandomize())...))
	n.t.Cleanup(nc.Close)
	return nc
}

// leader is the index of the node that leads the usage stream.
func (n *nodes) leader() (index int) {
	n.t.Helper()
	index = -1
	testenv.Eventually(n.t, "the usage stream has a leader", func() bool {
		stream, err := n.js.Stream(n.t.Context(), events.UsageStream)
		if err == nil {
			_, err = fmt.Sscanf(stream.CachedInfo().Cluster.Leader, "nats-%d", &index)
		}
		return err == nil
	})
	return index - 1
}

// awaitWhole returns when all streams have three copies in place. That of alerts is made with
// the first.
func (n *nodes) awaitWhole() {
	n.t.Helper()
	testenv.Eventually(n.t, "all streams have three copies in place", func() bool {
		for _, name := range []string{events.UsageStream, events.QuarantineStream, events.AlertStream} {
			stream, err := n.js.Stream(n.t.Context(), name)
			if name == events.AlertStream && errors.Is(err, jetstream.ErrStreamNotFound) {
				continue
			}
			if err != nil || replication.Missing(stream.CachedInfo(), 3) > 0 {
				return false
			}
		}
		return true
	})
}

// full fills the disks of some nodes, and restarts the nodes when they are free again: JetStream ends where it cannot write.
func (n *nodes) full(stopped func() int64, some ...int) {
	n.t.Helper()
	var disks []string
	for _, i := range some {
		disks = append(disks, n.disks[i])
	}
	full(n.t, disks, stopped)
	for _, i := range some {
		n.all[i].end(syscall.SIGTERM)
		n.all[i].start()
	}
}

// program is a process that tests kill, freeze and start again. It is gone after the test.
type program struct {
	t    *testing.T
	path string
	args []string
	env  []string
	cmd  *exec.Cmd
	out  output
	done chan struct{} // closed when it has ended
}

func (p *program) start() {
	p.t.Helper()
	first := p.cmd == nil
	p.cmd, p.done = exec.Command(p.path, p.args...), make(chan struct{})
	p.cmd.Env, p.cmd.Stdout, p.cmd.Stderr = p.env, &p.out, &p.out
	if err := p.cmd.Start(); err != nil {
		p.t.Fatal(err)
	}
	go func(cmd *exec.Cmd, done chan struct{}) {
		_ = cmd.Wait()
		close(done)
	}(p.cmd, p.done)
	if !first {
		return
	}
	p.t.Cleanup(func() {
		p.end(syscall.SIGKILL)
		if p.t.Failed() {
			p.t.Logf("the last words of %s %v:\n%s", filepath.Base(p.path), p.args, p.out.tail())
		}
	})
}

func (p *program) signal(s syscall.Signal) { _ = p.cmd.Process.Signal(s) }

// end signals and returns when the process has ended.
func (p *program) end(s syscall.Signal) {
	p.signal(s)
	<-p.done
}
