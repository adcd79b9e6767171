package meter

import (
	"compress/gzip"
	"io"
)

// inflater reads a gzip body as it is teed. gzip.Reader pulls, so it runs in a
// goroutine, in step with write: while that goroutine works, write waits, and
// between two writes it waits. close ends it, and returns when it has ended.
type inflater struct {
	pieces chan []byte
	idle   chan struct{} // the goroutine wants a piece; closed when it has ended
	piece  []byte        // what gzip has not taken yet
	over   bool          // the goroutine has ended
	failed any           // with this panic
}

func newInflater(to func([]byte)) *inflater {
	i := &inflater{pieces: make(chan []byte), idle: make(chan struct{})}
	go func() {
		defer close(i.idle)
		defer func() { i.failed = recover() }()
		inflate(i, to)
	}()
	i.wait()
	return i
}

func (i *inflater) write(p []byte) {
	if !i.over {
		i.pieces <- p
		i.wait()
	}
}

func (i *inflater) wait() {
	_, wanting := <-i.idle
	i.over = !wanting
	if i.failed != nil {
		panic(i.failed) // where the caller of write guards against it
	}
}

func (i *inflater) close() {
	if !i.over {
		close(i.pieces)
		i.wait()
	}
}

// Read is gzip's source, in the goroutine.
func (i *inflater) Read(p []byte) (int, error) {
	for len(i.piece) == 0 {
		if i.pieces == nil {
			return 0, io.EOF
		}
		i.idle <- struct{}{}
		piece, ok := <-i.pieces
		if !ok {
			i.pieces = nil
		}
		i.piece = piece
	}
	n := copy(p, i.piece)
	i.piece = i.piece[n:]
	return n, nil
}

// inflate returns at the end of what from has, or where that is no gzip after all.
func inflate(from io.Reader, to func([]byte)) {
	z, err := gzip.NewReader(from)
	if err != nil {
		return
	}
	var buf [4096]byte
	for err == nil {
		var n int
		n, err = z.Read(buf[:])
		to(buf[:n])
	}
}
