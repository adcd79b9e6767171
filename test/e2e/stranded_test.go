package e2e

import (
	"cmp"
	"context"
	"encoding/base64"
	"encoding/json"
	"io"
	"net"
	"net/url"
	"path/filepath"
	"slices"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/nats-io/nats.go"

	"github.com/tidegate/tidegate/dev"
	"github.com/tidegate/tidegate/events"
	"github.com/tidegate/tidegate/internal/testenv"
)

// What a history does not say by itself: what became of requests that nobody
// answered, and of slices whose gate was cut off.

// sliceOf is the slice that a reservation was made from.
func sliceOf(reservation string) (slice uuid.UUID, ok bool) {
	buf, err := base64.RawURLEncoding.DecodeString(reservation)
	if err != nil || len(buf) < 17 || buf[0] != 1 && buf[0] != 2 { // a UUID decodes to something else
		return slice, false
	}
	return uuid.UUID(buf[1:17]), true
}

// answers are what gates told callers, some of whom had given up, or had heard another
// gate: a client asks a second one by the side.
type answers struct {
	conn  *nats.Conn
	now   func() time.Time
	mu    sync.Mutex
	told  []told
	asked map[string]events.ReserveRequest // without an answer by now, by where it would go
}

type told struct {
	service string // that was named
	heard   time.Time
	events.Verdict
}

// all are the holds that were answered by now, and the ports with a request that was not.
func (a *answers) all() (holds []told, unanswered map[string]bool) {
	testenv.Must(0, a.conn.Flush())
	time.Sleep(50 * time.Millisecond) // until what came is read
	a.mu.Lock()
	defer a.mu.Unlock()
	unanswered = map[string]bool{}
	for _, q := range a.asked {
		unanswered[q.PortID] = true
	}
	return slices.Clone(a.told), unanswered
}

// listen hears all requests for reservations, and all answers.
func listen(t testing.TB, n *dev.NATS, now func() time.Time) *answers {
	messages := make(chan *nats.Msg, 1<<18)
	nc := testenv.Connect(t, n)
	a := &answers{conn: nc, now: now, asked: map[string]events.ReserveRequest{}}
	for _, subject := range []string{events.SubjectReserve + ".*", "_INBOX.>"} { // one channel: a request comes before its answer
		testenv.Must(nc.ChanSubscribe(subject, messages))
	}
	testenv.Must(0, nc.Flush())
	go func() {
		for {
			select {
			case msg := <-messages:
				a.hear(msg)
			case <-t.Context().Done():
				return
			}
		}
	}()
	return a
}

func (a *answers) hear(msg *nats.Msg) {
	a.mu.Lock()
	defer a.mu.Unlock()
	q, answered := a.asked[msg.Subject]
	if answered {
		delete(a.asked, msg.Subject)
		var v events.Verdict
		if json.Unmarshal(msg.Data, &v) == nil && v.ReservationID != "" {
			a.told = append(a.told, told{q.Service, a.now(), v})
		}
	} else if msg.Reply != "" && json.Unmarshal(msg.Data, &q) == nil && q.Service != "" {
		a.asked[msg.Reply] = q
	}
}

// keepEnded keeps the rows of holds and leases when they go, and of holds that another one
// of their key replaces: what nobody was told of may be over by the time that one looks.
const keepEnded = `create table ended_holds (like ai_budget_holds);
	create table ended_slices (like ai_budget_slices, ended_at timestamptz default clock_timestamp());
	create function keep() returns trigger language plpgsql as $$ begin
		execute format('insert into %I select $1.*', tg_argv[0]) using old;
		if tg_op = 'UPDATE' then return new; end if;
		return old; end $$;
	create trigger keep before delete or update on ai_budget_holds for each row execute function keep('ended_holds');
	create trigger keep before delete on ai_budget_slices for each row execute function keep('ended_slices')`

// findUnknown adds the holds from leases that were answered to callers who had given up or heard
// another answer, and the others that are not known, which have rows. These may be a key's too:
// a first try that a gate comes to after its retry was answered and settled makes another hold.
func (c *chaos) findUnknown(answered []told) {
	known := map[string]bool{}
	for _, op := range c.history {
		known[op.id] = known[op.id] || op.kind == opReserve
	}
	found := func(op operation, created, expires time.Time) {
		op.period, op.kind, op.ok = c.periodOf(created), opReserve, true
		c.history = append(c.history, op)
		c.recordExpiry(op, expires)
		known[op.id] = true
	}
	for _, v := range answered {
		op, ok := c.asked[v.service]
		if _, leased := sliceOf(v.ReservationID); !ok || !leased || known[v.ReservationID] {
			continue
		}
		op.id, op.ret = v.ReservationID, v.heard.UnixNano()
		created := v.PeriodStart
		if c.limits && c.clock == nil { // the answer may be about the window of a limit
			created = time.Unix(0, op.call)
		}
		found(op, created, v.ExpiresAt)
	}
	rows := testenv.Must(c.db.Query(context.Background(), `select port_id, id::text, tokens, created_at, expires_at, feature, call
		from (table ai_budget_holds union all table ended_holds) h`))
	var op operation
	var feature string
	var call []byte
	var created, expires time.Time
	testenv.Must(pgx.ForEachRow(rows, []any{&op.port, &op.id, &op.tokens, &created, &expires, &feature, &call}, func() error {
		if !known[op.id] {
			// It was decided between the reading that it is dated by and the end of its transaction.
			op.call, op.ret = created.Add(-clockSlack).UnixNano(), created.Add(2*reserveTimeout).UnixNano()
			if c.limits {
				op.counts = countsOfRow(feature, call, op.tokens)
			}
			found(op, created, expires)
		}
		return nil
	}))
}

