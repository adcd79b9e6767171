package events_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/tidegate/tidegate/consumer/arrival"
	"github.com/tidegate/tidegate/events"
	"github.com/tidegate/tidegate/internal/testenv"
)

func TestPublisher_RidesThroughServerRestarts(t *testing.T) {
	t.Parallel()
	b := startBus(t)
	nc := b.connect()
	usageStream(t, nc)
	p := newPublisher(t, nc, events.PublisherConfig{AckTimeout: time.Second})

	ctx, cancel := context.WithCancel(t.Context())
	var callers sync.WaitGroup
	recorded := make([][]string, 2)
	callers.Go(func() { // a service
		for i := 0; ctx.Err() == nil; i++ {
			p.Record(call("p1", i))
			recorded[0] = append(recorded[0], "p1/"+call("p1", i).RequestID)
			time.Sleep(200 * time.Microsecond)
		}
	})
	callers.Go(func() { // a tool
		for i := 0; ctx.Err() == nil; i += 100 {
			usages := make([]events.Usage, 100)
			for j := range usages {
				usages[j] = call("p2", i+j)
				recorded[1] = append(recorded[1], "p2/"+usages[j].RequestID)
			}
			if err := p.Publish(within(t, time.Minute), usages); err != nil {
				t.Error(err)
			}
		}
	})
	for range 3 {
		time.Sleep(300 * time.Millisecond)
		b.stop()
		time.Sleep(100 * time.Millisecond)
		b.start()
	}
	time.Sleep(200 * time.Millisecond)
	cancel()
	callers.Wait()
	if err := p.Close(within(t, 30*time.Second)); err != nil {
		t.Fatal(err)
	}
	s := p.Stats()
	if s.Dropped != 0 || s.Pending != 0 || s.Published != s.Recorded || s.Retries == 0 {
		t.Errorf("stats: %+v", s)
	}
	wantStored(t, nc, append(recorded[0], recorded[1]...))
}

// wantStored compares the stream with "port/request id" of each recorded event. What was
// published again may be stored again, unchanged: as the ledger does, it counts each id once.
func wantStored(t *testing.T, nc *nats.Conn, recorded []string) {
	t.Helper()
	want, got, ids := map[string]int{}, map[string]int{}, map[string]events.Usage{}
	for _, key := range recorded {
		want[key]++
	}
	for _, u := range storedUsages(t, nc) {
		first, again := ids[u.PortID+u.ID]
		if !again {
			got[u.PortID+"/"+u.RequestID]++
			ids[u.PortID+u.ID] = u
		} else if u != first {
			t.Errorf("stored with the same id: %+v and %+v", first, u)
		}
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error("recorded and stored differ (-recorded +stored):\n", diff)
	}
	if len(ids) != len(recorded) {
		t.Errorf("%d ids for %d events", len(ids), len(recorded))
	}
}

// The message is stored, the answer is lost with the connection: its events are sent
// again, and stored again, with the same ids and times. The ledger knows them by these.
func TestPublisher_LostAcknowledgementIsSentAgainUnchanged(t *testing.T) {
	b := startBus(t)
	nc := b.connect()
	usageStream(t, nc)
	cut := &cutter{to: fmt.Sprintf("127.0.0.1:%d", b.opts.Port), when: []byte(`"stream":`)}
	p := newPublisher(t, connect(t, cut.listen(t)), events.PublisherConfig{Linger: time.Hour})
	for i := range 40 {
		p.Record(call("p1", i))
	}
	if err := p.Close(within(t, 20*time.Second)); err != nil {
		t.Fatal(err)
	}
	if !cut.done.Load() {
		t.Fatal("the connection was never cut: the test proves nothing")
	}
	s := p.Stats()
	if s.Published != 40 || s.Retries < 40 {
		t.Errorf("stats: %+v", s)
	}
	copies := map[string]int{}
	for _, msg := range stored(t, nc) {
		parts, err := arrival.Split(msg.Data)
		if err != nil {
			t.Fatal(err)
		}
		for _, event := range parts {
			copies[msg.Subject+string(event)]++
		}
	}
	for event, n := range copies {
		if n != 2 {
			t.Errorf("stored %d times: %s", n, event)
		}
	}
	if len(copies) != 40 {
		t.Errorf("%d different events are stored, want 40", len(copies))
	}
}

