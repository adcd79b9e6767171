package changes

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
	"golang.org/x/time/rate"

	"github.com/tidegate/tidegate/budget"
	"github.com/tidegate/tidegate/internal/bus"
	"github.com/tidegate/tidegate/ledger"
)

// KeeperConfig makes a [Keeper].
type KeeperConfig struct {
	Conn   *nats.Conn     // required; stays the caller's
	Ledger *ledger.Ledger // required
	// Replicas is how many copies the stream has, if this keeper makes it. Default: three on a
	// cluster of NATS, one on a lone server.
	Replicas int
	// AdoptStreams takes over the stream of another ledger, with all its budgets.
	AdoptStreams bool
	Registerer   prometheus.Registerer // default: none
	Logger       *slog.Logger          // required
}

// Keeper sees to it that ledger and stream have the same changes: it makes the stream, sends what
// whoever made a change could not, and takes back what the ledger lacks. Any number may run.
type Keeper struct {
	cfg      KeeperConfig
	js       jetstream.JetStream
	complain rate.Sometimes
	restored prometheus.Counter
	unsent   prometheus.Gauge

	mu     sync.Mutex
	behind error
}

const (
	keepEvery      = time.Second
	requestTimeout = 2 * time.Second // for one request of NATS or Postgres
	keepRetry      = time.Minute     // at most, while it cannot be done: NATS logs each request that it forbids
)

// NewKeeper returns a keeper. It does not talk to the network.
func NewKeeper(cfg KeeperConfig) (*Keeper, error) {
	js, err := jetstream.New(cfg.Conn)
	if err != nil {
		return nil, err
	}
	f := promauto.With(cfg.Registerer)
	return &Keeper{cfg: cfg, js: js, complain: rate.Sometimes{Interval: time.Minute},
		restored: f.NewCounter(prometheus.CounterOpts{Name: "tidegate_budget_changes_restored_total",
			Help: "Changes of budgets that the database lacked, as after an older copy of it was put back, and that this process took back from the stream AI_BUDGETS."}),
		unsent: f.NewGauge(prometheus.GaugeOpts{Name: "tidegate_budget_changes_unsent",
			Help: "Changes of budgets that the stream AI_BUDGETS may not have yet; 10,000 stands for more."}),
	}, nil
}

// Behind says that the ledger lacks changes that the stream has, as far as is known.
func (k *Keeper) Behind() error {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.behind
}

func (k *Keeper) setBehind(err error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.behind = err
}

// Run compares and mends until ctx ends.
func (k *Keeper) Run(ctx context.Context) {
	wait := keepEvery
	for ctx.Err() == nil {
		err := k.keep(ctx)
		switch {
		case err == nil:
			wait = keepEvery
		case ctx.Err() == nil:
			k.complain.Do(func() {
				k.cfg.Logger.Warn("changes of budgets cannot be kept in their stream, trying again", "error", err)
			})
			wait = min(2*wait, keepRetry)
		}
		timer := time.NewTimer(wait)
		select {
		case <-ctx.Done():
		case <-timer.C:
		}
		timer.Stop()
	}
}

func (k *Keeper) keep(ctx context.Context) error {
	// What the ledger has is read first: the stream, which is read next, then has it.
	known, s, err := k.look(ctx)
	if err != nil {
		return err
	}
	k.unsent.Set(float64(known.Unsent))
	if known.ID != s.id || s.last < known.Through {
		if known.Through > 0 {
			k.cfg.Logger.Error("the stream of changes of budgets is not the one that it was, or an older copy of it: all changes that the database has are sent to it", "stream", Stream)
		}
		if err := k.cfg.Ledger.FollowChanges(ctx, known, s.id); err != nil {
			return err
		}
	}
	if known.ID != s.id || s.last != known.Through {
		if known, err = k.cfg.Ledger.ChangeStream(ctx, true); err != nil {
			return err
		}
	}
	if known.ID == s.id && known.Through < s.last {
		if err := k.takeBack(ctx, s, known.Through); err != nil {
			return err
		}
	}
	k.setBehind(nil)
	for sent := sentAtOnce; known.Unsent > 0 && sent == sentAtOnce; {
		if sent, err = send(ctx, k.js, k.cfg.Ledger); err != nil {
			return err
		}
	}
	return nil
}

func (k *Keeper) look(ctx context.Context) (known ledger.ChangeStream, s state, err error) {
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	owner, err := k.cfg.Ledger.ID(ctx)
	if err == nil {
		known, err = k.cfg.Ledger.ChangeStream(ctx, false)
	}
	if err == nil {
		s, err = find(ctx, k.js, owner, k.cfg.Replicas, k.cfg.AdoptStreams)
	}
	return known, s, err
}

// takeBack takes over what the stream has after a sequence.
func (k *Keeper) takeBack(ctx context.Context, s state, through uint64) error {
	k.setBehind(fmt.Errorf("the ledger lacks changes of budgets: it has them through sequence %d of stream %s, which has %d; they are taken back", through, Stream, s.last))
	began, restored := time.Now(), 0
	for through < s.last && ctx.Err() == nil {
		c, sequence, bad, err := k.next(ctx, s, through+1)
		if errors.Is(err, jetstream.ErrMsgNotFound) {
			break // what follows has left the stream
		}
		if err != nil {
			return fmt.Errorf("stream %s: %w", Stream, err)
		}
		var r ledger.Restored
		if bad == nil {
			r, err = k.cfg.Ledger.RestoreChange(ctx, c)
			if wrong := (*budget.FieldError)(nil); errors.As(err, &wrong) {
				bad, err = wrong, nil
			}
		}
		switch {
		case err != nil:
			return err
		case bad != nil:
			k.cfg.Logger.Error("what is in the stream of changes of budgets is none, and is passed over", "stream", Stream, "sequence", sequence, "error", bad)
		case !r.Known:
			restored++
			k.restored.Inc()
			k.tell(c, r)
		}
		through = sequence
		if through%sentAtOnce == 0 {
			if err := k.cfg.Ledger.HasChangesThrough(ctx, s.id, through); err != nil {
				return err
			}
		}
	}
	if err := k.cfg.Ledger.HasChangesThrough(ctx, s.id, s.last); err != nil || restored == 0 {
		return err
	}
	k.cfg.Logger.Warn("the ledger has all changes of budgets again", "taken_back", restored, "took", time.Since(began).Round(time.Millisecond))
	return nil
}

func (k *Keeper) next(ctx context.Context, s state, from uint64) (c ledger.Change, sequence uint64, bad, err error) {
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	return s.next(ctx, from)
}

// tell lets gates and operators know of a change that was taken back.
func (k *Keeper) tell(c ledger.Change, r ledger.Restored) {
	log := k.cfg.Logger.With("port_id", c.PortID, "version", c.Version, "changed_at", c.ChangedAt, "changed_by", c.ChangedBy)
	switch {
	case c.Key == ledger.PortNamedKey:
		log.Warn("the database lacked a change of a port's name; it has it again")
	case c.NewValue == nil:
		log.Error("the database lacked that a port was deleted: it is there again, without a budget of its own; delete it once more")
	case r.Stored == nil:
		log.Warn("the database lacked a change of a budget; it is in the audit log again, and a higher version binds")
	default:
		log.Warn("the database lacked a change of a budget; it binds again")
	}
	if r.Stored != nil { // a notice that is lost heals by the next reading
		_ = bus.Tell(k.cfg.Conn, bus.Budget{PortID: c.PortID, Budget: *r.Stored})
	}
}
