package edge_test

import (
	"bytes"
	"compress/gzip"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/tidegate/tidegate/edge"
	"github.com/tidegate/tidegate/events"
	"github.com/tidegate/tidegate/identity"
	"github.com/tidegate/tidegate/internal/room"
	"github.com/tidegate/tidegate/internal/testenv"
)

// TestEdge is one system for all cases; each has ports of its own, but for the tenants' a and b.
func TestEdge(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	for name, test := range map[string]func(*world){
		"report": testReport, "retries": testRetries, "ports": testPorts, "who": testWho, "bodies": testBodies,
		"budget": testBudget, "settle": testSettle, "together": testTogether, "room": testRoom, "remembered": testRemembered, "addresses": testAddresses, "LiteLLM": testLiteLLM, "OpenTelemetry": testOpenTelemetry,
	} {
		t.Run(name, func(t *testing.T) {
			of := *w
			of.TB = t
			test(&of)
		})
	}
	t.Run("NATS away", func(t *testing.T) {
		of := *w
		of.TB = t
		testNATSAway(&of)
		w.server = of.server
	})
	if t.Failed() {
		return
	}
	// Nothing that was answered was left for the consumer to refuse, but LiteLLM's records and spans.
	for _, q := range w.quarantined() {
		if !strings.Contains(q.Text, `"litellm":`) && !strings.Contains(q.Text, `"otel":`) {
			t.Errorf("in the quarantine: %+v", q)
		}
	}
}

// call is an event of so many tokens.
func call(port string, tokens int, more ...string) string {
	e := fmt.Sprintf(`{"feature":"ocr","provider":"openai","model":"gpt-5-mini","input_tokens":%d`, tokens)
	if port != "" {
		e += fmt.Sprintf(`,"port_id":%q`, port)
	}
	for i := 0; i < len(more); i += 2 {
		e += fmt.Sprintf(`,%q:%q`, more[i], more[i+1])
	}
	return e + "}"
}

func testReport(w *world) {
	one := w.report(w.all, call("report", 1)).want(w, 200)
	if one.body.Accepted != 1 || one.body.Events[0].Status != "accepted" || one.body.Events[0].ID == "" {
		w.Errorf("one event: %s", one.text)
	}
	id := events.NewUUIDv7(time.Now()).String()
	some := w.report(w.all, " ["+call("report", 10, "id", id)+",\n"+`{"port_id":"report","feature":"ocr"}`+","+call("report", 100, "occurred_at", "2026-11-01T10:00:00Z", "note", "a field that nobody knows")+`, 5,
		{"port_id":"report","port_id":"report"}, `+call("report", 1, "id", "text")+","+call("report", 1, "occurred_at", time.Now().Add(time.Hour).Format(time.RFC3339))+"]").want(w, 207)
	if some.body.Accepted != 2 || some.body.Refused != 5 || some.body.Events[0].ID != id {
		w.Errorf("good events among bad ones: %s", some.text)
	}
	for i, want := range []string{1: "provider is required", 3: "payload must be one JSON object", 4: "payload is not", 5: "occurred_at is required beside an id", 6: "occurred_at is more than 5 minutes"} {
		field, rule, _ := strings.Cut(want, " ")
		if e := some.body.Events[i]; e.Index != i || want != "" && (e.Status != "refused" || e.Field != field || !strings.Contains(e.Rule, rule) || e.Reason == "") {
			w.Errorf("event %d: got %+v, want refused, %s", i, e, want)
		}
	}
	testenv.WantFields(w, testenv.Snippets(w, "docs/http.md", "json")[0], some.text)
	lines := w.do(request{method: "POST", path: "/v1/usage", token: w.all, kind: "application/x-ndjson", body: call("report", 1000) + "\r\n\n{bad\n" + call("report", 10_000)}).want(w, 207)
	if lines.body.Accepted != 2 || lines.body.Events[1].Reason != "malformed" {
		w.Errorf("lines: %s", lines.text)
	}
	packed := w.do(request{method: "POST", path: "/v1/usage", token: w.all, body: zip(call("report", 100_000)), header: []string{"Content-Encoding", "gzip"}}).want(w, 200)
	if packed.body.Accepted != 1 {
		w.Errorf("gzip: %s", packed.text)
	}
	if a := w.report(w.all, `{"port_id":"report"}`).want(w, 422); a.body.Events[0].Field != "feature" || a.body.Refused != 1 {
		w.Errorf("one bad event: %s", a.text)
	}
	w.report(w.all, "[]").want(w, 200)
	w.wantBooked("report", 6, 111_111)
}

