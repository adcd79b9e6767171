package meter

import (
	"bufio"
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"github.com/tidegate/tidegate/events"
)

// Recorded is what Tidegate would count for a recorded reply. A nil field means
// that the reply does not say.
type Recorded struct {
	Name       string             `json:"name"`
	Usage      *RecordedUsage     `json:"usage"` // the provider's figures
	Model      *string            `json:"model"`
	ResponseID *string            `json:"response_id"`
	RequestID  *string            `json:"request_id"`
	MeasuredBy *events.MeasuredBy `json:"measured_by"` // nil: nothing is counted, the call failed
}

// RecordedUsage is a usage event's figures, flat.
type RecordedUsage struct {
	InputTokens           int64 `json:"input_tokens"`
	OutputTokens          int64 `json:"output_tokens"`
	TotalTokens           int64 `json:"total_tokens"`
	CacheReadInputTokens  int64 `json:"cache_read_input_tokens"`
	CacheWriteInputTokens int64 `json:"cache_write_input_tokens"`
	ReasoningOutputTokens int64 `json:"reasoning_output_tokens"`
}

type recordedLine struct {
	Name     string `json:"name"`
	API      API    `json:"api"`
	URL      string `json:"url"`
	Response *struct {
		Status  int                       `json:"status"`
		Headers map[string]jsontext.Value `json:"headers"` // a string each, or an array of them
		Body    jsontext.Value            `json:"body"`    // a string: what the wire carried. JSON itself is taken too
	} `json:"response"`
}

// ReadRecorded reads one recorded reply: a JSON object with name, api or url, and
// response {status, headers, body}, as in a line of a fixture file. api is one of
// the [API] constants; without it the url tells. Its errors say what is wrong with
// the line.
func ReadRecorded(line []byte) (Recorded, error) {
	var l recordedLine
	if err := json.Unmarshal(line, &l, lenient); err != nil {
		return Recorded{}, fmt.Errorf("is not a recorded reply: %w", err)
	}
	if l.Response == nil {
		return Recorded{}, fmt.Errorf("%q has no response {status, headers, body}", l.Name)
	}
	if !l.API.known() {
		u, err := url.Parse(l.URL)
		if err != nil {
			return Recorded{}, fmt.Errorf("%q: url: %w", l.Name, err)
		}
		call, ok := detectURL(u)
		if !ok {
			return Recorded{}, fmt.Errorf("%q: neither api %q nor url %q is of an API that meter reads", l.Name, l.API, l.URL)
		}
		l.API = call.API
	}
	header, err := l.header()
	if err != nil {
		return Recorded{}, err
	}
	body, err := l.body()
	if err != nil {
		return Recorded{}, err
	}
	return readRecorded(l, header, body), nil
}

func readRecorded(l recordedLine, header http.Header, body []byte) Recorded {
	out := Recorded{Name: l.Name, RequestID: known(requestID(l.API, header))}
	if status := cmp.Or(l.Response.Status, http.StatusOK); status < 200 || status > 299 {
		return out
	}
	r := newReply(l.API, header.Get("Content-Type"), header.Get("Content-Encoding"))
	r.write(body)
	read := r.finish(endOfBody)
	out.Model, out.ResponseID = known(read.model), known(read.responseID)
	if read.reported {
		t := read.tokens
		out.Usage = &RecordedUsage{
			InputTokens: t.input, OutputTokens: t.output, TotalTokens: t.input + t.output,
			CacheReadInputTokens: t.details.CacheReadInputTokens, CacheWriteInputTokens: t.details.CacheWriteInputTokens,
			ReasoningOutputTokens: t.details.ReasoningOutputTokens,
		}
	}
	if !read.free {
		measured := read.measuredBy()
		out.MeasuredBy = &measured
	}
	return out
}

func (l recordedLine) header() (http.Header, error) {
	h := make(http.Header)
	for name, value := range l.Response.Headers {
		var one string
		if json.Unmarshal(value, &one, lenient) == nil {
			h.Add(name, one)
			continue
		}
		var many []string
		if err := json.Unmarshal(value, &many, lenient); err != nil {
			return nil, fmt.Errorf("%q: header %s must be a string or an array of strings", l.Name, name)
		}
		for _, v := range many {
			h.Add(name, v)
		}
	}
	return h, nil
}

func (l recordedLine) body() ([]byte, error) {
	if l.Response.Body.Kind() != '"' {
		return l.Response.Body, nil
	}
	var text string
	if err := json.Unmarshal(l.Response.Body, &text, lenient); err != nil {
		return nil, fmt.Errorf("%q: response.body: %w", l.Name, err)
	}
	return []byte(text), nil
}

func known(s string) *string {
	if s == "" {
		return nil
	}
	return &s
}

// requestID is the provider's name for the request.
func requestID(api API, h http.Header) string {
	if name := requestIDHeader(api); name != "" {
		return h.Get(name)
	}
	return ""
}

// WriteReport reads recorded replies from r, one a line, and writes for each what
// Tidegate would count, one JSON object a line. Empty lines are skipped. The first
// bad line ends it with an error that names the line; what came before is written.
func WriteReport(w io.Writer, r io.Reader) error {
	in, out := bufio.NewReader(r), bufio.NewWriter(w)
	for n := 1; ; n++ {
		line, readErr := in.ReadBytes('\n')
		if line = bytes.TrimSpace(line); len(line) > 0 {
			if err := writeRecorded(out, line); err != nil {
				return errors.Join(fmt.Errorf("meter: line %d: %w", n, err), out.Flush())
			}
		}
		if readErr == io.EOF {
			return out.Flush()
		}
		if readErr != nil {
			return errors.Join(fmt.Errorf("meter: line %d: %w", n, readErr), out.Flush())
		}
	}
}

func writeRecorded(w *bufio.Writer, line []byte) error {
	recorded, err := ReadRecorded(line)
	if err != nil {
		return err
	}
	b, err := json.Marshal(recorded, jsontext.AllowInvalidUTF8(true))
	if err != nil {
		return err
	}
	w.Write(b)
	return w.WriteByte('\n')
}
