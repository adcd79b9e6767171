package meter_test

import (
	"context"
	"io"
	"net/http"
	"strings"
	"syscall"
	"testing"

	"github.com/tidegate/tidegate/events"
	"github.com/tidegate/tidegate/meter"
)

type discard struct{}

func (discard) Record(events.Usage) {}

// BenchmarkOverhead makes the same calls through a base transport in memory, bare
// and metered: the difference is what metering adds to a call.
func BenchmarkOverhead(b *testing.B) {
	text := strings.Repeat("The quick brown fox jumps over the lazy dog.\\n", 40) // 1.8 KB
	request := `{"model":"gpt-5","messages":[{"role":"user","content":"` + text + `"}],"max_tokens":500}`
	reply := `{"id":"chatcmpl-1","object":"chat.completion","created":1,"model":"gpt-5-2025","choices":[{"index":0,"message":{"role":"assistant","content":"` + text + `"},"finish_reason":"stop"}],"usage":{"prompt_tokens":100,"completion_tokens":40,"total_tokens":140,"prompt_tokens_details":{"cached_tokens":64},"completion_tokens_details":{"reasoning_tokens":32}}}`
	chunk := `data: {"id":"chatcmpl-1","object":"chat.completion.chunk","created":1,"model":"gpt-5-2025","choices":[{"index":0,"delta":{"content":" quick"},"finish_reason":null}]}` + "\n\n"
	stream := strings.Repeat(chunk, 100) + "data: [DONE]\n\n"
	for _, c := range []struct{ name, contentType, body string }{{"json", "application/json", reply}, {"stream", "text/event-stream", stream}} {
		base := roundTripper(func(r *http.Request) (*http.Response, error) {
			io.Copy(io.Discard, r.Body)
			r.Body.Close()
			return &http.Response{StatusCode: 200, Header: http.Header{"Content-Type": {c.contentType}, "X-Request-Id": {"req_1"}},
				Body: io.NopCloser(strings.NewReader(c.body)), ContentLength: int64(len(c.body)), Request: r}, nil
		})
		run := func(name string, transport http.RoundTripper) {
			b.Run(c.name+"/"+name, func(b *testing.B) {
				b.ReportAllocs()
				buf := make([]byte, 4096)
				before := cpuTime()
				defer func() { b.ReportMetric(float64(cpuTime()-before)/float64(b.N), "cpu-ns/op") }()
				for b.Loop() {
					req, _ := http.NewRequest(http.MethodPost, "https://api.openai.com/v1/chat/completions", strings.NewReader(request))
					resp, err := transport.RoundTrip(req)
					if err != nil {
						b.Fatal(err)
					}
					for err == nil {
						_, err = resp.Body.Read(buf)
					}
					resp.Body.Close()
				}
			})
		}
		run("bare", base)
		run("metered", meter.NewTransport(meter.Config{Base: base, Port: "p1", Feature: "chat", Recorder: discard{}}))
		run("metered and asked", meter.NewTransport(meter.Config{Base: base, Port: "p1", Feature: "chat", Recorder: discard{}, Gate: &quietGate{}}))
	}
}

// quietGate allows everything.
type quietGate struct{}

func (*quietGate) Check(context.Context, events.CheckRequest) (events.Verdict, error) {
	return events.Verdict{Allowed: true}, nil
}

// cpuTime is what this process has used: on a busy machine the clock says little.
func cpuTime() int64 {
	var r syscall.Rusage
	syscall.Getrusage(syscall.RUSAGE_SELF, &r)
	return r.Utime.Nano() + r.Stime.Nano()
}
