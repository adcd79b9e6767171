package cluster

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/tidegate/tidegate/admin/ops"
	"github.com/tidegate/tidegate/events"
	"github.com/tidegate/tidegate/internal/testenv"
)

func TestMain(m *testing.M) { testenv.Main(m) }

// system is a cluster as deploy/cluster has it, with two Tidegate processes.
type system struct {
	t         *testing.T
	nats      *nodes
	postgres  *pair
	processes []*program
	web       []string
	client    *events.Client // the administrator's
	ops       *ops.Client
	load      *load
	hardCap   int64
}

func start(t *testing.T) *system {
	t.Helper()
	s := &system{t: t, nats: startNodes(t)}
	s.postgres = startPair(t, s.nats.passwords)
	s.client = testenv.Must(events.NewClient(s.nats.admin, events.ClientConfig{WhenUnavailable: events.FailClosed, Timeout: 20 * time.Second}))
	s.ops = ops.NewClient(s.nats.admin, 20*time.Second)
	for range 2 {
		s.spawn()
	}
	for i := range s.processes {
		s.awaitReady(i)
	}
	s.nats.awaitWhole()
	return s
}

// spawn starts a process of all roles, with no --replicas.
func (s *system) spawn(args ...string) *program {
	s.t.Helper()
	return s.spawnAs("tidegate", args...)
}

func (s *system) spawnAs(user string, args ...string) *program {
	s.t.Helper()
	web := testenv.FreeAddr(s.t)
	p := &program{t: s.t, path: testenv.Killable(s.t), args: append([]string{"run", "--http", web, "--data", s.t.TempDir()}, args...),
		env: append(os.Environ(), "TIDEGATE_NATS_URL="+s.nats.urls(user, len(s.processes)), "TIDEGATE_DATABASE_URL="+s.postgres.url())}
	p.start()
	s.processes, s.web = append(s.processes, p), append(s.web, web)
	return p
}

// The processes, once each has one role.
const (
	aConsumer = 0
	aGate     = 2
)

// takeApart gives each role a process of its own, as the NATS user that is there for it.
func (s *system) takeApart() {
	s.t.Helper()
	for _, p := range s.processes {
		p.end(syscall.SIGTERM)
	}
	s.processes, s.web = nil, nil
	for _, role := range []string{"consumer", "consumer", "gate", "gate", "admin"} {
		s.spawnAs("tidegate-"+role, "--roles", role)
	}
	for i := range s.processes {
		s.awaitReady(i)
	}
}

func (s *system) get(process int, path string) (status int, body string) {
	resp, err := http.Get("http://" + s.web[process] + path)
	if err != nil {
		return 0, err.Error()
	}
	defer resp.Body.Close()
	text, _ := io.ReadAll(resp.Body)
	return resp.StatusCode, string(text)
}

func (s *system) awaitReady(process int) {
	s.t.Helper()
	status, said := 0, ""
	defer func() {
		if status != http.StatusOK {
			s.t.Logf("it says %s", said)
		}
	}()
	testenv.Eventually(s.t, fmt.Sprintf("process %d is ready", process), func() bool {
		status, said = s.get(process, "/readyz")
		return status == http.StatusOK
	})
}

// db asks the present primary for numbers.
func (s *system) db(sql string, into ...any) error {
	conn, err := pgx.Connect(s.t.Context(), s.postgres.url())
	if err != nil {
		return err
	}
	defer conn.Close(context.Background())
	return conn.QueryRow(s.t.Context(), sql).Scan(into...)
}

const spent = `select (select coalesce(sum(total_tokens), 0)::bigint from ai_usage_port_days where port_id = 'p1'),
	(select coalesce(sum(tokens), 0)::bigint from ai_budget_holds where port_id = 'p1' and expires_at > now())`

// raise gives p1 room for some calls, so that its cap binds again soon.
func (s *system) raise() {
	s.t.Helper()
	var used, held int64
	if err := s.db(spent, &used, &held); err != nil {
		s.t.Fatal(err)
	}
	s.hardCap = used + held + 20*tokens
	var err error
	for range 5 { // the answer may be lost with a node; a budget that is stored twice is the same
		if _, err = s.client.Set(s.t.Context(), events.SetRequest{PortID: "p1", Enabled: true, HardCapTokens: &s.hardCap, Period: events.PeriodMonth}); err == nil {
			return
		}
	}
	s.t.Fatalf("the budget cannot be set: %v", err)
}

// allFaults reports whether all faults happen. Those of make test need nothing special.
func allFaults() bool { return os.Getenv("CLUSTER") != "" }

// fault is something that happens to the cluster, and its end.
type fault struct {
	name         string
	always       bool // in make test too
	apart        bool // each role has a process of its own, from then on
	happen       func(s *system)
	mayOverspend bool // holds that are lost may be given to others
}

func killFor3s(process int) func(*system) {
	return func(s *system) {
		s.processes[process].end(syscall.SIGKILL)
		time.Sleep(3 * time.Second)
		s.processes[process].start()
	}
}

