package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"time"

	"github.com/google/uuid"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/tidegate/tidegate/consumer/arrival"
	"github.com/tidegate/tidegate/consumer/stream"
	"github.com/tidegate/tidegate/events"
)

type publishCmd struct {
	Ports   int           `default:"1000"`
	Rates   []int         `default:"1000,10000,50000"`
	Measure time.Duration `default:"5s"`
}

// publishRun is one run's figures.
type publishRun struct {
	most, single, sync float64 // events a second, messages a second, writes a second
	perMessage         float64
	rates              []offered
}

// offered is what became of events that were recorded at a steady rate.
type offered struct {
	stored     float64 // events a second
	perMessage float64
	p50, p99   float64 // ms from Record until JetStream delivers it
	dropped    float64 // %, since the buffer was full
}

// Run measures one publisher with its defaults against a server that syncs every message.
func (c *publishCmd) Run(ctx context.Context, r *report) error {
	r.section("Publish", fmt.Sprintf("One publisher with its defaults, %s equally busy ports, events of ~380 bytes; the NATS server is a process of its own and syncs what it stores before it acknowledges. "+
		"At most: as fast as the publisher's buffer takes them. Yardsticks in the same run: nats.go's asynchronous publisher, an event a message and 256 on their way, and write and fsync of 16 KiB. "+
		"The delay is from `Record` until JetStream delivers the event to a subscriber.", digits(c.Ports)))
	var runs []publishRun
	for range r.runs {
		run, err := c.once(ctx)
		if err != nil {
			return err
		}
		runs = append(runs, run)
		fmt.Fprintf(r.w, "<!-- %+v -->\n", run)
	}
	pick := func(f func(publishRun) float64) float64 {
		values := make([]float64, len(runs))
		for i := range runs {
			values[i] = f(runs[i])
		}
		return median(values)
	}
	number := func(format string, f func(publishRun) float64) string { return fmt.Sprintf(format, pick(f)) }
	rows := [][]string{{"at most", thousands(pick(func(x publishRun) float64 { return x.most })),
		number("%.1f", func(x publishRun) float64 { return x.perMessage }), "", "", "",
		thousands(pick(func(x publishRun) float64 { return x.single })), times(pick(func(x publishRun) float64 { return x.most / x.single })),
		thousands(pick(func(x publishRun) float64 { return x.sync }))}}
	for i, rate := range c.Rates {
		rows = append(rows, []string{digits(rate) + "/s", thousands(pick(func(x publishRun) float64 { return x.rates[i].stored })),
			number("%.1f", func(x publishRun) float64 { return x.rates[i].perMessage }),
			number("%.1f ms", func(x publishRun) float64 { return x.rates[i].p50 }), number("%.1f ms", func(x publishRun) float64 { return x.rates[i].p99 }),
			number("%.0f %%", func(x publishRun) float64 { return x.rates[i].dropped }), "", "", ""})
	}
	r.table([]string{"offered", "events/s", "events a message", "delay p50", "p99", "dropped", "an event a message/s", "ratio", "fsyncs/s"}, rows)
	return nil
}

func (c *publishCmd) once(ctx context.Context) (run publishRun, err error) {
	s, err := newSystem()
	if err != nil {
		return run, err
	}
	defer s.remove()
	if err := s.spawnNATS("nats"); err != nil {
		return run, err
	}
	nc, err := events.Connect(s.nats)
	if err != nil {
		return run, err
	}
	defer nc.Close()
	for end := time.Now().Add(10 * time.Second); !nc.IsConnected() && time.Now().Before(end); {
		time.Sleep(10 * time.Millisecond)
	}
	js, err := jetstream.New(nc)
	if err != nil {
		return run, err
	}
	if _, _, err := stream.Ensure(ctx, js, 1, uuid.Nil, false); err != nil {
		return run, err
	}
	if run.sync, err = syncYardstick(s.dir); err != nil {
		return run, err
	}
	if run.single, err = c.singleYardstick(ctx, js); err != nil {
		return run, err
	}
	if run.most, run.perMessage, err = c.most(ctx, nc, js); err != nil {
		return run, err
	}
	for _, rate := range c.Rates {
		o, err := c.offer(ctx, nc, js, rate)
		if err != nil {
			return run, err
		}
		run.rates = append(run.rates, o)
	}
	return run, nil
}

// syncYardstick is how often a second 16 KiB can be written and synced.
func syncYardstick(dir string) (float64, error) {
	f, err := os.Create(filepath.Join(dir, "yardstick"))
	if err != nil {
		return 0, err
	}
	defer f.Close()
	block := make([]byte, events.MaxPayloadBytes)
	n := 0
	start := time.Now()
	for ; time.Since(start) < time.Second; n++ {
		if _, err := f.Write(block); err != nil {
			return 0, err
		}
		if err := f.Sync(); err != nil {
			return 0, err
		}
	}
	return float64(n) / time.Since(start).Seconds(), nil
}

