// Package tesseract reads receipts on this machine, with Debian's tesseract-ocr and
// rules for what its text means: free, and no picture leaves the house. It is less
// sure than a model that was made for it; docs/receipt.md has its figures.
package tesseract

import (
	"context"
	"errors"
	"fmt"
	"image"
	"net/http"
	"os/exec"
	"runtime"
	"strings"
	"sync"
	"time"

	"github.com/tidegate/tidegate/events"
	"github.com/tidegate/tidegate/receipt"
	"github.com/tidegate/tidegate/receipt/picture"
	"github.com/tidegate/tidegate/receipt/text"
)

// Config configures [New]. Every field may be left at its zero value.
type Config struct {
	Command   string        // default tesseract, looked up in PATH at each reading
	Languages string        // as tesseract -l takes them, default eng
	Timeout   time.Duration // of one process, default 20 s; a receipt takes two
	Memory    uint64        // bytes that a process may map, default 1 GiB; Linux only
	Processes int           // at once, the others wait. Default: one for each processor. One more reads small pictures only
}

// Provider is a [receipt.Provider].
type Provider struct {
	cfg   Config
	slots chan struct{}
	small chan struct{} // a slot for small pictures only: they do not wait for large ones

	mu    sync.Mutex
	model string // "" until the command has told
}

// New returns a provider. It runs nothing yet: where tesseract is missing, each
// reading says so, and works as soon as it is installed.
func New(cfg Config) *Provider {
	if cfg.Command == "" {
		cfg.Command = "tesseract"
	}
	if cfg.Languages == "" {
		cfg.Languages = "eng"
	}
	if cfg.Timeout <= 0 {
		cfg.Timeout = 20 * time.Second
	}
	if cfg.Memory == 0 {
		cfg.Memory = 1 << 30
	}
	if cfg.Processes <= 0 {
		cfg.Processes = runtime.GOMAXPROCS(0)
	}
	return &Provider{cfg: cfg, slots: make(chan struct{}, cfg.Processes), small: make(chan struct{}, 1)}
}

// name is the provider in usage events.
const name = "tesseract"

// Name is the provider's name in usage events.
func (p *Provider) Name() string { return name }

// Read reads the picture twice, see [Provider.looks]. The usage has no tokens: it is
// there so that the ledger counts readings of every provider alike.
func (p *Provider) Read(ctx context.Context, _ *http.Client, img image.Image) (receipt.Receipt, *events.Usage, error) {
	command, err := exec.LookPath(p.cfg.Command)
	if err != nil {
		return receipt.Receipt{}, nil, fmt.Errorf("%w: %v (on Debian, apt-get install -y tesseract-ocr)", receipt.ErrNotConfigured, err)
	}
	var small chan struct{} // nil: no place there
	if size := img.Bounds().Size(); size.X*size.Y <= smallPixels {
		small = p.small
	}
	select {
	case p.slots <- struct{}{}:
		defer func() { <-p.slots }()
	case small <- struct{}{}:
		defer func() { <-small }()
	case <-ctx.Done():
		return receipt.Receipt{}, nil, fmt.Errorf("tesseract: waiting for its turn: %w", ctx.Err())
	}
	usage := &events.Usage{Provider: name, Model: p.version(ctx, command), Status: events.StatusOK}
	looks, err := p.looks(ctx, command, img)
	if err != nil {
		usage.Status = events.StatusError
		if errors.Is(err, receipt.ErrNotConfigured) {
			usage = nil
		}
		return receipt.Receipt{}, usage, err
	}
	return text.Read(time.Now(), looks...), usage, nil
}

// smallPixels is what a small picture has at most: it is read in a second or two.
const smallPixels = 500_000

// narrow is the width that small pictures are enlarged to: tesseract reads letters
// best that are 20 to 30 pixels high, and a till prints some 40 in a row. More than
// three times enlarged, there is nothing to read on them.
const (
	narrow      = 1000
	mostEnlarge = 3.0
)

// flattenRadius is a few letters.
const flattenRadius = 40

// looks reads the picture in two ways that fail on different receipts: as it is,
// taken for one block of text; and with even light, enlarged, taken for a column.
func (p *Provider) looks(ctx context.Context, command string, img image.Image) ([][]text.Line, error) {
	gray := picture.Gray(img)
	block, err := p.look(ctx, command, gray, "6")
	if err != nil {
		return nil, err
	}
	even := picture.Flatten(gray, flattenRadius)
	if w := gray.Rect.Dx(); w < narrow {
		even = picture.Scale(even, min(mostEnlarge, float64(narrow)/float64(w)))
	}
	column, err := p.look(ctx, command, even, "4")
	if err != nil {
		return [][]text.Line{block}, nil // a page full of text, say: one look in time is better than none
	}
	return [][]text.Line{block, column}, nil
}

func (p *Provider) look(ctx context.Context, command string, gray *image.Gray, layout string) ([]text.Line, error) {
	ctx, cancel := context.WithTimeout(ctx, p.cfg.Timeout)
	defer cancel()
	table, err := p.run(ctx, command, gray, "stdin", "stdout", "-l", p.cfg.Languages, "--psm", layout, "tsv")
	if err != nil {
		return nil, err
	}
	return text.Rows(readTSV(table)), nil
}

// version is the model in usage events: tesseract-5.3.0.
func (p *Provider) version(ctx context.Context, command string) string {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.model != "" {
		return p.model
	}
	ctx, cancel := context.WithTimeout(ctx, p.cfg.Timeout)
	defer cancel()
	said, err := p.run(ctx, command, nil, "--version")
	line, _, _ := strings.Cut(said, "\n")
	if fields := strings.Fields(line); err == nil && len(fields) == 2 && fields[0] == name {
		p.model = name + "-" + fields[1]
		return p.model
	}
	return name
}
