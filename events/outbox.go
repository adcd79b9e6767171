package events

import (
	"bufio"
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"runtime"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/go-json-experiment/json"
	"golang.org/x/time/rate"
)

// OutboxConfig says where a publisher keeps what JetStream has acknowledged, so that it can send that
// again, by [Publisher.SendAgain], after a JetStream that lost what it had acknowledged: a disk and all its copies.
type OutboxConfig struct {
	// Path is a file of this publisher's own; beside it there is another, with ".1" at its end.
	// Names of users are in them. Default "": nothing is kept.
	Path string
	// MaxBytes is how large both are together, default 256 MiB: half a million events or so.
	MaxBytes int64
	// Keep is how long an event is kept, if there is room, default 24 hours. It goes by twice
	// that, once something else is published.
	Keep time.Duration
}

// outbox is the file. Each line is when the event was acknowledged, in milliseconds since 1970, and
// the event. Nothing is synced: it is there for the loss of another disk, not of this one.
type outbox struct {
	cfg      OutboxConfig
	log      *slog.Logger
	complain rate.Sometimes

	mu    sync.Mutex
	file  *os.File
	size  int64
	began time.Time // when its first line was written
}

const priorOutbox = ".1"

func openOutbox(cfg OutboxConfig, log *slog.Logger) (*outbox, error) {
	if cfg.Path == "" {
		return nil, nil
	}
	if cfg.MaxBytes < 0 || cfg.Keep < 0 {
		return nil, fmt.Errorf("events: OutboxConfig: MaxBytes and Keep must not be negative: got %d, %s", cfg.MaxBytes, cfg.Keep)
	}
	cfg.MaxBytes, cfg.Keep = cmp.Or(cfg.MaxBytes, 256<<20), cmp.Or(cfg.Keep, 24*time.Hour)
	o := &outbox{cfg: cfg, log: log, complain: rate.Sometimes{Interval: logEvery}}
	if err := o.open(); err != nil {
		return nil, fmt.Errorf("events: the outbox: %w", err)
	}
	return o, nil
}

// open opens the file that is there, or a new one.
func (o *outbox) open() (err error) {
	if o.file, err = os.OpenFile(o.cfg.Path, os.O_RDWR|os.O_CREATE|os.O_APPEND, 0o600); err != nil {
		return err
	}
	if o.size, err = o.file.Seek(0, io.SeekEnd); err != nil {
		return err
	}
	o.began = time.Now()
	line, _ := bufio.NewReader(io.NewSectionReader(o.file, 0, o.size)).ReadBytes('\n')
	if at, _, ok := parseKept(line); ok {
		o.began = at
	}
	if last := make([]byte, 1); o.size > 0 {
		if _, err := o.file.ReadAt(last, o.size-1); err != nil || last[0] != '\n' { // its writer died
			n, err := o.file.WriteString("\n")
			o.size += int64(n)
			return err
		}
	}
	return nil
}

