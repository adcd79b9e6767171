package meter_test

import (
	"bytes"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/tidegate/tidegate/events"
	"github.com/tidegate/tidegate/meter"
)

const (
	streamText  = `data: {"id":"c1","object":"chat.completion.chunk","model":"m-1","choices":[{"index":0,"delta":{"content":"1234"},"finish_reason":null}],"usage":null}` + "\n\n"
	streamStop  = `data: {"id":"c1","object":"chat.completion.chunk","model":"m-1","choices":[{"index":0,"delta":{},"finish_reason":"stop"}],"usage":null}` + "\n\n"
	streamUsage = `data: {"id":"c1","object":"chat.completion.chunk","model":"m-1","choices":[],"usage":{"prompt_tokens":10,"completion_tokens":5}}` + "\n\n"
	streamDone  = "data: [DONE]\n\n"
)

// chatServer speaks OpenAI's chat: it tells the usage of a stream when asked to.
// It may refuse the option, and keeps the bodies that reached it.
type chatServer struct {
	*httptest.Server
	refuses bool

	mu     sync.Mutex
	bodies []string
}

func newChatServer(t *testing.T, refuses bool) *chatServer {
	s := &chatServer{refuses: refuses}
	s.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		s.mu.Lock()
		s.bodies = append(s.bodies, string(body))
		s.mu.Unlock()
		asked := bytes.Contains(body, []byte(`"include_usage":true`)) || bytes.Contains(body, []byte(`"include_usage": true`))
		switch {
		case asked && (s.refuses || bytes.Contains(body, []byte(`"older"`))):
			http.Error(w, `{"error":{"message":"Unrecognized request argument supplied: stream_options"}}`, http.StatusBadRequest)
			return
		case bytes.Contains(body, []byte(`"wrong"`)):
			http.Error(w, `{"error":{"message":"wrong"}}`, http.StatusBadRequest)
			return
		case r.ContentLength >= 0 && r.ContentLength != int64(len(body)):
			t.Errorf("Content-Length %d for %d bytes", r.ContentLength, len(body))
		}
		w.Header().Set("Content-Type", "text/event-stream")
		io.WriteString(w, streamText+streamStop)
		if asked {
			io.WriteString(w, streamUsage)
		}
		io.WriteString(w, streamDone)
	}))
	t.Cleanup(s.Close)
	return s
}

func (s *chatServer) seen() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]string(nil), s.bodies...)
}

// TestStreamsAreAskedForTheirUsage: a caller who did not ask gets the stream that it
// would have got, and the ledger gets the provider's figures.
func TestStreamsAreAskedForTheirUsage(t *testing.T) {
	const without, with = streamText + streamStop + streamDone, streamText + streamStop + streamUsage + streamDone
	for _, tt := range []struct {
		name, path, body string
		leave            bool
		header           string
		sent             string // "": as it is
		reply            string
		by               events.MeasuredBy
	}{
		{name: "not asked", body: `{"model":"m","stream":true,"messages":[]}`, sent: `{"stream_options":{"include_usage":true},"model":"m","stream":true,"messages":[]}`, reply: without, by: "provider"},
		{name: "spaces and the option last", body: " {\n\"model\": \"m\", \"stream\": true}", sent: " {\"stream_options\":{\"include_usage\":true},\n\"model\": \"m\", \"stream\": true}", reply: without, by: "provider"},
		{name: "completions", path: "/v1/completions", body: `{"model":"m","stream":true,"prompt":"x"}`, sent: `{"stream_options":{"include_usage":true},"model":"m","stream":true,"prompt":"x"}`, reply: without, by: "provider"},
		{name: "other options", body: `{"model":"m","stream_options":{"include_obfuscation":false},"stream":true}`, sent: `{"model":"m","stream_options":{"include_usage":true,"include_obfuscation":false},"stream":true}`, reply: without, by: "provider"},
		{name: "no options", body: `{"model":"m","stream_options":{},"stream":true}`, sent: `{"model":"m","stream_options":{"include_usage":true},"stream":true}`, reply: without, by: "provider"},
		{name: "null", body: `{"model":"m","stream_options":null,"stream":true}`, sent: `{"model":"m","stream_options":{"include_usage":true},"stream":true}`, reply: without, by: "provider"},
		{name: "asked not to", body: `{"model":"m","stream_options":{"include_usage":false},"stream":true}`, sent: `{"model":"m","stream_options":{"include_usage":true},"stream":true}`, reply: without, by: "provider"},
		{name: "asked", body: `{"model":"m","stream":true,"stream_options":{"include_usage": true}}`, reply: with, by: "provider"},
		{name: "options of something else", body: `{"model":"m","stream":true,"metadata":{"stream_options":{"include_usage":"x"}}}`, sent: `{"stream_options":{"include_usage":true},"model":"m","stream":true,"metadata":{"stream_options":{"include_usage":"x"}}}`, reply: without, by: "provider"},
		{name: "no stream", body: `{"model":"m","stream":false}`, reply: without, by: "estimate"},
		{name: "switched off", body: `{"model":"m","stream":true}`, leave: true, reply: without, by: "estimate"},
		{name: "a signed body", body: `{"model":"m","stream":true}`, header: "X-Amz-Content-Sha256", reply: without, by: "estimate"},
		{name: "not JSON to its end", body: `{"model":"m","stream":true`, reply: without, by: "estimate"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			server := newChatServer(t, false)
			l := new(ledger)
			base := http.DefaultTransport.(*http.Transport).Clone()
			defer base.CloseIdleConnections()
			client := &http.Client{Transport: meter.NewTransport(meter.Config{Base: base, Port: "p1", Recorder: l, LeaveStreams: tt.leave})}
			path := tt.path
			if path == "" {
				path = "/v1/chat/completions"
			}
			req, _ := http.NewRequest("POST", server.URL+path, strings.NewReader(tt.body))
			if tt.header != "" {
				req.Header.Set(tt.header, "x")
			}
			resp, err := client.Do(req)
			if err != nil {
				t.Fatal(err)
			}
			defer resp.Body.Close()
			reply, err := io.ReadAll(resp.Body)
			if string(reply) != tt.reply || err != nil {
				t.Errorf("the caller read %v and\n%s\nwant\n%s", err, reply, tt.reply)
			}
			sent := tt.sent
			if sent == "" {
				sent = tt.body
			}
			if got := server.seen(); len(got) != 1 || got[0] != sent {
				t.Errorf("sent %q\nwant %q", got, sent)
			}
			if rows := l.all(); len(rows) != 1 || rows[0].MeasuredBy != tt.by {
				t.Errorf("recorded %+v, want one row by %s", rows, tt.by)
			}
		})
	}
}

