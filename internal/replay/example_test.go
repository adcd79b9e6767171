package replay_test

import (
	"context"
	"fmt"
	"log"
	"os"
	"path/filepath"
	"time"

	"github.com/tidegate/tidegate/events"
	"github.com/tidegate/tidegate/internal/replay"
)

// printer stands in for an events.Publisher.
type printer struct{}

func (printer) Publish(_ context.Context, usages []events.Usage) error {
	for _, u := range usages {
		fmt.Println(u.ID, u.PortID, u.Feature, u.InputTokens, u.OutputTokens)
	}
	return nil
}

func ExampleRun() {
	dir, err := os.MkdirTemp("", "replay")
	if err != nil {
		log.Fatal(err)
	}
	defer os.RemoveAll(dir)
	file := filepath.Join(dir, "trace.csv")
	csv := `TIMESTAMP,ContextTokens,GeneratedTokens
2023-11-16 18:17:03.9799600,4808,10
2023-11-16 18:17:04.0319600,3180,8`
	if err := os.WriteFile(file, []byte(csv), 0o600); err != nil {
		log.Fatal(err)
	}

	sum, err := replay.Run(context.Background(), printer{}, replay.Config{
		File:  file,
		Start: time.Date(2025, 11, 1, 9, 30, 0, 0, time.UTC), // leave it out to end now
	})
	if err != nil {
		log.Fatal(err)
	}
	fmt.Printf("%d of %d rows acknowledged, %d + %d tokens, from %s to %s\n",
		sum.Acknowledged, sum.Rows, sum.InputTokens, sum.OutputTokens,
		sum.FirstAt.Format(time.TimeOnly), sum.LastAt.Format("15:04:05.000"))
	// Output:
	// 019a3ec0-95c0-7743-ab6a-d05e00000002 p5 ocr 4808 10
	// 019a3ec0-95f4-7780-a284-af7400000003 p5 summary 3180 8
	// 2 of 2 rows acknowledged, 7988 + 18 tokens, from 09:30:00 to 09:30:00.052
}
