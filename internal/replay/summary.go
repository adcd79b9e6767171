package replay

import (
	"cmp"
	"slices"
	"time"

	"github.com/tidegate/tidegate/events"
)

// Summary is what a replay did. Without an error, Rows = Published = Acknowledged.
type Summary struct {
	File  string    `json:"file"`
	Seed  int64     `json:"seed"`
	Start time.Time `json:"start"` // the earliest row's time; with Seed, what repeats this replay

	Rows         int `json:"rows"`         // in the file
	Published    int `json:"published"`    // handed to the publisher
	Acknowledged int `json:"acknowledged"` // stored by JetStream, now or in an earlier replay

	// Sums over the acknowledged rows, and when the earliest and the latest of them happened.
	InputTokens  int64     `json:"input_tokens"`
	OutputTokens int64     `json:"output_tokens"`
	TotalTokens  int64     `json:"total_tokens"`
	FirstAt      time.Time `json:"first_at,omitzero"`
	LastAt       time.Time `json:"last_at,omitzero"`
	Ports        []Port    `json:"ports"` // those that got rows, most tokens first

	ElapsedSeconds float64 `json:"elapsed_seconds"` // of publishing, without the check of the file
	RowsPerSecond  float64 `json:"rows_per_second"` // acknowledged

	ports map[string]*Port
}

// Port is one port's part in a replay.
type Port struct {
	PortID       string `json:"port_id"`
	Rows         int    `json:"rows"`
	InputTokens  int64  `json:"input_tokens"`
	OutputTokens int64  `json:"output_tokens"`
	TotalTokens  int64  `json:"total_tokens"`
}

func newSummary(cfg Config, s extent) Summary {
	return Summary{File: cfg.File, Seed: cfg.Seed, Start: cfg.Start, Rows: s.rows, Ports: []Port{}, ports: map[string]*Port{}}
}

// add counts an acknowledged row.
func (s *Summary) add(u *events.Usage) {
	s.Acknowledged++
	s.InputTokens += u.InputTokens
	s.OutputTokens += u.OutputTokens
	s.TotalTokens += u.TotalTokens()
	if s.FirstAt.IsZero() || u.OccurredAt.Before(s.FirstAt) {
		s.FirstAt = u.OccurredAt
	}
	if u.OccurredAt.After(s.LastAt) {
		s.LastAt = u.OccurredAt
	}
	p := s.ports[u.PortID]
	if p == nil {
		p = &Port{PortID: u.PortID}
		s.ports[u.PortID] = p
	}
	p.Rows++
	p.InputTokens += u.InputTokens
	p.OutputTokens += u.OutputTokens
	p.TotalTokens += u.TotalTokens()
}

func (s *Summary) finish(began time.Time) {
	for _, p := range s.ports {
		s.Ports = append(s.Ports, *p)
	}
	slices.SortFunc(s.Ports, func(a, b Port) int {
		return cmp.Or(cmp.Compare(b.TotalTokens, a.TotalTokens), cmp.Compare(a.PortID, b.PortID))
	})
	s.ports = nil
	s.ElapsedSeconds = time.Since(began).Seconds()
	if s.ElapsedSeconds > 0 {
		s.RowsPerSecond = float64(s.Acknowledged) / s.ElapsedSeconds
	}
}
