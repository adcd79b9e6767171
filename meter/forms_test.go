package meter

import (
	"bytes"
	_ "embed"
	"encoding/json"
	"net/http"
	"net/url"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// recordedForms has examples of every row of the table, made after the providers'
// documentation.
//
//go:embed testdata/forms.jsonl
var recordedForms []byte

// example is one reply of a form.
type example struct {
	Form, Name, URL string
	Response        struct {
		Headers map[string]string
		Body    string
		BodyB64 []byte `json:"body_b64"`
	}
	Expected struct {
		Usage      *RecordedUsage
		MeasuredBy string `json:"measured_by"`
		Model      string
		Inferred   bool
	}

	line []byte
}

func (e *example) body() []byte { return append([]byte(e.Response.Body), e.Response.BodyB64...) }

func (e *example) header() http.Header {
	h := http.Header{}
	for name, value := range e.Response.Headers {
		h.Set(name, value)
	}
	return h
}

func (e *example) api(t testing.TB) API {
	u, err := url.Parse(e.URL)
	if err != nil {
		t.Fatal(err)
	}
	call, ok := detectURL(u)
	if !ok {
		call, ok = detectResults(u)
	}
	if !ok {
		return Unknown
	}
	return call.API
}

func examples(t testing.TB) []*example {
	var all []*example
	for line := range bytes.Lines(recordedForms) {
		e := &example{line: line}
		if err := json.Unmarshal(line, e); err != nil {
			t.Fatalf("%v in %s", err, line)
		}
		if u := e.Expected.Usage; u != nil {
			u.TotalTokens = u.InputTokens + u.OutputTokens
		}
		all = append(all, e)
	}
	return all
}

// TestForms reads an example of every row of the table, whole and in pieces.
func TestForms(t *testing.T) {
	if int(names.last) > 250 || len(forms) > maxForms {
		t.Errorf("%d names and %d forms: the table is full", names.last, len(forms))
	}
	shown := map[string]bool{}
	for _, e := range examples(t) {
		shown[e.Form] = true
		t.Run(e.Form+": "+e.Name, func(t *testing.T) {
			got, err := ReadRecorded(e.line)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(e.Expected.Usage, got.Usage); diff != "" {
				t.Errorf("usage: want (-), got (+):\n%s", diff)
			}
			if got.MeasuredBy == nil || string(*got.MeasuredBy) != e.Expected.MeasuredBy || got.Inferred != e.Expected.Inferred {
				t.Errorf("read as %+v, want measured by %s, inferred %t", got, e.Expected.MeasuredBy, e.Expected.Inferred)
			}
			if want := e.Expected.Model; want != "" && (got.Model == nil || *got.Model != want) {
				t.Errorf("read as %+v, want model %s", got, want)
			}
			read := func(size int) reading {
				r := newReply(e.api(t), e.header())
				for body := e.body(); len(body) > 0; {
					n := min(size, len(body))
					r.write(body[:n])
					body = body[n:]
				}
				return r.finish(endOfBody)
			}
			for _, size := range []int{1, 7, 100} {
				if whole, pieces := read(1<<20), read(size); whole != pieces {
					t.Errorf("whole %+v, in pieces of %d %+v", whole, size, pieces)
				}
			}
		})
	}
	for _, f := range forms {
		if !shown[f.name] {
			t.Errorf("form %q has no example in testdata/forms.jsonl", f.name)
		}
	}
}

// TestEveryEndpointIsFound: no row hides another one's endpoints, unless both are
// called alike.
func TestEveryEndpointIsFound(t *testing.T) {
	same := map[string]API{"/v1/rerank": Rerank, "/v2/rerank": Rerank}
	for _, f := range forms {
		for _, e := range f.endpoints {
			path := strings.NewReplacer("{model}", "m-1", "{id}", "id1", "{any}", "a/b").Replace(e.path)
			if !strings.HasPrefix(path, "/") {
				path = "/v1/models/" + path
			}
			call, ok := detectURL(&url.URL{Scheme: "https", Host: "proxy.example", Path: path})
			if !ok || call.API != e.api && same[e.path] != call.API {
				t.Errorf("%s of %s is found as %+v", path, f.name, call)
			}
		}
	}
}

// TestCutAnywhere: what is cut short never tells more than the whole, and never
// more text than came.
func TestCutAnywhere(t *testing.T) {
	for _, e := range examples(t) {
		body := e.body()
		whole := newReply(e.api(t), e.header())
		whole.write(body)
		want := whole.finish(endOfBody)
		for n := range body {
			r := newReply(e.api(t), e.header())
			r.write(body[:n])
			got := r.finish(cutShort)
			if got.text > want.text || got.reported && (got.tokens.input > max(want.tokens.input, 80) || got.tokens.output > max(want.tokens.output, 85)) {
				t.Fatalf("%s: %s, cut at %d: %+v, whole %+v", e.Form, e.Name, n, got, want)
			}
		}
	}
}