func zip(text string) string {
	var b bytes.Buffer
	z, _ := gzip.NewWriterLevel(&b, gzip.BestSpeed)
	_, _ = io.WriteString(z, text)
	_ = z.Close()
	return b.String()
}

// An answer that never came is asked for again: with ids, or with a key, nothing is booked twice.
func testRetries(w *world) {
	now := time.Now().UTC()
	own := events.NewUUIDv7(now).String()
	yesterday, key := now.Add(-24*time.Hour).Format(time.RFC3339), events.NewUUIDv7(now.Add(-time.Minute)).String()
	for range 3 {
		w.report(w.all, "["+call("retries", 1, "id", own)+","+call("retries", 2, "id", "call 7", "occurred_at", yesterday)+"]").want(w, 200)
		// Two calls that look alike are two; each is booked once.
		timed := w.report(w.all, "["+call("retries", 10, "occurred_at", yesterday)+","+call("retries", 10, "occurred_at", yesterday)+"]", "Idempotency-Key", "upload 7").want(w, 200)
		if timed.body.Events[0].ID == timed.body.Events[1].ID {
			w.Errorf("two calls with one id: %s", timed.text)
		}
		bare := w.report(w.all, "["+call("retries", 100)+","+call("retries", 100)+"]", "Idempotency-Key", key).want(w, 200)
		if id, ok := events.ParseUUIDv7(bare.body.Events[0].ID); !ok || now.Sub(events.UUIDv7Time(id)) < 50*time.Second {
			w.Errorf("the id %q does not have the time of the key %s", bare.body.Events[0].ID, key)
		}
	}
	w.wantBooked("retries", 6, 223)
	// What cannot be made safe is refused: the key says no time.
	a := w.report(w.all, call("retries", 1), "Idempotency-Key", "upload 8").want(w, 422)
	if e := a.body.Events[0]; e.Field != "occurred_at" || !strings.Contains(e.Rule, "Idempotency-Key") {
		w.Errorf("a key without a time: %s", a.text)
	}
	w.report(w.all, call("retries", 1), "Idempotency-Key", strings.Repeat("k", 129)).wantProblem(w, 422, "invalid-field", "128")
	w.report(w.all, call("retries", 1), "Idempotency-Key", "a", "Idempotency-Key", "b").wantProblem(w, 422, "invalid-field", "once")
	// Another port's events have nothing to do with it.
	w.report(w.all, call("retries2", 100), "Idempotency-Key", key).want(w, 200)
	w.wantBooked("retries2", 1, 100)
	w.wantBooked("retries", 6, 223)
}

