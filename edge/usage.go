package edge

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"iter"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/go-json-experiment/json"

	"github.com/tidegate/tidegate/budget"
	"github.com/tidegate/tidegate/consumer/arrival"
	"github.com/tidegate/tidegate/events"
)

// reasonNotYours refuses an event of a port for which the token may not report.
const reasonNotYours events.Reason = "port_not_allowed"

// outcome is what became of an event.
type outcome struct {
	Index  int           `json:"index" doc:"Its place in the request, from 0; blank lines do not count."`
	Status string        `json:"status" enum:"accepted,refused" doc:"accepted: JetStream has stored it. refused: it was not, for the reason below; the tokens are not counted."`
	ID     string        `json:"id,omitempty" doc:"Of an event that was accepted: its own, or the one that it was given."`
	Reason events.Reason `json:"reason,omitempty" doc:"A stable word for machines."`
	Field  string        `json:"field,omitempty"`
	Value  string        `json:"value,omitempty" doc:"As received, shortened."`
	Rule   string        `json:"rule,omitempty" doc:"What the field must be."`
}

type usageReply struct {
	Accepted int       `json:"accepted"`
	Refused  int       `json:"refused"`
	Events   []outcome `json:"events" doc:"One for each event, in order."`
}

func (e *Edge) reportUsage(c *call) error {
	body, kind, err := c.read(kindJSON, kindNDJSON)
	if err != nil {
		return err
	}
	key, err := c.idempotencyKey()
	if err != nil {
		return err
	}
	r := report{call: c, key: key, now: time.Now()}
	if err := takeAll(body, kind, "events", r.take); err != nil {
		return err
	}
	return e.publish(&r)
}

// settle reports what a reserved call cost. The event takes its identity from the reservation
// where it has none of its own.
func (e *Edge) settle(c *call) error {
	body, _, err := c.read(kindJSON)
	if err != nil {
		return err
	}
	key, err := c.idempotencyKey()
	if err != nil {
		return err
	}
	r := report{call: c, key: key, now: time.Now(), reservation: c.PathValue("id")}
	r.take(body)
	return e.publish(&r)
}

// report is one request's events, those that are good so far.
type report struct {
	*call
	key         string // the identities of events are derived from it; "": there is none
	reservation string // that is settled; "": the events say it themselves
	now         time.Time
	reply       usageReply
	good        []events.Usage
}

// take decodes one event. One that is refused holds back no other.
func (r *report) take(payload []byte) {
	o := outcome{Index: len(r.reply.Events), Status: "accepted"}
	u, wrong := r.admit(payload, o.Index)
	if wrong != nil {
		o.Status, o.Reason, o.Field, o.Value, o.Rule = "refused", wrong.Reason, wrong.Field, wrong.Value, wrong.Rule
	} else {
		o.ID = u.ID
	}
	r.reply.Events = append(r.reply.Events, o)
}

// admit decodes an event and adds it to the good ones, unless something is wrong with it.
func (r *report) admit(payload []byte, index int) (u events.Usage, wrong *events.FieldError) {
	u, err := r.decode(payload, index)
	switch {
	case err == nil:
		r.good = append(r.good, u)
	case !errors.As(err, &wrong):
		panic(fmt.Sprintf("edge: an event is refused without a field: %v", err)) // events promises one
	}
	return u, wrong
}

func (r *report) decode(payload []byte, index int) (u events.Usage, err error) {
	only := r.port
	if only == "" && len(r.caller.Ports) == 1 {
		only = r.caller.Ports[0]
	}
	subject := events.SubjectUsage
	if events.ValidPort(only) {
		subject = events.Subject(subject, only)
	}
	u, err = events.DecodeUsage(subject, payload)
	if wrong := (*events.FieldError)(nil); errors.As(err, &wrong) && wrong.Reason == events.ReasonPortMismatch {
		if r.port != "" {
			return u, budget.Refuse(wrong.Reason, wrong.Field, unquote(wrong.Value), "the address names port "+r.port)
		}
		return u, budget.Refuse(reasonNotYours, wrong.Field, unquote(wrong.Value), "this token may report for port "+only+" only")
	}
	if err != nil {
		return u, err
	}
	if !r.caller.Can(PermissionReport, u.PortID) {
		return u, budget.Refuse(reasonNotYours, "port_id", u.PortID, "is none of the ports that this token may report for")
	}
	if r.reservation != "" {
		if u.ReservationID != "" && u.ReservationID != r.reservation {
			return u, budget.Refuse(events.ReasonInvalidField, "reservation_id", u.ReservationID, "the address names another reservation: leave it out here")
		}
		u.ReservationID = r.reservation
		if err := u.Validate(); err != nil {
			return u, err
		}
	}
	if err := r.identify(&u, index); err != nil {
		return u, err
	}
	// What the consumer would put into the quarantine is told at once.
	_, _, err = arrival.Identify(u, arrival.Arrival{Time: r.now}, time.Time{})
	return u, err
}

// unquote is the value of a refusal as it was.
func unquote(value string) string {
	if plain, err := strconv.Unquote(value); err == nil {
		return plain
	}
	return value
}

