package changes

import (
	"cmp"
	"context"
	"fmt"
	"log/slog"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	gocmp "github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"github.com/jackc/pgx/v5"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/tidegate/tidegate/budget"
	"github.com/tidegate/tidegate/internal/bus"
	"github.com/tidegate/tidegate/internal/testenv"
	"github.com/tidegate/tidegate/ledger"
)

func TestMain(m *testing.M) { testenv.Main(m) }

// world is a database and whoever keeps its changes.
type world struct {
	t   *testing.T
	url string
	nc  *nats.Conn
	js  jetstream.JetStream
	log *testenv.Buffer
	*ledger.Ledger
	*Keeper
}

func (w *world) open(url string, change ...func(*KeeperConfig)) *world {
	w.t.Helper()
	opened := &world{t: w.t, url: url, nc: w.nc, js: w.js, log: &testenv.Buffer{}}
	opened.Ledger = testenv.Must(ledger.Open(w.t.Context(), ledger.Config{URL: url}))
	w.t.Cleanup(opened.Ledger.Close)
	cfg := KeeperConfig{Conn: w.nc, Ledger: opened.Ledger, Logger: slog.New(slog.NewTextHandler(opened.log, &slog.HandlerOptions{Level: slog.LevelDebug}))}
	for _, c := range change {
		c(&cfg)
	}
	opened.Keeper = testenv.Must(NewKeeper(cfg))
	return opened
}

// copy copies the database, as a backup does, and opens both.
func (w *world) copy(name string) (original, copied *world) {
	w.t.Helper()
	w.Ledger.Close()
	of := testenv.Must(pgx.ParseConfig(w.url)).Database
	server := *testenv.Must(url.Parse(w.url))
	server.Path = "/postgres"
	conn := testenv.Must(pgx.Connect(w.t.Context(), server.String()))
	name = of + "_" + name
	w.exec(conn, fmt.Sprintf("create database %q template %q", name, of))
	w.t.Cleanup(func() {
		_, _ = conn.Exec(context.Background(), fmt.Sprintf("drop database %q with (force)", name))
		_ = conn.Close(context.Background())
	})
	server.Path = "/" + name
	return w.open(w.url), w.open(server.String())
}

func (w *world) exec(conn *pgx.Conn, sql string, args ...any) {
	w.t.Helper()
	if _, err := conn.Exec(w.t.Context(), sql, args...); err != nil {
		w.t.Fatal(err)
	}
}

// sql runs a statement on the database.
func (w *world) sql(sql string) {
	w.t.Helper()
	conn := testenv.Must(pgx.Connect(w.t.Context(), w.url))
	defer conn.Close(w.t.Context())
	w.exec(conn, sql)
}

func (w *world) set(port string, hard int64, change ...func(*budget.Budget)) {
	w.t.Helper()
	b := budget.Budget{Enabled: true, HardCapTokens: &hard, Period: budget.Month, UpdatedBy: "ada"}
	for _, c := range change {
		c(&b)
	}
	testenv.Must(StoreBudget(w.t.Context(), w.Ledger, w.nc, w.cfg.Logger, port, b, nil))
}

func (w *world) remove(port string) {
	w.t.Helper()
	testenv.Must(DeletePort(w.t.Context(), w.Ledger, w.nc, w.cfg.Logger, port, "ben"))
}

func (w *world) call(port, name string) {
	w.t.Helper()
	if err := NamePort(w.t.Context(), w.Ledger, w.nc, w.cfg.Logger, port, name, "dee"); err != nil {
		w.t.Fatal(err)
	}
}

func (w *world) wantName(port, name string) {
	w.t.Helper()
	if got := testenv.Must(w.PortNames(w.t.Context(), []string{port}))[port]; got != name {
		w.t.Errorf("%s is called %q, want %q", port, got, name)
	}
}

func (w *world) keeps() {
	w.t.Helper()
	if err := w.keep(w.t.Context()); err != nil {
		w.t.Fatal(err)
	}
	if err := w.Behind(); err != nil {
		w.t.Error(err)
	}
}

// stored are all messages of the stream, and its last sequence.
func (w *world) stored() (messages, last uint64) {
	w.t.Helper()
	state := testenv.Must(w.js.Stream(w.t.Context(), Stream)).CachedInfo().State
	return state.Msgs, state.LastSeq
}

func (w *world) wantStored(what string, messages, last uint64) {
	w.t.Helper()
	if m, l := w.stored(); m != messages || l != last {
		w.t.Errorf("%s: the stream has %d messages, the last is %d; want %d and %d", what, m, l, messages, last)
	}
}

func (w *world) wantHard(port string, hard, version int64) {
	w.t.Helper()
	b := testenv.Must(w.Budget(w.t.Context(), port))
	if b.HardCapTokens == nil || *b.HardCapTokens != hard || b.Version != version {
		w.t.Errorf("%s: %+v, want a hard cap of %d, version %d", port, b, hard, version)
	}
}

