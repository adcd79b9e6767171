package admin_test

import (
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	gocmp "github.com/google/go-cmp/cmp"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/tidegate/tidegate/consumer/quarantine"
	"github.com/tidegate/tidegate/events"
	"github.com/tidegate/tidegate/internal/testenv"
)

// What is in the quarantine is told of the port that its subject names, or the event itself
// where the subject names none.
func TestQuarantineOfAPort(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	const path = "/api/v1/ports/p1/quarantine"
	type reply struct {
		Total  int
		Next   uint64
		Events []struct {
			Sequence      uint64
			Reason, Error string
			Payload       string
			Bytes         int
			Arrived       time.Time
		}
	}
	if got := get[reply](w, path); got.Total != 0 || got.Events == nil || len(got.Events) != 0 {
		t.Errorf("before any consumer ran: %+v", got)
	}
	js := testenv.Must(jetstream.New(w.nats))
	testenv.Must(js.CreateStream(t.Context(), jetstream.StreamConfig{Name: events.UsageStream, Subjects: []string{"ai.usage", "ai.usage.*"}}))
	testenv.Must(js.CreateStream(t.Context(), jetstream.StreamConfig{Name: events.QuarantineStream, Subjects: []string{"ai.quarantine.>"}}))
	cons := testenv.Must(js.CreateConsumer(t.Context(), events.UsageStream, jetstream.ConsumerConfig{}))
	refuse := func(subject, payload string) { // as the consumer does
		t.Helper()
		testenv.Must(js.Publish(t.Context(), subject, []byte(payload)))
		msg := testenv.Must(cons.Next())
		copied := testenv.Must(quarantine.Copy(msg, msg.Data(), 0, &events.FieldError{Reason: events.ReasonIDConflict, Field: "id", Value: `"invoice-17"`, Rule: "was booked with other content"}))
		testenv.Must(js.PublishMsg(t.Context(), copied))
	}
	long := `{"port_id":"p1","feature":"` + strings.Repeat("ö", 600) + `"}`
	refuse("ai.usage.p1", `{"id":"invoice-17"}`)
	refuse("ai.usage.p2", `{"id":"invoice-18","port_id":"p1"}`)
	refuse("ai.usage", long)
	for _, nobodys := range []string{`{"port_id":"p.1"}`, `{"port_id":"*"}`, `{"port_id":7}`, `[{"port_id":"p1"}]`, `{`, "\x00"} {
		refuse("ai.usage", nobodys)
	}
	got := get[reply](w, path)
	if got.Total != 2 || len(got.Events) != 2 || got.Next != 0 {
		t.Fatalf("got %+v", got)
	}
	if e := got.Events[0]; e.Sequence != 1 || e.Reason != "id_conflict" || e.Error != `id = "invoice-17": was booked with other content` || e.Payload != `{"id":"invoice-17"}` || e.Arrived.IsZero() {
		t.Errorf("the first is %+v", e)
	}
	if e := got.Events[1]; e.Bytes != len(long) || len(e.Payload) > 500 || len(e.Payload) < 498 || !strings.HasPrefix(long, e.Payload) {
		t.Errorf("a long one is %+v", e)
	}
	first := get[reply](w, path+"?limit=1")
	if len(first.Events) != 1 || first.Next != 1 || first.Total != 2 {
		t.Errorf("the first page: %+v", first)
	}
	second := get[reply](w, fmt.Sprintf("%s?limit=1&after=%d", path, first.Next))
	if len(second.Events) != 1 || second.Events[0].Sequence != 3 || second.Next != 0 {
		t.Errorf("the second page: %+v", second)
	}
	if none := get[reply](w, path+"?after=9007199254740991"); len(none.Events) != 0 || none.Total != 2 {
		t.Errorf("beyond the last: %+v", none)
	}
}