func freezeFor10s(process int) func(*system) {
	return func(s *system) {
		s.processes[process].signal(syscall.SIGSTOP)
		time.Sleep(10 * time.Second)
		s.processes[process].signal(syscall.SIGCONT)
	}
}

var faults = []fault{
	{name: "the node that leads AI_USAGE is killed, and comes back 5 s later", always: true, happen: func(s *system) {
		node := s.nats.all[s.nats.leader()]
		node.end(syscall.SIGKILL)
		time.Sleep(5 * time.Second)
		node.start()
	}},
	{name: "the node that leads AI_USAGE is frozen for 10 s", always: true, happen: func(s *system) {
		i := s.nats.leader()
		s.nats.all[i].signal(syscall.SIGSTOP)
		frozen := time.Now()
		for _, nc := range s.load.conns[2*i : 2*i+2] {
			testenv.Eventually(s.t, "its clients leave it", func() bool { return nc.IsConnected() && !strings.HasSuffix(nc.ConnectedUrl(), s.nats.addrs[i]) })
		}
		if left := time.Since(frozen); left > 10*time.Second { // 6, on a machine that does nothing else
			s.t.Errorf("its clients left a frozen node after %s", left)
		}
		time.Sleep(10*time.Second - time.Since(frozen))
		s.nats.all[i].signal(syscall.SIGCONT)
	}},
	{name: "2 of 3 nodes are dead for 20 s", happen: func(s *system) {
		i := s.nats.leader()
		dead := []*program{s.nats.all[i], s.nats.all[(i+1)%3]}
		for _, node := range dead {
			node.end(syscall.SIGKILL)
		}
		time.Sleep(20 * time.Second)
		for _, node := range dead {
			node.start()
		}
	}},
	{name: "the nodes are restarted one after the other", happen: func(s *system) {
		for _, node := range s.nats.all {
			node.end(syscall.SIGTERM)
			node.start()
			s.nats.awaitWhole()
		}
	}},
	{name: "one of two Tidegate processes is killed, and comes back 3 s later", happen: killFor3s(0)},
	{name: "one of two Tidegate processes is frozen for 10 s", happen: freezeFor10s(1)},
	{name: "the Tidegate processes are restarted one after the other", happen: func(s *system) {
		for i := range 2 {
			s.processes[i].end(syscall.SIGTERM)
			s.processes[i].start()
			s.awaitReady(i)
		}
	}},
	{name: "Postgres is stopped for 5 s", happen: func(s *system) {
		primary := s.postgres.servers[s.postgres.primary]
		if err := primary.Kill(); err != nil {
			s.t.Fatal(err)
		}
		time.Sleep(5 * time.Second)
		if err := primary.Restart(s.t.Context()); err != nil {
			s.t.Fatal(err)
		}
	}},
	{name: "the disk of the node that leads AI_USAGE is full for 10 s, and the node restarted", happen: func(s *system) { s.nats.full(nil, s.nats.leader()) }},
	{name: "the disks of all nodes are full for 10 s, and the nodes restarted", happen: func(s *system) { s.nats.full(s.load.reported.Load, 0, 1, 2) }},
	{name: "the disk of the primary is full for 10 s", happen: func(s *system) {
		full(s.t, s.postgres.dirs[s.postgres.primary:][:1], func() (booked int64) {
			if err := s.db("select count(*) from ai_usage_ledger", &booked); err != nil {
				s.t.Error(err)
			}
			return booked
		})
	}},
	{name: "the disk of its standby is full for 10 s", happen: func(s *system) { full(s.t, s.postgres.dirs[1-s.postgres.primary:][:1], nil) }},
	{name: "the primary dies, its synchronous standby is promoted", always: true, happen: func(s *system) { s.postgres.fail() }},
	{name: "the primary dies, an asynchronous standby that lags by 5 s is promoted", mayOverspend: true, happen: func(s *system) {
		s.postgres.addStandby()
		s.postgres.cutOff()
		time.Sleep(5 * time.Second)
		s.postgres.fail()
	}},
	{name: "roles apart: one of two consumers is killed, and comes back 3 s later", apart: true, happen: killFor3s(aConsumer)},
	{name: "roles apart: one of two consumers is frozen for 10 s", apart: true, happen: freezeFor10s(aConsumer)},
	{name: "roles apart: one of two gates is killed, and comes back 3 s later", apart: true, happen: killFor3s(aGate)},
	{name: "roles apart: one of two gates is frozen for 10 s", apart: true, happen: freezeFor10s(aGate)},
}

