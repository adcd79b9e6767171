// Package bus is what Tidegate's own processes tell each other over NATS: what commits
// changed, what is held, which budgets were stored, which ports are gone. Here it is
// encoded, bounded and versioned. Services need none of it.
package bus

import (
	"fmt"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/nats-io/nats.go"
)

// version of the messages. One that says another is ignored: what it would have told
// comes with the next reading of the ledger. Fields may be added within a version.
const version = 1

// Message is one of [Totals], [Holds], [Budget], [UsedRequest] and [Used]. It is bounded
// like everything that comes from outside: one that is wrong, or forged by whoever may
// publish there, must not make a gate allocate, remember for ever, or read all totals again.
type Message interface {
	// check reports what is out of bounds; now is the database's time.
	check(now time.Time) error
}

type envelope[M Message] struct {
	V    *int `json:"v"` // null: of a build that did not say it, which is 1
	Body M    `json:",embed"`
}

// Encode returns a message in its wire form.
func Encode[M Message](m M) ([]byte, error) { return json.Marshal(envelope[M]{new(version), m}) }

// Decode reads a message. Whoever gets an error ignores the message as a whole.
func Decode[M Message](body []byte, now time.Time) (M, error) {
	var e envelope[M]
	err := json.Unmarshal(body, &e)
	if err == nil && e.V != nil && *e.V != version {
		err = fmt.Errorf("it is of version %d, and this process understands %d", *e.V, version)
	}
	if err == nil {
		err = e.Body.check(now)
	}
	return e.Body, err
}

// Tell publishes a message to all that subscribe to its subject. One that is lost heals
// by itself, when the gates next read the ledger.
func Tell[M interface {
	Message
	subject() string
}](nc *nats.Conn, m M) error {
	body, err := Encode(m)
	if err != nil {
		return err
	}
	return nc.Publish(m.subject(), body)
}