// identify gives an id to an event without one. Derived from the idempotency key it is the
// same whenever the request is sent again, provided that the time is: an id and its time are
// the identity.
func (r *report) identify(u *events.Usage, index int) error {
	if u.ID != "" {
		return nil
	}
	kind, key, at := "key", r.key, u.OccurredAt
	if key == "" && r.reservation != "" && !at.IsZero() {
		kind, key = "reservation", r.reservation
	}
	if key == "" {
		if at.IsZero() {
			at = r.now
		}
		u.ID = events.NewUUIDv7(at).String()
		return nil
	}
	if at.IsZero() {
		id, ok := events.ParseUUIDv7(key)
		if !ok {
			return budget.Refuse(events.ReasonInvalidField, "occurred_at", "", "is required beside an Idempotency-Key that is not a UUIDv7: the time of the call, the same whenever the request is sent again")
		}
		at = events.UUIDv7Time(id)
	}
	u.ID = derivedID(at, "http", kind, u.PortID, key, strconv.Itoa(index))
	return nil
}

// derivedID is an id of that time, the same whenever it comes of the same.
func derivedID(at time.Time, of ...string) string {
	sum := sha256.Sum256([]byte(strings.Join(of, "\x00")))
	return events.UUIDv7(at, [16]byte(sum[:16])).String()
}

// idempotencyKey is the header's, "" without one.
func (c *call) idempotencyKey() (string, error) {
	key := c.Header.Get("Idempotency-Key")
	if len(c.Header.Values("Idempotency-Key")) > 1 {
		return "", invalid("Idempotency-Key", quoted(key), "must be given once")
	}
	err := budget.CheckText("Idempotency-Key", key, 128, false)
	return key, err
}

// publish answers once JetStream has what is good.
func (e *Edge) publish(r *report) error {
	r.reply.Accepted = len(r.good)
	r.reply.Refused = len(r.reply.Events) - r.reply.Accepted
	if r.reply.Accepted > 0 {
		if err := e.storing.store(r.Context(), r.good); err != nil {
			return unavailable("the events are not all stored; send the same request again. Those that have neither an id nor an Idempotency-Key may then be booked twice", err)
		}
	}
	e.events.WithLabelValues("accepted").Add(float64(r.reply.Accepted))
	e.events.WithLabelValues("refused").Add(float64(r.reply.Refused))
	answer(r.w, r.reply.status(), r.reply)
	return nil
}

// status is 200 only if nothing was refused: who looks at nothing else must not lose an event.
func (u *usageReply) status() int {
	switch {
	case u.Refused == 0:
		return http.StatusOK
	case u.Accepted > 0:
		return http.StatusMultiStatus
	}
	for _, o := range u.Events {
		if o.Reason != reasonNotYours {
			return http.StatusUnprocessableEntity
		}
	}
	return http.StatusForbidden
}

func answer(w http.ResponseWriter, status int, reply any) {
	body, err := json.Marshal(reply)
	if err != nil {
		panic(err) // plain fields only
	}
	write(w, status, kindJSON, append(body, '\n'))
}

func write(w http.ResponseWriter, status int, kind string, body []byte) {
	h := w.Header()
	h.Set("Content-Type", kind)
	h.Set("Content-Length", strconv.Itoa(len(body)))
	h.Set("X-Content-Type-Options", "nosniff")
	w.WriteHeader(status)
	_, _ = w.Write(body) // the client is gone: nobody to tell
}

// takeAll takes what is in a body, one after the other.
func takeAll(body []byte, kind, what string, take func(payload []byte)) error {
	list, err := split(body, kind)
	if err != nil {
		return err
	}
	n := 0
	for payload, err := range list {
		if err != nil {
			return err
		}
		if n++; n > maxEvents {
			return refusal(http.StatusRequestEntityTooLarge, "too-large", "There are too many "+what+" in it", fmt.Sprintf("nothing was reported; send at most %d %s a request", maxEvents, what))
		}
		take(payload)
	}
	return nil
}

// split lists the events of a body: of an array its elements, of NDJSON its lines, or the
// body itself. They are good until the next one.
func split(body []byte, kind string) (iter.Seq2[[]byte, error], error) {
	trimmed := bytes.TrimLeft(body, " \t\r\n")
	switch {
	case len(trimmed) == 0:
		return nil, malformed("it is empty: send an event, a JSON array of events, or one a line (" + kindNDJSON + ")")
	case kind == kindNDJSON:
		return lines(body), nil
	case trimmed[0] == '[':
		return elements(body), nil
	}
	return func(yield func([]byte, error) bool) { yield(body, nil) }, nil
}

func lines(body []byte) iter.Seq2[[]byte, error] {
	return func(yield func([]byte, error) bool) {
		for line := range bytes.Lines(body) {
			if line = bytes.TrimSpace(line); len(line) > 0 && !yield(line, nil) {
				return
			}
		}
	}
}

func elements(body []byte) iter.Seq2[[]byte, error] {
	return func(yield func([]byte, error) bool) {
		for element, err := range arrival.Elements(body) {
			if err != nil {
				err = malformed("nothing was reported; it is no JSON array: " + err.Error())
			}
			if !yield(element, err) {
				return
			}
		}
	}
}