func (w *world) audit(port string) []ledger.Change {
	w.t.Helper()
	list := testenv.Must(w.Audit(w.t.Context(), port, 0, 100))
	slices.SortFunc(list, func(a, b ledger.Change) int { return cmp.Or(a.ChangedAt.Compare(b.ChangedAt)) })
	return list
}

func newWorld(t *testing.T) *world {
	n := testenv.NATS(t)
	w := &world{t: t, nc: testenv.Connect(t, n)}
	w.js = testenv.Must(jetstream.New(w.nc))
	return w.open(testenv.Database(t))
}

var eachUser = func(b *budget.Budget) {
	b.Limits = []budget.Limit{{Name: "each-user", Per: budget.PerUser, Window: budget.Day, Hard: new(int64(5))}}
}

// A copy of the database is put back that lacks budgets: it takes them back, with who made them
// and when, and knows again what it did before.
func TestADatabaseThatWasPutBackTakesItsBudgetsBack(t *testing.T) {
	t.Parallel()
	before := newWorld(t)
	before.set("p1", 100)
	if said := before.log.String(); !strings.Contains(said, "does not have it yet") {
		t.Errorf("without a stream, it says %q", said)
	}
	before.keeps()
	before.wantStored("what was changed before there was a stream", 1, 1)
	before.set("p1", 90)
	before.wantStored("a change is kept at once", 2, 2)
	for _, port := range []string{"again", "gone", "standard", "same", "ours", "*"} {
		before.set(port, 7)
	}
	before.call("p1", "Harbour")
	before.call("ours", "One")
	before.call("gone", "Gone")
	before.call("p1", "Harbour") // which is no change
	before.wantStored("at the copy", 11, 11)

	now, older := before.copy("older")
	now.set("p1", 50)
	now.set("p1", 40, eachUser)
	now.set("new", 3)
	now.set("*", 8, eachUser)
	now.set("standard", 0, func(b *budget.Budget) { *b = budget.Budget{Default: true, Period: budget.Month, UpdatedBy: "cy"} })
	now.set("same", 11)
	now.set("ours", 10)
	now.set("ours", 20)
	now.remove("again")
	now.set("again", 2)
	now.call("gone", "Gone soon")
	now.remove("gone")
	now.call("p1", "Harbour East")
	now.call("p1", "")
	now.call("p1", "Harbour North")
	now.call("ours", "Two")
	now.call("named", "Only a name")
	now.wantHard("again", 2, 2) // versions go on
	now.wantStored("before the copy is put back", 28, 28)
	now.Ledger.Close()

	told := testenv.Must(before.nc.SubscribeSync(bus.SubjectBudgets))
	older.set("ours", 15)   // of version 2, before anybody noticed
	older.set("same", 12)   // of version 2, as the one that is lacking
	older.set("nobody", 30) // that only this one has
	older.call("ours", "Three")
	if said := older.log.String(); strings.Count(said, "does not have it yet") != 4 || !strings.Contains(said, "wrong last sequence") {
		t.Errorf("changes behind others that are unknown: it says %q", said)
	}
	older.wantStored("nothing is stored behind what is not known", 28, 28)
	older.keeps()
	older.wantStored("what the copy had of its own is sent after that", 32, 32)

	older.wantName("p1", "Harbour North") // the latest
	older.wantName("ours", "Three")       // as it was called after that
	older.wantName("named", "Only a name")
	older.wantName("gone", "Gone soon")

	older.wantHard("p1", 40, 4)
	older.wantHard("new", 3, 1)
	older.wantHard("*", 8, 2)
	older.wantHard("standard", 8, 2)
	older.wantHard("again", 2, 2)
	older.wantHard("ours", 20, 3) // the higher version
	older.wantHard("same", 12, 2) // as it was set
	older.wantHard("nobody", 30, 1)
	if b := testenv.Must(older.Budget(t.Context(), "gone")); !b.Default {
		t.Errorf("the port that was deleted has a budget of its own: %+v", b)
	}
	if b := testenv.Must(older.Budget(t.Context(), "p1")); len(b.Limits) != 1 || b.UpdatedBy != "ada" {
		t.Errorf("p1: %+v, want the limit, by ada", b)
	}
	now = now.open(now.url)
	ids := cmpopts.IgnoreFields(ledger.Change{}, "ID", "RestoredAt")
	for _, port := range []string{"p1", "new", "*", "standard", "again", "gone", "named"} {
		want, got := now.audit(port), older.audit(port)
		counters := gocmp.FilterPath(func(p gocmp.Path) bool { return p.Last().String() == ".NewValue" || p.Last().String() == ".OldValue" }, gocmp.Comparer(func(a, b []byte) bool { return string(a) == string(b) }))
		if diff := gocmp.Diff(want, got, ids, counters); diff != "" {
			t.Errorf("the audit log of %s (-want +got):\n%s", port, diff)
		}
		if newest := got[len(got)-1]; newest.RestoredAt == nil || got[0].RestoredAt != nil && port != "new" && port != "named" {
			t.Errorf("%s: restored at %v", port, newest.RestoredAt)
		}
	}
	now.Ledger.Close()
	if got := testutil.ToFloat64(older.restored); got != 17 {
		t.Errorf("%v changes were restored, want 17", got)
	}
	if said := older.log.String(); strings.Count(said, "delete it once more") != 2 || strings.Count(said, "of a port's name; it has it again") != 6 || !strings.Contains(said, "taken_back=17") {
		t.Errorf("it says %s", said)
	}
	gates := map[string]bool{}
	for msg, err := told.NextMsg(time.Second); err == nil && len(gates) < 9; msg, err = told.NextMsg(time.Second) {
		gates[testenv.Must(bus.Decode[bus.Budget](msg.Data, time.Now())).PortID] = true
	}
	for _, port := range []string{"p1", "new", "*", "standard", "again", "gone"} {
		if !gates[port] {
			t.Errorf("gates are not told of %s", port)
		}
	}

	older.keeps()
	older.wantStored("a second look does nothing", 32, 32)
	if got := testutil.ToFloat64(older.restored); got != 17 {
		t.Errorf("after a second look %v changes were restored, want 17", got)
	}
}