// A tenant's token reports, asks and reads for its own port only.
func testPorts(w *world) {
	w.setBudget("b", 1000)
	before, _ := w.booked("b")
	own := w.report(w.onlyA, call("", 5)).want(w, 200)
	w.wantBooked("a", 1, 5)
	for _, body := range []string{call("b", 7), "[" + call("b", 7) + "]"} {
		a := w.report(w.onlyA, zip(body), "Content-Encoding", "gzip").want(w, 403)
		if e := a.body.Events[0]; e.Reason != "port_not_allowed" || e.Field != "port_id" || e.Value != `"b"` || a.body.Accepted != 0 {
			w.Errorf("an event of another port: %s", a.text)
		}
	}
	mixed := w.report(w.onlyA, "["+call("a", 10)+","+call("b", 7)+","+call("", 100)+"]").want(w, 207)
	if mixed.body.Accepted != 2 || mixed.body.Events[1].Reason != "port_not_allowed" {
		w.Errorf("an event of another port among own ones: %s", mixed.text)
	}
	both := w.Token(w, []string{"a", "b2"}, edge.PermissionReport)
	if a := w.report(both, "["+call("b2", 1)+","+call("b", 7)+","+call("", 7)+"]").want(w, 207); a.body.Accepted != 1 || a.body.Events[2].Field != "port_id" {
		w.Errorf("a token of two ports: %s", a.text)
	}
	for _, r := range []request{
		{method: "POST", path: "/v1/ports/b/check"}, {method: "POST", path: "/v1/ports/b/reserve"}, {method: "GET", path: "/v1/ports/b/budget"},
		{method: "POST", path: "/v1/ports/b/reservations/x/settle", body: call("", 1)}, {method: "DELETE", path: "/v1/ports/b/reservations/x"},
		{method: "GET", path: "/v1/ports/*/budget"}, {method: "GET", path: "/v1/ports/a%2f..%2fb/budget"},
	} {
		r.token = w.onlyA
		w.do(r).wantProblem(w, 403, "port-not-allowed", "port")
	}
	// The address names the port, and nothing in the body another one.
	w.do(request{method: "POST", path: "/v1/ports/a/check", token: w.onlyA, body: `{"port_id":"b"}`}).wantProblem(w, 422, "invalid-field", "the address names port a")
	if a := w.do(request{method: "POST", path: "/v1/ports/a/reservations/x/settle", token: w.onlyA, body: call("b", 1)}).want(w, 422); a.body.Events[0].Reason != "port_mismatch" {
		w.Errorf("settling for another port: %s", a.text)
	}
	w.do(request{method: "GET", path: "/v1/ports/*/budget", token: w.all}).wantProblem(w, 422, "invalid-field", "A-Z")
	w.do(request{method: "GET", path: "/v1/ports/a/budget", token: w.onlyA}).want(w, 200)
	w.wantBooked("a", 3, 115)
	if rows, _ := w.booked("b"); rows != before {
		w.Errorf("port b has %d events after another's token tried, %d before; %s", rows, before, own.text)
	}
}

// mistyped is another token in its last character.
func mistyped(token string) string {
	last := "0"
	if strings.HasSuffix(token, last) {
		last = "1"
	}
	return token[:len(token)-1] + last
}

func testWho(w *world) {
	check := request{method: "POST", path: "/v1/ports/a/check", body: `{}`}
	with := func(r request, token string, header ...string) request {
		r.token, r.header = token, header
		return r
	}
	cookie := []string{"Cookie", "tidegate_session=v1.abc.def; __Host-tidegate=v1.abc.def"}
	a := w.do(with(check, "", cookie...)).wantProblem(w, 401, "unauthenticated", "API token")
	if strings.Contains(a.body.Detail, "sign in") || a.Header.Get("WWW-Authenticate") == "" {
		w.Errorf("who has only a cookie is told: %s", a.text)
	}
	w.do(with(check, mistyped(w.onlyA), cookie...)).wantProblem(w, 401, "invalid-token", "characters")
	w.do(with(check, "eyJhbGciOiJSUzI1NiJ9.e30.x")).wantProblem(w, 401, "invalid-token", "no API token")
	w.do(with(check, w.admin)).wantProblem(w, 403, "missing-permission", "budget.reserve")
	w.do(with(check, w.reportA)).wantProblem(w, 403, "missing-permission", "budget.reserve")
	w.do(with(check, w.reserveA)).want(w, 200)
	w.report("", call("a", 1)).wantProblem(w, 401, "unauthenticated", "")
	w.report(w.reserveA, call("a", 1)).wantProblem(w, 403, "missing-permission", "usage.report")
	w.do(request{method: "POST", path: "/v1/ports/a/reservations/x/settle", token: w.reserveA, body: call("", 1)}).wantProblem(w, 403, "missing-permission", "usage.report")
	for _, r := range []request{{method: "POST", path: "/v1/ports/a/reserve"}, {method: "GET", path: "/v1/ports/a/budget"}, {method: "DELETE", path: "/v1/ports/a/reservations/x"}} {
		w.do(with(r, w.reportA)).wantProblem(w, 403, "missing-permission", "budget.reserve")
		w.do(with(r, "", cookie...)).wantProblem(w, 401, "unauthenticated", "")
	}
	revoked := w.Token(w, []string{"a"}, edge.PermissionReserve)
	w.do(with(check, revoked)).want(w, 200)
	if err := identity.NewTokens(w.Store, nil).Revoke(w.Context(), revoked[3:15], "test"); err != nil {
		w.Fatal(err)
	}
	testenv.Eventually(w, "a revoked token is refused", func() bool { return w.do(with(check, revoked)).StatusCode == 401 })
}

