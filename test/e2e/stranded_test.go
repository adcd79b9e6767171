package e2e

import (
	"context"
	"encoding/base64"
	"io"
	"net"
	"net/url"
	"path/filepath"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/tidegate/tidegate/internal/testenv"
)

// What a history does not say by itself: what became of requests that nobody
// answered, and of slices whose gate was cut off.

// sliceOf is the slice that a reservation was made from.
func sliceOf(reservation string) (slice uuid.UUID, ok bool) {
	buf, err := base64.RawURLEncoding.DecodeString(reservation)
	if err != nil || len(buf) < 17 || buf[0] != 1 { // a UUID decodes to something else
		return slice, false
	}
	return uuid.UUID(buf[1:17]), true
}

// findUnknown adds the holds that nobody was told of.
func (c *chaos) findUnknown() {
	rows := testenv.Must(c.db.Query(context.Background(), `
		select service, id::text, created_at, expires_at from ai_budget_holds
		union all
		select s.holds->'labels'->(h.hold->>0)::int->>0, s.id || '/' || h.n, s.created_at, s.expires_at
		from ai_budget_slices s, jsonb_array_elements(s.holds->'holds') with ordinality h(hold, n)`))
	var service, id string
	var created, expires time.Time
	testenv.Must(pgx.ForEachRow(rows, []any{&service, &id, &created, &expires}, func() error {
		op, ok := c.unknown[service]
		if !ok {
			return nil
		}
		// It was decided before its transaction had to end, whoever had given up by then.
		op.period, op.id, op.ok, op.ret = c.periodOf(created), id, true, time.Unix(0, op.call).Add(5*time.Second).UnixNano()
		c.history = append(c.history, op)
		c.recordExpiry(op, expires)
		return nil
	}))
}

// findStranded adds what gates had leased when they were cut off. To everybody else
// it is one hold that nobody settles: how much of it was held, and how much was to
// spare, died with the gate.
func (c *chaos) findStranded() {
	held := map[uuid.UUID]int64{}
	for _, op := range c.history {
		if slice, ok := sliceOf(op.id); ok && op.kind == opReserve && op.ok {
			held[slice] += op.tokens
		}
	}
	rows := testenv.Must(c.db.Query(context.Background(), "select port_id, id, tokens, created_at, expires_at from ai_budget_slices where holds is null"))
	var op operation
	var slice uuid.UUID
	var created, expires time.Time
	testenv.Must(pgx.ForEachRow(rows, []any{&op.port, &slice, &op.tokens, &created, &expires}, func() error {
		if op.tokens -= held[slice]; op.tokens > 0 {
			op.period, op.kind, op.id, op.ok = c.periodOf(created), opReserve, slice.String(), true
			op.call, op.ret = created.Add(-clockSlack).UnixNano(), c.now().UnixNano()
			c.history = append(c.history, op)
			c.recordExpiry(op, expires)
		}
		return nil
	}))
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
