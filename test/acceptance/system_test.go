//go:build acceptance

package acceptance

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"syscall"
	"testing"
	"time"

	"github.com/tidegate/tidegate/internal/testenv"
)

// system is a running `tidegate run`, with its own NATS and Postgres.
type system struct {
	t       *testing.T
	program string
	data    string
	nats    string // address
	http    string
	process *exec.Cmd
	ended   chan error
	log     *os.File
}

// startSystem starts one that ends with the test. Its addresses and its data stay
// the same through restarts.
func startSystem(t *testing.T) *system {
	t.Helper()
	s := &system{t: t, program: testenv.Binary(t, "cmd/tidegate"), data: t.TempDir(), nats: freeAddr(t), http: freeAddr(t)}
	var err error
	if s.log, err = os.CreateTemp(t.TempDir(), "log"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if s.process != nil {
			s.stop(syscall.SIGTERM)
		}
		if t.Failed() {
			text, _ := os.ReadFile(s.log.Name())
			t.Logf("the system's log:\n%s", text[max(0, len(text)-20_000):])
		}
		s.log.Close()
	})
	s.start()
	return s
}

func freeAddr(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

// start returns when the system is ready.
func (s *system) start() {
	s.t.Helper()
	process, ended := exec.Command(s.program, "run", "--data", s.data, "--nats-addr", s.nats, "--http", s.http), make(chan error, 1)
	process.Stdout, process.Stderr = s.log, s.log
	if err := process.Start(); err != nil {
		s.t.Fatal(err)
	}
	go func() { ended <- process.Wait() }()
	s.process, s.ended = process, ended
	for end := time.Now().Add(90 * time.Second); ; time.Sleep(50 * time.Millisecond) {
		select {
		case err := <-s.ended:
			s.process = nil
			s.t.Fatalf("tidegate run ended: %v", err)
		default:
		}
		reply, err := http.Get("http://" + s.http + "/readyz")
		if err == nil {
			reply.Body.Close()
			if reply.StatusCode == http.StatusOK {
				return
			}
		}
		if time.Now().After(end) {
			s.t.Fatalf("not ready after 90 s: %v", err)
		}
	}
}

// stop sends a signal and waits for the end. After SIGTERM that must be a clean one, soon.
func (s *system) stop(signal syscall.Signal) {
	s.t.Helper()
	process := s.process
	s.process = nil
	began := time.Now()
	if err := process.Process.Signal(signal); err != nil {
		s.t.Fatal(err)
	}
	select {
	case err := <-s.ended:
		if took := time.Since(began); signal == syscall.SIGTERM && (err != nil || took > 10*time.Second) {
			s.t.Errorf("after SIGTERM tidegate run ended with %v in %s, want no error within 10 s", err, took)
		}
	case <-time.After(30 * time.Second):
		_ = process.Process.Kill()
		s.t.Fatalf("tidegate run still runs 30 s after %s", signal)
	}
}

// command is a command of the program that speaks to this system.
func (s *system) command(args ...string) *exec.Cmd {
	cmd := exec.Command(s.program, args...)
	cmd.Env = append(os.Environ(), "TIDEGATE_DATA="+s.data)
	return cmd
}

// ask runs a command with --json, which must succeed, and reads what it prints.
func (s *system) ask(into any, args ...string) {
	s.t.Helper()
	var out, errs bytes.Buffer
	cmd := s.command(append(args, "--json")...)
	cmd.Stdout, cmd.Stderr = &out, &errs
	if err := cmd.Run(); err != nil {
		s.t.Fatalf("tidegate %q: %v\n%s%s", args, err, out.Bytes(), errs.Bytes())
	}
	if err := json.Unmarshal(out.Bytes(), into); err != nil {
		s.t.Fatalf("tidegate %q printed what is no JSON: %v\n%s", args, err, out.Bytes())
	}
}

// account is what a port has spent.
type account struct {
	PortID      string `json:"port_id"`
	TotalTokens int64  `json:"total_tokens"`
	Requests    int64  `json:"requests"`
}

// booked returns every port's account once they hold that many requests in all.
func (s *system) booked(requests int64) map[string]account {
	s.t.Helper()
	for end := time.Now().Add(60 * time.Second); ; time.Sleep(100 * time.Millisecond) {
		accounts, sum := s.accounts()
		if sum == requests {
			return accounts
		}
		if sum > requests || time.Now().After(end) {
			s.t.Fatalf("%d requests are booked, want %d", sum, requests)
		}
	}
}

func (s *system) accounts() (byPort map[string]account, requests int64) {
	s.t.Helper()
	var list []account
	s.ask(&list, "port", "ls")
	byPort = map[string]account{}
	for _, a := range list {
		byPort[a.PortID] = a
		requests += a.Requests
	}
	return byPort, requests
}

// verification is what `tidegate verify` finds.
type verification struct {
	OK           bool  `json:"ok"`
	Rows         int64 `json:"rows"`
	InputTokens  int64 `json:"input_tokens"`
	OutputTokens int64 `json:"output_tokens"`
	Gates        int   `json:"gates"`
}

// verify insists that ledger, totals and gates agree, with exit code 0.
func (s *system) verify() verification {
	s.t.Helper()
	var v verification
	s.ask(&v, "verify")
	if !v.OK || v.Gates != 1 {
		s.t.Errorf("verify: %+v, want ok with 1 gate", v)
	}
	return v
}

// quarantined is how many events wait there.
func (s *system) quarantined() int {
	s.t.Helper()
	var list []json.RawMessage
	s.ask(&list, "quarantine", "ls")
	return len(list)
}

// explain gives an ended process's exit code and complaint.
func explain(err error) string {
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		return fmt.Sprintf("exit code %d: %s", exit.ExitCode(), exit.Stderr)
	}
	return fmt.Sprint(err)
}
