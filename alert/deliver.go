package alert

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"strings"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/tidegate/tidegate/internal/killpoint"
	"github.com/tidegate/tidegate/ledger"
)

// Config makes a [Deliverer].
type Config struct {
	Ledger     *ledger.Ledger        // required
	Receivers  []*Receiver           // as [ReadFile] returns them
	Registerer prometheus.Registerer // gets the metrics. Default: none
	Logger     *slog.Logger          // default slog.Default()
}

// Deliverer brings alerts to receivers. Several may run: they share the work.
type Deliverer struct {
	cfg     Config
	log     *slog.Logger
	wake    map[string]chan struct{} // by receiver
	metrics metrics
}

const (
	atOnce      = 10 // attempts at one receiver
	noteTimeout = 5 * time.Second
	// claimFor is how long the claim of an attempt is good: longer than it can take.
	claimFor   = sendTimeout + 3*noteTimeout
	lookEvery  = time.Second
	afterError = 5 * time.Second // of Postgres
	// finishWithin is how long attempts may go on after the process was told to stop.
	finishWithin = 3 * time.Second
	tendEvery    = 15 * time.Second
	longestPause = 6 * time.Hour   // that a receiver may ask for
	longestHold  = 5 * time.Minute // of all deliveries to a receiver that asks for a pause
)

// pauses follow the first attempts that failed; the last one follows all others.
var pauses = []time.Duration{5 * time.Second, 30 * time.Second, 2 * time.Minute, 10 * time.Minute, 30 * time.Minute, time.Hour, 2 * time.Hour, 3 * time.Hour}

// New returns a deliverer. It does not talk to the network.
func New(cfg Config) *Deliverer {
	if cfg.Logger == nil {
		cfg.Logger = slog.Default()
	}
	d := &Deliverer{cfg: cfg, log: cfg.Logger, wake: map[string]chan struct{}{}, metrics: newMetrics(cfg.Registerer, cfg.Receivers)}
	for _, r := range cfg.Receivers {
		d.wake[r.Name] = make(chan struct{}, 1)
	}
	return d
}

// Run delivers until ctx ends. It returns after each attempt under way is noted; one that
// takes longer is cut short and left to others.
func (d *Deliverer) Run(ctx context.Context) error {
	var group sync.WaitGroup // a panic in it ends the process: see cmd/tidegate
	group.Go(func() { d.spread(ctx) })
	group.Go(func() { d.tend(ctx) })
	for _, r := range d.cfg.Receivers {
		group.Go(func() { d.deliverTo(ctx, r) })
	}
	group.Wait()
	for _, r := range d.cfg.Receivers {
		if h, ok := r.sender.(*hook); ok {
			h.client.CloseIdleConnections()
		}
	}
	return nil
}

// spread makes deliveries of new alerts.
func (d *Deliverer) spread(ctx context.Context) {
	for ctx.Err() == nil {
		n, err := d.cfg.Ledger.SpreadAlerts(ctx, func(a *ledger.Alert) (names []string) {
			for _, r := range d.cfg.Receivers {
				if r.wants(a) {
					names = append(names, r.Name)
				}
			}
			return names
		})
		if err != nil {
			d.warn(ctx, "cannot look for new alerts, trying again", err)
			pause(ctx, nil, afterError)
		}
		if n == 0 {
			pause(ctx, nil, lookEvery)
			continue
		}
		for _, wake := range d.wake {
			select {
			case wake <- struct{}{}:
			default:
			}
		}
	}
}

// tend counts what waits, and gives up what nobody attempts.
func (d *Deliverer) tend(ctx context.Context) {
	for ctx.Err() == nil {
		waiting, err := d.cfg.Ledger.WaitingDeliveries(ctx)
		if err == nil {
			d.metrics.wait(d.cfg.Receivers, waiting)
			err = d.cfg.Ledger.GiveUpDeliveries(ctx)
		}
		if err != nil {
			d.warn(ctx, "cannot look at deliveries of alerts", err)
		}
		pause(ctx, nil, tendEvery)
	}
}

