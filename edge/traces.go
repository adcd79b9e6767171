package edge

import (
	"fmt"
	"mime"
	"net/http"
	"strconv"
	"strings"
	"time"

	"google.golang.org/protobuf/encoding/protowire"
)

// tracesReply is OTLP's ExportTraceServiceResponse.
type tracesReply struct {
	PartialSuccess partialSuccess `json:"partialSuccess,omitzero"`
}

type partialSuccess struct {
	RejectedSpans string `json:"rejectedSpans" doc:"How many went to the quarantine: a whole number."`
	ErrorMessage  string `json:"errorMessage" doc:"Why the first of them did."`
}

// reportTraces takes what OpenTelemetry's exporters post. What was answered with a success they
// send no more, and what is refused for good is lost, so what can be kept is not refused.
func (e *Edge) reportTraces(c *call) error {
	m, err := newSpanMapping(c.URL.RawQuery)
	if err != nil {
		return err
	}
	body, kind, err := c.read(kindProtobuf, kindJSON)
	if err != nil {
		return err
	}
	r := tracesReport{mappedReport: mappedReport{report: report{call: c, now: time.Now()}}, mapping: m, responses: map[[2]string]bool{}}
	reader := newSpanReader(m.wanted(), r.take)
	switch {
	case kind == kindProtobuf:
		err = reader.protobuf(body)
	case len(body) > 0:
		err = reader.json(body)
	}
	if err != nil {
		return err
	}
	if err := e.publishMapped(&r.mappedReport, r.skipped, "spans"); err != nil {
		return err
	}
	if kind == kindProtobuf {
		write(c.w, http.StatusOK, kind, r.reply.protobuf())
		return nil
	}
	answer(c.w, http.StatusOK, r.reply)
	return nil
}

// tracesReport is one request's spans.
type tracesReport struct {
	mappedReport
	mapping   spanMapping
	calls     int                // of models
	skipped   int                // spans with tokens that are not to be counted
	responses map[[2]string]bool // those counted, by trace and id
	reply     tracesReply
}

func (r *tracesReport) take(s *span) error {
	event, skipped := r.mapping.event(s)
	response := [2]string{s.trace, s.text(responseIDNames)}
	if skipped == "" && r.responses[response] { // two instrumentations, such as a framework's and an SDK's, recorded one call
		skipped = "repeated"
	}
	switch skipped {
	case "":
	case "not_ai":
		return nil
	default:
		r.skipped++
		return nil
	}
	if r.calls++; r.calls > maxEvents {
		return refusal(http.StatusRequestEntityTooLarge, "too-large", "There are too many calls of models in it", fmt.Sprintf("nothing was reported; send at most %d a request", maxEvents))
	}
	if response[1] != "" {
		r.responses[response] = true
	}
	if _, wrong := r.add(event, r.calls-1); wrong != nil {
		if r.reply.PartialSuccess.ErrorMessage == "" {
			r.reply.PartialSuccess.ErrorMessage = strings.ToValidUTF8("kept in the quarantine, not counted; the first is span "+s.id+" of trace "+s.trace+": "+wrong.Error(), "\ufffd")
		}
		r.reply.PartialSuccess.RejectedSpans = strconv.Itoa(len(r.refused))
	}
	return nil
}

func (r tracesReply) protobuf() (message []byte) {
	if rejected, _ := strconv.ParseUint(r.PartialSuccess.RejectedSpans, 10, 64); rejected > 0 {
		partial := protowire.AppendVarint(protowire.AppendTag(nil, 1, protowire.VarintType), rejected)
		partial = protowire.AppendString(protowire.AppendTag(partial, 2, protowire.BytesType), r.PartialSuccess.ErrorMessage)
		message = protowire.AppendBytes(protowire.AppendTag(nil, 1, protowire.BytesType), partial)
	}
	return message
}

// writeStatus answers in protobuf with a google.rpc.Status, which is what OTLP's exporters show of
// an error.
func (p *problem) writeStatus(w http.ResponseWriter) {
	write(w, p.Status, kindProtobuf, protowire.AppendString(protowire.AppendTag(nil, 2, protowire.BytesType), p.Error()))
}

// inProtobuf says whether a request is answered in protobuf.
func inProtobuf(r *http.Request) bool {
	kind, _, _ := mime.ParseMediaType(r.Header.Get("Content-Type"))
	return r.URL.Path == "/v1/traces" && kind == kindProtobuf
}
