package e2e

import (
	"encoding/json"
	"errors"
	"fmt"
	"os/exec"
	"slices"
	"testing"
	"time"

	"github.com/tidegate/tidegate/admin/ops"
	"github.com/tidegate/tidegate/events"
	"github.com/tidegate/tidegate/identity"
	"github.com/tidegate/tidegate/internal/testenv"
)

// However many users a port has, its usage comes, in pages that fit into a message.
func TestUsageOfManyUsersComesInPages(t *testing.T) {
	t.Parallel()
	s := start(t, options{})
	s.spend("p1", 1, time.Time{}) // makes the month's partition
	const users = 6_000           // some 1.2 MB, more than NATS takes
	if _, err := s.db.Exec(t.Context(), `insert into ai_usage_ledger (created_at, id, input_tokens, total_tokens, port_id, feature, provider, model, user_id)
		select date_trunc('month', now(), 'UTC'), gen_random_uuid(), 10 + n / 3, 10 + n / 3, 'p1', 'ocr', 'openai', 'm', 'user-' || n || repeat('x', 110)
		from generate_series(1, $1) n`, users); err != nil {
		t.Fatal(err)
	}
	s.exec(`insert into ai_usage_port_days as d (port_id, day, requests, total_tokens)
		select port_id, date_trunc('month', now(), 'UTC')::date, count(*), sum(total_tokens) from ai_usage_ledger where model = 'm' group by 1
		on conflict (port_id, day) do update set requests = d.requests + excluded.requests, total_tokens = d.total_tokens + excluded.total_tokens`)
	r := events.ReportRequest{PortID: "p1", By: events.ByUser}
	first := testenv.Must(s.client.Usage(t.Context(), r))
	if len(first.By) != events.DefaultReportLimit || !first.More || first.Requests != users+1 {
		t.Errorf("a report without a limit has %d of %d users, more %v", len(first.By), first.Requests, first.More)
	}
	seen := map[string]bool{}
	last := first.By[0]
	for r.Limit = events.MaxReportLimit; ; {
		page := testenv.Must(s.client.Usage(t.Context(), r))
		for _, share := range page.By {
			if seen[share.Key] || share.TotalTokens > last.TotalTokens {
				t.Fatalf("%+v comes twice or after %+v", share, last)
			}
			seen[share.Key], last = true, share
		}
		if page.UsedTokens != first.UsedTokens {
			t.Errorf("a page says %d used, the first %d", page.UsedTokens, first.UsedTokens)
		}
		if !page.More {
			break
		}
		r.After = page.Next
	}
	if len(seen) != users+1 {
		t.Errorf("%d users in all pages, want %d", len(seen), users+1)
	}
	var field *events.FieldError
	if _, err := s.client.Usage(t.Context(), events.ReportRequest{PortID: "p1", Limit: events.MaxReportLimit + 1}); !errors.As(err, &field) || field.Field != "limit" {
		t.Errorf("a limit that is too large: %v", err)
	}
	msg := testenv.Must(s.nc.Request("ai.budget.usage.p1", []byte(`{"by":"user","after":"nonsense"}`), 5*time.Second))
	if code := msg.Header.Get("Nats-Service-Error-Code"); code != "400" {
		t.Errorf("after nonsense: %q %s, want 400", code, msg.Data)
	}

	tidegate := testenv.Binary(t, "cmd/tidegate")
	for _, c := range []struct {
		want int
		args []string
	}{{users + 1, nil}, {1500, []string{"--lines", "1500"}}, {3, []string{"--lines", "3"}}} {
		cmd := exec.CommandContext(t.Context(), tidegate, append([]string{"usage", "p1", "--by", "user", "--json", "--nats-url", s.nats.ClientURL()}, c.args...)...)
		out := testenv.Must(cmd.Output())
		var report events.Report
		if err := json.Unmarshal(out, &report); err != nil || len(report.By) != c.want || report.More != (c.want <= users) {
			t.Errorf("tidegate usage %v: %d lines, more %v, %v; want %d", c.args, len(report.By), report.More, err, c.want)
		}
	}
}

// What operators list comes whole, however much it is.
func TestOperatorsListsComeInPages(t *testing.T) {
	t.Parallel()
	s := start(t, options{})
	s.setBudget("p1", -1, 100, events.PeriodMonth)
	const many = 1_300
	if _, err := s.db.Exec(t.Context(), `insert into ai_budget_holds (port_id, id, tokens, created_at, expires_at, service)
		select 'p1', gen_random_uuid(), n, now(), now() + interval '1 hour', case n when 7 then '' else 'service-' || n end from generate_series(1, $1) n`, many); err != nil {
		t.Fatal(err)
	}
	if _, err := s.db.Exec(t.Context(), `insert into ai_unsettled_holds (port_id, day, service, feature, holds, tokens)
		select 'p1', (now() at time zone 'UTC')::date - n % 3, 'service', 'feature-' || n, 1, n from generate_series(1, $1) n`, many); err != nil {
		t.Fatal(err)
	}
	r := testenv.Must(s.ops.Holds(t.Context(), "p1"))
	if len(r.Live) != many || len(r.Unsettled) != many {
		t.Fatalf("%d live and %d unsettled groups, want %d each", len(r.Live), len(r.Unsettled), many)
	}
	for i := range many {
		if r.Live[i].Tokens != int64(many-i) {
			t.Fatalf("live group %d is %+v, want the most tokens first, each once", i, r.Live[i])
		}
		if i > 0 && (r.Unsettled[i].Day > r.Unsettled[i-1].Day || r.Unsettled[i].Day == r.Unsettled[i-1].Day && r.Unsettled[i].Tokens >= r.Unsettled[i-1].Tokens) {
			t.Fatalf("unsettled %+v after %+v, want the newest day first and then the most tokens", r.Unsettled[i], r.Unsettled[i-1])
		}
	}
	const tokens = 450
	now := time.Now().UTC().Truncate(time.Second)
	for i := range tokens {
		made := identity.Token{ID: fmt.Sprintf("t%011d", i), Name: "n", Permissions: []string{"x"}, CreatedAt: now.Add(time.Duration(i/3) * time.Second)}
		if err := s.tokens.CreateToken(t.Context(), made); err != nil {
			t.Fatal(err)
		}
	}
	s.exec(`insert into ai_alerts (port_id, period, period_start, threshold, reached, used, noticed_at, claimed_until, published_at)
		select 'p1', 'month', date_trunc('month', now(), 'UTC'), 'hard', n, n, now() - n / 100 * interval '1 second', now(), now() from generate_series(1, 450) n`)
	s.exec(`insert into ai_alert_deliveries (alert, receiver, give_up_at) select id, r, now() from ai_alerts, unnest('{pager,team}'::text[]) r where reached > 10`)
	seen, last := map[string]bool{}, time.Now().Add(time.Hour)
	err := s.ops.Alerts(t.Context(), ops.AlertFilter{}, func(a ops.AlertLine) bool {
		if key := a.ID.String() + a.Receiver; seen[key] || a.At.After(last) {
			t.Errorf("%s to %q comes twice or too late", a.ID, a.Receiver)
		} else {
			seen[key], last = true, a.At
		}
		return true
	})
	if err != nil || len(seen) != 10+2*440 {
		t.Errorf("%d lines of alerts, %v, want 890", len(seen), err)
	}
	list := testenv.Must(s.ops.Tokens(t.Context()))
	if len(list) != tokens || !slices.IsSortedFunc(list, func(a, b identity.Token) int { return b.CreatedAt.Compare(a.CreatedAt) }) {
		t.Errorf("%d tokens, want %d, newest first", len(list), tokens)
	}
}
