package edge

import (
	"fmt"
	"reflect"
	"slices"
	"strings"

	"github.com/tidegate/tidegate/budget"
	"github.com/tidegate/tidegate/identity/safehttp"
	"github.com/tidegate/tidegate/internal/openapi"
)

// Document is the OpenAPI 3.1 description, made from the routes. It is committed as
// edge/openapi.json; a test fails when that differs.
func Document() ([]byte, error) {
	schemas := &openapi.Schemas{Enums: map[reflect.Type][]string{
		reflect.TypeFor[budget.Period](): {string(budget.Hour), string(budget.Day), string(budget.Week), string(budget.Month), string(budget.Total)},
		reflect.TypeFor[budget.Unit]():   {string(budget.Tokens), string(budget.Requests), string(budget.Weighted)},
	}, Written: map[reflect.Type]openapi.Object{
		reflect.TypeFor[[]budget.Limit](): {"type": "array", "items": openapi.Object{"type": "object"}, "description": "Beside the caps: docs/limits.md."},
	}}
	d := openapi.Document{
		Title: "Tidegate for services",
		Description: "Report what AI calls cost, and ask before them. Every operation needs an API token with the permission that it names, for the port concerned (tidegate token create). " +
			"Errors are problem documents (RFC 9457). See docs/http.md.",
		Schemas: schemas,
		Ways:    openapi.Object{"bearer": openapi.Object{"type": "http", "scheme": "bearer", "description": "An API token."}},
	}
	for _, r := range routes {
		d.Add(r.method, r.path, r.describe(schemas))
	}
	for _, request := range []string{"CheckRequest", "ReserveRequest"} {
		schemas.Found()[request].(openapi.Object)["required"] = []string{} // what is left out is 0, or is not matched
	}
	verdict := schemas.Found()["Verdict"].(openapi.Object)["properties"].(openapi.Object)
	verdict["resets_at"] = openapi.Object{"type": []string{"string", "null"}, "format": "date-time", "description": "null: never."}
	return d.JSON()
}

func (r route) describe(schemas *openapi.Schemas) openapi.Object {
	o := openapi.Object{"operationId": r.id, "summary": r.summary, "description": strings.TrimSpace(r.about + " Needs the permission " + r.permission + "."), "responses": r.responses(schemas)}
	parameters := []openapi.Object{}
	if strings.Contains(r.path, "{port}") {
		parameters = append(parameters, openapi.Object{"name": "port", "in": "path", "required": true, "schema": openapi.Object{"type": "string", "pattern": "^[A-Za-z0-9_-]{1,64}$"}})
	}
	if strings.Contains(r.path, "{id}") {
		parameters = append(parameters, openapi.Object{"name": "id", "in": "path", "required": true, "description": "The reservation_id that reserve gave.", "schema": openapi.Object{"type": "string", "minLength": 1, "maxLength": 128}})
	}
	for _, p := range r.query {
		parameters = append(parameters, openapi.Object{"name": p.name, "in": "query", "description": p.about, "schema": openapi.Object{"type": "string"}})
	}
	if r.key {
		parameters = append(parameters, openapi.Object{"name": "Idempotency-Key", "in": "header", "schema": openapi.Object{"type": "string", "maxLength": 128},
			"description": "The same whenever the request is sent again, with the same body, and never used for another one. It makes that harmless for events without an id; unless it is a UUIDv7, they need occurred_at."})
	}
	if len(parameters) > 0 {
		o["parameters"] = parameters
	}
	switch r.body.(type) {
	case nil:
	case event, litellmRecord: // they may have fields that nobody here knows
		one := schemas.Of(r.body)
		content := openapi.Object{kindJSON: openapi.Object{"schema": one}}
		if r.maxBody >= maxUsageBytes {
			content = openapi.Object{
				kindJSON:   openapi.Object{"schema": openapi.Object{"oneOf": []openapi.Object{one, {"type": "array", "items": one, "maxItems": maxEvents}}}},
				kindNDJSON: openapi.Object{"schema": openapi.Object{"type": "string", "description": "One a line."}},
			}
		}
		o["requestBody"] = openapi.Object{"required": true, "content": content}
	case otlpTraces:
		o["requestBody"] = openapi.Object{"required": true, "content": openapi.Object{
			kindProtobuf: openapi.Object{"schema": binary("OTLP's ExportTraceServiceRequest.")}, kindJSON: openapi.Object{"schema": schemas.Of(r.body)}}}
	default:
		o["requestBody"] = openapi.Object{"content": openapi.Object{kindJSON: openapi.Object{"schema": schemas.OfBody(r.body)}}}
	}
	return o
}

// means says what a status means where its name does not.
var means = map[int]string{
	400: "The body cannot be read, or the gate does not understand the question.",
	401: "Nobody known: no API token, or one that is not accepted. Cookies are not looked at.",
	403: "The token lacks the permission, or the port is none of its own.",
	408: "The body came too slowly.",
	409: "The idempotency key holds tokens for another request.",
	413: "The body is too large, or has too many events or calls.",
	415: "The body is of a type that is not taken here, or is compressed otherwise than with gzip.",
	422: "A value breaks its rule; errors, or the events of a report, name it.",
	429: "This token has too many requests in flight, or the port holds too many reservations. Wait as long as Retry-After says.",
	500: "A bug, which is in the server's log.",
	503: "No gate, no NATS, no room, or nobody knows whether the token is good. Nothing that was answered so is known to be stored: wait as long as Retry-After says and send it again.",
}

func binary(what string) openapi.Object {
	return openapi.Object{"type": "string", "format": "binary", "description": what}
}

func (r route) responses(schemas *openapi.Schemas) openapi.Object {
	problem := openapi.Object{"application/problem+json": openapi.Object{"schema": schemas.Of(safehttp.Problem{})}}
	all := openapi.Object{}
	if _, traces := r.reply.(tracesReply); traces {
		problem[kindProtobuf] = openapi.Object{"schema": binary("To what came in protobuf, once the token is accepted: a google.rpc.Status with the title and the detail as its message.")}
	}
	for _, status := range append([]int{400, 401, 403, 422, 429, 500, 503}, r.fails...) {
		all[fmt.Sprint(status)] = openapi.Object{"description": means[status], "content": problem}
	}
	if r.reply == nil {
		all["204"] = openapi.Object{"description": "Done."}
		return all
	}
	reply := openapi.Object{kindJSON: openapi.Object{"schema": schemas.Of(r.reply)}}
	all["200"] = openapi.Object{"description": "Done.", "content": reply}
	if _, traces := r.reply.(tracesReply); traces {
		reply[kindProtobuf] = openapi.Object{"schema": binary("To what came in protobuf: OTLP's ExportTraceServiceResponse.")}
	}
	if slices.Contains(r.fails, 207) {
		all["207"] = openapi.Object{"description": "Not all are accepted; the body says of each what became of it.", "content": reply}
	}
	if _, report := r.reply.(usageReply); report {
		either := openapi.Object{kindJSON: reply[kindJSON], "application/problem+json": problem["application/problem+json"]}
		for _, status := range []int{403, 422} {
			all[fmt.Sprint(status)] = openapi.Object{"description": means[status], "content": either}
		}
	}
	return all
}
