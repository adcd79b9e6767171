package safehttp

import (
	"errors"
	"fmt"
	"io"
	"net/http"
)

// LimitBody refuses bodies over limit bytes with 413: at once when the request
// announces its size, otherwise when next reads past the limit; next turns that
// error into the same answer with [TooLarge].
func LimitBody(limit int64, next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.ContentLength > limit {
			refuseBody(w, r, limit)
			return
		}
		r.Body = http.MaxBytesReader(w, r.Body, limit)
		next.ServeHTTP(w, r)
	})
}

// lingerBytes is how much of a refused body is still taken, and dropped. A browser
// that is cut off while it sends shows a broken connection, not the answer.
const lingerBytes = 32 << 20

func refuseBody(w http.ResponseWriter, r *http.Request, limit int64) {
	control := http.NewResponseController(w)
	_ = control.EnableFullDuplex() // HTTP/2 always is
	w.Header().Set("Connection", "close")
	WriteProblem(w, tooLarge(limit))
	_ = control.Flush()
	_, _ = io.CopyN(io.Discard, r.Body, lingerBytes) // ends at the latest with the read timeout
}

// TooLarge is the answer to a body whose reading failed with err, when it failed
// because of [LimitBody].
func TooLarge(err error) (Problem, bool) {
	var over *http.MaxBytesError
	if !errors.As(err, &over) {
		return Problem{}, false
	}
	return tooLarge(over.Limit), true
}

func tooLarge(limit int64) Problem {
	return Problem{
		Type:   ProblemDocs + "body-too-large",
		Title:  "The request body is too large",
		Status: http.StatusRequestEntityTooLarge,
		Detail: fmt.Sprintf("this address takes at most %d bytes", limit),
	}
}
