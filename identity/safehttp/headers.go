package safehttp

import "net/http"

// ContentSecurityPolicy lets a page load its own files and nothing else: no inline
// script or style, no other origin, no frame around it.
const ContentSecurityPolicy = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; " +
	"connect-src 'self'; form-action 'self'; frame-ancestors 'none'; base-uri 'none'"

// SecureHeaders sets the security headers of every answer. They are set before
// next runs, so that a single address can widen one of them (a script that other
// origins may load sets Cross-Origin-Resource-Policy itself).
func SecureHeaders(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h := w.Header()
		h.Set("Content-Security-Policy", ContentSecurityPolicy)
		h.Set("X-Content-Type-Options", "nosniff")
		h.Set("Referrer-Policy", "no-referrer")
		h.Set("Cross-Origin-Opener-Policy", "same-origin")
		h.Set("Cross-Origin-Resource-Policy", "same-origin")
		next.ServeHTTP(w, r)
	})
}

// SameOrigin refuses state-changing requests that a browser sends from another
// origin, with 403. Clients that are no browsers pass.
func SameOrigin(next http.Handler) http.Handler {
	protection := http.NewCrossOriginProtection()
	protection.SetDenyHandler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		WriteProblem(w, CrossOrigin())
	}))
	return protection.Handler(next)
}

// CrossOrigin is the answer to a state-changing request from another origin.
func CrossOrigin() Problem {
	return Problem{
		Type:   ProblemDocs + "cross-origin",
		Title:  "The request comes from another site",
		Status: http.StatusForbidden,
		Detail: "a browser sent this from a page of another origin; only pages of this server may change anything here",
	}
}
