package main

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/tidegate/tidegate/events"
	"github.com/tidegate/tidegate/meter"
)

type meterCmd struct {
	Calls int `help:"JSON calls in a run; a tenth as many streams." default:"20000"`
}

const (
	meterText    = `The quick brown fox jumps over the lazy dog.\n`
	meterUsage   = `"usage":{"prompt_tokens":100,"completion_tokens":40,"total_tokens":140,"prompt_tokens_details":{"cached_tokens":64},"completion_tokens_details":{"reasoning_tokens":32}}`
	streamChunks = 200
	meterSlices  = 20 // of a run, bare and metered by turns
)

// Run measures what meter.Transport adds to a call: the same calls through the same
// base transport, in memory, with it and without. CPU time, since the clock of a busy
// machine says little.
func (c *meterCmd) Run(_ context.Context, r *report) error {
	r.section("What metering adds to a call", "The same 2 KB request through a base transport in memory, bare and through `meter.Transport`: CPU time of this process, user and system, the least of many slices, since other processes can only add to it. The reply is 2 KB of JSON, or a stream of 200 chunks and its usage. `asked for usage` is a stream whose request had to be made to ask for it, and whose usage chunk is taken out again.")
	text := strings.Repeat(meterText, 40)
	request := `{"model":"gpt-5","messages":[{"role":"user","content":"` + text + `"}],"max_tokens":500`
	reply := `{"id":"chatcmpl-1","object":"chat.completion","created":1,"model":"gpt-5-2025","choices":[{"index":0,"message":{"role":"assistant","content":"` + text + `"},"finish_reason":"stop"}],` + meterUsage + `}`
	chunk := `data: {"id":"chatcmpl-1","object":"chat.completion.chunk","created":1,"model":"gpt-5-2025","choices":[{"index":0,"delta":{"content":" quick"},"finish_reason":null}],"usage":null}` + "\n\n"
	stream := strings.Repeat(chunk, streamChunks) + `data: {"id":"chatcmpl-1","object":"chat.completion.chunk","created":1,"model":"gpt-5-2025","choices":[],` + meterUsage + "}\n\ndata: [DONE]\n\n"
	var rows [][]string
	for _, part := range []struct {
		name, contentType, request, reply string
		gate                              bool
		calls, chunks                     int
	}{
		{"JSON call", "application/json", request + `}`, reply, false, c.Calls, 1},
		{"JSON call, reserved at a gate in memory", "application/json", request + `}`, reply, true, c.Calls, 1},
		{"stream chunk", "text/event-stream", request + `,"stream":true,"stream_options":{"include_usage":true}}`, stream, false, c.Calls / 10, streamChunks},
		{"stream chunk, asked for usage", "text/event-stream", request + `,"stream":true}`, stream, false, c.Calls / 10, streamChunks},
	} {
		base := replies{contentType: part.contentType, body: part.reply}
		cfg := meter.Config{Base: base, Port: "p1", Feature: "chat", Recorder: discard{}}
		if part.gate {
			cfg.Gate = openGate{}
		}
		metered := meter.NewTransport(cfg)
		var without, with []float64 // µs
		calls := max(part.calls/meterSlices, 1)
		for range r.runs * meterSlices {
			for _, one := range []struct {
				transport http.RoundTripper
				to        *[]float64
			}{{base, &without}, {metered, &with}} {
				used, err := cpuOfCalls(one.transport, part.request, calls)
				if err != nil {
					return err
				}
				*one.to = append(*one.to, float64(used.Nanoseconds())/float64(calls*part.chunks)/1e3)
			}
		}
		if got, want := metered.Stats().Recorded, uint64(r.runs*meterSlices*calls); got != want {
			return fmt.Errorf("%s: %d calls were recorded, want %d", part.name, got, want)
		}
		bare, all := slices.Min(without), slices.Min(with)
		rows = append(rows, []string{part.name, fmt.Sprintf("%.2f", bare), fmt.Sprintf("%.2f", all), fmt.Sprintf("%.2f", all-bare)})
	}
	r.table([]string{"µs of CPU", "bare", "metered", "metering adds"}, rows)
	return nil
}

// cpuOfCalls is the CPU time of so many calls.
func cpuOfCalls(transport http.RoundTripper, request string, calls int) (time.Duration, error) {
	buffer := make([]byte, 4096)
	before := cpuTime()
	for range calls {
		req, err := http.NewRequest(http.MethodPost, "https://api.openai.com/v1/chat/completions", strings.NewReader(request))
		if err != nil {
			return 0, err
		}
		resp, err := transport.RoundTrip(req)
		if err != nil {
			return 0, err
		}
		for err == nil {
			_, err = resp.Body.Read(buffer)
		}
		resp.Body.Close()
		if err != io.EOF {
			return 0, err
		}
	}
	return cpuTime() - before, nil
}

func cpuTime() time.Duration {
	var r syscall.Rusage
	_ = syscall.Getrusage(syscall.RUSAGE_SELF, &r)
	return time.Duration(r.Utime.Nano() + r.Stime.Nano())
}

// replies is a base transport with one answer.
type replies struct{ contentType, body string }

func (t replies) RoundTrip(r *http.Request) (*http.Response, error) {
	_, err := io.Copy(io.Discard, r.Body)
	r.Body.Close()
	return &http.Response{StatusCode: http.StatusOK, Header: http.Header{"Content-Type": {t.contentType}, "X-Request-Id": {"req_1"}},
		Body: io.NopCloser(strings.NewReader(t.body)), ContentLength: int64(len(t.body)), Request: r}, err
}

type discard struct{}

func (discard) Record(events.Usage) {}

// openGate allows everything.
type openGate struct{}

func (openGate) Check(context.Context, events.CheckRequest) (events.Verdict, error) {
	return events.Verdict{Allowed: true}, nil
}

func (openGate) Reserve(_ context.Context, r events.ReserveRequest) (*events.Reservation, error) {
	return &events.Reservation{Verdict: events.Verdict{Allowed: true, ReservationID: "r1", GrantedTokens: r.EstimatedTokens}}, nil
}

func (openGate) Release(context.Context, string, string) error { return nil }
