package main

import (
	"context"
	"time"

	"github.com/tidegate/tidegate/edge"
)

// startEdge makes HTTP for services, on the same address as the admin page.
func (s *system) startEdge() (func(context.Context) error, error) {
	if err := s.openTokens(); err != nil {
		return nil, err
	}
	nc, err := s.connectChecked("edge")
	if err != nil {
		return nil, err
	}
	e, err := edge.New(edge.Config{Conn: nc, Tokens: s.tokens, Registerer: s.metrics, Logger: s.log})
	if err != nil {
		return nil, err
	}
	s.watchPublisher("edge", e)
	return func(ctx context.Context) error {
		s.services.Set(s.telemetry.requests(e))
		<-s.admin.ended // no request is in flight any more
		flush, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
		defer cancel()
		return e.Close(flush)
	}, nil
}
