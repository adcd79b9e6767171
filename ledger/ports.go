package ledger

import (
	"cmp"
	"context"
	_ "embed"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/jackc/pgx/v5"

	"github.com/tidegate/tidegate/budget"
)

// Port is a tenant with what it has spent.
type Port struct {
	PortID      string        `json:"port_id"`
	Name        string        `json:"name"`
	CreatedAt   time.Time     `json:"created_at"`
	Budget      budget.Budget `json:"budget"`
	UsedTokens  int64         `json:"used_tokens"`  // in the current period
	TotalTokens int64         `json:"total_tokens"` // of all time
	Requests    int64         `json:"requests"`     // of all time
}

//go:embed sql/list_ports.sql
var listPortsSQL string

// PortQuery says which ports are listed, in the order of their ids.
type PortQuery struct {
	IDs    []string // only those of these that are registered; nil: any
	Search string   // in an id or a name, in capitals or not; "": any
	After  string   // those after this id
	Limit  int
}

// which is the condition, with its arguments among those that there are.
func (q *PortQuery) which(args *[]any) string {
	which := "true"
	if q.IDs != nil {
		*args = append(*args, q.IDs)
		which = fmt.Sprintf("id = any($%d)", len(*args))
	}
	if q.Search != "" {
		*args = append(*args, q.Search)
		which += fmt.Sprintf(" and position(lower($%d) in sought) > 0", len(*args))
	}
	return which
}

// CountPorts is how many ports a query would list without After and Limit.
func (l *Ledger) CountPorts(ctx context.Context, q PortQuery) (n int64, err error) {
	var args []any
	which := q.which(&args)
	err = l.reportPool.QueryRow(ctx, "select count(*) from ports where "+which, args...).Scan(&n)
	return n, wrap(err, "count ports")
}

// FindPorts is the ids of a page of the ports that a query would list; with the first page, also
// how many it would list in all.
func (l *Ledger) FindPorts(ctx context.Context, q PortQuery) (ids []string, total int64, err error) {
	args := []any{q.After, q.Limit}
	which := q.which(&args)
	count := "0" // on its own, that is quick
	if q.After == "" && q.Search != "" {
		count = "count(*) over ()" // every name is looked at, once
	}
	rows, _ := l.reportPool.Query(ctx, "select id, "+count+" from ports where id > $1 and "+which+" order by id limit $2", args...)
	var id string
	_, err = pgx.ForEachRow(rows, []any{&id, &total}, func() error { ids = append(ids, id); return nil })
	if err != nil {
		return nil, 0, wrap(err, "find ports")
	}
	if q.After == "" && q.Search == "" {
		total, err = l.CountPorts(ctx, q)
	}
	return ids, total, err
}

// Ports lists ports.
func (l *Ledger) Ports(ctx context.Context, q PortQuery, now time.Time) ([]Port, error) {
	args := []any{q.After, q.Limit, BudgetKey}
	for _, p := range budget.Periods {
		start, end := p.Bounds(now)
		args = append(args, start, end)
	}
	which := q.which(&args)
	rows, _ := l.reportPool.Query(ctx, fmt.Sprintf(listPortsSQL, which), args...)
	ports, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (Port, error) {
		var p Port
		var value []byte
		var byDefault bool
		err := row.Scan(&p.PortID, &p.Name, &p.CreatedAt, &value, &p.Budget.Version, &byDefault, &p.Budget.UpdatedAt, &p.Budget.UpdatedBy,
			&p.UsedTokens, &p.TotalTokens, &p.Requests)
		if err != nil {
			return Port{}, err
		}
		version := p.Budget.Version
		err = p.Budget.Complete(value)
		p.Budget.Version, p.Budget.Default = version, byDefault
		return p, err
	})
	return ports, wrap(err, "list ports")
}

// PortNames are the names of ports, of those that have one.
func (l *Ledger) PortNames(ctx context.Context, ids []string) (map[string]string, error) {
	rows, _ := l.reportPool.Query(ctx, "select id, name from ports where id = any($1) and name <> ''", ids)
	names := map[string]string{}
	var id, name string
	_, err := pgx.ForEachRow(rows, []any{&id, &name}, func() error { names[id] = name; return nil })
	return names, wrap(err, "names of ports")
}

// NamePort gives a port its name, and registers it if nobody knows it yet. A name that it has
// stays.
func (l *Ledger) NamePort(ctx context.Context, port, name string) error {
	_, err := l.pool.Exec(ctx, "insert into ports as p (id, name) values ($1, $2) on conflict (id) do update set name = excluded.name where p.name = ''", port, name)
	return wrap(err, "name port %s", port)
}

// maxNameChars is how long the name of a port may be.
const maxNameChars = 100

