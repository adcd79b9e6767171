package replay

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"math"
	"strconv"
	"strings"
	"time"

	"github.com/tidegate/tidegate/events"
)

const (
	header  = "TIMESTAMP,ContextTokens,GeneratedTokens"
	maxLine = 4 << 10
)

// row is one call of the trace.
type row struct {
	line      uint32 // in the file, the header being 1
	at        time.Time
	context   int64 // tokens
	generated int64 // tokens
}

// trace reads rows. It tolerates CRLF, a byte order mark, blank lines, quoted
// fields and a missing last newline.
type trace struct {
	name  string // for messages
	lines *bufio.Scanner
	line  int64
}

func newTrace(name string, r io.Reader) *trace {
	lines := bufio.NewScanner(r)
	lines.Buffer(make([]byte, 0, maxLine), maxLine)
	return &trace{name: name, lines: lines}
}

// next returns the next row, or io.EOF. Every other error says where it is.
func (t *trace) next() (row, error) {
	if t.line == 0 {
		if err := t.readHeader(); err != nil {
			return row{}, err
		}
	}
	text, err := t.text()
	if err != nil {
		return row{}, err
	}
	if t.line > math.MaxUint32 {
		return row{}, fmt.Errorf("%s:%d: a trace may have %d lines at most; split it", t.name, t.line, uint32(math.MaxUint32))
	}
	fields := split(text)
	if len(fields) != 3 {
		return row{}, fmt.Errorf("%s:%d: %q has %d columns: must be the three %s", t.name, t.line, short(text), len(fields), header)
	}
	r := row{line: uint32(t.line)}
	if r.at, err = t.timestamp(fields[0]); err != nil {
		return row{}, err
	}
	if r.context, err = t.tokens("ContextTokens", fields[1]); err != nil {
		return row{}, err
	}
	if r.generated, err = t.tokens("GeneratedTokens", fields[2]); err != nil {
		return row{}, err
	}
	return r, nil
}

func (t *trace) readHeader() error {
	text, err := t.text()
	if errors.Is(err, io.EOF) {
		return fmt.Errorf("%s is empty: its first line must be %s", t.name, header)
	}
	if err != nil {
		return err
	}
	if strings.Join(split(strings.TrimPrefix(text, "\ufeff")), ",") != header {
		return fmt.Errorf("%s:%d: the header is %q: must be %s, in UTF-8", t.name, t.line, short(text), header)
	}
	return nil
}

// text returns the next line that is not blank.
func (t *trace) text() (string, error) {
	for t.lines.Scan() {
		t.line++
		if text := strings.TrimSpace(t.lines.Text()); text != "" {
			return text, nil
		}
	}
	switch err := t.lines.Err(); {
	case errors.Is(err, bufio.ErrTooLong):
		return "", fmt.Errorf("%s:%d: the line is longer than %d bytes: is this a trace in CSV, with one call a line?", t.name, t.line+1, maxLine)
	case err != nil:
		return "", fmt.Errorf("%s:%d: %w", t.name, t.line+1, err)
	}
	return "", io.EOF
}

func split(text string) []string {
	fields := strings.Split(text, ",")
	for i, f := range fields {
		f = strings.TrimSpace(f)
		if len(f) >= 2 && f[0] == '"' && f[len(f)-1] == '"' {
			f = f[1 : len(f)-1]
		}
		fields[i] = f
	}
	return fields
}

// The earliest and the first too late time of a trace: any two of them are less
// than a time.Duration apart.
var (
	earliest = time.Date(1970, 1, 1, 0, 0, 0, 0, time.UTC)
	tooLate  = time.Date(2262, 1, 1, 0, 0, 0, 0, time.UTC)
)

// timestamp reads a time as the public traces write it, with 0 to 9 decimals:
// without a zone it is UTC.
func (t *trace) timestamp(s string) (time.Time, error) {
	at, err := time.Parse("2006-01-02 15:04:05", s)
	if err != nil {
		at, err = time.Parse("2006-01-02 15:04:05Z07:00", s)
	}
	if err != nil {
		return time.Time{}, t.invalid("TIMESTAMP", s, "must be a UTC time like 2023-11-16 18:17:03.9799600")
	}
	if at.Before(earliest) || !at.Before(tooLate) {
		return time.Time{}, t.invalid("TIMESTAMP", s, "must lie between the years 1970 and 2261")
	}
	return at.UTC(), nil
}

func (t *trace) tokens(column, s string) (int64, error) {
	n, err := strconv.ParseInt(s, 10, 64)
	if err != nil || n < 0 || n > events.MaxTokens {
		return 0, t.invalid(column, s, fmt.Sprintf("must be a whole number from 0 to %d", int64(events.MaxTokens)))
	}
	return n, nil
}

func (t *trace) invalid(column, value, rule string) error {
	return fmt.Errorf("%s:%d: %s = %q: %s", t.name, t.line, column, short(value), rule)
}

func short(s string) string {
	if len(s) > 60 {
		return strings.ToValidUTF8(s[:60], "") + "…" // not half a character
	}
	return s
}
