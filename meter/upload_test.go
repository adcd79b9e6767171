package meter_test

import (
	"errors"
	"io"
	"net/http"
	"runtime"
	"strings"
	"testing"

	"github.com/tidegate/tidegate/events"
	"github.com/tidegate/tidegate/meter"
)

// upload is a request for a model with one picture or sound in base64, of so many
// bytes, that can be read only once.
func upload(t *testing.T, length int64) *http.Request {
	t.Helper()
	const head, tail = `{"model":"m","max_tokens":7,"messages":[{"role":"user","content":[{"type":"input_audio","input_audio":{"data":"`, `"}}]}]}`
	body := io.MultiReader(strings.NewReader(head), io.LimitReader(base64Bytes{}, length), strings.NewReader(tail))
	req, err := http.NewRequest("POST", "https://h.example/v1/chat/completions", io.NopCloser(body))
	if err != nil {
		t.Fatal(err)
	}
	req.ContentLength = int64(len(head)+len(tail)) + length
	return req
}

type base64Bytes struct{}

func (base64Bytes) Read(p []byte) (int, error) {
	for i := range p {
		p[i] = "QUJDREVG"[i%8]
	}
	return len(p), nil
}

// TestUploadIsStreamed: 40 MiB that can be read only once pass through little memory,
// and cost what media costs.
func TestUploadIsStreamed(t *testing.T) {
	const length = 40 << 20
	for _, lengthKnown := range []bool{true, false} {
		l, g := new(ledger), &gate{holds: true}
		var passed int64
		buffer := make([]byte, 32<<10)
		transport := meter.NewTransport(meter.Config{Port: "p1", Recorder: l, Gate: g, Base: roundTripper(func(r *http.Request) (*http.Response, error) {
			for {
				n, err := r.Body.Read(buffer)
				if passed += int64(n); err != nil {
					r.Body.Close()
					return &http.Response{StatusCode: 200, Body: io.NopCloser(strings.NewReader(textAlone))}, nil
				}
			}
		})})
		req := upload(t, length)
		want := req.ContentLength
		if !lengthKnown {
			req.ContentLength = -1
		}
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		resp, err := transport.RoundTrip(req)
		if err != nil {
			t.Fatal(err)
		}
		io.Copy(io.Discard, resp.Body)
		resp.Body.Close()
		runtime.ReadMemStats(&after)
		if passed != want {
			t.Errorf("%d bytes arrived, want %d", passed, want)
		}
		if got := after.TotalAlloc - before.TotalAlloc; got > 1<<20 {
			t.Errorf("the call took %d KiB of memory in all, want at most 1 MiB", got>>10)
		}
		const tokens = length/64 + 60 // a token for each 64 characters, and some for the JSON around them
		if rows := l.all(); len(rows) != 1 || rows[0].InputTokens < length/64 || rows[0].InputTokens > tokens {
			t.Errorf("recorded %+v, want an input of %d to %d tokens", rows, length/64, tokens)
		}
		most := int64(tokens + 1<<20) // of what is not seen yet, 4 MiB may be text
		if !lengthKnown {
			most = 100
		}
		if asked := g.asked[0].EstimatedTokens; lengthKnown && asked < length/64 || asked > most {
			t.Errorf("length known: %t, the gate was asked for %d tokens, want at most %d", lengthKnown, asked, most)
		}
	}
}

// TestUploadLeavesAtOnce: its first bytes are at the provider before its last ones
// exist.
func TestUploadLeavesAtOnce(t *testing.T) {
	body, writer := io.Pipe()
	arrived := make(chan string)
	transport := meter.NewTransport(meter.Config{Port: "p1", Base: roundTripper(func(r *http.Request) (*http.Response, error) {
		first := make([]byte, 9)
		_, err := io.ReadFull(r.Body, first)
		arrived <- string(first)
		rest, _ := io.ReadAll(r.Body)
		arrived <- string(rest)
		return &http.Response{StatusCode: 500, Body: http.NoBody}, err
	})})
	go func() {
		req, _ := http.NewRequest("POST", "https://h.example/v1/chat/completions", body)
		transport.RoundTrip(req)
	}()
	io.WriteString(writer, `{"model":`)
	if got := <-arrived; got != `{"model":` {
		t.Errorf("first came %q", got)
	}
	io.WriteString(writer, `"m"}`)
	writer.Close()
	if got := <-arrived; got != `"m"}` {
		t.Errorf("then came %q", got)
	}
}

// TestUploadCutShort counts what has passed, and no more.
func TestUploadCutShort(t *testing.T) {
	torn := errors.New("torn")
	l := new(ledger)
	transport := meter.NewTransport(meter.Config{Port: "p1", Recorder: l, Base: roundTripper(func(r *http.Request) (*http.Response, error) {
		io.CopyN(io.Discard, r.Body, 64_000) // the provider answers before it has read all
		return &http.Response{StatusCode: 200, Body: io.NopCloser(io.MultiReader(strings.NewReader(`{"model":"m","choices":[{"message":{"content":"12345678`), failing{torn}))}, nil
	})})
	resp, err := transport.RoundTrip(upload(t, 40<<20))
	if err != nil {
		t.Fatal(err)
	}
	io.Copy(io.Discard, resp.Body)
	resp.Body.Close()
	if rows := l.all(); len(rows) != 1 || rows[0].InputTokens < 900 || rows[0].InputTokens > 1100 || rows[0].OutputTokens != 2 || rows[0].MeasuredBy != events.MeasuredByPartial {
		t.Errorf("recorded %+v, want one partial row of some 1,000 + 2 tokens", rows)
	}
}

// TestManyPicturesTakeLittleMemory: what is beyond a thousand counts as the dearest.
func TestManyPicturesTakeLittleMemory(t *testing.T) {
	const pictures = 100_000
	l := new(ledger)
	transport := meter.NewTransport(meter.Config{Port: "p1", Recorder: l, Base: provided("application/json", textAlone, new(int))})
	one := `{"type":"image_url","image_url":{"url":"https://x.example/a.png"}},`
	body := `{"model":"gpt-4o","messages":[{"role":"user","content":[` + strings.Repeat(one, pictures) + `""]}]}`
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	req := postRequest(body)
	req.GetBody = nil
	resp, err := transport.RoundTrip(req)
	if err != nil {
		t.Fatal(err)
	}
	io.Copy(io.Discard, resp.Body)
	resp.Body.Close()
	runtime.ReadMemStats(&after)
	if got := after.TotalAlloc - before.TotalAlloc; got > 1<<20 {
		t.Errorf("the call took %d KiB of memory in all, want at most 1 MiB", got>>10)
	}
	if rows := l.all(); len(rows) != 1 || rows[0].InputTokens != pictures*765+int64(len(body)+3)/4 {
		t.Errorf("recorded %+v, want %d pictures of 765 tokens", rows, pictures)
	}
}
