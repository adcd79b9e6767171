package stream

import (
	"context"
	"errors"
	"fmt"
	"sort"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/tidegate/tidegate/events"
)

// SequenceAt returns the first sequence of the usage stream that was stored at the given
// time or later; one after the last if there is none.
func SequenceAt(ctx context.Context, js jetstream.JetStream, at time.Time) (uint64, error) {
	stream, err := js.Stream(ctx, events.UsageStream)
	if err != nil {
		return 0, fmt.Errorf("stream %s: %w", events.UsageStream, err)
	}
	state := stream.CachedInfo().State
	if state.Msgs == 0 {
		return state.LastSeq + 1, nil
	}
	found := sort.Search(int(state.LastSeq-state.FirstSeq)+1, func(i int) bool {
		if err != nil {
			return true
		}
		msg, e := stream.GetMsg(ctx, state.FirstSeq+uint64(i))
		if errors.Is(e, jetstream.ErrMsgNotFound) {
			return false // it has left the stream meanwhile: it was older than those that are left
		}
		if err = e; err != nil {
			return true
		}
		return !msg.Time.Before(at)
	})
	if err != nil {
		return 0, fmt.Errorf("stream %s: %w", events.UsageStream, err)
	}
	return state.FirstSeq + uint64(found), nil
}