// cutter is a TCP proxy that cuts the connection once, when the server first says
// what it waits for, which the client then does not get to read.
type cutter struct {
	to   string
	when []byte
	done atomic.Bool
}

func (c *cutter) listen(t *testing.T) (url string) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var all sync.WaitGroup
	all.Go(func() {
		for {
			client, err := l.Accept()
			if err != nil {
				return
			}
			srv, err := net.Dial("tcp", c.to)
			if err != nil {
				client.Close()
				continue
			}
			all.Go(func() { io.Copy(srv, client); srv.Close() })
			all.Go(func() { c.answers(client, srv); client.Close(); srv.Close() })
		}
	})
	t.Cleanup(func() { l.Close(); all.Wait() })
	return "nats://" + l.Addr().String()
}

func (c *cutter) answers(client, srv net.Conn) {
	chunk := make([]byte, 64<<10)
	for {
		n, err := srv.Read(chunk)
		if err != nil || bytes.Contains(chunk[:n], c.when) && c.done.CompareAndSwap(false, true) {
			return
		}
		if _, err := client.Write(chunk[:n]); err != nil {
			return
		}
	}
}

func TestPublisher_WaitsForTheStream(t *testing.T) {
	b := startBus(t)
	nc := b.connect()
	log := &logBook{}
	p := newPublisher(t, nc, events.PublisherConfig{Logger: log.logger()})
	p.Record(call("p1", 0))
	testenv.Eventually(t, "it tries again", func() bool { return p.Stats().Retries > 0 })
	p.Record(call("p1", 1))
	if s := p.Stats(); s.Published != 0 {
		t.Fatalf("acknowledged by nobody: %+v", s)
	}
	if got := log.String(); !strings.Contains(got, "no response from stream") {
		t.Errorf("the log does not say what is missing:\n%s", got)
	}
	usageStream(t, nc)
	if err := p.Flush(within(t, 10*time.Second)); err != nil {
		t.Fatal(err)
	}
	wantStored(t, nc, []string{"p1/req_000000", "p1/req_000001"})
}

// What nats.go would buffer while it reconnects would be sent besides our retries.
func TestPublisher_KeepsOutOfTheReconnectBuffer(t *testing.T) {
	b := startBus(t)
	nc := b.connect()
	usageStream(t, nc)
	p := newPublisher(t, nc, events.PublisherConfig{})
	b.stop()
	testenv.Eventually(t, "the loss is noticed", func() bool { return !nc.IsConnected() })
	p.Record(call("p1", 0))
	testenv.Eventually(t, "it tries again", func() bool { return p.Stats().Retries > 2 })
	b.start()
	if err := p.Flush(within(t, 10*time.Second)); err != nil {
		t.Fatal(err)
	}
	if s := p.Stats(); s.Published != 1 {
		t.Errorf("stats: %+v", s)
	}
	if n := len(stored(t, nc)); n != 1 {
		t.Errorf("the event was stored %d times", n)
	}
}