// findStranded adds what gates had leased when they were cut off, not what they returned. To everybody else
// it is one hold that nobody settles: how much of it was held, and how much was leased and
// no hold, died with the gate. So did the answers to the last holds of a lease that it
// still returned.
func (c *chaos) findStranded(unanswered map[string]bool) {
	held := map[uuid.UUID]int64{}
	for _, op := range c.history {
		if slice, ok := sliceOf(op.id); ok && op.kind == opReserve && op.ok {
			held[slice] += op.tokens
		}
	}
	stranded := map[string]int64{} // since when, by budget
	rows := testenv.Must(c.db.Query(context.Background(), `select port_id, id, tokens, closed_tokens, created_at, expires_at, holds is null, false from ai_budget_slices
		union all select port_id, id, tokens, closed_tokens, created_at, expires_at, holds is null, ended_at <= expires_at from ended_slices`))
	var op operation
	var slice uuid.UUID
	var created, expires time.Time
	var ended int64
	var open, removed bool
	testenv.Must(pgx.ForEachRow(rows, []any{&op.port, &slice, &op.tokens, &ended, &created, &expires, &open, &removed}, func() error {
		if removed && ended >= held[slice] { // its gate returned it, and all its holds have ended
			return nil
		}
		if op.tokens -= held[slice]; op.tokens > 0 && (open || unanswered[op.port]) {
			op.period, op.kind, op.id, op.ok = c.periodOf(created), opReserve, slice.String(), true
			op.call, op.ret = created.Add(-clockSlack).UnixNano(), c.now().UnixNano()
			c.history = append(c.history, op)
			c.recordExpiry(op, expires)
			stranded[op.budget()] = min(cmp.Or(stranded[op.budget()], op.call), op.call)
		}
		return nil
	}))
	if c.limits { // whose calls they were nobody knows: until it expires the lease counts for all whom it was for
		c.history = slices.DeleteFunc(c.history, func(op operation) bool {
			since, ok := stranded[op.budget()]
			return ok && op.kind == opReserve && !op.ok && op.ret > since
		})
	}
}

// cable is a way to Postgres that can be cut.
type cable struct {
	url      string
	listener net.Listener
	mu       sync.Mutex
	ends     []net.Conn // nil once it is cut
	cutOff   bool
}

func lay(t testing.TB, database string) *cable {
	cfg := testenv.Must(pgx.ParseConfig(database))
	network, address := "tcp", net.JoinHostPort(cfg.Host, strconv.Itoa(int(cfg.Port)))
	if filepath.IsAbs(cfg.Host) {
		network, address = "unix", filepath.Join(cfg.Host, ".s.PGSQL."+strconv.Itoa(int(cfg.Port)))
	}
	c := &cable{listener: testenv.Must(net.Listen("tcp", "127.0.0.1:0"))}
	t.Cleanup(c.cut)
	c.url = (&url.URL{Scheme: "postgres", User: url.UserPassword(cfg.User, cfg.Password), Host: c.listener.Addr().String(), Path: cfg.Database, RawQuery: "sslmode=disable"}).String()
	go func() {
		for {
			near, err := c.listener.Accept()
			if err != nil {
				return
			}
			if far, err := net.Dial(network, address); err == nil && c.keep(near, far) {
				go func() { _, _ = io.Copy(far, near); _ = far.Close() }()
				go func() { _, _ = io.Copy(near, far); _ = near.Close() }()
			}
		}
	}()
	return c
}

func (c *cable) keep(ends ...net.Conn) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.cutOff {
		for _, e := range ends {
			_ = e.Close()
		}
		return false
	}
	c.ends = append(c.ends, ends...)
	return true
}

func (c *cable) cut() {
	_ = c.listener.Close()
	c.mu.Lock()
	defer c.mu.Unlock()
	c.cutOff = true
	for _, e := range c.ends {
		_ = e.Close()
	}
	c.ends = nil
}
