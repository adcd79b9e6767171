package ops

import (
	"context"
	"time"

	"github.com/tidegate/tidegate/consumer/stream"
)

const (
	subjectRebook   = subjectAdmin + ".rebook"
	subjectPosition = subjectAdmin + ".position"
)

type rebookRequest struct {
	Since time.Time `json:"since,omitzero"`
}

// Position is how far the usage stream is booked.
type Position struct {
	Acknowledged uint64 `json:"acknowledged"` // every message up to this sequence was settled
	Booked       uint64 `json:"booked"`       // and so is, in the ledger, every one up to this
}

// Behind is how many messages are to be booked again.
func (p Position) Behind() uint64 {
	if p.Booked >= p.Acknowledged {
		return 0
	}
	return p.Acknowledged - p.Booked
}

// Rebook makes the consumers book again all that the usage stream holds from the given
// time on; the zero time means from its beginning. It returns where they begin;
// [Client.Position] says how far they are. What the ledger has is recognised by its ids.
func (c *Client) Rebook(ctx context.Context, since time.Time) (p Position, err error) {
	err = c.ask(ctx, subjectRebook, rebookRequest{since}, &p)
	return p, err
}

// Position says how far the usage stream is booked.
func (c *Client) Position(ctx context.Context) (p Position, err error) {
	err = c.ask(ctx, subjectPosition, struct{}{}, &p)
	return p, err
}

func (s *Service) rebook(ctx context.Context, r rebookRequest) (any, error) {
	p, err := stream.Compare(ctx, s.js, s.cfg.Ledger)
	if err != nil {
		return nil, err
	}
	from, err := stream.SequenceAt(ctx, s.js, r.Since)
	if err != nil {
		return nil, err
	}
	if err := s.cfg.Ledger.Unbook(ctx, p.Stream, from); err != nil {
		return nil, err
	}
	s.log.Info("booking again was asked for", "since", r.Since, "from", from, "to", p.Acknowledged)
	return s.position(ctx, struct{}{})
}

func (s *Service) position(ctx context.Context, _ struct{}) (any, error) {
	p, err := stream.Compare(ctx, s.js, s.cfg.Ledger)
	return Position{Acknowledged: p.Acknowledged, Booked: p.Through}, err
}
