package typescript_test

import (
	"net"
	"net/http"
	"strings"
	"sync"

	"github.com/go-json-experiment/json"
	"github.com/google/go-cmp/cmp"

	"github.com/tidegate/tidegate/dev"
	"github.com/tidegate/tidegate/events"
	"github.com/tidegate/tidegate/internal/testenv"
)

// line is what the example prints for each step.
type line struct {
	Step          string
	Allowed       bool
	Reason        string
	Taken         bool
	ReservationID string `json:"reservation_id"`
	UsedTokens    int64  `json:"used_tokens"`
	Released      bool
}

// testExample runs examples/node over HTTP and over NATS: whatever it does is found in the ledger, and it leaves no hold behind.
func testExample(s *stage) {
	s.Helper()
	const example = "examples/node"
	s.run(example, "npm", "ci")
	token := "TIDEGATE_TOKEN=" + s.token("marina-7")
	for i, door := range [][]string{{"NATS_URL=", "TIDEGATE_URL=" + s.edgeURL, token}, {"NATS_URL=" + s.natsURL}} {
		hard := int64(5_000 + i*3_200)
		if _, err := s.Budgets.Set(s.Context(), events.SetRequest{PortID: "marina-7", Enabled: true, HardCapTokens: &hard}); err != nil {
			s.Fatal(err)
		}
		lines := s.example(example, door)
		if diff := cmp.Diff([]string{"check", "report", "reserve", "settle", "reserve", "release"}, steps(lines)); diff != "" {
			s.Fatalf("%v: steps (-want +got):\n%s", door, diff)
		}
		if hold := lines[2]; !lines[1].Taken || hold.ReservationID == "" || !lines[3].Taken || !lines[5].Released {
			s.Errorf("%v: answers %+v: want all taken, and released", door, lines)
		}
		for _, c := range s.settled("marina-7", 2+2*i) {
			if c.Feature != "summary" || c.User != "ada" || c.Run != "run-42" || c.Input != 1400 && c.Input != 1300 {
				s.Errorf("%v: booked %+v", door, c)
			}
		}
		// 1,800 tokens are left: too few for its calls, enough for what it gives back.
		lines = s.example(example, door)
		if diff := cmp.Diff([]string{"check", "reserve", "reserve", "release"}, steps(lines)); diff != "" {
			s.Fatalf("%v: steps near the cap (-want +got):\n%s", door, diff)
		}
		if l := lines[1]; l.Allowed || l.Reason != string(events.ReasonEstimateExceedsHardCap) || l.UsedTokens != hard-1_800 {
			s.Errorf("%v: near the cap: %+v, want a refusal", door, l)
		}
	}
}

func (s *stage) example(folder string, env []string) (lines []line) {
	s.Helper()
	out := s.run(folder, append(append([]string{"env"}, env...), "node", "index.mjs", "marina-7")...)
	for text := range strings.Lines(out) {
		var l line
		if err := json.Unmarshal([]byte(text), &l, json.MatchCaseInsensitiveNames(true)); err != nil {
			s.Fatalf("%v: %s", err, out)
		}
		lines = append(lines, l)
	}
	return lines
}

func steps(lines []line) (steps []string) {
	for _, l := range lines {
		steps = append(steps, l.Step)
	}
	return steps
}

// testStart starts a service before NATS, which it waits for. When NATS is gone again, questions wait for nothing.
func testStart(s *stage) {
	s.Helper()
	gone := testenv.Must(net.Listen("tcp", "127.0.0.1:0"))
	addr := gone.Addr().String()
	var server *dev.NATS
	var starting sync.WaitGroup
	starting.Go(func() {
		if nc, err := gone.Accept(); err == nil { // its first attempt
			nc.Close()
		}
		gone.Close()
		var err error
		if server, err = dev.StartNATS(dev.NATSConfig{Dir: s.TempDir(), Addr: addr}); err != nil {
			s.Error(err)
		}
	})
	stop := func() {
		if starting.Wait(); server != nil {
			server.Shutdown()
		}
	}
	defer stop()
	out := s.run(app, "node", "--input-type=module", "--eval", `
		import { open } from "tidegate/nats";
		const told = [];
		const tidegate = await open({ nats: { servers: "`+addr+`" }, port: "marina-9", whenUnavailable: "fail-open", timeoutMs: 1_000, onError: (error) => told.push(error) });
		await fetch("`+s.serve(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { stop() }))+`");
		let verdict;
		do verdict = await tidegate.check({}); while (!verdict.error.message.includes("there is no connection"));
		console.log(verdict.allowed, tidegate.report({ feature: "ocr", provider: "openai", model: "gpt-5" }), await tidegate.close(50), told.at(-1).reason);`)
	if out != "true true false gave_up\n" {
		s.Errorf("it printed %q", out)
	}
}
