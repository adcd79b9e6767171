package ledger

import (
	"context"
	"errors"
	"slices"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/tidegate/tidegate/events"
)

// prepare makes ready what rows need before they can be written: partitions, and
// registered ports. It runs in transactions of its own, so that a booking holds
// no lock that another one waits for in a different order.
func (l *Ledger) prepare(ctx context.Context, b *batch) error {
	ports, months := l.unseen(b)
	if len(months) > 0 {
		if err := l.ensurePartitions(ctx, months...); err != nil {
			return err
		}
		l.refuseDropped(b)
	}
	if len(ports) == 0 {
		return nil
	}
	unknown, err := l.registerPorts(ctx, ports)
	if err != nil || len(unknown) == 0 {
		return err
	}
	refuse := func(i int) bool {
		port := b.entries[i].Usage.PortID
		if !slices.Contains(unknown, port) {
			return false
		}
		b.reject(i, events.ReasonUnknownPort, "port_id", port, "is not registered, and this ledger books for registered ports only")
		return true
	}
	b.pending, b.repeats = slices.DeleteFunc(b.pending, refuse), slices.DeleteFunc(b.repeats, refuse)
	return nil
}

// refuseDropped rejects what is of a month that was dropped since it was decoded.
func (l *Ledger) refuseDropped(b *batch) {
	dropped := l.droppedBefore()
	refuse := func(i int) bool {
		at := b.entries[i].At
		if !at.Before(dropped) {
			return false
		}
		b.reject(i, events.ReasonTimeTooOld, "occurred_at", at.Format(time.RFC3339), "the ledger keeps events from "+dropped.Format(time.RFC3339)+" on")
		return true
	}
	b.pending, b.repeats = slices.DeleteFunc(b.pending, refuse), slices.DeleteFunc(b.repeats, refuse)
}

// unseen lists the ports and months of a batch that this process has not met yet.
func (l *Ledger) unseen(b *batch) (ports []string, months []time.Time) {
	l.mu.RLock()
	defer l.mu.RUnlock()
	lastPort, lastDay := "", Day(-1)
	for _, i := range b.pending { // sorted by port, then time: neighbours repeat
		e := &b.entries[i]
		if e.Usage.PortID != lastPort {
			lastPort = e.Usage.PortID
			if _, ok := l.ports[lastPort]; !ok {
				ports = append(ports, lastPort)
			}
		}
		if day := DayOf(e.At); day != lastDay {
			lastDay = day
			month := monthOf(e.At)
			if _, ok := l.partitions[month]; !ok && !slices.Contains(months, month) {
				months = append(months, month)
			}
		}
	}
	return ports, months
}

// registerPorts returns those of ports that remain unknown, which is none unless
// the configuration asks for known ports only. ports is sorted.
func (l *Ledger) registerPorts(ctx context.Context, ports []string) (unknown []string, err error) {
	if !l.cfg.KnownPortsOnly {
		_, err := l.pool.Exec(ctx, "insert into ports (id) select unnest($1::text[]) on conflict do nothing", ports)
		if err != nil {
			return nil, wrap(err, "register ports")
		}
		l.learnPorts(ports)
		return nil, nil
	}
	rows, _ := l.pool.Query(ctx, "select id from ports where id = any($1)", ports)
	known, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		return nil, wrap(err, "look up ports")
	}
	l.learnPorts(known)
	return slices.DeleteFunc(ports, func(p string) bool { return slices.Contains(known, p) }), nil
}

// registerUnseen registers, unless only known ports are booked, those of ports that this
// process has not met yet. ports is sorted.
func (l *Ledger) registerUnseen(ctx context.Context, ports []string) error {
	if l.cfg.KnownPortsOnly {
		return nil
	}
	var unseen []string
	l.mu.RLock()
	for _, p := range ports {
		if _, ok := l.ports[p]; !ok {
			unseen = append(unseen, p)
		}
	}
	l.mu.RUnlock()
	if len(unseen) == 0 {
		return nil
	}
	_, err := l.registerPorts(ctx, unseen)
	return err
}

func (l *Ledger) learnPorts(ports []string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, p := range ports {
		l.ports[strings.Clone(p)] = struct{}{} // do not keep the message it was cut from
	}
}

// beginBooking notes the share that tx books, takes tx's part of bookLock, and makes sure
// that this process knows every erased user and all limits, in one round trip as a rule. The
// lock is a statement of its own: one that waited and read at once would read what was true
// before the wait.
func (l *Ledger) beginBooking(ctx context.Context, tx pgx.Tx, share Share, b *batch) error {
	var erased int
	var limits int64
	var send pgx.Batch
	share.queue(&send)
	send.Queue("select pg_advisory_xact_lock_shared($1)", bookLock)
	send.Queue("select (select count(*) from ai_erased_users), (select coalesce(max(version), 0) from ai_limited_ports), clock_timestamp()").QueryRow(func(row pgx.Row) error {
		return row.Scan(&erased, &limits, &b.began)
	})
	if err := tx.SendBatch(ctx, &send).Close(); err != nil {
		return wrap(err, "begin to book")
	}
	l.mu.RLock()
	knowsErased, knowsLimits := len(l.erased) >= erased, l.limited.version == limits
	l.mu.RUnlock()
	if !knowsErased {
		if err := l.learnErased(ctx, tx); err != nil {
			return err
		}
	}
	if !knowsLimits {
		if err := l.learnLimits(ctx, tx, limits); err != nil {
			return err
		}
	}
	b.limits = l.limits()
	return nil
}

// missesPartition goes by what is not translated: a row without a partition
// breaks no constraint that has a name.
func missesPartition(err error) bool {
	var pg *pgconn.PgError
	return errors.As(err, &pg) && pg.Code == codeCheckViolation && pg.TableName == "ai_usage_ledger" && pg.ConstraintName == ""
}
