package arrival

import (
	"bytes"
	"errors"
	"io"

	"github.com/go-json-experiment/json/jsontext"

	"github.com/tidegate/tidegate/budget"
	"github.com/tidegate/tidegate/events"
)

// Split returns the payloads of the events in a message: its own payload, or the
// elements of the JSON array that it is. It does not look into them. Its error is a
// [*events.FieldError] and concerns the message as a whole.
func Split(payload []byte) ([][]byte, error) {
	if begin := bytes.TrimLeft(payload, " \t\r\n"); len(begin) == 0 || begin[0] != '[' {
		return [][]byte{payload}, nil
	}
	if len(payload) > events.MaxPayloadBytes {
		return nil, budget.Refuse(events.ReasonTooLarge, "payload bytes", int64(len(payload)), "must be at most 16384")
	}
	list, err := elements(payload)
	switch {
	case err != nil:
		rule := "is not one JSON array of events: " + err.Error()
		if errors.Is(err, io.ErrUnexpectedEOF) {
			rule = "is not one JSON array of events: it ends too early"
		}
		return nil, malformed(payload, rule)
	case len(list) == 0:
		return nil, malformed(payload, "must hold at least one event")
	case len(list) > events.MaxEventsPerMessage:
		return nil, budget.Refuse(events.ReasonTooLarge, "events", int64(len(list)), "one message must hold at most 256")
	}
	return list, nil
}

// elements leaves to the decoding of each what concerns it alone: duplicate names, UTF-8.
func elements(array []byte) (list [][]byte, err error) {
	in := jsontext.NewDecoder(bytes.NewBuffer(array), jsontext.AllowDuplicateNames(true), jsontext.AllowInvalidUTF8(true))
	if _, err := in.ReadToken(); err != nil {
		return nil, err
	}
	for in.PeekKind() != ']' {
		element, err := in.ReadValue()
		if err != nil {
			return nil, err
		}
		end := in.InputOffset()
		list = append(list, array[end-int64(len(element)):end])
	}
	if _, err := in.ReadToken(); err != nil {
		return nil, err
	}
	if len(bytes.TrimSpace(array[in.InputOffset():])) > 0 {
		return nil, errors.New("something follows it")
	}
	return list, nil
}

func malformed(payload []byte, rule string) error {
	return budget.Refuse(events.ReasonMalformed, "payload", string(payload[:min(len(payload), 60)]), rule)
}
