package edge

import (
	"time"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
	"github.com/nats-io/nats.go"

	"github.com/tidegate/tidegate/events"
)

// mappedEvent is an event as JSON that was made of what others record, before anybody knows
// whether it is a good one. What cannot be right stays as it came: the consumer refuses it, and
// the quarantine shows it.
type mappedEvent struct {
	ID           string         `json:"id,omitempty"`
	OccurredAt   string         `json:"occurred_at,omitempty"`
	PortID       string         `json:"port_id,omitempty"`
	UserID       string         `json:"user_id,omitempty"`
	RunID        string         `json:"run_id,omitempty"`
	Feature      string         `json:"feature"`
	Provider     string         `json:"provider"`
	Model        string         `json:"model"`
	ResponseID   string         `json:"response_id,omitempty"`
	InputTokens  any            `json:"input_tokens"` // a number, or a text that is none
	OutputTokens any            `json:"output_tokens,omitempty"`
	Details      events.Details `json:"details"`
	Status       events.Status  `json:"status"`

	// Of these one is there. It is no part of an event: it says whose it is to who looks into the quarantine.
	LiteLLM map[string]string `json:"litellm,omitempty"`
	Span    map[string]string `json:"otel,omitempty"`
}

// count sets the tokens. Input should include what was cached, output what was thought, and
// total both of them; where the figures themselves show that one does not, it is mended.
func (e *mappedEvent) count(input, output, total int64, d events.Details) {
	cached := d.CacheReadInputTokens + d.CacheWriteInputTokens
	if missing := total - input - output; missing > 0 {
		if missing == cached {
			input += missing
		} else {
			output += missing // what was thought
		}
	}
	if cached > input { // input as Anthropic tells it: without what was cached
		input += cached
	}
	d.ReasoningOutputTokens = min(d.ReasoningOutputTokens, max(output, 0))
	e.InputTokens, e.OutputTokens, e.Details = input, output, d
}

// identify gives the event its time and, so that what is sent again counts once, an id that is derived
// from that and what the event is of.
func (e *mappedEvent) identify(ms int64, of ...string) {
	at := time.UnixMilli(ms).UTC()
	e.OccurredAt, e.ID = at.Format("2006-01-02T15:04:05.000Z07:00"), derivedID(at, of...)
}

// shorten keeps an event that is refused within a message of the stream. What is cut is too
// long for its field still.
func (e *mappedEvent) shorten() {
	for _, field := range []*string{&e.PortID, &e.UserID, &e.RunID, &e.Feature, &e.Provider, &e.Model} {
		*field = shortened(*field)
	}
	for _, tokens := range []*any{&e.InputTokens, &e.OutputTokens} {
		if given, ok := (*tokens).(string); ok {
			*tokens = shortened(given)
		}
	}
}

func shortened(text string) string {
	const most = 160
	if len(text) <= most {
		return text
	}
	return text[:most] + "…"
}

func (e *mappedEvent) json() []byte {
	text, err := json.Marshal(e, jsontext.AllowInvalidUTF8(true), json.Deterministic(true))
	if err != nil {
		panic(err) // plain fields only
	}
	return text
}

// mappedReport is what one request of somebody reports who sends nothing again: good events, and
// what is kept in the quarantine instead of being refused.
type mappedReport struct {
	report
	refused []*nats.Msg
	why     error // of the first that is refused
}

// add sorts an event in. wrong says why it goes to the quarantine.
func (r *mappedReport) add(e mappedEvent, index int) (u events.Usage, wrong *events.FieldError) {
	if u, wrong = r.admit(e.json(), index); wrong != nil {
		if r.why == nil {
			r.why = wrong
		}
		r.refused = append(r.refused, r.message(e))
	}
	return u, wrong
}

// message is what the consumer refuses as the edge does, and puts into the quarantine. An event
// that names a port which is not the token's travels on the subject of one that is, where it
// can never be booked for the other; one that names none of several, where it must name one.
func (r *mappedReport) message(e mappedEvent) *nats.Msg {
	e.shorten()
	subject, ports := events.SubjectUsage, r.caller.Ports
	switch {
	case events.ValidPort(e.PortID) && r.caller.Can(PermissionReport, e.PortID):
		subject = events.Subject(subject, e.PortID)
	case ports == nil || e.PortID == "" && len(ports) > 1:
	case len(ports) > 0 && events.ValidPort(ports[0]):
		subject = events.Subject(subject, ports[0])
	default:
		e.PortID = ""
	}
	return &nats.Msg{Subject: subject, Data: e.json()}
}

// publishMapped returns once JetStream has all of it. from is what the events were made of.
func (e *Edge) publishMapped(r *mappedReport, skipped int, from string) error {
	if len(r.good) > 0 {
		if err := e.storing.store(r.Context(), r.good); err != nil {
			return unavailable("the events are not all stored; send the same request again: none is counted twice", err)
		}
	}
	if len(r.refused) > 0 {
		if err := e.storing.storeRefused(r.Context(), r.refused); err != nil {
			return unavailable("what cannot be booked is not all stored; send the same request again: nothing is counted twice", err)
		}
		e.log.Warn("edge: "+from+" go to the quarantine", "number", len(r.refused), "token", r.caller.Name, "first", r.why)
	}
	e.events.WithLabelValues("accepted").Add(float64(len(r.good)))
	e.events.WithLabelValues("quarantined").Add(float64(len(r.refused)))
	e.events.WithLabelValues("skipped").Add(float64(skipped))
	return nil
}