func TestUnsettledHoldsOfAPort(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.usage("p1", noon)
	w.usage("p2", noon)
	w.exec(`insert into ai_unsettled_holds (port_id, day, service, feature, holds, tokens) values
		('p1', (now() at time zone 'UTC')::date, 'expenses', 'ocr', 3, 4100), ('p1', (now() at time zone 'UTC')::date, '', '', 1, 10),
		('p1', (now() at time zone 'UTC')::date - 2, '(leased to a gate)', '', 0, 500), ('p1', (now() at time zone 'UTC')::date - 40, 'old', '', 1, 1),
		('p2', (now() at time zone 'UTC')::date, 'other', '', 1, 1)`)
	type group struct {
		Day, Service, Feature string
		Holds, Tokens         int64
	}
	type reply struct {
		Holds []group
		Next  string
	}
	const path = "/api/v1/ports/p1/unsettled-holds"
	today, before := time.Now().UTC().Format(time.DateOnly), time.Now().UTC().AddDate(0, 0, -2).Format(time.DateOnly)
	want := []group{{today, "", "", 1, 10}, {today, "expenses", "ocr", 3, 4100}, {before, "(leased to a gate)", "", 0, 500}}
	if diff := gocmp.Diff(reply{want, ""}, get[reply](w, path)); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	var paged []group
	for next, page := "", 0; page == 0 || next != ""; page++ {
		got := get[reply](w, path+"?limit=1&after="+url.QueryEscape(next))
		paged, next = append(paged, got.Holds...), got.Next
	}
	if diff := gocmp.Diff(want, paged); diff != "" {
		t.Errorf("one at a time (-want +got):\n%s", diff)
	}
}

func TestSeriesOverTheAPI(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.usage("p1", noon)
	w.usage("p1", noon.Add(time.Minute), func(u *events.Usage) { u.Feature, u.UserID = "summary", "u2" })
	w.usage("p1", noon.AddDate(0, 0, -1))
	w.usage("p1", noon.AddDate(0, -1, 0))
	type reply struct {
		Step        string
		PeriodStart time.Time `json:"period_start"`
		PeriodEnd   time.Time `json:"period_end"`
		Starts      []time.Time
		Tokens      []int64
		Requests    []int64
		Series      []struct {
			Key    string
			Total  int64 `json:"total_tokens"`
			Tokens []int64
		}
	}
	const path = "/api/v1/ports/p1/ai-usage/series"
	month := get[reply](w, path)
	if len(month.Starts) != 30 || month.Step != "day" || month.Tokens[22] != 220 || month.Requests[22] != 2 || month.Tokens[21] != 110 || len(month.Series) != 2 || month.Series[0].Key != "ocr" || month.Series[0].Total != 220 || month.Series[1].Tokens[22] != 110 {
		t.Errorf("this month: %+v", month)
	}
	days := get[reply](w, path+"?by=user&step=hour&from=2026-11-22&to=2026-11-24&top=1")
	if len(days.Starts) != 48 || days.Tokens[36] != 220 || days.Tokens[12] != 110 || len(days.Series) != 1 || days.Series[0].Key != "u1" || !days.PeriodEnd.Equal(time.Date(2026, 11, 24, 0, 0, 0, 0, time.UTC)) {
		t.Errorf("two days by the hour: %+v", days)
	}
	if previous := get[reply](w, path+"?period=previous&step=week"); len(previous.Starts) != 5 || previous.Starts[0].Day() != 28 || previous.Tokens[3] != 110 {
		t.Errorf("the last month by weeks: %+v", previous)
	}
	// The same days, broken down and as CSV.
	if got := get[usage](w, "/api/v1/ports/p1/ai-usage?from=2026-11-22&to=2026-11-23&by=day"); got.UsedTokens != 110 || len(got.By) != 1 || got.By[0].Key != "2026-11-22" {
		t.Errorf("one day: %+v", got)
	}
	a := w.do(request{method: "GET", path: "/api/v1/ports/p1/ai-usage.csv?from=2026-11-22&to=2026-11-24", token: w.onlyP1})
	if a.want(w, http.StatusOK); !strings.Contains(a.text, "ocr,2,200,20,220\r\n") || !strings.Contains(a.Header.Get("Content-Disposition"), "2026-11-22") {
		t.Errorf("as CSV: %s", a.text)
	}
}
