package broker

import (
	"context"
	"maps"
	"strings"
	"time"

	"github.com/tidegate/tidegate/budget"
	"github.com/tidegate/tidegate/internal/reservation/hold"
)

// known is what a broker knows of holds: of the ports with live ones only. It is read from
// Postgres several times a second, all at once, and corrected in between by what
// reservations leave behind, in told: a reading replaces the one and looks through the
// other, which is small.
//
// A reading does not see a transaction that commits while it is read, though its time may
// be the later one. Of such a reading and such news the greater figure counts, until the
// next reading.
type known struct {
	read        map[string]hold.Standing
	told        map[string]news
	readAt      time.Time
	begun, done int // readings
}

type news struct {
	hold.Standing
	begun int // readings that had begun when it was told
}

func (k *known) of(port string) hold.Standing {
	if n, ok := k.told[port]; ok {
		return n.Standing
	}
	return k.read[port]
}

func (k *known) tell(st hold.Standing) {
	if k.told == nil {
		k.told = map[string]news{}
	}
	st.PortID = strings.Clone(st.PortID)
	k.told[st.PortID] = news{st, k.begun}
}

// Known is what a port's reservations are decided by in memory. held is without what this
// broker has leased and not made into holds. It is looked up first: what turns from held
// into used meanwhile counts twice, rather than not at all.
func (b *Broker) Known(port string, now time.Time) (rule *budget.Rule, count budget.Count, asOf time.Time) {
	b.mu.Lock()
	st, readAt := b.known.of(port), b.known.readAt
	if p := b.leases.ports[port]; p != nil {
		st.Held = max(st.Held-p.unused, 0)
	}
	b.mu.Unlock()
	rule, used, start, asOf := b.cfg.Port(port, now)
	if st.At.Before(start) { // what was held before counts no more
		st.Held = 0
	}
	if readAt.Before(asOf) {
		asOf = readAt
	}
	return rule, budget.Count{Used: used, Held: st.Held}, asOf
}

// AsOf is when what is held was last read, by the database's clock.
func (b *Broker) AsOf() time.Time {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.known.readAt
}

// Hear takes over what reservations have left ports' holds at, unless later news came first.
func (b *Broker) Hear(standings []hold.Standing) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.hear(standings, b.known.done)
}

// hear takes over what a transaction has left behind. done is how many readings were
// done when it began, and may have missed it.
func (b *Broker) hear(standings []hold.Standing, done int) {
	for _, st := range standings {
		was := b.known.of(st.PortID)
		if later := was.At.After(b.known.readAt); st.At.After(was.At) && st.At.After(b.known.readAt) {
			b.known.tell(st)
		} else if !later && done < b.known.done && st.Held > was.Held {
			b.known.tell(hold.Standing{PortID: st.PortID, Held: st.Held, At: b.known.readAt})
		} else {
			continue
		}
		for _, l := range b.leases.sent[st.PortID] {
			b.leases.count(l)
		}
	}
}

// Read reads what is held of all ports, and what the database's clock says.
func (b *Broker) Read(ctx context.Context) (at time.Time, err error) {
	b.returning.Lock()
	defer b.returning.Unlock()
	b.mu.Lock()
	b.known.begun++
	b.mu.Unlock()
	list, at, err := b.cfg.Store.Standings(ctx)
	if err != nil {
		return at, err
	}
	read := make(map[string]hold.Standing, len(list))
	for _, st := range list {
		read[st.PortID] = st
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	maps.DeleteFunc(b.known.told, func(port string, n news) bool {
		return !n.At.After(at) && (n.begun < b.known.begun || n.Held <= read[port].Held)
	})
	b.known.read, b.known.readAt = read, at
	b.known.done++
	return at, nil
}