// What is too large, too slow or cannot be read gets a clear 4xx, and nothing of it is reported.
func testBodies(w *world) {
	usage := request{method: "POST", path: "/v1/usage", token: w.all}
	with := func(body string, header ...string) request {
		r := usage
		r.body, r.header = body, header
		return r
	}
	large := "[" + strings.Repeat(call("bodies", 1, "note", strings.Repeat("n", 1000))+",", 1000) + call("bodies", 1) + "]"
	w.do(with(large)).wantProblem(w, 413, "body-too-large", "1048576")
	w.do(with(zip(large), "Content-Encoding", "gzip")).wantProblem(w, 413, "body-too-large", "1048576")
	var bomb bytes.Buffer
	z, _ := gzip.NewWriterLevel(&bomb, gzip.BestSpeed)
	for range 8 {
		_, _ = z.Write(make([]byte, 1<<20))
	}
	_ = z.Close()
	w.do(with(bomb.String(), "Content-Encoding", "gzip")).wantProblem(w, 413, "body-too-large", "1048576")
	w.do(with("["+strings.Repeat("0,", 5000)+call("bodies", 1)+"]")).wantProblem(w, 413, "too-large", "5000")
	if a := w.do(with(call("bodies", 1, "note", strings.Repeat("n", 17_000)))).want(w, 422); a.body.Events[0].Reason != "too_large" {
		w.Errorf("an event of 17 kB: %s", a.text)
	}
	w.do(request{method: "POST", path: "/v1/ports/bodies/check", token: w.all, body: `{"feature":"` + strings.Repeat("n", 17_000) + `"}`}).wantProblem(w, 413, "body-too-large", "16384")
	for _, c := range []struct{ body, detail string }{
		{"", "is empty"}, {" \n", "is empty"}, {"[" + call("bodies", 1), "no JSON array"}, {"[" + call("bodies", 1) + "] x", "no JSON array"}, {"[" + call("bodies", 1) + ",,]", "no JSON array"},
	} {
		w.do(with(c.body)).wantProblem(w, 400, "malformed-body", c.detail)
	}
	for _, body := range []string{"{", "5", "null", `"x"`, "\x00", call("bodies", 1) + call("bodies", 1)} {
		if a := w.do(with(body)).want(w, 422); a.body.Events[0].Reason != "malformed" && body != "null" {
			w.Errorf("%q: %s", body, a.text)
		}
	}
	w.do(with("no gzip", "Content-Encoding", "gzip")).wantProblem(w, 400, "malformed-body", "gzip")
	w.do(with(zip(call("bodies", 1))[:40], "Content-Encoding", "gzip")).wantProblem(w, 400, "malformed-body", "gzip")
	w.do(with(call("bodies", 1), "Content-Encoding", "br")).wantProblem(w, 415, "content-encoding", `"br"`)
	r := with(call("bodies", 1))
	r.kind = "application/x-www-form-urlencoded"
	w.do(r).wantProblem(w, 415, "content-type", "application/json")
	w.do(request{method: "POST", path: "/v1/ports/bodies/check", token: w.all, body: `{"estimated_tokns":2000}`}).wantProblem(w, 422, "invalid-field", "did you mean estimated_tokens?")
	w.do(request{method: "POST", path: "/v1/ports/bodies/check?explain=true", token: w.all}).wantProblem(w, 422, "invalid-field", "no parameters")

	if answer := w.slowly(); !strings.HasPrefix(answer, "HTTP/1.1 408 ") || !strings.Contains(answer, "#slow-body") || !strings.Contains(answer, "Connection: close") {
		w.Errorf("a slow body: %s", answer)
	}
	if rows, _ := w.booked("bodies"); rows != 0 {
		w.Errorf("%d events are booked out of bodies that were refused", rows)
	}
}