// Between making the stream and following it a keeper takes a moment. What is changed then is not sent before
// the ledger follows the stream: it would be taken for what the ledger lacks, and gates refuse while it does.
func TestChangesBeforeTheStreamIsFollowed(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	testenv.Must(find(t.Context(), w.js, testenv.Must(w.ID(t.Context())), 0, false))
	for i := range 3 {
		w.set("p1", int64(i))
	}
	w.wantStored("before", 0, 0)
	for range 2 {
		w.keeps()
		w.wantStored("after", 3, 3)
	}
	if said := w.log.String(); strings.Count(said, "level=DEBUG msg=\"a change of a budget is stored; the stream of changes does not have it yet") != 3 || strings.Contains(said, "not the one that it was") {
		t.Errorf("it says %s", said)
	}
}

// What becomes of the stream of changes when its other half is disturbed.
func TestTheStreamOfChanges(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.keeps()
	for i := range 3 {
		w.set("p1", int64(i))
	}
	w.wantStored("at first", 3, 3)

	// Whoever sent a change died before it could note that.
	w.sql("insert into ai_unsent_changes select max(id) from system_settings_audit; update ai_change_stream set through = 2")
	w.keeps()
	w.wantStored("it is known", 3, 3)
	if s := testenv.Must(w.ChangeStream(t.Context(), true)); s.Unsent != 0 || s.Through != 3 || testutil.ToFloat64(w.restored) != 0 {
		t.Errorf("%+v, and %v restored", s, testutil.ToFloat64(w.restored))
	}

	testenv.Must(w.js.Publish(t.Context(), Subject+".p1", []byte("garbage")))
	testenv.Must(w.js.Publish(t.Context(), Subject+".p1", []byte(`{"v":1,"port_id":"p2","key":"ai.budget","version":9,"new_value":{"enabled":false}}`)))
	testenv.Must(w.js.Publish(t.Context(), Subject+".p1", []byte(`{"v":1,"port_id":"p1","key":"ai.budget","version":9,"new_value":{"enabled":true,"period":"year"}}`)))
	testenv.Must(w.js.Publish(t.Context(), Subject+".p1", []byte(`{"v":1,"port_id":"p1","key":"port.named","version":3,"new_value":{"name":" x "}}`)))
	w.keeps()
	if said := w.log.String(); strings.Count(said, "is passed over") != 4 {
		t.Errorf("of what is no change it says %s", said)
	}
	w.wantHard("p1", 2, 3)
	w.set("p1", 8)
	w.wantStored("and goes on", 8, 8)

	// A keeper that only knows another ledger leaves the stream alone.
	other := w.open(testenv.Database(t))
	other.sql("update ai_ledger set id = gen_random_uuid()") // all databases of tests are copies of one
	if err := other.keep(t.Context()); err == nil || !strings.Contains(err.Error(), "belongs to ledger") {
		t.Errorf("another ledger: %v", err)
	}
	other.set("p9", 1)
	w.wantStored("after another ledger came", 8, 8)

	if err := w.js.DeleteStream(t.Context(), Stream); err != nil {
		t.Fatal(err)
	}
	w.keeps()
	w.wantStored("the stream is made again with all that is here", 4, 4)
	if said := w.log.String(); !strings.Contains(said, "is not the one that it was") {
		t.Errorf("of the stream that was gone it says %s", said)
	}

	// The database is gone for good, and an empty one takes the stream over.
	w.Ledger.Close()
	adopts := other.open(other.url, func(c *KeeperConfig) { c.AdoptStreams = true })
	adopts.keeps()
	adopts.wantHard("p1", 8, 4)
	adopts.wantHard("p9", 1, 1)
	adopts.wantStored("what it had of its own is sent", 5, 5)
	other.keeps() // it is its own by now
}
