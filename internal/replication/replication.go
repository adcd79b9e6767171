// Package replication decides how many copies NATS keeps of a stream, and says whether it does.
package replication

import (
	"cmp"
	"context"
	"errors"
	"fmt"

	"github.com/nats-io/nats.go/jetstream"
)

// OnCluster is how many copies a stream of a cluster has unless told otherwise: what is
// acknowledged is on two nodes, and any one may be lost.
const OnCluster = 3

// JetStream's codes.
const (
	errNoPeers = 10005 // too few nodes for the copies
	errLone    = 10074 // more than one copy, on a server that is no cluster
)

// RefusedError says that a stream has not as many copies as it must, or cannot have them.
// Waiting does not mend it.
type RefusedError struct {
	Stream     string
	Have, Want int
	Lone       bool // the NATS is no cluster
}

func (e *RefusedError) Error() string {
	if e.Lone {
		return fmt.Sprintf("stream %s must have %d copies (--replicas), and this NATS is a lone server, which keeps one: leave --replicas out, or name a cluster with --nats-url", e.Stream, e.Want)
	}
	return fmt.Sprintf("stream %s must have %d copies and has %d: with the disk that has the last of them, events are lost (mend it with: nats stream edit %[1]s --replicas=%[2]d, or say how many there shall be with --replicas)",
		e.Stream, e.Want, e.Have)
}

// Create makes a stream with that many copies; 0 stands for three on a cluster and one on a
// lone server. It returns a [*RefusedError] where NATS can never keep as many. A cluster that lacks
// the nodes at the moment is another error: they may come.
func Create(ctx context.Context, js jetstream.JetStream, cfg jetstream.StreamConfig, replicas int) (jetstream.Stream, error) {
	cfg.Replicas = cmp.Or(replicas, OnCluster)
	made, err := js.CreateStream(ctx, cfg)
	if code(err) == errLone && replicas == 0 {
		cfg.Replicas = 1
		made, err = js.CreateStream(ctx, cfg)
	}
	switch code(err) {
	case errLone:
		err = &RefusedError{Stream: cfg.Name, Want: cfg.Replicas, Lone: true}
	case errNoPeers:
		err = fmt.Errorf("the cluster %s cannot keep %d copies: %w (are as many nodes with JetStream up, with room on their disks? if there shall be fewer copies, say so with --replicas)",
			js.Conn().ConnectedClusterName(), cfg.Replicas, err)
	}
	return made, err
}

func code(err error) jetstream.ErrorCode {
	if refused := (*jetstream.APIError)(nil); errors.As(err, &refused) {
		return refused.ErrorCode
	}
	return 0
}

// Check returns a [*RefusedError] if a stream has fewer copies than that, 0 being what it is to
// [Create].
func Check(info *jetstream.StreamInfo, replicas int) error {
	if want := wanted(info, replicas); info.Config.Replicas < want {
		return &RefusedError{Stream: info.Config.Name, Have: info.Config.Replicas, Want: want, Lone: lone(info)}
	}
	return nil
}

// Missing is how many copies are not in place: the stream is not to have them, or their node
// is away or behind.
func Missing(info *jetstream.StreamInfo, replicas int) int {
	there := 1 // who answers
	if info.Cluster != nil {
		for _, peer := range info.Cluster.Replicas {
			if peer.Current && !peer.Offline {
				there++
			}
		}
	}
	return max(0, wanted(info, replicas)-min(there, info.Config.Replicas)) // what an edit has dropped may still be listed
}

func wanted(info *jetstream.StreamInfo, replicas int) int {
	if replicas == 0 && lone(info) {
		return 1
	}
	return cmp.Or(replicas, OnCluster)
}

func lone(info *jetstream.StreamInfo) bool { return info.Cluster == nil || info.Cluster.Name == "" }
