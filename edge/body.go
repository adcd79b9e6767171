package edge

import (
	"compress/gzip"
	"errors"
	"io"
	"mime"
	"net/http"
	"os"
	"strings"

	"github.com/tidegate/tidegate/identity/safehttp"
)

const (
	kindJSON     = "application/json"
	kindNDJSON   = "application/x-ndjson"
	kindProtobuf = "application/x-protobuf"
)

// read reads and inflates the body, which says what it is. What a request may be without is
// an empty body.
func (c *call) read(kinds ...string) (body []byte, kind string, err error) {
	in := io.Reader(c.Body)
	switch encoding := strings.ToLower(c.Header.Get("Content-Encoding")); encoding {
	case "", "identity":
	case "gzip":
		inflated, err := gzip.NewReader(in)
		if err != nil {
			return nil, "", badBody(err, "it says Content-Encoding: gzip and is not gzip")
		}
		in = http.MaxBytesReader(c.w, inflated, c.maxBody)
	default:
		return nil, "", refusal(http.StatusUnsupportedMediaType, "content-encoding", "The body must be plain or gzip", "send Content-Encoding: gzip, or none; it was "+quoted(encoding))
	}
	if body, err = io.ReadAll(in); err != nil {
		return nil, "", badBody(err, "it ends too early, or is not gzip as it says")
	}
	kind, params, err := mime.ParseMediaType(c.Header.Get("Content-Type"))
	charset := params["charset"]
	for _, k := range kinds {
		if err == nil && kind == k && (charset == "" || strings.EqualFold(charset, "utf-8")) {
			return body, kind, nil
		}
	}
	if len(body) == 0 {
		return nil, kinds[0], nil
	}
	return nil, "", refusal(http.StatusUnsupportedMediaType, "content-type", "The body must be of another type",
		"send Content-Type: "+strings.Join(kinds, " or ")+"; it was "+quoted(c.Header.Get("Content-Type")))
}

// badBody is why a body could not be read.
func badBody(err error, what string) error {
	if _, large := safehttp.TooLarge(err); large || errors.Is(err, os.ErrDeadlineExceeded) {
		return err
	}
	return malformed(what)
}
