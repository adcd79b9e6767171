// Package arrival says which events a message brought, and which event each of them is:
// its id for ever, and its time.
package arrival

import (
	"crypto/sha256"
	"encoding/binary"
	"time"

	"github.com/google/uuid"

	"github.com/tidegate/tidegate/budget"
	"github.com/tidegate/tidegate/events"
)

// maxIDSkew is how far occurred_at and a UUIDv7's own time may be apart.
const maxIDSkew = time.Hour

// Arrival is what JetStream knows about a message. It stays the same however
// often the message is delivered, and through quarantine and replay.
type Arrival struct {
	Sequence uint64
	Time     time.Time
	// Place is the event's in a message that holds several, from 1; 0 if it is the only one.
	Place int
	// Replayed is when the event was sent again out of the quarantine; zero if it
	// was not. What was in the future at Time may be in the past by then.
	Replayed time.Time
}

// PlaceIn is the Place of an event at the given one of an array that was, itself, at place
// outer of a message: the quarantine sends such an array back by itself, and what is in
// it must not be taken for its neighbours. Places 0 are of what was alone.
func PlaceIn(outer, place int) int {
	if place == 0 {
		return outer
	}
	return outer*(events.MaxEventsPerMessage+1) + place
}

// Identify derives an event's identity: a UUIDv7 as it stands, any other id from
// (port, id) and occurred_at, a missing one from the arrival. It books the event once: at
// is the id's own timestamp, in UTC. Events older than oldest are refused. u is valid.
// Every error is a [*events.FieldError].
func Identify(u events.Usage, arrival Arrival, oldest time.Time) (id uuid.UUID, at time.Time, err error) {
	if id, err = identify(u, arrival); err != nil {
		return id, at, err
	}
	at = events.UUIDv7Time(id)
	arrived := arrival.Time
	if arrival.Replayed.After(arrived) {
		arrived = arrival.Replayed
	}
	if at.After(arrived.Add(events.FutureTolerance)) {
		return id, at, refuse(events.ReasonTimeInFuture, at, "is more than 5 minutes after its arrival at "+arrived.UTC().Format(time.RFC3339))
	}
	if at.Before(oldest) {
		return id, at, refuse(events.ReasonTimeTooOld, at, "the ledger keeps events from "+oldest.UTC().Format(time.RFC3339)+" on")
	}
	return id, at, nil
}

func refuse(reason events.Reason, occurred time.Time, rule string) error {
	return budget.Refuse(reason, "occurred_at", occurred.UTC().Format(time.RFC3339), rule)
}

func identify(u events.Usage, arrival Arrival) (uuid.UUID, error) {
	if id, ok := events.ParseUUIDv7(u.ID); ok {
		at := events.UUIDv7Time(id)
		if !u.OccurredAt.IsZero() && at.Sub(u.OccurredAt).Abs() > maxIDSkew {
			return id, refuse(events.ReasonTimeMismatch, u.OccurredAt, "is over an hour from the id's own time "+at.Format(time.RFC3339))
		}
		return id, nil
	}
	if u.ID != "" {
		return derive(u.OccurredAt, "id", u.PortID, u.ID)
	}
	at := u.OccurredAt
	if at.IsZero() {
		at = arrival.Time
	}
	key := make([]byte, 0, 24)
	key = binary.BigEndian.AppendUint64(key, arrival.Sequence)
	key = binary.BigEndian.AppendUint64(key, uint64(arrival.Time.UnixNano()))
	if arrival.Place > 0 {
		key = binary.BigEndian.AppendUint64(key, uint64(arrival.Place))
	}
	return derive(at, "arrival", u.PortID, string(key))
}

// derive builds a UUIDv7 whose random bits are a hash, so that the same event
// always gets the same id.
func derive(at time.Time, kind, port, key string) (id uuid.UUID, err error) {
	if ms := at.UnixMilli(); ms < 0 || ms >= 1<<48 {
		return id, refuse(events.ReasonInvalidField, at, "must lie between 1970 and 10889")
	}
	sum := sha256.Sum256([]byte(kind + "\x00" + port + "\x00" + key))
	return events.UUIDv7(at, [16]byte(sum[:16])), nil
}
