package service

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"strings"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/micro"

	"github.com/tidegate/tidegate/events"
)

// A [micro.Request] can answer only until its handler returns: micro reads then, without a
// lock, what the request's Error and a failed Respond have written. These services answer
// when they can, on any goroutine.

// MayReply reports whether reply is where answers may go: a client's inbox, or the
// subject by which a server carries an answer into another account. A requester could
// otherwise name somebody else's subject, such as JetStream's API.
func MayReply(reply string) bool { return isInbox(reply) || strings.HasPrefix(reply, "_R_.") }

func isInbox(reply string) bool { return strings.HasPrefix(reply, "_INBOX.") }

// Send sends an answer as JSON, like [Publish].
func Send(nc *nats.Conn, reply string, answer any) error {
	body, err := json.Marshal(answer)
	if err != nil {
		return errors.Join(err, Fault(nc, reply, Problem{Code: http.StatusInternalServerError, What: "the answer cannot be written: " + err.Error()}))
	}
	return Publish(nc, reply, body)
}

// Publish sends an answer. One that cannot be sent, mostly because it is larger than
// NATS takes, becomes a fault that says so: its caller must not wait in vain. The error
// is there all the same.
func Publish(nc *nats.Conn, reply string, body []byte) error {
	err := nc.Publish(reply, body)
	switch {
	case err == nil:
		return nil
	case errors.Is(err, nats.ErrMaxPayload):
		what := fmt.Sprintf("the answer has %d bytes and NATS takes %d (max_payload): ask for less at a time, with limit and after where there are pages", len(body), nc.MaxPayload())
		return errors.Join(err, Fault(nc, reply, Problem{Code: http.StatusRequestEntityTooLarge, What: what}))
	default:
		return errors.Join(err, Fault(nc, reply, Problem{Code: http.StatusInternalServerError, What: "the answer cannot be sent: " + err.Error()}))
	}
}

// Problem is what a fault says.
type Problem struct {
	Code int
	What string
	// TryAgain says that nothing was done, and that the same may be asked again.
	TryAgain bool
}

const maxWhat = 2048 // bytes

// Fault sends a micro service's error: headers for machines, and a body, since an
// empty message is never a reply.
func Fault(nc *nats.Conn, reply string, p Problem) error {
	line := strings.ToValidUTF8(p.What[:min(len(p.What), maxWhat)], "")
	fields := map[string]any{"error": line, "code": p.Code}
	line = strings.Map(func(r rune) rune { // a header cannot hold more than one
		if r < ' ' {
			return ' '
		}
		return r
	}, line)
	header := nats.Header{micro.ErrorHeader: {line}, micro.ErrorCodeHeader: {strconv.Itoa(p.Code)}}
	if p.TryAgain {
		fields["try_again"] = true
		header[events.TryAgainHeader] = []string{"true"}
	}
	body, err := json.Marshal(fields)
	if err != nil {
		return err
	}
	return nc.PublishMsg(&nats.Msg{Subject: reply, Data: body, Header: header})
}
