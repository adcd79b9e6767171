package events

import (
	"encoding/binary"
	"time"

	"github.com/google/uuid"
)

// FutureTolerance is how far an event's time may be ahead of its arrival.
const FutureTolerance = 5 * time.Minute

// NewUUIDv7 returns an id for an event that happened at the given time, its 74
// other bits random.
func NewUUIDv7(at time.Time) uuid.UUID {
	return UUIDv7(at, uuid.New())
}

// UUIDv7 returns the id of that time and, as its 74 other bits, those of bits.
func UUIDv7(at time.Time, bits [16]byte) (id uuid.UUID) {
	id = bits
	var b [8]byte
	binary.BigEndian.PutUint64(b[:], uint64(at.UnixMilli()))
	copy(id[:6], b[2:])
	id[6] = id[6]&0x0f | 0x70
	id[8] = id[8]&0x3f | 0x80
	return id
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
