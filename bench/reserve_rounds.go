package main

import (
	"context"
	"fmt"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/tidegate/tidegate/events"
)

// The rounds of [reserveCmd], each with its table.

func (b *reserveBench) perCallers(ctx context.Context, r *report) error {
	var rows [][]string
	for _, n := range []int{1, 16, 64, 256} {
		row, err := b.againstEcho(ctx, r.runs, n, fmt.Sprint(n))
		if err != nil {
			return err
		}
		rows = append(rows, row)
	}
	b.publisher = b.byPort
	defer func() { b.publisher = b.shared }()
	row, err := b.againstEcho(ctx, r.runs, 64, "64, each port's subject")
	if err != nil {
		return err
	}
	r.table([]string{"callers", "reserve/s", "booked/s", "echo/s", "throughput", "p50", "p99", "echo p99", "p99 ratio"}, append(rows, row))
	return nil
}

func (b *reserveBench) againstEcho(ctx context.Context, runs, n int, name string) ([]string, error) {
	var rounds []pair
	var bookedRates []float64
	for range runs {
		yard, err := callers(ctx, b.echo.nats, n, func(nc *nats.Conn, caller, i int) error { return ask(nc, "echo."+b.port(caller, i), reserveRequest) })
		if err != nil {
			return nil, err
		}
		ours, booked, err := b.sustained(ctx, n, func(nc *nats.Conn, caller, i int) error { return b.reserveAndSettle(nc, b.port(caller, i)) })
		if err != nil {
			return nil, err
		}
		bookedRates = append(bookedRates, booked)
		rounds = append(rounds, pair{ours, yard})
	}
	m := summarize(rounds)
	return []string{name, thousands(m.ours.perSecond), thousands(median(bookedRates)), thousands(m.yard.perSecond), times(m.throughput),
		micros(m.ours.p50), micros(m.ours.p99), micros(m.yard.p99), times(m.p99)}, nil
}

// bound is what a reservation that cost nothing would be: a check, and the same event.
func (b *reserveBench) bound(ctx context.Context, r *report) error {
	var rounds []pair
	var bookedRates []float64
	for range r.runs {
		yard, err := callers(ctx, b.echo.nats, 64, func(nc *nats.Conn, caller, i int) error { return ask(nc, "echo."+b.port(caller, i), reserveRequest) })
		if err != nil {
			return err
		}
		ours, booked, err := b.sustained(ctx, 64, func(nc *nats.Conn, caller, i int) error {
			port := b.port(caller, i)
			if err := ask(nc, events.Subject(events.SubjectCheck, port), reserveRequest); err != nil {
				return err
			}
			b.publisher.Record(events.Usage{PortID: port, Feature: "ocr", Provider: "openai", Model: "gpt-5-mini", InputTokens: 1500, OutputTokens: 400})
			b.settled.Add(1)
			return nil
		})
		if err != nil {
			return err
		}
		bookedRates = append(bookedRates, booked)
		rounds = append(rounds, pair{ours, yard})
	}
	m := summarize(rounds)
	r.section("Reservations: if they cost nothing", "64 callers that check instead, and record the same event: what is left to win on this machine. Where fewer are booked a second, the rest waited in the publisher.")
	r.table([]string{"check and record/s", "booked/s", "throughput", "p99", "p99 ratio"}, [][]string{
		{thousands(m.ours.perSecond), thousands(median(bookedRates)), times(m.throughput), micros(m.ours.p99), times(m.p99)}})
	return nil
}

func (b *reserveBench) hotPort(ctx context.Context, r *report) error {
	var rounds []pair
	for range r.runs {
		spread, err := callersFor(ctx, b.s.nats, 64, heated, func(nc *nats.Conn, caller, i int) error { return b.reserveAndSettle(nc, b.port(caller, i)) })
		if err != nil {
			return err
		}
		if _, err := b.drain(ctx); err != nil {
			return err
		}
		hot, err := callersFor(ctx, b.s.nats, 64, heated, func(nc *nats.Conn, caller, i int) error { return b.reserveAndSettle(nc, "port-0000") })
		if err != nil {
			return err
		}
		if _, err := b.drain(ctx); err != nil {
			return err
		}
		rounds = append(rounds, pair{hot, spread})
	}
	m := summarize(rounds)
	r.section("Reservations: one hot port", "64 callers, all on one port, against the same spread over all.")
	r.table([]string{"", "reserve/s", "p50", "p99", "ratio"}, [][]string{
		{"one port", thousands(m.ours.perSecond), micros(m.ours.p50), micros(m.ours.p99), times(m.throughput)},
		{digits(b.cmd.Ports) + " ports", thousands(m.yard.perSecond), micros(m.yard.p50), micros(m.yard.p99), ""},
	})
	return nil
}

// besideIngest measures while the consumer has a backlog of half a million events.
func (b *reserveBench) besideIngest(ctx context.Context, r *report) error {
	var seen []rate
	for range r.runs {
		fill := &ingestCmd{Events: 500_000, Ports: b.cmd.Ports}
		filled := make(chan error, 1)
		go func() {
			filled <- b.s.filled(ctx, func(ctx context.Context, nc *nats.Conn) error { return fill.fill(ctx, nc, true) })
		}()
		time.Sleep(time.Second)
		b.settled.Add(500_000)
		got, err := callersFor(ctx, b.s.nats, 64, heated, func(nc *nats.Conn, caller, i int) error { return b.reserveAndSettle(nc, b.port(caller, i)) })
		if err != nil {
			return err
		}
		if err := <-filled; err != nil {
			return err
		}
		if _, err := b.drain(ctx); err != nil {
			return err
		}
		seen = append(seen, got)
	}
	pick := func(f func(rate) float64) float64 {
		values := make([]float64, len(seen))
		for i, s := range seen {
			values[i] = f(s)
		}
		return median(values)
	}
	r.section("Reservations: while the consumer books at full speed", "64 callers, while half a million events are published and booked as fast as they go.")
	r.table([]string{"reserve/s", "p50", "p99"}, [][]string{{thousands(pick(func(x rate) float64 { return x.perSecond })),
		micros(time.Duration(pick(func(x rate) float64 { return float64(x.p50) }))), micros(time.Duration(pick(func(x rate) float64 { return float64(x.p99) })))}})
	return nil
}
