package admin

import (
	"fmt"
	"net/http"
	"reflect"
	"slices"
	"strconv"
	"strings"

	"github.com/tidegate/tidegate/budget"
	"github.com/tidegate/tidegate/events"
	"github.com/tidegate/tidegate/identity"
	"github.com/tidegate/tidegate/identity/safehttp"
	"github.com/tidegate/tidegate/internal/openapi"
	"github.com/tidegate/tidegate/ledger"
)

// Document is the API's OpenAPI 3.1 description, made from the routes. It is
// committed as admin/openapi.json; a test fails when that differs.
func Document() ([]byte, error) {
	schemas := &openapi.Schemas{Enums: map[reflect.Type][]string{
		reflect.TypeFor[events.Period]():    {string(events.PeriodDay), string(events.PeriodWeek), string(events.PeriodMonth)},
		reflect.TypeFor[events.Dimension](): {string(events.ByFeature), string(events.ByModel), string(events.ByUser), string(events.ByRun), string(events.ByDay)},
		reflect.TypeFor[ledger.State]():     states,
		reflect.TypeFor[budget.Per]():       {string(budget.PerFeature), string(budget.PerProvider), string(budget.PerModel), string(budget.PerUser), string(budget.PerRun)},
		reflect.TypeFor[budget.Unit]():      {string(budget.Tokens), string(budget.Requests), string(budget.Weighted)},
	}, Written: map[reflect.Type]openapi.Object{
		reflect.TypeFor[budget.Weight](): {"type": "number"},
		reflect.TypeFor[budget.Threshold](): {"oneOf": []openapi.Object{{"type": "string", "pattern": "^([1-9][0-9]?|100)%$"},
			{"type": "integer", "format": "int64", "minimum": 1, "maximum": int64(budget.MaxCapTokens)}}},
	}}
	d := openapi.Document{
		Title: "Tidegate admin API",
		Description: "Budgets for AI tokens: read and set them, see what was used, try a cap on last period's calls. Reading needs the permission " + View + " or " +
			Permission + ", changing the latter. Everything but CSV is JSON; errors are problem documents (RFC 9457). See docs/admin-api.md.",
		Schemas: schemas,
		Ways: openapi.Object{
			"bearer":  openapi.Object{"type": "http", "scheme": "bearer", "description": "An API token, or an access token of the OIDC provider."},
			"session": openapi.Object{"type": "apiKey", "in": "cookie", "name": identity.CookieName, "description": "What a browser holds after /login."},
		},
	}
	for _, r := range routes {
		d.Add(r.method, basePath+r.path, r.describe(schemas))
	}
	return d.JSON()
}

func (r route) describe(schemas *openapi.Schemas) openapi.Object {
	o := openapi.Object{"operationId": r.id, "summary": r.summary, "responses": r.responses(schemas)}
	if r.about != "" {
		o["description"] = r.about
	}
	parameters := []openapi.Object{}
	for _, name := range []string{"port", "user"} {
		if strings.Contains(r.path, "{"+name+"}") {
			schema := openapi.Object{"type": "string", "minLength": 1}
			if name == "port" {
				schema = openapi.Object{"type": "string", "pattern": "^[A-Za-z0-9_-]{1,64}$"}
			}
			parameters = append(parameters, openapi.Object{"name": name, "in": "path", "required": true, "schema": schema})
		}
	}
	for _, p := range r.query {
		parameters = append(parameters, openapi.Object{"name": p.name, "in": "query", "description": p.about, "schema": p.schema()})
	}
	if slices.Contains(r.fails, http.StatusPreconditionFailed) {
		parameters = append(parameters, openapi.Object{"name": "If-Match", "in": "header", "required": true,
			"description": `The ETag that GET gave; "0" when nothing is stored yet.`, "schema": openapi.Object{"type": "string"}})
	}
	if r.body != nil {
		o["requestBody"] = openapi.Object{"required": true, "content": openapi.Object{"application/json": openapi.Object{"schema": schemas.OfBody(r.body)}}}
	}
	if len(parameters) > 0 {
		o["parameters"] = parameters
	}
	return o
}

func (p param) schema() openapi.Object {
	o := openapi.Object{"type": "string"}
	if p.words != nil {
		o["enum"] = p.words
	}
	if p.number {
		o = openapi.Object{"type": "integer", "format": "int64", "minimum": p.min, "maximum": p.max}
	}
	if n, err := strconv.ParseInt(p.fallback, 10, 64); err == nil {
		o["default"] = n
	} else if p.fallback != "" {
		o["default"] = p.fallback
	}
	return o
}

// means says what a status means where its name does not.
var means = map[int]string{
	400: "The body is not one JSON object, or the query cannot be read.",
	401: "Nobody known: no token or session, or one that is not accepted.",
	403: "The caller lacks the permission, the port is not theirs, or a page of another site sent the request.",
	404: "There is no such port.",
	412: "Somebody else changed the budget: the stored version is not that of If-Match.",
	413: "The body is too large.",
	415: "The body is not application/json.",
	422: "A value breaks its rule; errors names each.",
	428: "If-Match is missing.",
	500: "A bug, which is in the server's log.",
	503: "The ledger, or what knows the callers, does not answer. Try again.",
}

func (r route) responses(schemas *openapi.Schemas) openapi.Object {
	success := openapi.Object{"description": "Done.", "content": openapi.Object{}}
	status := http.StatusOK
	switch r.reply.(type) {
	case nil:
		status = http.StatusNoContent
		delete(success, "content")
	case csv:
		success["content"] = openapi.Object{"text/csv": openapi.Object{"schema": openapi.Object{"type": "string"}}}
	default:
		success["content"] = openapi.Object{"application/json": openapi.Object{"schema": schemas.Of(r.reply)}}
	}
	switch r.reply.(type) {
	case budgetReply, defaultReply:
		success["headers"] = openapi.Object{"ETag": openapi.Object{"description": "The version, for If-Match.", "schema": openapi.Object{"type": "string"}}}
	}
	all := openapi.Object{fmt.Sprint(status): success}
	always := []int{400, 401, 403, 422, 500, 503}
	if r.method == http.MethodGet {
		all["303"] = openapi.Object{"description": "A browser that would rather have a page, and is not signed in, is sent to /login.",
			"content": openapi.Object{"text/html": openapi.Object{"schema": openapi.Object{"type": "string"}}}}
	} else {
		always = append(always, 413)
	}
	for _, status := range append(always, r.fails...) {
		all[fmt.Sprint(status)] = openapi.Object{"description": means[status],
			"content": openapi.Object{"application/problem+json": openapi.Object{"schema": schemas.Of(safehttp.Problem{})}}}
	}
	return all
}