// slowly sends a head and the beginning of a body, and returns the answer.
func (w *world) slowly() string {
	w.Helper()
	conn := testenv.Must(net.Dial("tcp", strings.TrimPrefix(w.serve(edge.Config{}, 300*time.Millisecond), "http://")))
	defer conn.Close()
	fmt.Fprintf(conn, "POST /v1/usage HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer %s\r\nContent-Type: application/json\r\nContent-Length: 200\r\n\r\n{", w.all)
	_ = conn.SetReadDeadline(time.Now().Add(20 * time.Second))
	text, _ := io.ReadAll(conn)
	return string(text)
}

func testBudget(w *world) {
	if a := w.do(request{method: "GET", path: "/v1/ports/budget/budget", token: w.all}).want(w, 200); !strings.Contains(a.text, `"version":0`) {
		w.Errorf("a budget that nobody stored: %s", a.text)
	}
	ask := func(what, body string, header ...string) answer {
		w.Helper()
		return w.do(request{method: "POST", path: "/v1/ports/budget/" + what, token: w.all, body: body, header: header})
	}
	if a := ask("check", "").want(w, 200); !a.body.Allowed {
		w.Errorf("without a budget: %s", a.text)
	}
	w.setBudget("budget", 1000)
	if a := w.do(request{method: "GET", path: "/v1/ports/budget/budget", token: w.all}).want(w, 200); a.body.HardCapTokens == nil || *a.body.HardCapTokens != 1000 {
		w.Errorf("the budget: %s", a.text)
	}
	if a := ask("check", `{"feature":"ocr","estimated_tokens":1001,"explain":true}`).want(w, 200); a.body.Allowed || a.body.Reason != "estimate_exceeds_hard_cap" {
		w.Errorf("a refusal is a 200: %s", a.text)
	}
	first := ask("reserve", `{"feature":"ocr","estimated_tokens":600}`, "Idempotency-Key", "r1").want(w, 200)
	again := ask("reserve", `{"feature":"ocr","estimated_tokens":600}`, "Idempotency-Key", "r1").want(w, 200)
	if first.body.GrantedTokens != 600 || first.body.ReservationID == "" || again.body.ReservationID != first.body.ReservationID {
		w.Errorf("a reservation that is asked for again: %s %s", first.text, again.text)
	}
	ask("reserve", `{"feature":"ocr","estimated_tokens":500}`, "Idempotency-Key", "r1").wantProblem(w, 409, "conflict", "new key")
	ask("reserve", `{"idempotency_key":"r2"}`, "Idempotency-Key", "r1").wantProblem(w, 422, "invalid-field", "leave one of them out")
	if a := ask("reserve", `{"estimated_tokens":600}`).want(w, 200); a.body.Allowed || a.body.ReservationID != "" {
		w.Errorf("a reservation beyond the cap: %s", a.text)
	}
	release := request{method: "DELETE", path: "/v1/ports/budget/reservations/" + first.body.ReservationID, token: w.all}
	w.do(release).want(w, 204)
	w.do(release).want(w, 204)
	testenv.Eventually(w, "what was released may be spent", func() bool {
		a := ask("check", `{"estimated_tokens":600}`)
		return a.body.Allowed && a.body.HeldTokens == 0
	})
}