// Whatever part fails: what was acknowledged is booked once, no cap is passed, and callers
// are answered again. CLUSTER=1 runs all faults.
func TestFaults(t *testing.T) {
	t.Parallel()
	s := start(t)
	s.raise()
	s.load = startLoad(s.nats)
	table := []string{"| fault | longest without a check | without a reservation | events, all booked once |", "|---|---|---|---|"}
	before := int64(0)
	for _, f := range faults {
		if !f.always && !allFaults() {
			continue
		}
		if f.apart && len(s.processes) == 2 {
			s.raise() // the caps that gates know from the start are kept
			s.takeApart()
		}
		s.raise()
		s.load.begin()
		f.happen(s)
		s.nats.awaitWhole()
		for i := range s.processes {
			s.awaitReady(i)
		}
		checks, reserves := longest(s.load.checks), longest(s.load.reserves)
		events := s.audit(f)
		table = append(table, fmt.Sprintf("| %s | %.1f s | %.1f s | %d |", f.name, checks.Seconds(), reserves.Seconds(), events-before))
		before = events
		if t.Failed() {
			break
		}
	}
	t.Logf("\n%s", strings.Join(table, "\n"))
}

// audit wants every acknowledged event to be booked once, and the cap to be kept.
func (s *system) audit(f fault) (events int64) {
	s.t.Helper()
	p1, p2 := s.load.rest()
	defer s.load.work()
	var have [2]int64
	var err error
	for end := time.Now().Add(time.Minute); have != [2]int64{p1, p2} && time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
		err = s.db("select count(*) filter (where port_id = 'p1'), count(*) filter (where port_id = 'p2') from ai_usage_ledger", &have[0], &have[1])
	}
	if have != [2]int64{p1, p2} {
		s.t.Errorf("%s: booked %d, acknowledged %d and %d (%v)", f.name, have, p1, p2, err)
	}
	var verified ops.Verification
	for end := time.Now().Add(time.Minute); !verified.OK && time.Now().Before(end); time.Sleep(100 * time.Millisecond) {
		verified, err = s.ops.Verify(s.t.Context(), nil)
	}
	if !verified.OK || verified.Gates != 2 {
		s.t.Errorf("%s: verify says %+v, %v", f.name, verified, err)
	}
	var used, held int64
	if err := s.db(spent, &used, &held); err != nil {
		s.t.Error(err)
	}
	if used != p1*tokens {
		s.t.Errorf("%s: %d tokens are counted, %d were reported", f.name, used, p1*tokens)
	}
	if used+held > s.hardCap && !f.mayOverspend {
		s.t.Errorf("%s: %d are used and %d held of %d", f.name, used, held, s.hardCap)
	}
	for i := range s.processes {
		if over := s.metric(i, `tidegate_overshoot_tokens_max`); over > 0 && !f.mayOverspend {
			s.t.Errorf("%s: a gate saw %v tokens over a cap", f.name, over)
		}
	}
	return p1 + p2
}

// metric is a figure of a process, -1 if it has none.
func (s *system) metric(process int, name string) float64 {
	s.t.Helper()
	_, body := s.get(process, "/metrics")
	found := regexp.MustCompile(`(?m)^` + regexp.QuoteMeta(name) + ` (\S+)$`).FindStringSubmatch(body)
	if found == nil {
		return -1
	}
	return testenv.Must(strconv.ParseFloat(found[1], 64))
}

// A cluster gets three copies of each stream by itself. A stream that somebody edits to have
// fewer is told, and nobody starts on it.
func TestReplicasFollowTheCluster(t *testing.T) {
	t.Parallel()
	s := start(t)
	stream := testenv.Must(s.nats.js.Stream(t.Context(), events.UsageStream)).CachedInfo().Config
	if stream.Replicas != 3 {
		t.Fatalf("%d copies", stream.Replicas)
	}
	stream.Replicas = 1
	testenv.Must(s.nats.js.UpdateStream(t.Context(), stream))
	said, missing := "", 0.0
	defer func() {
		if t.Failed() {
			t.Logf("%v copies are missing; /readyz: %s", missing, said)
		}
	}()
	testenv.Eventually(t, "/readyz and the metrics tell of it", func() bool {
		status, body := s.get(0, "/readyz")
		said, missing = body, s.metric(0, `tidegate_stream_copies_missing{stream="AI_USAGE"}`)
		return status == http.StatusServiceUnavailable && strings.Contains(body, "stream AI_USAGE must have 3 copies and has 1") && strings.Contains(body, "--replicas=3") &&
			missing == 2
	})
	for _, args := range [][]string{nil, {"--replicas", "3"}} {
		p := s.spawn(args...)
		select {
		case <-p.done:
		case <-time.After(30 * time.Second):
			t.Fatalf("a process starts with %v", args)
		}
		if out := p.out.String(); p.cmd.ProcessState.ExitCode() != 1 || !strings.Contains(out, "stream AI_USAGE must have 3 copies and has 1") || !strings.Contains(out, "nats stream edit AI_USAGE --replicas=3") {
			t.Errorf("%v: exit %d\n%s", args, p.cmd.ProcessState.ExitCode(), out)
		}
	}
	one := s.spawn("--replicas", "1", "--roles", "gate,consumer")
	s.awaitReady(slices.Index(s.processes, one)) // it was asked for
	stream.Replicas = 3
	testenv.Must(s.nats.js.UpdateStream(t.Context(), stream))
	for i := range 2 { // they went on all the time
		s.awaitReady(i)
	}
}
