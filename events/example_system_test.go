package events_test

import (
	"context"
	"fmt"
	"log"
	"os"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/nats-io/nats.go/micro"

	"github.com/tidegate/tidegate/events"
)

// exampleSystem is a nats-server with the usage stream and a stand-in for the
// gate, which knows marina-7 only: 1,500 tokens left of its month's million.
func exampleSystem() (url string, stop func()) {
	dir, err := os.MkdirTemp("", "tidegate-example")
	must(err)
	srv, err := server.NewServer(&server.Options{
		Host: "127.0.0.1", Port: server.RANDOM_PORT, NoLog: true, NoSigs: true, JetStream: true, StoreDir: dir,
	})
	must(err)
	go srv.Start()
	if !srv.ReadyForConnections(10 * time.Second) {
		log.Fatal("nats-server: not ready after 10 s")
	}
	nc, err := events.Connect(srv.ClientURL())
	must(err)
	js, err := jetstream.New(nc)
	must(err)
	_, err = js.CreateStream(context.Background(), jetstream.StreamConfig{
		Name: events.UsageStream, Subjects: []string{events.SubjectUsage, events.SubjectUsage + ".*"}, AllowAtomicPublish: true,
	})
	must(err)
	svc, err := micro.AddService(nc, micro.Config{Name: events.GateService, Version: "1.0.0"})
	must(err)
	answer := func(base string, h micro.HandlerFunc) {
		must(svc.AddEndpoint("e", h, micro.WithEndpointSubject(base+".marina-7")))
	}
	hard, left := int64(1_000_000), int64(1500)
	start := time.Date(2026, 11, 1, 0, 0, 0, 0, time.UTC)
	var version atomic.Int64
	version.Store(4)
	answer(events.SubjectCheck, func(r micro.Request) {
		v := events.Verdict{Reason: events.ReasonEstimateExceedsHardCap, Enabled: true, Period: events.PeriodMonth, PeriodStart: start,
			ResetsAt: start.AddDate(0, 1, 0), UsedTokens: hard - left, HardCapTokens: &hard, RemainingTokens: &left}
		must(r.Respond(v.AppendJSON(nil)))
	})
	must(svc.AddEndpoint("reserve", micro.HandlerFunc(func(r micro.Request) {
		var request events.ReserveRequest
		_, err := events.DecodeRequest(events.SubjectReserve, r.Subject(), r.Data(), &request)
		must(err)
		asked := max(request.EstimatedTokens, request.EstimatedInputTokens+request.EstimatedOutputTokens)
		v := events.Verdict{Allowed: asked <= left, Enabled: true, Period: events.PeriodMonth, PeriodStart: start,
			ResetsAt: start.AddDate(0, 1, 0), HardCapTokens: &hard, RemainingTokens: &left}
		if v.Allowed {
			v.ReservationID, v.GrantedTokens = "a-hold", asked
		} else {
			v.Reason = events.ReasonEstimateExceedsHardCap
		}
		must(r.Respond(v.AppendJSON(nil)))
	}), micro.WithEndpointSubject(events.SubjectReserve+".*")))
	answer(events.SubjectBudgetGet, func(r micro.Request) {
		must(r.RespondJSON(events.Budget{Enabled: true, HardCapTokens: &hard, Period: events.PeriodMonth, Version: version.Load()}))
	})
	answer(events.SubjectBudgetSet, func(r micro.Request) {
		var set events.SetRequest
		_, err := events.DecodeRequest(events.SubjectBudgetSet, r.Subject(), r.Data(), &set)
		must(err)
		if !version.CompareAndSwap(*set.IfVersion, *set.IfVersion+1) {
			must(r.Error("409", fmt.Sprintf("the stored version is %d", version.Load()), []byte(`{}`)))
			return
		}
		b := set.Budget()
		b.Version = version.Load()
		must(r.RespondJSON(b))
	})
	must(nc.Flush())
	return srv.ClientURL(), func() {
		nc.Close()
		srv.Shutdown()
		srv.WaitForShutdown()
		os.RemoveAll(dir)
	}
}

// exampleStored is how many messages the usage stream holds.
func exampleStored(url string) uint64 {
	nc, err := events.Connect(url)
	must(err)
	defer nc.Close()
	js, err := jetstream.New(nc)
	must(err)
	stream, err := js.Stream(context.Background(), events.UsageStream)
	must(err)
	return stream.CachedInfo().State.Msgs
}

func must(err error) {
	if err != nil {
		log.Fatal(err)
	}
}