// RenamePort gives a port another name, or none, and registers it if nobody knows it yet; the change is in the
// audit log. A name that none can be is a [*budget.FieldError].
func (l *Ledger) RenamePort(ctx context.Context, port, name, by string) error {
	if err := validName(name); err != nil {
		return err
	}
	err := l.inTx(ctx, func(tx pgx.Tx) error {
		var before string // the row is held from here on: of two changes one comes after the other
		if err := tx.QueryRow(ctx, "insert into ports as p (id) values ($1) on conflict (id) do update set name = p.name returning name", port).Scan(&before); err != nil || before == name {
			return err
		}
		if _, err := tx.Exec(ctx, "update ports set name = $2 where id = $1", port, name); err != nil {
			return err
		}
		var version int64
		if err := tx.QueryRow(ctx, "select coalesce(max(version), 0) from system_settings where port_id = $1 and key = $2", port, BudgetKey).Scan(&version); err != nil {
			return err
		}
		return audit(ctx, tx, port, PortNamedKey, version, nameValue(before), nameValue(name), by)
	})
	return wrap(err, "rename port %s", port)
}

func validName(name string) error {
	if utf8.RuneCountInString(name) > maxNameChars || strings.TrimSpace(name) != name || strings.ContainsFunc(name, func(r rune) bool { return r == utf8.RuneError || !unicode.IsPrint(r) }) {
		return budget.Refuse(budget.ReasonInvalidField, "name", name, fmt.Sprintf("must be at most %d printable characters, with no space around them", maxNameChars))
	}
	return nil
}

// named is what the audit log has of a name.
type named struct {
	Name string `json:"name"`
}

func nameValue(name string) []byte {
	value, err := json.Marshal(named{name})
	if err != nil {
		panic(err) // a string only
	}
	return value
}

// ErrUnknownPort: there is no such port.
var ErrUnknownPort = errors.New("there is no such port")

// DeletePort removes the port with its ledger rows, totals and settings, leaves
// an audit row and returns how many ledger rows went. Events of the port that
// are still in the stream register it again.
func (l *Ledger) DeletePort(ctx context.Context, port, by string) (rows int64, err error) {
	for attempt := 1; ; attempt++ {
		if err = l.countLikeDefault(ctx, port); err == nil {
			rows, err = l.deletePort(ctx, port, by)
		}
		// A booking that has the port's totals and wants the port itself cannot
		// wait for a deletion that wants it the other way round.
		if sqlState(err) != codeDeadlock && !errors.Is(err, errCountsLess) || attempt == 4 {
			break
		}
	}
	l.forget()
	if errors.Is(err, ErrUnknownPort) {
		return 0, err
	}
	return rows, wrap(err, "delete port %s", port)
}

// errCountsLess: bookings do not count yet for a port all that they count by default.
var errCountsLess = errors.New("the limits of the default budget were changed meanwhile: try again")

// countLikeDefault makes bookings count for a port what they count for all that have the default
// budget, before it becomes one of those: one that is under way when the port is deleted may write
// the first rows after that.
func (l *Ledger) countLikeDefault(ctx context.Context, port string) error {
	var missing []counted
	err := l.inTx(ctx, func(tx pgx.Tx) error {
		known, err := lockLimited(ctx, tx, port)
		for _, c := range known.standard {
			if known.own != nil && !has(known.own, c.Counter) {
				missing = append(missing, c)
			}
		}
		return err
	})
	if err == nil && len(missing) > 0 {
		_, err = l.countFromNow(ctx, port, missing)
	}
	return err
}

func (l *Ledger) deletePort(ctx context.Context, port, by string) (rows int64, err error) {
	err = l.inTx(ctx, func(tx pgx.Tx) error {
		old, err := lockExisting(ctx, tx, port)
		if err != nil {
			return err
		}
		// Waits for the last bookings of the port; then no row can come any more.
		if _, err := tx.Exec(ctx, "delete from ai_usage_totals where port_id = $1", port); err != nil {
			return err
		}
		tag, err := tx.Exec(ctx, "delete from ai_usage_ledger where port_id = $1", port)
		if err != nil {
			return err
		}
		rows = tag.RowsAffected()
		if _, err := tx.Exec(ctx, "delete from ports where id = $1", port); err != nil {
			return err
		}
		known, err := lockLimited(ctx, tx, port)
		if err != nil {
			return err
		}
		// Nothing is counted any more: what was counted before is as good as begun.
		if missing, err := dropOwnLimits(ctx, tx, port, known.own); err != nil || len(missing) > 0 {
			return cmp.Or(err, errCountsLess)
		}
		return audit(ctx, tx, port, portDeletedKey, old.version, old.value, nil, by)
	})
	return rows, err
}

func lockExisting(ctx context.Context, tx pgx.Tx, port string) (setting, error) {
	var s setting
	err := tx.QueryRow(ctx, "select 1 from ports where id = $1 for update", port).Scan(new(int))
	if errors.Is(err, pgx.ErrNoRows) {
		return s, ErrUnknownPort
	}
	if err != nil {
		return s, err
	}
	err = tx.QueryRow(ctx, "select value, version from system_settings where port_id = $1 and key = $2", port, BudgetKey).Scan(&s.value, &s.version)
	if errors.Is(err, pgx.ErrNoRows) {
		return s, nil
	}
	return s, err
}