func testSettle(w *world) {
	w.setBudget("settle", 1000)
	reserve := func() string {
		w.Helper()
		a := w.do(request{method: "POST", path: "/v1/ports/settle/reserve", token: w.all, body: `{"feature":"ocr","estimated_tokens":400}`}).want(w, 200)
		return a.body.ReservationID
	}
	settle := func(id, body string, header ...string) answer {
		w.Helper()
		return w.do(request{method: "POST", path: "/v1/ports/settle/reservations/" + id + "/settle", token: w.all, body: body, header: header})
	}
	id, at := reserve(), time.Now().UTC().Format(time.RFC3339Nano)
	for range 3 { // the first answers were lost
		if a := settle(id, call("", 300, "occurred_at", at)).want(w, 200); a.body.Accepted != 1 {
			w.Errorf("settling: %s", a.text)
		}
	}
	w.wantBooked("settle", 1, 300)
	testenv.Eventually(w, "the hold is settled", func() bool {
		a := w.do(request{method: "POST", path: "/v1/ports/settle/check", token: w.all})
		return a.body.UsedTokens == 300
	})
	if a := settle(id, call("", 1, "reservation_id", "another")).want(w, 422); a.body.Events[0].Field != "reservation_id" {
		w.Errorf("settling another reservation than the address says: %s", a.text)
	}
	if a := settle(strings.Repeat("r", 129), call("", 1)).want(w, 422); a.body.Events[0].Field != "reservation_id" {
		w.Errorf("a reservation id of 129 characters: %s", a.text)
	}
}

// Requests that come together are stored together, and each is answered for its own events.
func testTogether(w *world) {
	var group sync.WaitGroup
	for n, size := range []int{1, 100, 400, 2000, 1, 300} {
		group.Go(func() {
			events := strings.Repeat(call("together", 1)+",", size)
			a := w.report(w.all, "["+events+`{"feature":"`+strconv.Itoa(n)+`"}]`)
			if a.StatusCode != 207 || a.body.Accepted != size || a.body.Refused != 1 {
				w.Errorf("%d events and a bad one: %d, %.300s", size, a.StatusCode, a.text)
			}
		})
	}
	group.Wait()
	w.wantBooked("together", 2802, 2802)
}

// What is beyond the room is turned away, and one token leaves room for others.
func testRoom(w *world) {
	at := w.serve(edge.Config{Room: room.New(4, 1<<20)}, 30*time.Second)
	held := []io.Closer{}
	hold := func(token string) {
		w.Helper()
		conn := testenv.Must(net.Dial("tcp", strings.TrimPrefix(at, "http://")))
		held = append(held, conn)
		fmt.Fprintf(conn, "POST /v1/usage HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer %s\r\nContent-Type: application/json\r\nContent-Length: 100\r\nExpect: 100-continue\r\n\r\n", token)
		buf := make([]byte, 25)
		if _, err := io.ReadFull(conn, buf); err != nil || !strings.HasPrefix(string(buf), "HTTP/1.1 100") { // it is let in, and its body awaited
			w.Fatalf("%q, %v", buf, err)
		}
	}
	hold(w.all)
	hold(w.all)
	report := request{method: "POST", path: "/v1/usage", at: at, body: call("room", 1)}
	report.token = w.all
	w.do(report).wantProblem(w, 429, "too-many-requests", "wait for answers")
	report.token = w.Token(w, []string{"room"}, edge.PermissionReport)
	w.do(report).want(w, 200)
	hold(report.token)
	hold(report.token)
	report.token = w.Token(w, []string{"room"}, edge.PermissionReport)
	w.do(report).wantProblem(w, 503, "busy", "Retry-After")
	report.body = "[" + strings.Repeat(report.body+",", 6000) + report.body + "]" // over half of the bytes
	for _, conn := range held {
		conn.Close()
	}
	testenv.Eventually(w, "there is room again", func() bool {
		small := report
		small.body = call("room", 1, "id", "once", "occurred_at", "2026-11-01T10:00:00Z")
		return w.do(small).StatusCode == 200
	})
	w.do(report).wantProblem(w, 429, "too-many-requests", "wait for answers")
	w.wantBooked("room", 2, 2)
}

