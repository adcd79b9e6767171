package meter

import (
	"bufio"
	"bytes"
	"cmp"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"github.com/tidegate/tidegate/events"
)

// MeasuredByNone is what [Recorded] says of a line that nobody can read: nothing is
// counted.
const MeasuredByNone events.MeasuredBy = "none"

// Recorded is what Tidegate would count for a recorded reply. A nil field means
// that the reply does not say.
type Recorded struct {
	Name       string             `json:"name"`
	Usage      *RecordedUsage     `json:"usage"` // the provider's figures, of a reply that is whole
	Model      *string            `json:"model"`
	ResponseID *string            `json:"response_id"`
	RequestID  *string            `json:"request_id"`
	MeasuredBy *events.MeasuredBy `json:"measured_by"`       // nil: nothing is counted, the call failed
	Inferred   bool               `json:"inferred,omitzero"` // the provider's figures do not add up: the split is Tidegate's
	Error      string             `json:"error,omitzero"`    // why nobody can read the line
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
		Status     int                       `json:"status"`
		Headers    map[string]jsontext.Value `json:"headers"`  // a string each, or an array of them
		Body       jsontext.Value            `json:"body"`     // a string: what the wire carried. JSON itself is taken too
		BodyBase64 string                    `json:"body_b64"` // instead of body, where that is no text
	} `json:"response"`
}

// ReadRecorded reads one recorded reply: a JSON object with name, api or url, and
// response {status, headers, body or body_b64}, as in a line of a fixture file. api
// is one of the [API] constants; without it the url tells. A reply that neither
// tells is read by its shape. The error says what is wrong with the line; what is
// returned beside it is measured by nobody, too.
func ReadRecorded(line []byte) (Recorded, error) {
	var l recordedLine
	err := json.Unmarshal(line, &l, lenient)
	var out Recorded
	switch {
	case err != nil:
		err = fmt.Errorf("is not a recorded reply: %w", err)
	case l.Response == nil:
		err = fmt.Errorf("%q has no response {status, headers, body}", l.Name)
	default:
		out, err = l.read()
	}
	if err != nil {
		none := MeasuredByNone
		return Recorded{Name: l.Name, MeasuredBy: &none, Error: err.Error()}, err
	}
	return out, nil
}

func (l *recordedLine) read() (Recorded, error) {
	if !l.API.known() {
		u, err := url.Parse(l.URL)
		if err != nil {
			return Recorded{}, fmt.Errorf("%q: url: %w", l.Name, err)
		}
		call, ok := detectURL(u)
		if !ok {
			call, ok = detectResults(u)
		}
		if !ok {
			call.API = Unknown
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
	out := l.measure(header, body)
	if out.MeasuredBy != nil && *out.MeasuredBy == MeasuredByNone {
		return Recorded{}, fmt.Errorf("%q: url %q is of no API that meter knows, and the reply tells no tokens", l.Name, l.URL)
	}
	return out, nil
}

func (l *recordedLine) measure(header http.Header, body []byte) Recorded {
	out := Recorded{Name: l.Name, RequestID: known(requestID(l.API, header))}
	if status := cmp.Or(l.Response.Status, http.StatusOK); status < 200 || status > 299 {
		return out
	}
	r := newReply(l.API, header)
	r.write(body)
	read := r.finish(endOfBody)
	out.Model, out.ResponseID = known(read.model), known(read.responseID)
	if read.reported && read.complete {
		t := read.tokens
		out.Inferred = t.inferred
		out.Usage = &RecordedUsage{
			InputTokens: t.input, OutputTokens: t.output, TotalTokens: t.input + t.output,
			CacheReadInputTokens: t.details.CacheReadInputTokens, CacheWriteInputTokens: t.details.CacheWriteInputTokens,
			ReasoningOutputTokens: t.details.ReasoningOutputTokens,
		}
	}
	if !read.free {
		measured := read.measuredBy()
		if !read.reported && (l.API == Unknown || l.API == Batch) {
			measured = MeasuredByNone
		}
		out.MeasuredBy = &measured
	}
	return out
}

func (l *recordedLine) header() (http.Header, error) {
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

func (l *recordedLine) body() ([]byte, error) {
	if encoded := l.Response.BodyBase64; encoded != "" {
		body, err := base64.StdEncoding.DecodeString(encoded)
		if err != nil {
			return nil, fmt.Errorf("%q: response.body_b64: %w", l.Name, err)
		}
		return body, nil
	}
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

// Report counts the lines that [WriteReport] has read.
type Report struct {
	Provider, Partial, Estimate int // by measured_by
	Failed                      int // calls that failed and cost nothing
	None                        int // lines that nobody can read
}

func (r Report) String() string {
	return fmt.Sprintf("%d replies: %d measured by the provider, %d partial, %d estimated, %d failed, %d not read",
		r.Provider+r.Partial+r.Estimate+r.Failed+r.None, r.Provider, r.Partial, r.Estimate, r.Failed, r.None)
}

func (r *Report) count(recorded Recorded) {
	if recorded.MeasuredBy == nil {
		r.Failed++
		return
	}
	switch *recorded.MeasuredBy {
	case events.MeasuredByProvider:
		r.Provider++
	case events.MeasuredByPartial:
		r.Partial++
	case events.MeasuredByEstimate:
		r.Estimate++
	default:
		r.None++
	}
}

// WriteReport reads recorded replies from r, one a line, and writes for each what
// Tidegate would count, one JSON object a line. Empty lines are skipped. A line that
// nobody can read gets one, too, that says why. The error is one of r's or w's.
func WriteReport(w io.Writer, r io.Reader) (report Report, err error) {
	in, out := bufio.NewReader(r), bufio.NewWriter(w)
	for n := 1; ; n++ {
		line, readErr := in.ReadBytes('\n')
		if line = bytes.TrimSpace(line); len(line) > 0 {
			recorded, err := ReadRecorded(line)
			if err != nil {
				recorded.Error = fmt.Sprintf("line %d: %v", n, err)
			}
			report.count(recorded)
			b, err := json.Marshal(recorded, jsontext.AllowInvalidUTF8(true))
			if err != nil {
				return report, errors.Join(fmt.Errorf("meter: line %d: %w", n, err), out.Flush())
			}
			out.Write(append(b, '\n'))
		}
		if readErr == io.EOF {
			return report, out.Flush()
		}
		if readErr != nil {
			return report, errors.Join(fmt.Errorf("meter: line %d: %w", n, readErr), out.Flush())
		}
	}
}
