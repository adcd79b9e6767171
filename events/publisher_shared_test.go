package events_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/tidegate/tidegate/events"
)

func TestPublisher_SharedSubjectFillsMessages(t *testing.T) {
	nc := startBus(t).connect()
	usageStream(t, nc)
	p := newPublisher(t, nc, events.PublisherConfig{SharedSubject: true})
	usages := make([]events.Usage, 1050)
	for i := range usages {
		usages[i] = call(fmt.Sprintf("p%d", i%7), i)
	}
	if err := p.Publish(t.Context(), usages); err != nil {
		t.Fatal(err)
	}
	messages := stored(t, nc)
	if n := len(messages); n < 10 || n > 40 {
		t.Errorf("%d events came in %d messages", len(usages), n)
	}
	for _, msg := range messages {
		if msg.Subject != "ai.usage" || len(msg.Data) > events.MaxPayloadBytes || msg.Header.Get(jetstream.MsgIDHeader) != "" {
			t.Errorf("a message on %s of %d bytes with headers %v", msg.Subject, len(msg.Data), msg.Header)
		}
	}
	got := storedUsages(t, nc)
	if len(got) != len(usages) {
		t.Fatalf("stored %d of %d", len(got), len(usages))
	}
	for i := range got {
		if got[i].ID != usages[i].ID || got[i].PortID != usages[i].PortID || got[i].RequestID != usages[i].RequestID {
			t.Fatalf("place %d holds %s of %s, want %s of %s", i, got[i].RequestID, got[i].PortID, usages[i].RequestID, usages[i].PortID)
		}
	}
	if diff := cmp.Diff(events.Stats{Recorded: 1050, Published: 1050}, p.Stats(), ignoreRetries); diff != "" {
		t.Error("stats (-want +got):\n", diff)
	}
}

// A stream that takes less than we put into a message gets the events alone, and
// only the one that is too large by itself is given up.
func TestPublisher_SharedSubjectOnAStreamOfSmallMessages(t *testing.T) {
	nc := startBus(t).connect()
	usageStream(t, nc, func(c *jetstream.StreamConfig) { c.MaxMsgSize = 1000 })
	p := newPublisher(t, nc, events.PublisherConfig{SharedSubject: true})
	large := call("p1", 1)
	large.ResponseID, large.UserID, large.Model = strings.Repeat("ä", 256), strings.Repeat("ä", 128), strings.Repeat("ä", 128)
	var recorded []string
	for i := range 900 {
		p.Record(call("p1", i))
		recorded = append(recorded, "p1/"+call("p1", i).RequestID)
		if i == 450 {
			p.Record(large)
		}
	}
	if err := p.Flush(within(t, 20*time.Second)); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(events.Stats{Recorded: 901, Published: 900, Dropped: 1}, p.Stats(), ignoreRetries); diff != "" {
		t.Error("stats (-want +got):\n", diff)
	}
	wantStored(t, nc, recorded)
}

func TestPublisher_SharedSubjectIsForbidden(t *testing.T) {
	grants := func(subject string) []*server.User {
		return []*server.User{
			{Username: "admin", Password: "x"},
			{Username: "svc", Password: "x", Permissions: &server.Permissions{Publish: &server.SubjectPermission{Allow: []string{subject}}}},
		}
	}
	b := startBus(t, func(o *server.Options) { o.Users = grants("ai.usage.p1") })
	usageStream(t, b.connect(nats.UserInfo("admin", "x")))
	log := &logBook{}
	p := newPublisher(t, b.connect(nats.UserInfo("svc", "x")), events.PublisherConfig{SharedSubject: true, Logger: log.logger()})
	usages := []events.Usage{call("p1", 0), call("p2", 1)}
	if err := p.Publish(within(t, 10*time.Second), usages); !errors.Is(err, events.ErrNotPermitted) || !strings.HasSuffix(err.Error(), "subject ai.usage") {
		t.Errorf("Publish: %v", err)
	}
	p.Record(usages[0])
	p.Record(usages[1])
	if err := p.Flush(within(t, 300*time.Millisecond)); !errors.Is(err, context.DeadlineExceeded) || !strings.Contains(err.Error(), "2 events") {
		t.Errorf("Flush: %v", err)
	}
	if got := log.String(); !strings.Contains(got, "does not permit") || !strings.Contains(got, "subject=ai.usage") {
		t.Errorf("the log does not say what is forbidden:\n%s", got)
	}
	opts := b.opts
	opts.Users = grants("ai.usage")
	if err := b.srv.ReloadOptions(&opts); err != nil {
		t.Fatal(err)
	}
	if err := p.Close(within(t, 10*time.Second)); err != nil {
		t.Fatal(err)
	}
}