// Tokens are looked up once a second, not with each request; those that were found stay good
// while Postgres is away, and no others.
func testRemembered(w *world) {
	check := request{method: "POST", path: "/v1/ports/a/check", token: w.onlyA}
	w.do(check).want(w, 200)
	w.store.mu.Lock()
	before := w.store.asked
	w.store.mu.Unlock()
	began := time.Now()
	var group sync.WaitGroup
	for range 8 {
		group.Go(func() {
			for range 10 {
				if a := w.do(check); a.StatusCode != 200 {
					w.Errorf("%d: %s", a.StatusCode, a.text)
				}
			}
		})
	}
	group.Wait()
	w.store.mu.Lock()
	asked := w.store.asked - before
	w.store.mu.Unlock()
	if most := 1 + int(time.Since(began)/time.Second); asked > most {
		w.Errorf("the token was looked up %d times in %s, want at most %d", asked, time.Since(began), most)
	}
	stranger := w.Token(w, []string{"a"}, edge.PermissionReserve)
	w.store.set(errors.New("Postgres is away"))
	defer w.store.set(nil)
	end := time.Now().Add(1500 * time.Millisecond)
	for time.Now().Before(end) {
		w.do(check).want(w, 200)
		time.Sleep(50 * time.Millisecond)
	}
	check.token = stranger
	w.do(check).wantProblem(w, 503, "identity-unavailable", "try again")
	w.store.set(fmt.Errorf("wrapped: %w", pgx.ErrNoRows))
	w.do(check).want(w, 503)
}

func testAddresses(w *world) {
	w.do(request{method: "GET", path: "/v1/nowhere", token: w.all}).wantProblem(w, 404, "unknown-address", "openapi.json")
	a := w.do(request{method: "GET", path: "/v1/usage", token: w.all}).wantProblem(w, 405, "method", "POST")
	if a.Header.Get("Allow") != "POST" {
		w.Errorf("Allow: %q", a.Header.Get("Allow"))
	}
	// The description says what an event may have.
	full := events.Usage{ID: "i", OccurredAt: time.Now(), PortID: "p", UserID: "u", RunID: "r", Feature: "f", Provider: "p", Model: "m", RequestID: "q", ResponseID: "s", ReservationID: "v",
		InputTokens: 3, OutputTokens: 3, Details: events.Details{CacheReadInputTokens: 1, CacheWriteInputTokens: 1, ReasoningOutputTokens: 1}, MeasuredBy: events.MeasuredByProvider, Status: events.StatusOK}
	wire := map[string]any{}
	if err := json.Unmarshal(full.AppendJSON(nil), &wire); err != nil {
		w.Fatal(err)
	}
	schema := testenv.Must(description()).Document["components"].(map[string]any)["schemas"].(map[string]any)["Event"].(map[string]any)["properties"].(map[string]any)
	for name := range wire {
		if schema[name] == nil {
			w.Errorf("edge/openapi.json does not say that an event has %s", name)
		}
	}
	if len(wire) != len(schema) {
		w.Errorf("an event has %d fields, edge/openapi.json says %d", len(wire), len(schema))
	}
}

// While NATS is away nothing is answered with a 200, and what was not answered is booked once
// when it is sent again.
func testNATSAway(w *world) {
	body := "[" + call("away", 1, "id", events.NewUUIDv7(time.Now()).String()) + "]"
	check := request{method: "POST", path: "/v1/ports/away/check", token: w.all}
	w.do(check).want(w, 200)
	w.server.Shutdown()
	testenv.Eventually(w, "the edge sees that NATS is gone", func() bool { return w.report(w.all, body).StatusCode == 503 })
	began := time.Now()
	for range 2 {
		w.report(w.all, body).wantProblem(w, 503, "unavailable", "send the same request again")
	}
	w.do(check).wantProblem(w, 503, "unavailable", "no gate answered")
	w.do(request{method: "POST", path: "/v1/ports/away/reserve", token: w.all}).wantProblem(w, 503, "unavailable", "")
	w.do(request{method: "GET", path: "/v1/ports/away/budget", token: w.all}).wantProblem(w, 503, "unavailable", "")
	w.do(request{method: "DELETE", path: "/v1/ports/away/reservations/x", token: w.all}).wantProblem(w, 503, "unavailable", "")
	if took := time.Since(began); took > 5*time.Second {
		w.Errorf("six answers without NATS took %s: callers pile up", took)
	}
	w.startNATS()
	testenv.Eventually(w, "reports are taken again", func() bool { return w.report(w.all, body).StatusCode == 200 })
	w.report(w.all, body).want(w, http.StatusOK)
	w.wantBooked("away", 1, 1)
}