// keep writes what of messages was acknowledged. What it cannot write is published all the same.
func (o *outbox) keep(messages []*message) {
	if o == nil {
		return
	}
	now := time.Now()
	var lines []byte
	for _, m := range messages {
		for _, e := range m.events {
			if m.acknowledged && !e.again {
				lines = append(strconv.AppendInt(lines, now.UnixMilli(), 10), ' ')
				lines = append(append(lines, e.payload...), '\n')
			}
		}
	}
	if len(lines) == 0 {
		return
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	err := o.write(lines, now)
	if err != nil {
		o.complain.Do(func() {
			o.log.Error("usage events are published and cannot be kept in the outbox: they cannot be sent again", "error", err)
		})
	}
}

func (o *outbox) write(lines []byte, now time.Time) error {
	if o.file == nil {
		if err := o.open(); err != nil {
			return err
		}
	}
	if o.size > 0 && (o.size+int64(len(lines)) > o.cfg.MaxBytes/2 || now.Sub(o.began) > o.cfg.Keep) {
		err := errors.Join(o.file.Close(), os.Rename(o.cfg.Path, o.cfg.Path+priorOutbox))
		if o.file = nil; err != nil {
			return err
		}
		if err := o.open(); err != nil {
			return err
		}
	}
	if o.size == 0 {
		o.began = now
	}
	n, err := o.file.Write(lines)
	o.size += int64(n)
	return err
}

func (o *outbox) close() {
	if o == nil {
		return
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.file != nil {
		_ = o.file.Close()
		o.file = nil
	}
}

// read calls each with every event that is kept by now, in the order in which they were acknowledged,
// until it returns an error.
func (o *outbox) read(each func(at time.Time, payload []byte) error) error {
	o.mu.Lock()
	var files []*os.File
	var err error
	for _, path := range []string{o.cfg.Path + priorOutbox, o.cfg.Path} { // they stay the same if they are renamed
		var f *os.File
		if f, err = os.Open(path); err == nil {
			files = append(files, f)
		} else if errors.Is(err, fs.ErrNotExist) {
			err = nil
		}
		if err != nil {
			break
		}
	}
	size := o.size
	o.mu.Unlock()
	for i, f := range files {
		defer f.Close()
		if err != nil {
			continue
		}
		from := io.Reader(f)
		if i == len(files)-1 {
			from = io.LimitReader(f, size) // and not what is kept meanwhile
		}
		lines := bufio.NewScanner(from)
		lines.Buffer(nil, 2*MaxPayloadBytes)
		for err == nil && lines.Scan() {
			if at, payload, ok := parseKept(lines.Bytes()); ok { // otherwise its writer died
				err = each(at, payload)
			}
		}
		if err == nil {
			err = lines.Err()
		}
	}
	return err
}

// parseKept reads a line. What follows the event is none of it.
func parseKept(line []byte) (at time.Time, payload []byte, ok bool) {
	stamp, payload, ok := bytes.Cut(bytes.TrimSuffix(line, []byte("\n")), []byte(" "))
	ms, err := strconv.ParseInt(string(stamp), 10, 64)
	return time.UnixMilli(ms), payload, ok && err == nil && len(payload) > 0 && payload[len(payload)-1] == '}'
}

// SendAgain publishes once more what the outbox has of the events that were acknowledged at the given
// time or later (the zero time: all), and returns when JetStream has acknowledged all of it again.
// The events are the same to the byte: the ledger knows by their ids which it has. It returns how
// many were acknowledged; its errors are those of [Publisher.Publish].
//
// Call it when the stream was lost and made again, with nothing to put back. Events count in
// [Stats] once more.
func (p *Publisher) SendAgain(ctx context.Context, since time.Time) (sent int, err error) {
	defer runtime.KeepAlive(p)
	if p.outbox == nil {
		return 0, errors.New("events: this publisher has no outbox: see PublisherConfig.Outbox")
	}
	since = since.Truncate(time.Millisecond) // as the times in the file are
	var batch []*event
	publish := func() error {
		err := p.publishAll(ctx, batch)
		if err == nil {
			sent += len(batch)
		}
		batch = nil
		return err
	}
	err = p.outbox.read(func(at time.Time, payload []byte) error {
		var is struct {
			ID     string `json:"id"`
			PortID string `json:"port_id"`
		}
		if at.Before(since) || json.Unmarshal(payload, &is) != nil || !ValidPort(is.PortID) {
			return nil
		}
		batch = append(batch, &event{id: is.ID, subject: p.subjectOf(is.PortID), payload: slices.Clone(payload), again: true})
		if len(batch) < manyEvents {
			return nil
		}
		return publish()
	})
	if err == nil && len(batch) > 0 {
		err = publish()
	}
	if err != nil {
		return sent, fmt.Errorf("events: send again: %w", err)
	}
	return sent, nil
}
