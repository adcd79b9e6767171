//go:build acceptance

package acceptance

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/iotest"

	"github.com/google/go-cmp/cmp"

	"github.com/tidegate/tidegate/events"
	"github.com/tidegate/tidegate/internal/testenv"
	"github.com/tidegate/tidegate/meter"
)

// recordedReplies are the fixtures, with the number of replies in each. Their
// expectations were computed apart from any Tidegate code.
var recordedReplies = map[string]int{
	"fixtures/provider_responses.jsonl":      87,
	"fixtures/provider_responses_more.jsonl": 586,
	"fixtures/meter_faults.jsonl":            23,
}

// answer is what a reply says: as the fixture expects it, or as Tidegate read it.
type answer struct {
	Usage      map[string]int64 `json:"usage"`
	Model      *string          `json:"model"`
	ResponseID *string          `json:"response_id"`
	RequestID  *string          `json:"request_id"`
}

type recording struct {
	Name     string         `json:"name"`
	URL      string         `json:"url"`
	Request  map[string]any `json:"request"`
	Response struct {
		Status  int               `json:"status"`
		Headers map[string]string `json:"headers"`
		Body    string            `json:"body"`
		BodyB64 []byte            `json:"body_b64"`
	} `json:"response"`
	Expected answer `json:"expected"`
}

// billedOnTop corrects the expectation of a reply of Anthropic's with a compaction
// or an advisor in it. provider_responses.jsonl leaves these steps out, as the top of
// Anthropic's usage does; meter_faults.jsonl, which is younger, has them in, as
// Anthropic's bill does: platform.claude.com/docs, "Compaction" and "Advisor tool".
func (r *recording) billedOnTop(t *testing.T) {
	t.Helper()
	_, list, ok := strings.Cut(r.Response.Body, `"iterations":`)
	if !ok {
		return
	}
	var iterations []struct {
		Type   string `json:"type"`
		Input  int64  `json:"input_tokens"`
		Output int64  `json:"output_tokens"`
		Read   int64  `json:"cache_read_input_tokens"`
		Write  int64  `json:"cache_creation_input_tokens"`
	}
	if err := json.NewDecoder(strings.NewReader(list)).Decode(&iterations); err != nil {
		t.Fatalf("%s: %v", r.Name, err)
	}
	for _, i := range iterations {
		if i.Type == "compaction" || i.Type == "advisor_message" {
			u := r.Expected.Usage
			u["input_tokens"] += i.Input + i.Read + i.Write
			u["cache_read_input_tokens"] += i.Read
			u["cache_write_input_tokens"] += i.Write
			u["output_tokens"] += i.Output
			u["total_tokens"] += i.Input + i.Read + i.Write + i.Output
		}
	}
}

func recordings(t *testing.T, path string, count int) []recording {
	t.Helper()
	fixture, err := os.ReadFile(path)
	if err != nil {
		t.Fatalf("the recorded replies are needed to test against: %v", err)
	}
	var all []recording
	for line := range bytes.Lines(fixture) {
		var r recording
		if err := json.Unmarshal(line, &r); err != nil {
			t.Fatalf("%v in %s", err, line)
		}
		if filepath.Base(path) == "provider_responses.jsonl" {
			r.billedOnTop(t)
		}
		all = append(all, r)
	}
	if len(all) != count {
		t.Errorf("%s has %d replies, want %d", path, len(all), count)
	}
	return all
}

// TestMeterReadsRecordedReplies checks what `tidegate meter` prints.
func TestMeterReadsRecordedReplies(t *testing.T) {
	program := testenv.Binary(t, "cmd/tidegate")
	for file, count := range recordedReplies {
		t.Run(file, func(t *testing.T) {
			path := sharedFile(t, file)
			want := recordings(t, path, count)
			cmd := exec.Command(program, "meter", path)
			var stderr strings.Builder
			cmd.Stderr = &stderr
			printed, err := cmd.Output()
			if err != nil || !strings.Contains(stderr.String(), fmt.Sprintf("%d replies: ", count)) {
				t.Errorf("exit %v, on stderr %q: want 0 and a summary of %d replies", err, stderr.String(), count)
			}
			n := 0
			for line := range bytes.Lines(printed) {
				var got struct {
					answer
					Name       string            `json:"name"`
					MeasuredBy events.MeasuredBy `json:"measured_by"`
				}
				if err := json.Unmarshal(line, &got); err != nil {
					t.Fatal(err)
				}
				if n == len(want) || got.Name != want[n].Name {
					t.Fatalf("line %d is %s", n+1, line)
				}
				r := want[n]
				if file != "fixtures/provider_responses.jsonl" { // the others name what their makers looked for
					forget(&got.Model, r.Expected.Model)
					forget(&got.ResponseID, r.Expected.ResponseID)
					forget(&got.RequestID, r.Expected.RequestID)
				}
				if diff := cmp.Diff(r.Expected, got.answer); diff != "" {
					t.Errorf("%s, %s: expected (-) against read (+):\n%s", r.Name, r.URL, diff)
				}
				if measured := got.MeasuredBy == events.MeasuredByProvider; measured != (r.Expected.Usage != nil) {
					t.Errorf("%s, %s: measured by %s, expected usage %v", r.Name, r.URL, got.MeasuredBy, r.Expected.Usage)
				}
				n++
			}
			if n != len(want) {
				t.Errorf("%d lines, want %d", n, len(want))
			}
		})
	}
}

func forget(got **string, want *string) {
	if want == nil {
		*got = nil
	}
}

