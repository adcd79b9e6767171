package receipt

import (
	"net/http"
	"strconv"

	"github.com/tidegate/tidegate/identity/safehttp"
)

// problemDocs is where the problem types of this service are explained.
const problemDocs = "https://github.com/tidegate/tidegate/blob/main/docs/receipt.md#"

func problem(status int, name, title, detail string) *safehttp.Problem {
	return &safehttp.Problem{Type: problemDocs + name, Title: title, Status: status, Detail: detail}
}

func wrongMethod(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Allow", http.MethodPost)
	safehttp.WriteProblem(w, *problem(http.StatusMethodNotAllowed, "wrong-method", "A scan is a POST", "send the picture with POST, not "+r.Method))
}

func unknownRoute(w http.ResponseWriter, r *http.Request) {
	safehttp.WriteProblem(w, *problem(http.StatusNotFound, "unknown-address", "There is nothing here", "POST /api/v1/ports/{port}/scan-receipt takes a receipt"))
}

// busyFor is what a client is told to wait when all places are taken.
const busyFor = 5

func busy(w http.ResponseWriter) {
	w.Header().Set("Retry-After", strconv.Itoa(busyFor))
	safehttp.WriteProblem(w, *problem(http.StatusServiceUnavailable, "busy", "Too many receipts at once", "try again in a few seconds"))
}
