package receipt

import (
	"net/http"
	"time"

	"github.com/tidegate/tidegate/identity"
)

// sessionJSON is what the page needs to know: who it shows, for which ports, and
// what it may send.
type sessionJSON struct {
	Name      string     `json:"name"`
	Ports     []string   `json:"ports"` // null: every port
	Provider  string     `json:"provider,omitempty"`
	MaxBytes  int64      `json:"max_bytes"`
	ExpiresAt *time.Time `json:"expires_at"`
}

func (s *service) session(w http.ResponseWriter, r *http.Request) {
	caller, _ := identity.CallerFrom(r.Context())
	body := sessionJSON{Name: caller.Name, Ports: caller.Ports, MaxBytes: s.MaxBytes}
	if body.Name == "" {
		body.Name = caller.Subject
	}
	if s.Provider != nil {
		body.Provider = s.Provider.Name()
	}
	if !caller.ExpiresAt.IsZero() {
		body.ExpiresAt = &caller.ExpiresAt
	}
	writeJSON(w, body)
}