func TestPublisher_WaitsWhileTheStreamIsFull(t *testing.T) {
	nc := startBus(t).connect()
	stream := usageStream(t, nc, func(c *jetstream.StreamConfig) { c.MaxMsgs = 10 })
	p := newPublisher(t, nc, events.PublisherConfig{})
	var recorded []string
	record := func(from, to int) { // as many messages
		for i := from; i < to; i++ {
			port := fmt.Sprint("p", i)
			p.Record(call(port, i))
			recorded = append(recorded, port+"/"+call(port, i).RequestID)
		}
	}
	record(0, 10)
	if err := p.Flush(within(t, 20*time.Second)); err != nil {
		t.Fatal(err)
	}
	record(10, 40)
	testenv.Eventually(t, "the stream is full", func() bool { return p.Stats().Published == 10 && p.Stats().Retries > 5 })
	cfg := stream.CachedInfo().Config
	cfg.MaxMsgs = -1
	js, _ := jetstream.New(nc)
	if _, err := js.UpdateStream(t.Context(), cfg); err != nil {
		t.Fatal(err)
	}
	if err := p.Close(within(t, 10*time.Second)); err != nil {
		t.Fatal(err)
	}
	wantStored(t, nc, recorded)
}

func TestPublisher_EventTooLargeForTheStream(t *testing.T) {
	nc := startBus(t).connect()
	usageStream(t, nc, func(c *jetstream.StreamConfig) { c.MaxMsgSize = 1000 })
	p := newPublisher(t, nc, events.PublisherConfig{})
	large := call("p1", 1)
	large.ResponseID, large.UserID, large.ReservationID = strings.Repeat("ä", 256), strings.Repeat("ä", 128), strings.Repeat("ä", 128)
	large.Model = strings.Repeat("ä", 128)
	for _, u := range []events.Usage{call("p1", 0), large, call("p1", 2)} {
		p.Record(u)
	}
	if err := p.Flush(within(t, 10*time.Second)); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(events.Stats{Recorded: 3, Published: 2, Dropped: 1}, p.Stats(), ignoreRetries); diff != "" {
		t.Error("stats (-want +got):\n", diff)
	}
	wantStored(t, nc, []string{"p1/req_000000", "p1/req_000002"})
	if err := p.Publish(within(t, 10*time.Second), []events.Usage{large}); err == nil || errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("Publish of an event too large: %v", err)
	}
}

// A user bound to p1 records for p2 too. What NATS forbids waits and is told; it
// neither stops p1's events nor is it lost, should the permission come.
func TestPublisher_ForbiddenPortWaitsAside(t *testing.T) {
	grants := func(subjects ...string) []*server.User {
		return []*server.User{
			{Username: "admin", Password: "x"},
			{Username: "svc", Password: "x", Permissions: &server.Permissions{
				Publish:   &server.SubjectPermission{Allow: subjects},
				Subscribe: &server.SubjectPermission{Allow: []string{"_INBOX.p1.>"}},
			}},
		}
	}
	b := startBus(t, func(o *server.Options) { o.Users = grants("ai.usage.p1") })
	admin := b.connect(nats.UserInfo("admin", "x"))
	usageStream(t, admin)
	log := &logBook{}
	var told atomic.Int32
	own := nats.ErrorHandler(func(*nats.Conn, *nats.Subscription, error) { told.Add(1) })
	p := newPublisher(t, b.connect(nats.UserInfo("svc", "x"), events.PortInbox("p1"), own), events.PublisherConfig{Logger: log.logger()})
	var recorded []string
	for i := range 60 {
		for _, port := range []string{"p1", "p2"} {
			p.Record(call(port, i))
			recorded = append(recorded, port+"/"+call(port, i).RequestID)
		}
	}
	testenv.Eventually(t, "p1's events are stored", func() bool { return p.Stats().Published == 60 })
	if s := p.Stats(); s.Pending != 60 || s.Dropped != 0 {
		t.Errorf("stats: %+v", s)
	}
	if got := log.String(); !strings.Contains(got, "does not permit") || !strings.Contains(got, "ai.usage.p2") {
		t.Errorf("the log does not say what is forbidden:\n%s", got)
	}
	if told.Load() == 0 {
		t.Error("the connection's own error handler was not called")
	}
	err := p.Publish(within(t, 10*time.Second), []events.Usage{call("p2", 100)})
	if !errors.Is(err, events.ErrNotPermitted) || !strings.Contains(err.Error(), "ai.usage.p2") {
		t.Errorf("Publish: %v", err)
	}
	if err := p.Flush(within(t, 100*time.Millisecond)); err == nil || !strings.Contains(err.Error(), "60 events") {
		t.Errorf("Flush: %v", err)
	}

	opts := b.opts
	opts.Users = grants("ai.usage.p1", "ai.usage.p2")
	if err := b.srv.ReloadOptions(&opts); err != nil {
		t.Fatal(err)
	}
	if err := p.Flush(within(t, 10*time.Second)); err != nil {
		t.Fatal(err)
	}
	permitted := time.Now()
	p.Record(call("p2", 60))
	testenv.Eventually(t, "p2's next event is stored", func() bool { return p.Stats().Published == 121 })
	if took := time.Since(permitted); took > 15*time.Second {
		t.Errorf("p2's next event was held for %s, though p2's are permitted", took)
	}
	wantStored(t, admin, append(recorded, "p2/"+call("p2", 60).RequestID))
}

