package gate

import (
	"bytes"
	"encoding/json"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/tidegate/tidegate/budget"
	"github.com/tidegate/tidegate/events"
	"github.com/tidegate/tidegate/internal/testenv"
	"github.com/tidegate/tidegate/ledger"
)

// An alert is published once JetStream has it, and not before: what it refuses goes out when it
// takes it, and whoever was not there reads it in the stream. Somebody who keeps alerts in a
// stream of their own, as was advised once, goes on doing so.
func TestJetStreamHasWhatIsPublished(t *testing.T) {
	t.Parallel()
	conn := testenv.Connect(t, testenv.NATS(t))
	js := testenv.Must(jetstream.New(conn))
	l := testenv.Must(ledger.Open(t.Context(), ledger.Config{URL: testenv.Database(t)}))
	t.Cleanup(l.Close)
	g := testenv.Must(New(Config{Conn: conn, Ledger: l}))
	reach := func(port string) {
		t.Helper()
		testenv.Must(l.StoreBudget(t.Context(), port, budget.None(), nil, func(budget.Budget) error { return nil }))
		start, _ := budget.Month.Bounds(time.Now())
		a := ledger.Alert{PortID: port, Limit: "port", Unit: "tokens", Period: budget.Month, PeriodStart: start, Threshold: "hard", Reached: 10, Used: 10, NoticedAt: time.Now()}
		if err := g.publishMine(t.Context(), []ledger.Alert{a}); err != nil {
			t.Fatal(err)
		}
	}
	line := func(port string) ledger.SentAlert {
		t.Helper()
		list, err := l.Alerts(t.Context(), ledger.AlertFilter{PortID: port}, nil, 10)
		if err != nil || len(list) != 1 {
			t.Fatalf("%s: %+v, %v", port, list, err)
		}
		return list[0]
	}
	inStream := func(stream, port string) events.Alert {
		t.Helper()
		msg, err := testenv.Must(js.Stream(t.Context(), stream)).GetLastMsgForSubject(t.Context(), "ai.alert."+port)
		var a events.Alert
		if err == nil {
			err = json.Unmarshal(msg.Data, &a)
		}
		if err != nil {
			t.Fatal(err)
		}
		return a
	}
	own := jetstream.StreamConfig{Name: "OWN", Subjects: []string{"ai.alert.>"}}
	testenv.Must(js.CreateStream(t.Context(), own))
	reach("p1")
	if line("p1").PublishedAt == nil || inStream("OWN", "p1").ID != line("p1").ID {
		t.Errorf("in a stream of somebody's own: %+v, %+v", inStream("OWN", "p1"), line("p1"))
	}
	own.MaxMsgSize = 100
	testenv.Must(js.UpdateStream(t.Context(), own))
	reach("p2")
	if line("p2").PublishedAt != nil {
		t.Error("an alert that no stream took is noted as published")
	}
	if err := js.DeleteStream(t.Context(), "OWN"); err != nil {
		t.Fatal(err)
	}
	reach("p3")
	if line("p3").PublishedAt == nil || inStream(events.AlertStream, "p3").ID != line("p3").ID {
		t.Errorf("in the stream that the gate made: %+v, %+v", inStream(events.AlertStream, "p3"), line("p3"))
	}
	if err := js.DeleteStream(t.Context(), events.AlertStream); err != nil {
		t.Fatal(err)
	}
	heard := testenv.Must(conn.SubscribeSync("ai.alert.*"))
	reach("p4") // it finds out
	reach("p5") // and makes it again
	if line("p4").PublishedAt != nil || line("p5").PublishedAt == nil {
		t.Errorf("without the stream: %+v, and after it was made again: %+v", line("p4"), line("p5"))
	}
	if n, _, _ := heard.Pending(); n != 2 {
		t.Errorf("whoever listens heard %d alerts, want 2", n)
	}
}

// What NATS forbids it logs: a gate whose user may not ask for the stream asks rarer and rarer.
func TestTheStreamOfAlertsIsAskedForRarely(t *testing.T) {
	t.Parallel()
	conn := testenv.Connect(t, testenv.NATS(t))
	l := testenv.Must(ledger.Open(t.Context(), ledger.Config{URL: testenv.Database(t)}))
	t.Cleanup(l.Close)
	now := time.Now()
	var log bytes.Buffer
	g := testenv.Must(New(Config{Conn: conn, Ledger: l, Logger: slog.New(slog.NewTextHandler(&log, nil)), Now: func() time.Time { return now }}))
	conn.Close() // no answer, at once
	const hour = 3600
	for range hour {
		if err := g.takeOverAlerts(t.Context()); err == nil {
			t.Fatal("it is told of no failure")
		}
		now = now.Add(time.Second)
	}
	if tries := testutil.ToFloat64(g.metrics.alertErrors); tries < 60 || tries > 66 {
		t.Errorf("%g tries in an hour, want one a minute after the first few", tries)
	}
	if lines := strings.Count(log.String(), "\n"); lines != 1 {
		t.Errorf("%d lines are logged within a minute:\n%s", lines, log.String())
	}
}
