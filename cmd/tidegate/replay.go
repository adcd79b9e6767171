package main

import (
	"context"
	"fmt"
	"os"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/schollz/progressbar/v3"

	"github.com/tidegate/tidegate/events"
	"github.com/tidegate/tidegate/internal/replay"
)

type replayCmd struct {
	remote
	File  string    `arg:"" help:"CSV with the columns TIMESTAMP, ContextTokens, GeneratedTokens." type:"existingfile"`
	Seed  int64     `help:"Decides which port, user and feature each row gets, and the ids: the same file, seed and start give the same." default:"1"`
	Start time.Time `help:"Move the times so that the first row happened then; default: so that the last row is now." placeholder:"2026-11-23T00:00:00Z"`
	Speed float64   `help:"1 keeps the time between rows, 60 is sixty times faster, 0 as fast as acknowledged." default:"0"`
	Ports int       `help:"How many ports to share the rows among." default:"8"`
}

func (c *replayCmd) Run(ctx context.Context) error {
	return c.use(ctx, c.replay)
}

func (c *replayCmd) replay(ctx context.Context, nc *nats.Conn) error {
	publisher, err := events.NewPublisher(nc, events.PublisherConfig{})
	if err != nil {
		return err
	}
	defer func() { _ = publisher.Close(context.WithoutCancel(ctx)) }()

	progress := func(done, total int) {}
	if isTerminal(os.Stderr) {
		var bar *progressbar.ProgressBar
		progress = func(done, total int) {
			if bar == nil {
				bar = progressbar.NewOptions(total, progressbar.OptionSetWriter(os.Stderr), progressbar.OptionSetDescription("acknowledged"),
					progressbar.OptionShowCount(), progressbar.OptionShowIts(), progressbar.OptionSetItsString("events"),
					progressbar.OptionThrottle(100*time.Millisecond), progressbar.OptionClearOnFinish())
			}
			_ = bar.Set(done)
		}
	}
	summary, err := replay.Run(ctx, publisher, replay.Config{File: c.File, Seed: c.Seed, Start: c.Start, Speed: c.Speed, Ports: c.Ports, Progress: progress})
	if err != nil {
		return err // it says what was acknowledged, and how to go on
	}
	if c.JSON {
		return printJSON(summary)
	}
	printReplay(summary)
	return nil
}

func printReplay(s replay.Summary) {
	took := time.Duration(s.ElapsedSeconds * float64(time.Second)).Round(time.Millisecond)
	fmt.Printf("%s = %s acknowledged, %s input and %s output tokens, in %s (%s events/s)\n",
		paint(bold, count(int64(s.Published))+" published"), count(int64(s.Acknowledged)),
		count(s.InputTokens), count(s.OutputTokens), took, count(int64(s.RowsPerSecond)))
	rows := make([][]string, len(s.Ports))
	for i, p := range s.Ports {
		rows[i] = []string{p.PortID, count(int64(p.Rows)), count(p.InputTokens), count(p.OutputTokens)}
	}
	fmt.Println()
	grid(os.Stdout, []string{"port", "calls", "input", "output"}, rows, 1, 2, 3)
	fmt.Printf("\n%s\n", paint(faint, fmt.Sprintf("A trace names no ports, users, features or models: they were assigned by the seed.\nThe same events again: --seed %d --start %s", s.Seed, s.Start.UTC().Format(time.RFC3339Nano))))
}
