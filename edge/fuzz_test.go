package edge

import (
	"testing"
	"time"

	"github.com/tidegate/tidegate/identity"
)

// FuzzReport finds no body with which a token of port a reports for another, or an event that
// is accepted without an id.
func FuzzReport(f *testing.F) {
	const event = `{"port_id":"a","feature":"f","provider":"p","model":"m","input_tokens":1}`
	for _, body := range []string{event, "[" + event + "]", "[" + event + `,{"port_id":"b","feature":"f","provider":"p","model":"m"}]`, event + "\n" + event,
		`{"feature":"f","provider":"p","model":"m","port_id":"a","port_id":"b"}`, "[", "[]", "null", "[[" + event + "]]", "[1,\"\xff\"]"} {
		f.Add([]byte(body), true, "key", "")
		f.Add([]byte(body), false, "", "reservation")
	}
	f.Fuzz(func(t *testing.T, body []byte, ndjson bool, key, reservation string) {
		kind := kindJSON
		if ndjson {
			kind = kindNDJSON
		}
		list, err := split(body, kind)
		if err != nil {
			return
		}
		r := report{call: &call{caller: identity.Caller{Permissions: []string{PermissionReport}, Ports: []string{"a"}}}, key: key, reservation: reservation, now: time.Now()}
		n := 0
		for payload, err := range list {
			if err != nil {
				return
			}
			n++
			r.take(payload)
		}
		if len(r.reply.Events) != n {
			t.Errorf("%d events have %d outcomes", n, len(r.reply.Events))
		}
		for _, u := range r.good {
			if u.PortID != "a" || u.ID == "" || u.Validate() != nil {
				t.Errorf("accepted: %+v, %v", u, u.Validate())
			}
		}
	})
}
