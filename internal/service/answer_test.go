package service_test

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/micro"

	"github.com/tidegate/tidegate/events"
	"github.com/tidegate/tidegate/internal/service"
	"github.com/tidegate/tidegate/internal/testenv"
)

func TestMain(m *testing.M) { testenv.Main(m) }

// Whatever cannot be sent, its caller hears at once that it does not come, and why.
func TestSend_WhatCannotBeSentIsAFault(t *testing.T) {
	t.Parallel()
	nc := testenv.Connect(t, testenv.NATS(t))
	most := int(nc.MaxPayload())
	quoted := func(length int) string { return strings.Repeat("x", length-2) } // with its quotes
	for _, c := range []struct {
		name   string
		answer any
		code   string
		says   string
	}{
		{"the largest answer", quoted(most), "", ""},
		{"a byte more", quoted(most + 1), "413", "1048577 bytes and NATS takes 1048576 (max_payload)"},
		{"no JSON", make(chan int), "500", "unsupported type"},
	} {
		reply, err := nc.SubscribeSync(nc.NewInbox())
		if err != nil {
			t.Fatal(err)
		}
		if err := service.Send(nc, reply.Subject, c.answer); (err != nil) != (c.code != "") {
			t.Errorf("%s: %v", c.name, err)
		}
		msg, err := reply.NextMsg(5 * time.Second)
		if err != nil {
			t.Errorf("%s: nothing came: %v", c.name, err)
			continue
		}
		if code, what := msg.Header.Get(micro.ErrorCodeHeader), msg.Header.Get(micro.ErrorHeader); code != c.code || !strings.Contains(what, c.says) || !strings.Contains(string(msg.Data), c.says) {
			t.Errorf("%s: code %q, %q, %d bytes; want %q and %q", c.name, code, what, len(msg.Data), c.code, c.says)
		}
	}
	nc.Close()
	if err := service.Send(nc, "_INBOX.x", 1); !errors.Is(err, nats.ErrConnectionClosed) {
		t.Errorf("without a connection: %v", err)
	}
}

func TestFault(t *testing.T) {
	t.Parallel()
	nc := testenv.Connect(t, testenv.NATS(t))
	reply, err := nc.SubscribeSync(nc.NewInbox())
	if err != nil {
		t.Fatal(err)
	}
	for _, again := range []bool{false, true} {
		what := "line\nline" + strings.Repeat("é", 4000)
		if err := service.Fault(nc, reply.Subject, service.Problem{Code: 503, What: what, TryAgain: again}); err != nil {
			t.Fatal(err)
		}
		msg, err := reply.NextMsg(5 * time.Second)
		if err != nil {
			t.Fatal(err)
		}
		got := msg.Header.Get(micro.ErrorHeader)
		if !strings.HasPrefix(got, "line lineéé") || len(got) > 2048 || len(got) < 2000 || strings.ContainsRune(got, '�') {
			t.Errorf("the header has %d bytes: %q", len(got), got)
		}
		if (msg.Header.Get(events.TryAgainHeader) == "true") != again || strings.Contains(string(msg.Data), `"try_again":true`) != again {
			t.Errorf("try again %v: %v %s", again, msg.Header, msg.Data)
		}
	}
}
