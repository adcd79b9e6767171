// Package inbox sends the answers of NATS micro services. A [micro.Request] can answer
// only until its handler returns: micro reads then, without a lock, what the request's
// Error and a failed Respond have written. These services answer when they can, on any
// goroutine.
package inbox

import (
	"encoding/json"
	"strconv"
	"strings"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/micro"
)

// Allowed reports whether reply is where answers may go: a client's inbox, or the
// subject by which a server carries an answer into another account. A requester could
// otherwise name somebody else's subject, such as JetStream's API.
func Allowed(reply string) bool {
	return strings.HasPrefix(reply, "_INBOX.") || strings.HasPrefix(reply, "_R_.")
}

// Send sends an answer as JSON.
func Send(nc *nats.Conn, reply string, answer any) error {
	body, err := json.Marshal(answer)
	if err != nil {
		return err
	}
	return nc.Publish(reply, body)
}

// Fault sends a micro service's error: headers for machines, and a body, since an
// empty message is never a reply.
func Fault(nc *nats.Conn, reply string, code int, what string) error {
	body, err := json.Marshal(map[string]any{"error": what, "code": code})
	if err != nil {
		return err
	}
	line := strings.Map(func(r rune) rune { // a header cannot hold more than one
		if r < ' ' {
			return ' '
		}
		return r
	}, what)
	return nc.PublishMsg(&nats.Msg{Subject: reply, Data: body,
		Header: nats.Header{micro.ErrorHeader: {line}, micro.ErrorCodeHeader: {strconv.Itoa(code)}}})
}
