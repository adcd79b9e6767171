package service

import (
	"context"
	"time"
)

// Line lets so many work at once and so many more wait for their turn, first come,
// first served. Whoever finds it full is turned away.
type Line struct {
	// Limit is how long a request may take, its turn included, unless its caller says that
	// it waits for less.
	Limit time.Duration
	// CutShort ends the work when the service stops. It is finished otherwise.
	CutShort bool

	places chan struct{} // of those who wait or work
	turns  chan struct{} // of those who work
}

// NewLine returns a line of at most atOnce who work and waiting who wait.
func NewLine(atOnce, waiting int, limit time.Duration) *Line {
	return &Line{Limit: limit, places: make(chan struct{}, atOnce+waiting), turns: make(chan struct{}, atOnce)}
}

// Join takes a place, without waiting. It reports false when there is none.
func (l *Line) Join() bool {
	select {
	case l.places <- struct{}{}:
		return true
	default:
		return false
	}
}

// Work waits for the turn of a place that was joined, then works, and gives the place
// back. It returns the error of ctx, without having worked, if that ends first.
func (l *Line) Work(ctx context.Context, work func()) error {
	defer func() { <-l.places }()
	if ctx.Err() == nil {
		select {
		case l.turns <- struct{}{}:
			defer func() { <-l.turns }()
			work()
			return nil
		case <-ctx.Done():
		}
	}
	return ctx.Err()
}
