package edge

import (
	"bytes"
	"net/http"
	"time"

	"github.com/go-json-experiment/json/jsontext"

	"github.com/tidegate/tidegate/events"
)

// maxLiteLLMBytes has room for LiteLLM's usual batch, 512 records, of 16 KiB each: they have all
// that was asked and answered. LiteLLM throws a batch away that it cannot send.
const maxLiteLLMBytes = 8 << 20

// recordOutcome is what became of one of LiteLLM's records.
type recordOutcome struct {
	Index  int           `json:"index" doc:"Its place in the request, from 0; blank lines do not count."`
	Status string        `json:"status" enum:"accepted,quarantined,skipped" doc:"accepted: JetStream has stored its event. quarantined: JetStream has stored what is no good event, for the quarantine. skipped: the call cost nothing."`
	ID     string        `json:"id,omitempty" doc:"The event's, if it was accepted."`
	Reason events.Reason `json:"reason,omitempty" doc:"A stable word for machines; of what was skipped: cache_hit, failed (and no tokens) or no_model_call."`
	Field  string        `json:"field,omitempty" doc:"Of the event."`
	Value  string        `json:"value,omitempty" doc:"Shortened."`
	Rule   string        `json:"rule,omitempty" doc:"What the field must be."`
}

type litellmReply struct {
	Accepted    int             `json:"accepted"`
	Quarantined int             `json:"quarantined"`
	Skipped     int             `json:"skipped"`
	Records     []recordOutcome `json:"records" doc:"One for each record, in order."`
}

// reportLiteLLM takes what LiteLLM's generic_api callback posts. LiteLLM sends nothing again, so
// what can be kept is not refused.
func (e *Edge) reportLiteLLM(c *call) error {
	m, err := newMapping(c.URL.RawQuery)
	if err != nil {
		return err
	}
	body, kind, err := c.read(kindJSON, kindNDJSON)
	if err != nil {
		return err
	}
	if one := bytes.TrimSpace(body); len(one) > 0 && one[0] != '[' && !jsontext.Value(one).IsValid(lenient) {
		kind = kindNDJSON // which LiteLLM posts as application/json
	}
	r := litellmReport{mappedReport: mappedReport{report: report{call: c, now: time.Now()}}, mapping: m}
	if err := takeAll(body, kind, "records", func(payload []byte) { r.reply.Records = append(r.reply.Records, r.take(payload)) }); err != nil {
		return err
	}
	r.reply.Accepted, r.reply.Quarantined = len(r.good), len(r.refused)
	r.reply.Skipped = len(r.reply.Records) - r.reply.Accepted - r.reply.Quarantined
	if err := e.publishMapped(&r.mappedReport, r.reply.Skipped, "records of LiteLLM"); err != nil {
		return err
	}
	status := http.StatusOK
	if r.reply.Quarantined > 0 {
		status = http.StatusMultiStatus
	}
	answer(c.w, status, r.reply)
	return nil
}

// litellmReport is one request's records.
type litellmReport struct {
	mappedReport
	mapping mapping
	reply   litellmReply
}

func (r *litellmReport) take(payload []byte) recordOutcome {
	o := recordOutcome{Index: len(r.reply.Records)}
	event, skipped := r.mapping.event(payload)
	if skipped != "" {
		o.Status, o.Reason = "skipped", skipped
		return o
	}
	u, wrong := r.add(event, o.Index)
	if wrong == nil {
		o.Status, o.ID = "accepted", u.ID
		return o
	}
	o.Status, o.Reason, o.Field, o.Value, o.Rule = "quarantined", wrong.Reason, wrong.Field, wrong.Value, wrong.Rule
	return o
}
