package hold

import (
	"context"
	"fmt"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/tidegate/tidegate/budget"
)

var (
	underWaySQL   = statement("limited_ports") + statement("under_way")
	underWayOfSQL = "with ports as materialized (select unnest($4::text[]) as port_id)\n" + statement("under_way") + statement("counters_read")
)

// The kinds of rows that these statements read.
const (
	ofCounter = iota
	ofHold
	ofSealed
	ofSpare
)

// UnderWay is a call that holds tokens of a port whose budget has limits, or what is left
// of a lease.
type UnderWay struct {
	PortID string
	ID     uuid.UUID
	Call   budget.Call
	Calls  int64
	Since  time.Time
	Lease  *budget.Leased // nil: it is a call
	Ended  []budget.Sum   // of the holds that were made from the lease, by whose calls they are
	Spare  bool           // its gate may make holds from the lease, or might have until [LeaseGrace] ago
}

// AddTo adds it to what is held in limits.
func (u *UnderWay) AddTo(t *budget.Tally) {
	if u.Lease != nil {
		t.HoldLeased(u.Lease, u.Ended, u.Call.Tokens, u.Calls, u.Since)
	} else {
		t.Hold(&u.Call, u.Calls, u.Since)
	}
}

// leasesSeen keeps what leases' rows say of whose calls they are for, which changes once, when
// they are sealed, so that it is read twice. It has those of one reading.
type leasesSeen map[uuid.UUID]leaseSeen

type leaseSeen struct {
	sealed bool
	*budget.Leased
}

// scanUnderWay reads rows of underWaySQL and of underWayOfSQL, and what leases say that are not in seen.
func scanUnderWay(rows pgx.Rows, seen leasesSeen, counted func(port string, counter budget.CounterRef, value string, used int64), each func(*UnderWay)) (now leasesSeen, err error) {
	now = leasesSeen{}
	var row UnderWay
	var kind, calls int
	var counter, amount int64
	var text string
	var call, ended []byte
	var known bool
	_, err = pgx.ForEachRow(rows, []any{&kind, &row.PortID, &counter, &text, &row.Since, &amount, &calls, &call, &ended, &row.ID, &known}, func() (err error) {
		u := row
		u.Calls = int64(calls)
		switch {
		case kind == ofCounter:
			counted(u.PortID, budget.CounterRef(counter), text, amount)
			return nil
		case kind == ofHold:
			u.Call, err = readCall(text, amount, call)
		default:
			l := seen[u.ID]
			if !known {
				l.sealed = kind == ofSealed
				l.Leased, err = readLeased(text, call)
			}
			now[u.ID] = l
			u.Call.Tokens, u.Lease, u.Ended, u.Spare = amount, l.Leased, readSums(ended), kind == ofSpare
		}
		if err == nil {
			each(&u)
		}
		return err
	})
	return now, err
}

// Counters are counters of limits that are to be read, of values in windows that began then.
type Counters struct {
	Ports, Values []string
	IDs           []int64
	Starts        []time.Time
}

// QueueUnderWay reads the calls under way of ports and what counters have, by one snapshot.
func QueueUnderWay(b *pgx.Batch, ports []string, c *Counters, counted func(port string, counter budget.CounterRef, value string, used int64), each func(*UnderWay)) {
	b.Queue(underWayOfSQL, nil, nil, LeaseGrace, ports, c.Ports, c.IDs, c.Values, c.Starts).Query(func(rows pgx.Rows) error {
		_, err := scanUnderWay(rows, nil, counted, each)
		return err
	})
}

// UnderWayOf lists the calls under way of a port, as tx sees them.
func UnderWayOf(ctx context.Context, tx pgx.Tx, port string) (list []UnderWay, err error) {
	var send pgx.Batch
	QueueUnderWay(&send, []string{port}, new(Counters), nil, func(u *UnderWay) { list = append(list, *u) })
	if err := tx.SendBatch(ctx, &send).Close(); err != nil {
		return nil, fmt.Errorf("reservation: read calls under way of %s: %w", port, err)
	}
	return list, nil
}

// UnderWay lists the calls under way of ports that have limits.
func (s *Store) UnderWay(ctx context.Context) (list []UnderWay, err error) {
	s.reading.Lock()
	defer s.reading.Unlock()
	ids, sealed := make([]uuid.UUID, 0, len(s.seen)), make([]bool, 0, len(s.seen))
	for id, l := range s.seen {
		ids, sealed = append(ids, id), append(sealed, l.sealed)
	}
	var seen leasesSeen
	err = s.readAll(ctx, underWaySQL, []any{ids, sealed, LeaseGrace}, func(rows pgx.Rows) (err error) {
		seen, err = scanUnderWay(rows, s.seen, nil, func(u *UnderWay) { list = append(list, *u) })
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("reservation: read calls under way: %w", err)
	}
	s.seen = seen
	return list, nil
}