// TestAHostThatRefusesTheOption gets the caller's own request, at once and from then
// on without asking again.
func TestAHostThatRefusesTheOption(t *testing.T) {
	server := newChatServer(t, true)
	g := &gate{holds: true}
	client, l, _ := metered(t, g)
	const body = `{"model":"m","stream":true,"messages":[]}`
	for range 2 {
		if err := send(t, client, "POST", server.URL+"/v1/chat/completions", "application/json", body); err != nil {
			t.Error(err)
		}
	}
	if got := server.seen(); len(got) != 3 || got[1] != body || got[2] != body {
		t.Errorf("sent %q, want the option once", got)
	}
	if rows := l.all(); len(rows) != 2 || rows[0].MeasuredBy != "estimate" || len(g.asked) != 2 || len(g.released) != 0 {
		t.Errorf("recorded %+v, asked %d times, released %d", rows, len(g.asked), len(g.released))
	}
}

// TestAModelThatRefusesTheOption on a host where another one takes it.
func TestAModelThatRefusesTheOption(t *testing.T) {
	server := newChatServer(t, false)
	client, l, _ := metered(t, nil)
	for _, model := range []string{"m", "older", "m"} {
		if err := send(t, client, "POST", server.URL+"/v1/chat/completions", "application/json", `{"model":"`+model+`","stream":true}`); err != nil {
			t.Error(err)
		}
	}
	var by []events.MeasuredBy
	for _, u := range l.all() {
		by = append(by, u.MeasuredBy)
	}
	if diff := cmp.Diff([]events.MeasuredBy{"provider", "estimate", "estimate"}, by); diff != "" || len(server.seen()) != 4 {
		t.Errorf("%d requests; measured by: want (-), got (+):\n%s", len(server.seen()), diff)
	}
}

