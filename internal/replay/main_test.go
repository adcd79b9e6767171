package replay_test

import (
	"context"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/tidegate/tidegate/events"
	"github.com/tidegate/tidegate/internal/testenv"
)

func TestMain(m *testing.M) { testenv.Main(m) }

const header = "TIMESTAMP,ContextTokens,GeneratedTokens\n"

// paper keeps what it is given, and when.
type paper struct {
	usages []events.Usage
	at     []time.Time
	calls  int
	before func(call int) error // asked before each call, if set
}

func (p *paper) Publish(_ context.Context, usages []events.Usage) error {
	p.calls++
	if p.before != nil {
		if err := p.before(p.calls); err != nil {
			return err
		}
	}
	p.usages = append(p.usages, usages...)
	p.at = append(p.at, slices.Repeat([]time.Time{time.Now()}, len(usages))...)
	return nil
}

func write(t testing.TB, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "trace.csv")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func trace(rows ...string) string { return header + strings.Join(rows, "\n") }

func ids(usages []events.Usage) []string {
	all := make([]string, len(usages))
	for i, u := range usages {
		all[i] = u.ID
	}
	return all
}