// However many ports are forbidden, those that are not go on at once.
func TestPublisher_ManyForbiddenPorts(t *testing.T) {
	b := startBus(t, func(o *server.Options) {
		o.Users = []*server.User{
			{Username: "admin", Password: "x"},
			{Username: "svc", Password: "x", Permissions: &server.Permissions{Publish: &server.SubjectPermission{Allow: []string{"ai.usage.p1"}}}},
		}
	})
	usageStream(t, b.connect(nats.UserInfo("admin", "x")))
	p := newPublisher(t, b.connect(nats.UserInfo("svc", "x")), events.PublisherConfig{AckTimeout: time.Hour, Logger: (&logBook{}).logger()})
	for i := range 300 {
		p.Record(call(fmt.Sprint("other", i), i))
	}
	for round := range 3 {
		p.Record(call("p1", round))
		testenv.Eventually(t, "p1's event is stored", func() bool { return p.Stats().Published == uint64(round+1) })
	}
	if s := p.Stats(); s.Pending != 300 || s.Dropped != 0 {
		t.Errorf("stats: %+v", s)
	}
}

func TestPublisher_HeldEventsLeaveRoom(t *testing.T) {
	b := startBus(t, func(o *server.Options) {
		o.Users = []*server.User{
			{Username: "admin", Password: "x"},
			{Username: "svc", Password: "x", Permissions: &server.Permissions{Publish: &server.SubjectPermission{Deny: []string{"ai.usage.p2"}}}},
		}
	})
	usageStream(t, b.connect(nats.UserInfo("admin", "x")))
	p := newPublisher(t, b.connect(nats.UserInfo("svc", "x")), events.PublisherConfig{Buffer: 40})
	for round := range 5 {
		for i := range 10 {
			p.Record(call("p2", i))
		}
		p.Record(call("p1", round))
		testenv.Eventually(t, "p1's event is stored", func() bool { return p.Stats().Published == uint64(round+1) })
	}
	testenv.Eventually(t, "the oldest are dropped", func() bool {
		s := p.Stats()
		return s.Pending == 20 && s.Dropped == 30
	})
}

// The benchmark tells the nanoseconds; this finds I/O or a wait on the caller's
// goroutine, also on a busy machine and under the race detector.
func TestPublisher_RecordDoesNotWaitForNATS(t *testing.T) {
	p := newPublisher(t, connect(t, deadURL(t)), events.PublisherConfig{})
	took := make([]time.Duration, 60_000)
	for i := range took {
		began := time.Now()
		p.Record(call("p1", i))
		took[i] = time.Since(began)
	}
	slices.Sort(took)
	if median := took[len(took)/2]; median > 10*time.Microsecond {
		t.Errorf("Record took %s in the median with NATS down", median)
	}
	if s := p.Stats(); s.Pending != 60_000 {
		t.Errorf("stats: %+v", s)
	}
}
