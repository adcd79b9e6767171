// Package quarantine is where an event goes that cannot be booked: a stream that
// keeps its bytes, its headers, where it came from and why it was refused, until
// an operator sends it back.
package quarantine

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/tidegate/tidegate/consumer/arrival"
	"github.com/tidegate/tidegate/events"
)

// The headers of a quarantined event. The event's own are kept under
// originPrefix, since on a live message some of them would act (Nats-Rollup, Nats-TTL).
const (
	headerReason   = "Tidegate-Reason"
	headerError    = "Tidegate-Error"
	headerSubject  = "Tidegate-Subject"
	headerStream   = "Tidegate-Stream"
	headerSequence = "Tidegate-Sequence"
	headerPlace    = "Tidegate-Place" // in a message of several events, from 1
	headerTime     = "Tidegate-Time"
	headerOrigins  = "Tidegate-Origin-Headers" // how many bytes at the beginning of the body are the event's own headers
	originPrefix   = "Origin-"
	maxErrorBytes  = 1024
	maxOrigins     = 4 << 10 // bytes of an event's own headers among those of its copy
)

// CopyWhole is [Copy] for a message of which many events were refused, that many: the
// first at that place, for that reason. All its events are in the copy. Sent back, those that were
// booked are known by their ids.
func CopyWhole(msg jetstream.Msg, refused, first int, reason *events.FieldError) (*nats.Msg, error) {
	return copyOf(msg, msg.Data(), 0, reason.Reason, fmt.Sprintf("%d events of the message, the first of them event %d: %s", refused, first, reason))
}

// Copy returns the message to publish for an event that was refused: payload, which
// came in msg at that place, 0 if nothing else did. Publishing it twice stores it once,
// within the stream's window; whether an acknowledgement that says "duplicate" means that
// is for [Store.Holds] to say.
func Copy(msg jetstream.Msg, payload []byte, place int, reason *events.FieldError) (*nats.Msg, error) {
	return copyOf(msg, payload, place, reason.Reason, reason.Error())
}

func copyOf(msg jetstream.Msg, payload []byte, place int, reason events.Reason, why string) (*nats.Msg, error) {
	meta, err := msg.Metadata()
	if err != nil {
		return nil, err
	}
	sequence := strconv.FormatUint(meta.Sequence.Stream, 10)
	out := nats.NewMsg(subject(msg.Subject(), payload, reason))
	out.Data = payload
	if block := headerBlock(msg.Headers()); len(block) > maxOrigins {
		out.Data = append(block, payload...)
		out.Header.Set(headerOrigins, strconv.Itoa(len(block)))
	} else {
		for name, values := range msg.Headers() {
			out.Header[originPrefix+name] = values
		}
	}
	out.Header.Set(headerReason, string(reason))
	out.Header.Set(headerError, headerText(why))
	out.Header.Set(headerSubject, msg.Subject())
	out.Header.Set(headerStream, meta.Stream)
	out.Header.Set(headerSequence, sequence)
	out.Header.Set(headerTime, meta.Timestamp.UTC().Format(time.RFC3339Nano))
	if place > 0 {
		out.Header.Set(headerPlace, strconv.Itoa(place))
	}
	out.Header.Set(jetstream.MsgIDHeader, copyID(out))
	// An event that is refused again after a replay keeps its first arrival: the
	// id that is derived from it must not change.
	if first, ok := replayedArrival(msg.Headers()); ok {
		out.Header.Set(headerSequence, strconv.FormatUint(first.Sequence, 10))
		out.Header.Set(headerTime, first.Time.UTC().Format(time.RFC3339Nano))
		if place = arrival.PlaceIn(first.Place, place); place > 0 {
			out.Header.Set(headerPlace, strconv.Itoa(place))
		}
	}
	return out, nil
}

// headerBlock is headers as they are on the wire, by their names.
func headerBlock(headers nats.Header) []byte {
	block := []byte("NATS/1.0\r\n")
	for _, name := range slices.Sorted(maps.Keys(headers)) {
		for _, value := range headers[name] {
			block = append(block, name+": "+value+"\r\n"...)
		}
	}
	return append(block, "\r\n"...)
}

// ownHeaders are those of the event of which raw is a copy, and what it held. large says that they
// do not fit beside those of a copy, or of what is sent back.
func ownHeaders(raw *jetstream.RawStreamMsg) (own nats.Header, payload []byte, large bool) {
	payload = raw.Data
	if n, err := strconv.Atoi(raw.Header.Get(headerOrigins)); err == nil && n > 0 && n <= len(payload) {
		if block, err := nats.DecodeHeadersMsg(payload[:n]); err == nil {
			return block, payload[n:], true
		}
	}
	for name, values := range raw.Header {
		if name, ok := strings.CutPrefix(name, originPrefix); ok {
			if own == nil {
				own = nats.Header{}
			}
			own[name] = values
		}
	}
	return own, payload, false
}

