package tesseract

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"image"
	"io"
	"os"
	"os/exec"
	"strings"
	"time"

	"github.com/tidegate/tidegate/receipt"
)

const (
	maxOutput     = 4 << 20  // a page full of letters is a tenth of that
	maxComplaints = 16 << 10 // what is kept of stderr
)

// run runs tesseract on a picture and returns what it prints. No shell is
// involved, and no file: the picture goes in by a pipe. The process gets nothing of
// our environment, one thread, and its limits before the first byte of input. It
// has ended when run returns.
func (p *Provider) run(ctx context.Context, command string, gray *image.Gray, args ...string) (string, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	cmd := exec.CommandContext(ctx, command, args...)
	cmd.Env = []string{"OMP_THREAD_LIMIT=1", "LC_ALL=C"}
	if data, ok := os.LookupEnv("TESSDATA_PREFIX"); ok {
		cmd.Env = append(cmd.Env, "TESSDATA_PREFIX="+data)
	}
	cmd.Dir = os.TempDir()
	cmd.WaitDelay = time.Second
	output := &limited{left: maxOutput, full: func() { cancel(errors.New("it prints too much")) }}
	complaints := &limited{left: maxComplaints, full: func() {}}
	cmd.Stdout, cmd.Stderr = output, complaints
	bounded := make(chan struct{})
	if gray != nil {
		cmd.Stdin = &after{bounded, pgm(gray)}
	}
	if err := cmd.Start(); err != nil {
		return "", fmt.Errorf("tesseract: %w", err)
	}
	if err := bound(cmd.Process.Pid, p.cfg.Memory, uint64(p.cfg.Timeout/time.Second)+1); err != nil {
		cancel(err)
	}
	close(bounded)
	err := cmd.Wait()
	switch cause := context.Cause(ctx); {
	case cause != nil:
		return "", fmt.Errorf("tesseract: stopped: %w", cause)
	case err != nil && strings.Contains(complaints.String(), "traineddata"):
		return "", fmt.Errorf("%w: tesseract lacks a language: %s", receipt.ErrNotConfigured, complaints.line())
	case err != nil:
		return "", fmt.Errorf("tesseract: %w: %s", err, complaints.line())
	}
	return output.String(), nil
}

// after is a reader that waits.
type after struct {
	ready <-chan struct{}
	io.Reader
}

func (a *after) Read(p []byte) (int, error) {
	<-a.ready
	return a.Reader.Read(p)
}

// pgm is the picture in the simplest format there is: nothing to compress here, and
// hardly anything to misread there.
func pgm(gray *image.Gray) io.Reader {
	w, h := gray.Rect.Dx(), gray.Rect.Dy()
	file := fmt.Appendf(make([]byte, 0, w*h+32), "P5 %d %d 255\n", w, h)
	for y := range h {
		file = append(file, gray.Pix[y*gray.Stride:][:w]...)
	}
	return bytes.NewReader(file)
}

// limited keeps what fits and calls full when more comes.
type limited struct {
	kept strings.Builder
	left int
	full func()
}

func (l *limited) Write(p []byte) (int, error) {
	fits := p[:min(len(p), l.left)]
	l.kept.Write(fits)
	l.left -= len(fits)
	if len(fits) < len(p) {
		l.full()
	}
	return len(p), nil
}

func (l *limited) String() string { return l.kept.String() }

// line is all of it in one line.
func (l *limited) line() string { return strings.Join(strings.Fields(l.kept.String()), " ") }
