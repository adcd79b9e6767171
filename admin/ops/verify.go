package ops

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/micro"

	"github.com/tidegate/tidegate/budget"
	"github.com/tidegate/tidegate/consumer/stream"
	"github.com/tidegate/tidegate/events"
	"github.com/tidegate/tidegate/internal/bus"
	"github.com/tidegate/tidegate/ledger"
)

const (
	gatesAnswer = 2 * time.Second // how long a gate may take
	gatesSettle = 5 * time.Second // how long a gate may lag behind a commit
	portsAtOnce = 5_000           // that gates are asked about: question and answers fit into a message
)

var errEnough = errors.New("there are enough differences")

// verify compares the ledger with the totals, then the totals with what every
// gate remembers. Gates follow commits by milliseconds: a difference counts only
// if it stays.
func (s *Service) verify(ctx context.Context, r verifyRequest) (any, error) {
	now, tell := s.cfg.Now(), s.progress(r.Progress)
	found, err := s.cfg.Ledger.Verify(ctx, now, func(done, all int64) { tell(Progress{OfLedger, done, all}) })
	if err != nil {
		return nil, err
	}
	v := Verification{Verification: found}
	switch p, err := stream.Compare(ctx, s.js, s.cfg.Ledger); {
	case err == nil:
		v.Behind = p.Missing()
	case !errors.Is(err, stream.ErrNoStream): // without one nothing was acknowledged
		return nil, err
	}
	if v.Backlog, err = stream.Backlog(ctx, s.js); err != nil {
		return nil, fmt.Errorf("what waits in the stream cannot be read: %w", err)
	}
	v.Gates, err = s.countGates(ctx)
	if err != nil {
		return nil, err
	}
	if v.Gates == 0 {
		v.Differences = append(v.Differences, ledger.Difference{Where: "gate", What: "gates that answer", Want: 1})
	}
	start, end := budget.Month.Bounds(now)
	compared := int64(0)
	if v.Gates > 0 {
		err = s.cfg.Ledger.UsedByPorts(ctx, start, end, portsAtOnce, func(page []ledger.PortTokens) error {
			if len(v.Differences) >= maxDifferences {
				return errEnough
			}
			differences, err := s.compareGates(ctx, page, v.Gates, start, end)
			v.Differences = append(v.Differences, differences...)
			compared += int64(len(page))
			tell(Progress{OfGates, compared, max(compared, v.Ports)})
			return err
		})
		if err != nil && !errors.Is(err, errEnough) {
			return nil, err
		}
	}
	v.Differences = v.Differences[:min(len(v.Differences), maxDifferences)] // the answer must fit into a message
	v.OK = len(v.Differences) == 0 && v.Behind == 0
	return v, nil
}

// compareGates asks all gates about some ports, and about those that differ
// again, until none does or gatesSettle has passed.
func (s *Service) compareGates(ctx context.Context, page []ledger.PortTokens, gates int, start, end time.Time) ([]ledger.Difference, error) {
	for deadline := time.Now().Add(gatesSettle); ; {
		answers, err := s.askGates(ctx, page, gates, start, end)
		if err != nil {
			return nil, err
		}
		var differences []ledger.Difference
		differing := map[string]bool{}
		for _, a := range answers {
			for i, p := range page {
				if a.Tokens[i] != p.Tokens {
					differing[p.PortID] = true
					differences = append(differences, ledger.Difference{Where: "gate " + a.Gate, Key: p.PortID, What: "tokens of the month", Want: p.Tokens, Got: a.Tokens[i]})
				}
			}
		}
		if missing := gates - len(answers); missing > 0 {
			differences = append(differences, ledger.Difference{Where: "gate", What: "gates that answer", Want: int64(gates), Got: int64(len(answers))})
		}
		if len(differences) == 0 || time.Now().After(deadline) || ctx.Err() != nil {
			return differences, ctx.Err()
		}
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-time.After(100 * time.Millisecond):
		}
		ports := make([]string, 0, len(page))
		for _, p := range page {
			if differing[p.PortID] || len(differing) == 0 {
				ports = append(ports, p.PortID)
			}
		}
		if page, err = s.cfg.Ledger.UsedOf(ctx, ports, start, end); err != nil {
			return nil, err
		}
	}
}

func (s *Service) askGates(ctx context.Context, page []ledger.PortTokens, gates int, start, end time.Time) ([]bus.Used, error) {
	request := bus.UsedRequest{Start: int32(ledger.DayOf(start)), End: int32(ledger.DayOf(end))}
	for _, p := range page {
		request.Ports = append(request.Ports, p.PortID)
	}
	body, err := bus.Encode(request)
	if err != nil {
		return nil, err
	}
	var answers []bus.Used
	err = s.gather(ctx, bus.SubjectUsed, body, gates, gatesAnswer, func(msg *nats.Msg) error {
		if a, err := bus.Decode[bus.Used](msg.Data, s.cfg.Now()); err == nil && len(a.Tokens) == len(page) { // otherwise that gate has not answered
			answers = append(answers, a)
		}
		return nil
	})
	return answers, err
}

// countGates asks who is there, and asks once more with more patience when nobody answers: on a
// busy machine that is no sign of it.
func (s *Service) countGates(ctx context.Context) (n int, err error) {
	subject, err := micro.ControlSubject(micro.PingVerb, events.GateService, "")
	if err != nil {
		return 0, err
	}
	for _, wait := range []time.Duration{300 * time.Millisecond, gatesAnswer} {
		err = s.gather(ctx, subject, nil, 1<<30, wait, func(*nats.Msg) error {
			n++
			return nil
		})
		if err != nil || n > 0 {
			break
		}
	}
	return n, err
}

// gather collects up to want replies to one request.
func (s *Service) gather(ctx context.Context, subject string, body []byte, want int, wait time.Duration, each func(*nats.Msg) error) error {
	inbox := s.cfg.Conn.NewInbox()
	sub, err := s.cfg.Conn.SubscribeSync(inbox)
	if err != nil {
		return err
	}
	defer func() { _ = sub.Unsubscribe() }()
	if err := s.cfg.Conn.PublishRequest(subject, inbox, body); err != nil {
		return err
	}
	waiting, cancel := context.WithTimeout(ctx, wait)
	defer cancel()
	for range want {
		msg, err := sub.NextMsgWithContext(waiting)
		if err != nil || msg.Header.Get("Status") == "503" {
			return ctx.Err() // nobody else, if nobody cut the wait short
		}
		if err := each(msg); err != nil {
			return err
		}
	}
	return nil
}