func (d *Deliverer) deliverTo(ctx context.Context, r *Receiver) {
	for ctx.Err() == nil {
		due, err := d.cfg.Ledger.ClaimDeliveries(ctx, r.Name, atOnce, claimFor)
		if err != nil {
			d.warn(ctx, "cannot look for alerts to deliver, trying again", err)
			pause(ctx, nil, afterError)
		}
		if len(due) == 0 {
			pause(ctx, d.wake[r.Name], lookEvery)
			continue
		}
		killpoint.Here("delivery-claimed")
		var mu sync.Mutex
		var hold time.Duration
		var group sync.WaitGroup
		for i := range due {
			group.Go(func() {
				asked := d.attempt(ctx, r, &due[i])
				mu.Lock()
				defer mu.Unlock()
				hold = max(hold, asked)
			})
		}
		group.Wait()
		pause(ctx, nil, min(hold, longestHold))
	}
}

// attempt makes one attempt and notes what came of it. It returns how long the receiver
// asks not to be asked.
func (d *Deliverer) attempt(ctx context.Context, r *Receiver, to *ledger.Delivery) (hold time.Duration) {
	sending, cancel := context.WithCancel(context.WithoutCancel(ctx))
	defer cancel()
	defer context.AfterFunc(ctx, func() { time.AfterFunc(finishWithin, cancel) })()
	m := newMessage(&to.Alert)
	_, err := r.send(sending, &m)
	killpoint.Here("delivery-sent")
	noting, done := context.WithTimeout(context.WithoutCancel(ctx), noteTimeout)
	defer done()
	if err == nil {
		d.metrics.count(r, "delivered")
		if err := d.cfg.Ledger.Delivered(noting, to); err != nil {
			d.log.Warn("an alert was delivered and that cannot be noted: it may come once more", "receiver", r.Name, "alert", to.ID, "error", err)
		}
		killpoint.Here("delivery-noted")
		return 0
	}
	next := pauses[min(to.Attempt, len(pauses))-1]
	next += time.Duration((rand.Float64() - 0.5) * 0.4 * float64(next)) // so that not all come at the same moment
	var refused *refusal
	if errors.As(err, &refused) {
		hold, next = refused.later, max(next, min(refused.later, longestPause))
	}
	if sending.Err() != nil {
		err, next = errors.New("this process was stopped in the middle of it"), time.Second
	}
	gaveUp, noteErr := d.cfg.Ledger.NotDelivered(noting, to, err.Error(), next, refused != nil && refused.never)
	if noteErr != nil {
		d.log.Warn("an alert was not delivered and that cannot be noted: it is tried again", "receiver", r.Name, "alert", to.ID, "error", noteErr)
	}
	d.metrics.count(r, "failed")
	if gaveUp {
		d.metrics.count(r, "given_up")
		d.log.Error("an alert could not be delivered and is given up: see tidegate alert ls --failed", "receiver", r.Name, "alert", to.ID, "port_id", to.PortID, "attempts", to.Attempt, "error", err)
		return hold
	}
	d.log.Warn("an alert could not be delivered, trying again", "receiver", r.Name, "alert", to.ID, "port_id", to.PortID, "attempt", to.Attempt, "again_in", next.Round(time.Second), "error", err)
	return hold
}

// ErrUnknownReceiver says that no receiver has the name.
var ErrUnknownReceiver = errors.New("no such receiver")

// Test sends a test alert to a receiver now and returns what that answered.
func (d *Deliverer) Test(ctx context.Context, name string) (said string, err error) {
	r, err := d.receiver(name)
	if err != nil {
		return "", err
	}
	m := testMessage(time.Now())
	if said, err = r.send(ctx, &m); err != nil {
		return "", fmt.Errorf("%s (%s): %w", r.Name, r.Where, err)
	}
	return said, nil
}

// Retry lets what was given up of a receiver be attempted once more.
func (d *Deliverer) Retry(ctx context.Context, name string) (deliveries int64, err error) {
	if _, err := d.receiver(name); err != nil {
		return 0, err
	}
	return d.cfg.Ledger.RetryDeliveries(ctx, name)
}

func (d *Deliverer) receiver(name string) (*Receiver, error) {
	var names []string
	for _, r := range d.cfg.Receivers {
		if r.Name == name {
			return r, nil
		}
		names = append(names, r.Name)
	}
	return nil, fmt.Errorf("%w as %q: there are %s", ErrUnknownReceiver, name, strings.Join(names, ", "))
}

func (d *Deliverer) warn(ctx context.Context, text string, err error) {
	if ctx.Err() == nil {
		d.log.Warn(text, "error", err)
	}
}

// pause waits until ctx ends, something wakes it, or the time is over.
func pause(ctx context.Context, wake <-chan struct{}, d time.Duration) {
	select {
	case <-ctx.Done():
	case <-wake:
	case <-time.After(d):
	}
}
