package arrival

import (
	"bytes"
	"errors"
	"io"
	"iter"

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
	var list [][]byte
	for element, err := range Elements(payload) {
		switch {
		case errors.Is(err, io.ErrUnexpectedEOF):
			return nil, malformed(payload, "is not one JSON array of events: it ends too early")
		case err != nil:
			return nil, malformed(payload, "is not one JSON array of events: "+err.Error())
		}
		list = append(list, element)
	}
	switch {
	case len(list) == 0:
		return nil, malformed(payload, "must hold at least one event")
	case len(list) > events.MaxEventsPerMessage:
		return nil, budget.Refuse(events.ReasonTooLarge, "events", int64(len(list)), "one message must hold at most 256")
	}
	return list, nil
}

// Elements are those of a JSON array. It looks at them no more than it must to find where each ends: what
// concerns one alone, duplicate names or UTF-8, is left to its decoding. An error is the last.
func Elements(array []byte) iter.Seq2[[]byte, error] {
	return func(yield func([]byte, error) bool) {
		in := jsontext.NewDecoder(bytes.NewBuffer(array), jsontext.AllowDuplicateNames(true), jsontext.AllowInvalidUTF8(true))
		_, err := in.ReadToken() // its beginning
		for err == nil && in.PeekKind() != ']' {
			var element jsontext.Value
			if element, err = in.ReadValue(); err == nil {
				end := in.InputOffset()
				if !yield(array[end-int64(len(element)):end], nil) {
					return
				}
			}
		}
		if err == nil {
			_, err = in.ReadToken() // its end
		}
		if err == nil && len(bytes.TrimSpace(array[in.InputOffset():])) > 0 {
			err = errors.New("something follows it")
		}
		if err != nil {
			yield(nil, err)
		}
	}
}

func malformed(payload []byte, rule string) error {
	return budget.Refuse(events.ReasonMalformed, "payload", string(payload[:min(len(payload), 60)]), rule)
}
