package edge

import (
	"errors"
	"net/http"

	"github.com/tidegate/tidegate/budget"
	"github.com/tidegate/tidegate/events"
)

func (e *Edge) check(c *call) error {
	var r events.CheckRequest
	if err := c.decode(events.SubjectCheck, &r); err != nil {
		return err
	}
	v, err := e.client.Check(c.Context(), r)
	if err != nil {
		return err
	}
	write(c.w, http.StatusOK, kindJSON, append(v.AppendJSON(nil), '\n'))
	return nil
}

func (e *Edge) reserve(c *call) error {
	var r events.ReserveRequest
	if err := c.decode(events.SubjectReserve, &r); err != nil {
		return err
	}
	key, err := c.idempotencyKey()
	if err != nil {
		return err
	}
	if key != "" {
		if r.IdempotencyKey != "" && r.IdempotencyKey != key {
			return invalid("idempotency_key", quoted(r.IdempotencyKey), "is another than the header Idempotency-Key: leave one of them out")
		}
		r.IdempotencyKey = key
	}
	if r.Service == "" {
		r.Service = c.caller.Name
	}
	held, err := e.client.Reserve(c.Context(), r)
	if err != nil {
		return err
	}
	write(c.w, http.StatusOK, kindJSON, append(held.AppendJSON(nil), '\n'))
	return nil
}

func (e *Edge) release(c *call) error {
	if err := e.client.Release(c.Context(), c.port, c.PathValue("id")); err != nil {
		return err
	}
	c.w.WriteHeader(http.StatusNoContent)
	return nil
}

func (e *Edge) budget(c *call) error {
	b, err := e.client.Get(c.Context(), c.port)
	if err != nil {
		return err
	}
	answer(c.w, http.StatusOK, b)
	return nil
}

// decode reads a question, which is about the port in the address.
func (c *call) decode(base string, into any) error {
	body, _, err := c.read(kindJSON)
	if err != nil {
		return err
	}
	_, err = events.DecodeRequest(base, events.Subject(base, c.port), body, into)
	if wrong := (*events.FieldError)(nil); errors.As(err, &wrong) && wrong.Reason == events.ReasonPortMismatch {
		return budget.Refuse(wrong.Reason, wrong.Field, unquote(wrong.Value), "the address names port "+c.port)
	}
	return err
}
