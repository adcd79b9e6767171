package tesseract_test

import (
	"context"
	"errors"
	"image"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/tidegate/tidegate/events"
	"github.com/tidegate/tidegate/receipt"
	"github.com/tidegate/tidegate/receipt/receipttest"
	"github.com/tidegate/tidegate/receipt/tesseract"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func wantGroceries(t *testing.T, r receipt.Receipt) {
	t.Helper()
	if r.Merchant != "HARBOUR SUPPLY SDN BHD" {
		t.Errorf("merchant %q", r.Merchant)
	}
	if got := r.Date.Format(time.DateOnly); got != "2025-03-14" {
		t.Errorf("date %s", got)
	}
	if r.Total == nil || *r.Total != 10390 {
		t.Errorf("total %v", r.Total)
	}
	if r.Currency != "MYR" {
		t.Errorf("currency %q", r.Currency)
	}
	if len(r.Items) != 2 || r.Items[0].Description != "MOORING ROPE 12MM" || r.Items[0].Quantity != 2 || *r.Items[0].Amount != 8400 {
		t.Errorf("items %+v", r.Items)
	}
}

func TestReadsADrawnReceipt(t *testing.T) {
	for name, size := range map[string]float64{"small": 13, "usual": 26} {
		t.Run(name, func(t *testing.T) {
			read, usage, err := tesseract.New(tesseract.Config{}).Read(t.Context(), nil, receipttest.Draw(t, receipttest.Groceries, size))
			if err != nil {
				t.Fatalf("%v\nThe test needs tesseract. On Debian: apt-get install -y tesseract-ocr", err)
			}
			wantGroceries(t, read)
			if usage == nil || usage.Provider != "tesseract" || !strings.HasPrefix(usage.Model, "tesseract-") || usage.TotalTokens() != 0 || usage.Status != events.StatusOK {
				t.Errorf("usage %+v", usage)
			}
		})
	}
}

func TestABlankPictureHasNoReceipt(t *testing.T) {
	for _, size := range []image.Rectangle{image.Rect(0, 0, 1, 1), image.Rect(0, 0, 300, 2), image.Rect(0, 0, 2, 3000), image.Rect(0, 0, 400, 600)} {
		read, _, err := tesseract.New(tesseract.Config{}).Read(t.Context(), nil, image.NewGray(size))
		if err != nil || !read.Empty() {
			t.Errorf("%v: %+v, %v", size, read, err)
		}
	}
}

func TestMissingTesseractIsNotConfigured(t *testing.T) {
	_, usage, err := tesseract.New(tesseract.Config{Command: "tesseract-that-nobody-has"}).Read(t.Context(), nil, image.NewGray(image.Rect(0, 0, 9, 9)))
	if !errors.Is(err, receipt.ErrNotConfigured) || !strings.Contains(err.Error(), "apt-get install") || usage != nil {
		t.Errorf("%v, %+v", err, usage)
	}
	_, _, err = tesseract.New(tesseract.Config{Languages: "tlh"}).Read(t.Context(), nil, image.NewGray(image.Rect(0, 0, 9, 9)))
	if !errors.Is(err, receipt.ErrNotConfigured) || !strings.Contains(err.Error(), "tlh") {
		t.Errorf("without the language: %v", err)
	}
}

// command makes a program that stands in for tesseract.
func command(t *testing.T, script string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "tesseract")
	if err := os.WriteFile(path, []byte("#!/bin/sh\n"+script), 0o755); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestLimits(t *testing.T) {
	picture := receipttest.Draw(t, receipttest.Groceries, 26)
	for name, c := range map[string]struct {
		cfg  tesseract.Config
		want string
		is   error
	}{
		"time":          {tesseract.Config{Command: command(t, "cat >/dev/null; exec sleep 60"), Timeout: 300 * time.Millisecond}, "deadline", context.DeadlineExceeded},
		"output":        {tesseract.Config{Command: command(t, "cat >/dev/null; exec yes")}, "prints too much", nil},
		"memory":        {tesseract.Config{Memory: 64 << 20}, "tesseract", nil},
		"no file":       {tesseract.Config{Command: command(t, "cat >/dev/null; echo x > \"$0.out\" || exit 7")}, "file size limit", nil},
		"environment":   {tesseract.Config{Command: command(t, `cat >/dev/null; [ -z "$OPENAI_API_KEY$HOME" ] && [ "$OMP_THREAD_LIMIT" = 1 ] && exit 8`)}, "exit status 8", nil},
		"what it says":  {tesseract.Config{Command: command(t, "cat >/dev/null; echo sorry >&2; exit 3")}, "exit status 3: sorry", nil},
		"does not read": {tesseract.Config{Command: command(t, "exit 4")}, "exit status 4", nil},
	} {
		t.Run(name, func(t *testing.T) {
			t.Setenv("OPENAI_API_KEY", "secret")
			started := time.Now()
			_, usage, err := tesseract.New(c.cfg).Read(t.Context(), nil, picture)
			if err == nil || !strings.Contains(err.Error(), c.want) || c.is != nil && !errors.Is(err, c.is) {
				t.Errorf("%v, want %q", err, c.want)
			}
			if usage == nil || usage.Status != events.StatusError {
				t.Errorf("usage %+v, want it recorded as an error", usage)
			}
			if took := time.Since(started); took > 10*time.Second {
				t.Errorf("it took %s", took)
			}
		})
	}
}

func TestCancelledWhileWaiting(t *testing.T) {
	p := tesseract.New(tesseract.Config{Processes: 1, Command: command(t, "cat >/dev/null; exec sleep 60"), Timeout: time.Minute})
	picture := image.NewGray(image.Rect(0, 0, 1000, 1000))
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 2)
	for range 2 {
		go func() {
			_, _, err := p.Read(ctx, nil, picture)
			ended <- err
		}()
	}
	time.Sleep(100 * time.Millisecond)
	cancel()
	for range 2 {
		if err := <-ended; !errors.Is(err, context.Canceled) {
			t.Errorf("it ends with %v", err)
		}
	}
}

// A small picture is read while large ones keep every other process busy.
func TestALargePictureDelaysNoSmallOne(t *testing.T) {
	program := command(t, `[ "$1" = --version ] && exit 1
		if [ $(wc -c) -gt 600000 ]; then
			: > "$0.began"
			until [ -e "$0.go" ]; do sleep 0.02; done
		fi`)
	p := tesseract.New(tesseract.Config{Processes: 1, Command: program, Timeout: time.Minute})
	large := make(chan error, 1)
	go func() {
		_, _, err := p.Read(t.Context(), nil, image.NewGray(image.Rect(0, 0, 1000, 1000)))
		large <- err
	}()
	for began := false; !began; time.Sleep(time.Millisecond) {
		_, err := os.Stat(program + ".began")
		began = err == nil
	}
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	if _, _, err := p.Read(ctx, nil, image.NewGray(image.Rect(0, 0, 9, 9))); err != nil {
		t.Errorf("the small picture: %v", err)
	}
	if err := os.WriteFile(program+".go", nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := <-large; err != nil {
		t.Errorf("the large picture: %v", err)
	}
}