func (c *publishCmd) singleYardstick(ctx context.Context, js jetstream.JetStream) (float64, error) {
	limited, err := jetstream.New(js.Conn(), jetstream.WithPublishAsyncMaxPending(256))
	if err != nil {
		return 0, err
	}
	n := 0
	start := time.Now()
	for ; time.Since(start) < 2*time.Second; n++ {
		u := sampleUsage(n % c.Ports)
		if _, err := limited.PublishAsync(events.Subject(events.SubjectUsage, u.PortID), u.AppendJSON(nil), jetstream.WithStallWait(time.Minute)); err != nil {
			return 0, err
		}
	}
	select {
	case <-limited.PublishAsyncComplete():
	case <-ctx.Done():
	}
	return float64(n) / time.Since(start).Seconds(), ctx.Err()
}

// most records as fast as there is room.
func (c *publishCmd) most(ctx context.Context, nc *nats.Conn, js jetstream.JetStream) (perSecond, perMessage float64, err error) {
	p, err := events.NewPublisher(nc, events.PublisherConfig{})
	if err != nil {
		return 0, 0, err
	}
	defer p.Close(context.WithoutCancel(ctx))
	before, err := messages(ctx, js)
	if err != nil {
		return 0, 0, err
	}
	n := 0
	start := time.Now()
	for ; time.Since(start) < c.Measure; n++ {
		for n%100 == 0 && p.Stats().Pending > 65_000 {
			time.Sleep(time.Millisecond)
		}
		p.Record(sampleUsage(n % c.Ports))
	}
	if err := p.Flush(ctx); err != nil {
		return 0, 0, err
	}
	took := time.Since(start).Seconds()
	after, err := messages(ctx, js)
	published := float64(p.Stats().Published)
	return published / took, published / (after - before), err
}

// offer records at a steady rate, and beside it an event every 10 ms whose way is timed.
func (c *publishCmd) offer(ctx context.Context, nc *nats.Conn, js jetstream.JetStream, rate int) (o offered, err error) {
	watching, err := nats.Connect(nc.ConnectedUrl())
	if err != nil {
		return o, err
	}
	defer watching.Close()
	watch, err := jetstream.New(watching)
	if err != nil {
		return o, err
	}
	probes, err := watch.OrderedConsumer(ctx, events.UsageStream, jetstream.OrderedConsumerConfig{
		FilterSubjects: []string{events.Subject(events.SubjectUsage, "probe")}, DeliverPolicy: jetstream.DeliverNewPolicy})
	if err != nil {
		return o, err
	}
	delays := make(chan time.Duration, 10_000)
	consuming, err := probes.Consume(func(msg jetstream.Msg) {
		now := time.Now().UnixNano()
		parts, _ := arrival.Split(msg.Data())
		for _, part := range parts {
			u, _ := events.DecodeUsage(msg.Subject(), part)
			sent, _ := strconv.ParseInt(u.RequestID, 10, 64)
			delays <- time.Duration(now - sent)
		}
	})
	if err != nil {
		return o, err
	}
	defer consuming.Stop()
	time.Sleep(200 * time.Millisecond)
	p, err := events.NewPublisher(nc, events.PublisherConfig{})
	if err != nil {
		return o, err
	}
	defer p.Close(context.WithoutCancel(ctx))
	before, err := messages(ctx, js)
	if err != nil {
		return o, err
	}
	start, recorded, probed := time.Now(), 0, 0
	for elapsed := time.Duration(0); elapsed < c.Measure; elapsed = time.Since(start) {
		for due := int(elapsed.Seconds() * float64(rate)); recorded < due; recorded++ {
			p.Record(sampleUsage(recorded % c.Ports))
		}
		if time.Duration(probed)*10*time.Millisecond < elapsed {
			u := sampleUsage(0)
			u.PortID, u.RequestID = "probe", strconv.FormatInt(time.Now().UnixNano(), 10)
			p.Record(u)
			probed++
		}
		time.Sleep(500 * time.Microsecond)
	}
	if err := p.Flush(ctx); err != nil {
		return o, err
	}
	took := time.Since(start).Seconds()
	after, err := messages(ctx, js)
	if err != nil {
		return o, err
	}
	published := float64(p.Stats().Published)
	o.stored, o.perMessage = published/took, published/(after-before)
	o.dropped = float64(p.Stats().Dropped) / float64(p.Stats().Recorded) * 100
	var seen []time.Duration
	for len(seen) < probed && ctx.Err() == nil {
		select {
		case d := <-delays:
			seen = append(seen, d)
			continue
		case <-time.After(time.Second): // some were dropped
		}
		break
	}
	slices.Sort(seen)
	ms := func(q float64) float64 { return float64(quantile(seen, q)) / 1e6 }
	o.p50, o.p99 = ms(0.5), ms(0.99)
	return o, nil
}

// messages is how many the usage stream ever got.
func messages(ctx context.Context, js jetstream.JetStream) (float64, error) {
	usage, err := js.Stream(ctx, events.UsageStream)
	if err != nil {
		return 0, err
	}
	return float64(usage.CachedInfo().State.LastSeq), nil
}
