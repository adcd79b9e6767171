package ops

import (
	"encoding/json"
	"time"

	"github.com/tidegate/tidegate/internal/service"
)

// Progress is how far a verification is.
type Progress struct {
	Of   string `json:"of"` // what it reads: the ledger, in bytes, or the gates, in ports
	Done int64  `json:"done"`
	All  int64  `json:"all"`
}

// What a verification reads, one after the other.
const (
	OfLedger = "ledger"
	OfGates  = "gates"
)

const tellEvery = 200 * time.Millisecond

// progress tells whoever asked, at an inbox, how far a request is, once in a while. Nobody
// waits for it: what is lost comes with the next. It is for one goroutine at a time.
func (s *Service) progress(inbox string) func(Progress) {
	if !service.MayReply(inbox) {
		return func(Progress) {}
	}
	var last time.Time
	return func(p Progress) {
		if time.Since(last) < tellEvery && p.Done < p.All {
			return
		}
		last = time.Now()
		if body, err := json.Marshal(p); err == nil {
			_ = s.cfg.Conn.Publish(inbox, body)
		}
	}
}
