package safehttp

import (
	"encoding/json"
	"net/http"
	"strconv"
)

// ProblemDocs is where every problem type of this project is explained; a type is
// this address and a name.
const ProblemDocs = "https://github.com/tidegate/tidegate/blob/main/docs/identity.md#"

// Problem is an RFC 9457 problem document.
type Problem struct {
	Type   string       `json:"type"`
	Title  string       `json:"title"`
	Status int          `json:"status"`
	Detail string       `json:"detail,omitempty"` // what is wrong with this request, and how to mend it
	Errors []FieldError `json:"errors,omitempty"` // the fields at fault, where there are some
}

// FieldError says what is wrong with one field.
type FieldError struct {
	Field string `json:"field"`
	Value string `json:"value"` // as received, shortened
	Rule  string `json:"rule"`
}

// WriteProblem answers with the problem. No cache keeps it.
func WriteProblem(w http.ResponseWriter, p Problem) {
	body, err := json.Marshal(p)
	if err != nil { // no string can make Marshal fail
		panic(err)
	}
	body = append(body, '\n')
	h := w.Header()
	h.Set("Content-Length", strconv.Itoa(len(body)))
	h.Set("Content-Type", "application/problem+json")
	h.Set("Cache-Control", "no-store")
	h.Set("X-Content-Type-Options", "nosniff")
	w.WriteHeader(p.Status)
	_, _ = w.Write(body) // the client is gone: nobody to tell
}