// TestMeterTransportReadsRecordedReplies sends a call for each recorded reply
// through meter.Transport, which reads it whole and byte by byte: one call with
// usage is one event.
func TestMeterTransportReadsRecordedReplies(t *testing.T) {
	for file, count := range recordedReplies {
		for _, r := range recordings(t, sharedFile(t, file), count) {
			for name, wrap := range map[string]func(io.Reader) io.Reader{"whole": func(r io.Reader) io.Reader { return r }, "byte by byte": iotest.OneByteReader} {
				booked := r.call(t, wrap)
				if r.Expected.Usage == nil {
					if len(booked) > 1 || len(booked) == 1 && booked[0].MeasuredBy == events.MeasuredByProvider {
						t.Errorf("%s, %s, %s: booked %+v, though the provider told no usage", r.Name, r.URL, name, booked)
					}
					continue
				}
				if len(booked) != 1 || booked[0].MeasuredBy != events.MeasuredByProvider {
					t.Errorf("%s, %s, %s: booked %+v, want one event of the provider's figures", r.Name, r.URL, name, booked)
					continue
				}
				u := booked[0]
				got := map[string]int64{
					"input_tokens": u.InputTokens, "output_tokens": u.OutputTokens, "total_tokens": u.TotalTokens(),
					"cache_read_input_tokens": u.Details.CacheReadInputTokens, "cache_write_input_tokens": u.Details.CacheWriteInputTokens,
					"reasoning_output_tokens": u.Details.ReasoningOutputTokens,
				}
				if diff := cmp.Diff(r.Expected.Usage, got); diff != "" {
					t.Errorf("%s, %s, %s: expected (-) against booked (+):\n%s", r.Name, r.URL, name, diff)
				}
			}
		}
	}
}

// TestMeterCutReplies cuts each recorded reply at many places. What is booked then is
// a lower bound, but for the roughness of an estimate, and is booked once.
func TestMeterCutReplies(t *testing.T) {
	cuts := 0
	for file, count := range recordedReplies {
		for _, r := range recordings(t, sharedFile(t, file), count) {
			if r.Expected.Usage == nil {
				continue
			}
			whole := append([]byte(r.Response.Body), r.Response.BodyB64...)
			for n := 1; n < len(whole); n += 1 + len(whole)/60 {
				cuts++
				r.Response.Body, r.Response.BodyB64 = string(whole[:n]), nil
				booked := r.call(t, func(body io.Reader) io.Reader { return io.MultiReader(body, iotest.ErrReader(io.ErrUnexpectedEOF)) })
				if len(booked) != 1 {
					if strings.HasPrefix(r.URL, "https://api.cohere.com/v1/tokenize") {
						continue
					}
					t.Errorf("%s, %s, cut at %d of %d: booked %+v, want one event", r.Name, r.URL, n, len(whole), booked)
					break
				}
				u, out := booked[0], r.Expected.Usage["output_tokens"]
				switch u.MeasuredBy {
				case events.MeasuredByProvider: // all that matters had come
					if u.TotalTokens() != r.Expected.Usage["total_tokens"] {
						t.Errorf("%s, cut at %d of %d: booked %+v as whole, want %v", r.Name, n, len(whole), u, r.Expected.Usage)
					}
				case events.MeasuredByPartial:
					if r.streamed() && u.OutputTokens > out+out/3+2 {
						t.Errorf("%s, %s, cut at %d of %d: booked %d output tokens of %d", r.Name, r.URL, n, len(whole), u.OutputTokens, out)
					}
				default:
					t.Errorf("%s, cut at %d of %d: booked %+v", r.Name, n, len(whole), u)
				}
			}
		}
	}
	if cuts < 20_000 {
		t.Errorf("only %d cuts", cuts)
	}
}

func (r *recording) streamed() bool {
	for name, value := range r.Response.Headers {
		if strings.EqualFold(name, "Content-Type") && !strings.HasPrefix(value, "application/json") {
			return true
		}
	}
	return false
}

// call makes the recorded call and returns what was booked.
func (r *recording) call(t *testing.T, wrap func(io.Reader) io.Reader) []events.Usage {
	t.Helper()
	body := append([]byte(r.Response.Body), r.Response.BodyB64...)
	base := roundTrip(func(req *http.Request) (*http.Response, error) {
		io.Copy(io.Discard, req.Body)
		req.Body.Close()
		header := http.Header{}
		for name, value := range r.Response.Headers {
			header.Set(name, value)
		}
		return &http.Response{StatusCode: r.Response.Status, Header: header, Body: io.NopCloser(wrap(bytes.NewReader(body)))}, nil
	})
	if r.Request == nil {
		r.Request = map[string]any{"model": "m"}
	}
	asked, err := json.Marshal(r.Request)
	if err != nil {
		t.Fatal(err)
	}
	var booked ledger
	client := &http.Client{Transport: meter.NewTransport(meter.Config{Base: base, Port: "p1", Recorder: &booked, LeaveStreams: true})}
	resp, err := client.Post(r.URL, "application/json", bytes.NewReader(asked))
	if err != nil {
		t.Fatalf("%s: %v", r.Name, err)
	}
	read, err := io.ReadAll(resp.Body)
	resp.Body.Close()
	if errors.Is(err, io.ErrUnexpectedEOF) {
		err = nil // a test cut it
	}
	if err != nil || !bytes.Equal(read, body) {
		t.Errorf("%s: the caller read %d bytes and %v, the provider sent %d", r.Name, len(read), err, len(body))
	}
	return booked.events
}

type roundTrip func(*http.Request) (*http.Response, error)

func (f roundTrip) RoundTrip(req *http.Request) (*http.Response, error) { return f(req) }

type ledger struct {
	mu     sync.Mutex
	events []events.Usage
}

func (l *ledger) Record(u events.Usage) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.events = append(l.events, u)
}
