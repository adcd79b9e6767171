package main

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/tidegate/tidegate/events"
)

type freshCmd struct {
	Rate    int `default:"1000"`
	Samples int `default:"500"`
}

// Run publishes at a steady rate and asks, for one event after another, until its
// tokens are in the gate's answer.
func (c *freshCmd) Run(ctx context.Context, r *report) error {
	r.section("Freshness", fmt.Sprintf("From Record to visible in check, at %s events/s over 1,000 ports. The probe asks every half millisecond.", digits(c.Rate)))
	s, err := newSystem()
	if err != nil {
		return err
	}
	defer s.remove()
	if err := s.run(ctx); err != nil {
		return err
	}
	nc, err := s.connect()
	if err != nil {
		return err
	}
	defer nc.Close()
	p, err := events.NewPublisher(nc, events.PublisherConfig{})
	if err != nil {
		return err
	}
	defer p.Close(context.WithoutCancel(ctx))
	stop := make(chan struct{})
	done := make(chan struct{})
	go func() {
		defer close(done)
		tick := time.NewTicker(time.Second / time.Duration(c.Rate))
		defer tick.Stop()
		for i := 0; ; i++ {
			select {
			case <-stop:
				return
			case <-tick.C:
				p.Record(sampleUsage(i % 1000))
			}
		}
	}()
	time.Sleep(time.Second)
	var seen []time.Duration
	for i := range c.Samples {
		took, err := c.probe(ctx, nc, p, i)
		if err != nil {
			return err
		}
		seen = append(seen, took)
	}
	close(stop)
	<-done
	slices.Sort(seen)
	r.table([]string{"samples", "p50", "p90", "p99", "max"}, [][]string{{fmt.Sprint(len(seen)),
		millis(quantile(seen, 0.5)), millis(quantile(seen, 0.9)), millis(quantile(seen, 0.99)), millis(seen[len(seen)-1])}})
	return nil
}

func millis(d time.Duration) string { return fmt.Sprintf("%.1f ms", float64(d)/1e6) }

func (c *freshCmd) probe(ctx context.Context, nc *nats.Conn, p *events.Publisher, i int) (time.Duration, error) {
	port := fmt.Sprintf("probe-%d", i%50)
	before, err := c.used(nc, port)
	if err != nil {
		return 0, err
	}
	u := sampleUsage(0)
	u.PortID = port
	start := time.Now()
	p.Record(u)
	for ctx.Err() == nil && time.Since(start) < 10*time.Second {
		now, err := c.used(nc, port)
		if err != nil {
			return 0, err
		}
		if now > before {
			return time.Since(start), nil
		}
		time.Sleep(500 * time.Microsecond)
	}
	return 0, fmt.Errorf("an event was not visible after 10 s: %w", ctx.Err())
}

func (c *freshCmd) used(nc *nats.Conn, port string) (int64, error) {
	msg, err := nc.Request(events.Subject(events.SubjectCheck, port), nil, 5*time.Second)
	if err != nil {
		return 0, err
	}
	var v events.Verdict
	err = json.Unmarshal(msg.Data, &v)
	return v.UsedTokens, err
}
