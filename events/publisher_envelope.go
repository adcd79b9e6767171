package events

import "github.com/nats-io/nats.go"

// envelope is what travels as one NATS message: one event, or several in a JSON array.
type envelope struct {
	messages []*message
	subject  string
	payload  []byte
}

func (p *Publisher) subject(port string) string {
	if p.cfg.SharedSubject {
		return SubjectUsage
	}
	return Subject(SubjectUsage, port)
}

// fewEnvelopes are sent one by one. A batch of messages on the shared subject pays only
// when there are many: it costs nats-server a store of its own and several fsyncs.
func (p *Publisher) fewEnvelopes() int {
	if p.cfg.SharedSubject {
		return 16
	}
	return 1
}

// seal puts messages into envelopes, in order: one each, or on the shared subject
// as many together as fit.
func (p *Publisher) seal(messages []*message) []envelope {
	envelopes := make([]envelope, 0, len(messages))
	for len(messages) > 0 {
		n := 1
		if p.cfg.SharedSubject {
			n = together(messages)
		}
		envelopes = append(envelopes, sealed(messages[:n]))
		messages = messages[n:]
	}
	return envelopes
}

// together is how many of the first messages fit into one envelope, at least one.
func together(messages []*message) int {
	size := len("[]")
	for n, m := range messages {
		size += len(m.payload) + len(",")
		if n > 0 && (m.alone || messages[0].alone || size > MaxPayloadBytes) {
			return n
		}
	}
	return len(messages)
}

func sealed(messages []*message) envelope {
	e := envelope{messages: messages, subject: messages[0].subject}
	if len(messages) == 1 {
		e.payload = messages[0].payload
		return e
	}
	size := len("[]")
	for _, m := range messages {
		size += len(m.payload) + len(",")
	}
	e.payload = append(make([]byte, 0, size), '[')
	for i, m := range messages {
		if i > 0 {
			e.payload = append(e.payload, ',')
		}
		e.payload = append(e.payload, m.payload...)
	}
	e.payload = append(e.payload, ']')
	return e
}

// wire is a fresh NATS message: publishing adds headers of its own. It has no Nats-Msg-Id:
// JetStream would drop what it takes for a repetition without looking into it, where the
// ledger compares, for ever.
func (e *envelope) wire() *nats.Msg {
	return &nats.Msg{Subject: e.subject, Data: e.payload, Header: nats.Header{}}
}