// TestAWrongRequestIsToldSo: the caller gets the error, and the host is not taken for
// one that refuses the option.
func TestAWrongRequestIsToldSo(t *testing.T) {
	server := newChatServer(t, false)
	client, l, _ := metered(t, nil)
	ask := func(body string) int {
		resp, err := client.Post(server.URL+"/v1/chat/completions", "application/json", strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		if body, err := io.ReadAll(resp.Body); err != nil || resp.StatusCode == 400 && string(body) != `{"error":{"message":"wrong"}}`+"\n" {
			t.Errorf("read %q, %v", body, err)
		}
		return resp.StatusCode
	}
	const wrong, right = `{"model":"m","stream":true,"wrong":1}`, `{"model":"m","stream":true}`
	for i, want := range []int{400, 200, 400} {
		if got := ask([]string{wrong, right, wrong}[i]); got != want {
			t.Errorf("request %d: status %d, want %d", i, got, want)
		}
	}
	if n := len(server.seen()); n != 4 {
		t.Errorf("%d requests, want 4: only where nobody knows the host a wrong one is sent twice", n)
	}
	if rows := l.all(); len(rows) != 1 || rows[0].MeasuredBy != "provider" {
		t.Errorf("recorded %+v, want one row", rows)
	}
}

// TestUsageChunkInPieces: the chunk is found wherever the pieces end, and nothing
// else is taken for it or held back.
func TestUsageChunkInPieces(t *testing.T) {
	azure := `data: {"choices":[],"created":0,"prompt_filter_results":[{"prompt_index":0}]}` + "\n\n"
	word := `data: {"choices":[{"delta":{"content":"\"choices\":[] \"usage\":{}"}}],"usage":null}` + "\n\n"
	long := `data: {"choices":[{"delta":{"content":"` + strings.Repeat("x", 100<<10) + `"}}]}` + "\n\n"
	for _, tt := range []struct{ name, sent, read string }{
		{"as OpenAI sends it", azure + streamText + word + streamStop + streamUsage + streamDone, azure + streamText + word + streamStop + streamDone},
		{"carriage returns", strings.ReplaceAll(streamText+streamUsage+streamDone, "\n", "\r\n"), strings.ReplaceAll(streamText+streamDone, "\n", "\r\n")},
		{"single newlines", strings.ReplaceAll(streamText+streamUsage+streamDone, "\n\n", "\n"), strings.ReplaceAll(streamText+streamDone, "\n\n", "\n")},
		{"spaces", streamText + `data: { "choices": [ ], "usage": { "prompt_tokens": 10, "completion_tokens": 5 } }` + "\n\n" + streamDone, streamText + streamDone},
		{"the last line has no end", streamText + strings.TrimSpace(streamUsage), streamText},
		{"a line without an end that is no such chunk", streamText + "data: {", streamText + "data: {"},
		{"a line too long to be it", long + streamUsage + streamDone, long + streamDone},
		{"usage beside text", `data: {"choices":[{"delta":{"content":"x"}}],"usage":{"prompt_tokens":10,"completion_tokens":5}}` + "\n\n", `data: {"choices":[{"delta":{"content":"x"}}],"usage":{"prompt_tokens":10,"completion_tokens":5}}` + "\n\n"},
		{"JSON after all", usage, usage},
		{"lines that end in a carriage return alone", strings.ReplaceAll(streamText+streamDone, "\n", "\r"), strings.ReplaceAll(streamText+streamDone, "\n", "\r")},
	} {
		t.Run(tt.name, func(t *testing.T) {
			for _, size := range []int{1, 3, 50, 4096, 1 << 20} {
				transport := meter.NewTransport(meter.Config{Port: "p1", Recorder: new(ledger), Base: roundTripper(func(r *http.Request) (*http.Response, error) {
					io.Copy(io.Discard, r.Body)
					return &http.Response{StatusCode: 200, Header: http.Header{}, ContentLength: int64(len(tt.sent)), Body: io.NopCloser(&inPieces{strings.NewReader(tt.sent), size})}, nil
				})})
				resp, err := transport.RoundTrip(postRequest(`{"model":"m","stream":true}`))
				if err != nil {
					t.Fatal(err)
				}
				read, err := io.ReadAll(resp.Body)
				if string(read) != tt.read || err != nil || resp.ContentLength != -1 {
					t.Fatalf("in pieces of %d: length %d, %v, read\n%.500s\nwant\n%.500s", size, resp.ContentLength, err, read, tt.read)
				}
			}
		})
	}
}

func postRequest(body string) *http.Request {
	req, err := http.NewRequest("POST", "https://h.example/v1/chat/completions", strings.NewReader(body))
	if err != nil {
		panic(err)
	}
	return req
}

type inPieces struct {
	io.Reader
	size int
}

func (r *inPieces) Read(p []byte) (int, error) { return r.Reader.Read(p[:min(len(p), r.size)]) }

// TestEventsAreNotHeldBack: each one that has ended may be read before the next comes.
func TestEventsAreNotHeldBack(t *testing.T) {
	r, w := io.Pipe()
	defer w.Close()
	transport := meter.NewTransport(meter.Config{Port: "p1", Base: roundTripper(func(r2 *http.Request) (*http.Response, error) {
		return &http.Response{StatusCode: 200, Header: http.Header{}, Body: r}, nil
	})})
	resp, err := transport.RoundTrip(postRequest(`{"model":"m","stream":true}`))
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	for range 3 {
		go io.WriteString(w, streamText)
		if got := make([]byte, len(streamText)); true {
			if _, err := io.ReadFull(resp.Body, got); err != nil || string(got) != streamText {
				t.Fatalf("read %q, %v", got, err)
			}
		}
	}
}
