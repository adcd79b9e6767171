package main

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
)

// rate is what a number of callers got, each asking again as soon as it is answered.
type rate struct {
	perSecond float64
	p50, p99  time.Duration
}

// span is for how long callers ask before they are measured, and for how long they are.
type span struct{ warm, measured time.Duration }

const measureAt = 2 * time.Second

// usual is the span of what needs no time to get going.
var usual = span{300 * time.Millisecond, measureAt}

// callers calls op from n goroutines for the usual span, over at most four
// connections, as one service process would.
func callers(ctx context.Context, url string, n int, op func(nc *nats.Conn, caller, i int) error) (rate, error) {
	return callersFor(ctx, url, n, usual, op)
}

// callersFor is callers for a span of its own.
func callersFor(ctx context.Context, url string, n int, of span, op func(nc *nats.Conn, caller, i int) error) (rate, error) {
	conns := make([]*nats.Conn, min(n, 4))
	for i := range conns {
		nc, err := nats.Connect(url)
		if err != nil {
			return rate{}, err
		}
		defer nc.Close()
		conns[i] = nc
	}
	return measure(ctx, n, of, func(caller, i int) error { return op(conns[caller%len(conns)], caller, i) })
}

// measure calls op from n goroutines.
func measure(ctx context.Context, n int, of span, op func(caller, i int) error) (rate, error) {
	var mu sync.Mutex
	var all []time.Duration
	var failed error
	var wg sync.WaitGroup
	begin := time.Now().Add(of.warm)
	end := begin.Add(of.measured)
	for c := range n {
		wg.Go(func() {
			var own []time.Duration
			for i := 0; ctx.Err() == nil; i++ {
				start := time.Now()
				if start.After(end) {
					break
				}
				if err := op(c, i); err != nil {
					mu.Lock()
					failed = err
					mu.Unlock()
					return
				}
				if start.After(begin) {
					own = append(own, time.Since(start))
				}
			}
			mu.Lock()
			all = append(all, own...)
			mu.Unlock()
		})
	}
	wg.Wait()
	if failed != nil {
		return rate{}, fmt.Errorf("%d callers: %w", n, failed)
	}
	slices.Sort(all)
	return rate{float64(len(all)) / of.measured.Seconds(), quantile(all, 0.5), quantile(all, 0.99)}, ctx.Err()
}

// pair is one round of a measurement and its yardstick, taken after each other.
type pair struct{ ours, yard rate }

// summary is the medians of several rounds.
type summary struct {
	ours, yard              rate
	throughput, p99, median float64 // ratios, ours to the yardstick, of each round
}

func summarize(rounds []pair) (s summary) {
	of := func(f func(pair) float64) float64 {
		values := make([]float64, len(rounds))
		for i, r := range rounds {
			values[i] = f(r)
		}
		return median(values)
	}
	get := func(side func(pair) rate) rate {
		return rate{
			of(func(p pair) float64 { return side(p).perSecond }),
			time.Duration(of(func(p pair) float64 { return float64(side(p).p50) })),
			time.Duration(of(func(p pair) float64 { return float64(side(p).p99) })),
		}
	}
	s.ours, s.yard = get(func(p pair) rate { return p.ours }), get(func(p pair) rate { return p.yard })
	s.throughput = of(func(p pair) float64 { return p.ours.perSecond / p.yard.perSecond })
	s.p99 = of(func(p pair) float64 { return float64(p.ours.p99) / float64(p.yard.p99) })
	s.median = of(func(p pair) float64 { return float64(p.ours.p50) / float64(p.yard.p50) })
	return s
}
