package main

import (
	"bytes"
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

func TestWarningsAreBounded(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var out bytes.Buffer
		log := slog.New(newCalm(slog.NewTextHandler(&out, nil)))
		ports := log.With("role", "consumer")
		count := func(what string) int { return strings.Count(out.String(), what) }
		for i := range 1000 {
			log.Warn("Postgres is away", "try", i)
			ports.Warn("Postgres is away", "try", i)
			log.Error("an event is lost")
			log.Info("a port is deleted")
		}
		log.Warn("NATS is away")
		for what, want := range map[string]int{"Postgres is away": 5, "an event is lost": 1000, "a port is deleted": 1000, "NATS is away": 1, "left_out": 0} {
			if n := count(what); n != want {
				t.Errorf("%q is logged %d times, want %d", what, n, want)
			}
		}
		time.Sleep(10 * time.Second)
		for range 2 {
			ports.Warn("Postgres is away")
		}
		if count("Postgres is away") != 7 || count("left_out=1995") != 1 || count("left_out") != 1 {
			t.Errorf("after a while:\n%s", out.String()[max(0, out.Len()-300):])
		}
	})
}
