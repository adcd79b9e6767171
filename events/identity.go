package events

import (
	"crypto/sha256"
	"encoding/binary"
	"time"

	"github.com/google/uuid"
)

// FutureTolerance is how far an event's time may be ahead of its arrival.
const FutureTolerance = 5 * time.Minute

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
	return outer*(MaxEventsPerMessage+1) + place
}

// Identity is what makes an event bookable once: At is ID's own timestamp.
type Identity struct {
	ID uuid.UUID
	At time.Time // UTC, whole milliseconds
}

// Identify derives an event's identity: a UUIDv7 as it stands, any other id from
// (port, id) and occurred_at, a missing one from the arrival. Events older than
// oldest are refused. Every error is a [*FieldError].
func Identify(u Usage, arrival Arrival, oldest time.Time) (Identity, error) {
	identity, err := identify(u, arrival)
	if err != nil {
		return Identity{}, err
	}
	arrived := arrival.Time
	if arrival.Replayed.After(arrived) {
		arrived = arrival.Replayed
	}
	if identity.At.After(arrived.Add(FutureTolerance)) {
		return Identity{}, refuse(ReasonTimeInFuture, "occurred_at", identity.At.Format(time.RFC3339), "is more than 5 minutes after its arrival at "+arrived.UTC().Format(time.RFC3339))
	}
	if identity.At.Before(oldest) {
		return Identity{}, refuse(ReasonTimeTooOld, "occurred_at", identity.At.Format(time.RFC3339), "the ledger keeps events from "+oldest.UTC().Format(time.RFC3339)+" on")
	}
	return identity, nil
}

func identify(u Usage, arrival Arrival) (Identity, error) {
	if id, ok := ParseUUIDv7(u.ID); ok {
		at := UUIDv7Time(id)
		if !u.OccurredAt.IsZero() && at.Sub(u.OccurredAt).Abs() > maxIDSkew {
			return Identity{}, refuse(ReasonTimeMismatch, "occurred_at", u.OccurredAt.UTC().Format(time.RFC3339), "is over an hour from the id's own time "+at.Format(time.RFC3339))
		}
		return Identity{ID: id, At: at}, nil
	}
	if u.ID != "" {
		if u.OccurredAt.IsZero() {
			return Identity{}, needsTime()
		}
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

// needsTime refuses a text id by itself: the identity is derived from both.
func needsTime() *FieldError {
	return invalid("occurred_at", "", "is required beside an id that is not a UUIDv7: the time of the call, the same whenever the event is sent again")
}

// derive builds a UUIDv7 whose random bits are a hash, so that the same event
// always gets the same id.
func derive(at time.Time, kind, port, key string) (Identity, error) {
	ms := at.UnixMilli()
	if ms < 0 || ms >= 1<<48 {
		return Identity{}, refuse(ReasonInvalidField, "occurred_at", at.UTC().Format(time.RFC3339), "must lie between 1970 and 10889")
	}
	sum := sha256.Sum256([]byte(kind + "\x00" + port + "\x00" + key))
	var id uuid.UUID
	copy(id[:], sum[:16])
	putMillis(&id, ms)
	return Identity{ID: id, At: UUIDv7Time(id)}, nil
}

// NewUUIDv7 returns an id for an event that happened at the given time, its 74
// other bits random.
func NewUUIDv7(at time.Time) uuid.UUID {
	id := uuid.New()
	putMillis(&id, at.UnixMilli())
	return id
}

func putMillis(id *uuid.UUID, ms int64) {
	var b [8]byte
	binary.BigEndian.PutUint64(b[:], uint64(ms))
	copy(id[:6], b[2:])
	id[6] = id[6]&0x0f | 0x70
	id[8] = id[8]&0x3f | 0x80
}

// ParseUUIDv7 accepts the canonical 36-character form only, in either case.
func ParseUUIDv7(s string) (uuid.UUID, bool) {
	if len(s) != 36 {
		return uuid.UUID{}, false
	}
	id, err := uuid.Parse(s)
	return id, err == nil && id.Version() == 7 && id.Variant() == uuid.RFC4122
}

// UUIDv7Time is the id's own timestamp.
func UUIDv7Time(id uuid.UUID) time.Time {
	var b [8]byte
	copy(b[2:], id[:6])
	return time.UnixMilli(int64(binary.BigEndian.Uint64(b[:]))).UTC()
}