// arrivedAs is where the event at that place of msg comes from and when, as its copy says it.
func arrivedAs(msg jetstream.Msg, place int) (arrived, error) {
	meta, err := msg.Metadata()
	if err != nil {
		return arrived{}, err
	}
	event := arrived{Origin{Stream: meta.Stream, Sequence: meta.Sequence.Stream, Place: place}, meta.Timestamp.UnixNano()}
	if first, ok := replayedArrival(msg.Headers()); ok {
		event = arrived{Origin{meta.Stream, first.Sequence, arrival.PlaceIn(first.Place, place)}, first.Time.UnixNano()}
	}
	return event, nil
}

// origin are the headers that tell an event from every other: no two messages share a
// stream, a sequence and a time, not even when the stream was removed and made again.
var origin = []string{headerStream, headerSequence, headerTime, headerPlace, headerSubject}

// copyID is the message id of a copy that bears its event's own origin.
func copyID(copied *nats.Msg) string {
	sum := sha256.New()
	for _, name := range origin {
		sum.Write([]byte(copied.Header.Get(name) + "\x00"))
	}
	sum.Write(copied.Data)
	return "q:" + hex.EncodeToString(sum.Sum(nil)[:16])
}

// sameEvent reports whether two copies are of one event. Why it was refused may have
// changed between them.
func sameEvent(stored nats.Header, payload []byte, copied *nats.Msg) bool {
	for _, name := range origin {
		if stored.Get(name) != copied.Header.Get(name) {
			return false
		}
	}
	return bytes.Equal(payload, copied.Data)
}

// WithoutID returns the same copy, to be stored whatever JetStream knows.
func WithoutID(copied *nats.Msg) *nats.Msg {
	out := &nats.Msg{Subject: copied.Subject, Data: copied.Data, Header: maps.Clone(copied.Header)}
	out.Header.Del(jetstream.MsgIDHeader)
	return out
}

// subject is ai.quarantine.<reason>.<port>, without the port if there is no legal one. Where
// the subject names none, the event may.
func subject(original string, payload []byte, reason events.Reason) string {
	base := events.SubjectQuarantine + "." + string(reason)
	port, ok := events.SubjectPort(events.SubjectUsage, original)
	if ok && port == "" {
		var event struct {
			PortID string `json:"port_id"`
		}
		_ = json.Unmarshal(payload, &event) // of what cannot be read nobody knows the port
		port = event.PortID
	}
	if ok && events.ValidPort(port) {
		return base + "." + port
	}
	return base
}

// headerText makes any text fit for a header: one line, UTF-8, bounded.
func headerText(s string) string {
	s = strings.Map(func(r rune) rune {
		if r < ' ' || r == utf8.RuneError {
			return ' '
		}
		return r
	}, s)
	if len(s) <= maxErrorBytes {
		return s
	}
	cut := maxErrorBytes
	for !utf8.RuneStart(s[cut]) {
		cut--
	}
	return s[:cut]
}

// The headers of an event that was sent back. They carry its first arrival,
// from which the id of an event without one is derived.
const (
	headerReplaySequence = "Tidegate-Replay-Sequence"
	headerReplayPlace    = "Tidegate-Replay-Place"
	headerReplayTime     = "Tidegate-Replay-Time"
)

// Arrival is when a message with that metadata and those headers first entered the stream.
func Arrival(meta *jetstream.MsgMetadata, headers nats.Header) arrival.Arrival {
	arrived := arrival.Arrival{Sequence: meta.Sequence.Stream, Time: meta.Timestamp}
	// Anybody can write these headers. All they can move is the derived id of an
	// event in the port that they may publish for, and only into the past.
	if first, ok := replayedArrival(headers); ok && !first.Time.After(arrived.Time) {
		first.Replayed = arrived.Time
		return first
	}
	return arrived
}

func replayedArrival(h nats.Header) (arrival.Arrival, bool) {
	values := h[headerReplaySequence]
	if len(values) == 0 { // as good as always
		return arrival.Arrival{}, false
	}
	sequence, err := strconv.ParseUint(values[0], 10, 64)
	if err != nil {
		return arrival.Arrival{}, false
	}
	place, _ := strconv.Atoi(h.Get(headerReplayPlace)) // 0 unless it was one of several
	at, err := time.Parse(time.RFC3339Nano, h.Get(headerReplayTime))
	return arrival.Arrival{Sequence: sequence, Place: place, Time: at}, err == nil
}
