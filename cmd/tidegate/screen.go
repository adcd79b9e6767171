package main

import (
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/tidegate/tidegate/dev"
	"github.com/tidegate/tidegate/internal/dsn"
)

// screen says on one page what was started, where, and what to try.
func (s *system) screen(w io.Writer) {
	natsWhat, postgresWhat := "external", "external"
	if s.nats != nil {
		natsWhat = "embedded, every message synced to disk"
	}
	if s.postgres != nil {
		postgresWhat = "private cluster"
	}
	pages := "/healthz  /readyz  /metrics"
	if s.cmd.has("edge") {
		pages = "/v1/ for services  " + pages
	}
	fmt.Fprintf(w, "\n%s %s\n\n", paint(bold, "Tidegate"), paint(faint, version))
	for _, line := range [][3]string{
		{"NATS", dsn.Redact(s.natsURL), natsWhat},
		{"Postgres", dsn.Redact(s.dbURL), postgresWhat},
		{"HTTP", s.admin.url(), pages},
		{"Data", s.cmd.Data, ""},
		{"Roles", strings.Join(s.cmd.Roles, ", "), ""},
	} {
		fmt.Fprintf(w, "  %-9s %s  %s\n", line[0], paint(accent, line[1]), paint(faint, line[2]))
	}
	if s.newLink != nil {
		path, expires := s.newLink(time.Now())
		fmt.Fprintf(w, "  %-9s %s  %s\n", "Admin", paint(accent, strings.TrimSuffix(s.pageURL(), "/")+path), paint(faint, "signs one browser in, until "+expires.Local().Format("15:04")+"; another: tidegate login-link"))
	}
	if s.proxy != nil {
		fmt.Fprintf(w, "  %-9s %s  %s\n", "Proxy", paint(accent, s.proxy.url()), paint(faint, "/openai/v1, /anthropic, …: the base URLs of AI SDKs, with an API token"))
	}
	if s.receipts != nil {
		fmt.Fprintf(w, "  %-9s %s  %s\n", "Receipts", paint(accent, s.receipts.url()), paint(faint, "drop a receipt; the same sign-in holds"))
	}
	// Copy and paste must work whatever port was chosen. By a flag: a variable that is
	// exported would make the next run here join this one's NATS.
	where, nats := "", "nats"
	if s.natsURL != "nats://"+dev.DefaultNATSAddr {
		where = " --nats-url " + dsn.Redact(s.natsURL)
		nats = "nats -s " + dsn.Redact(s.natsURL)
	}
	if s.nats != nil {
		where = " --data " + s.cmd.Data
	}
	tries := [][2]string{
		{os.Args[0] + " budget set p1 --soft 800 --hard 1000" + where, "give a port a budget"},
		{nats + ` pub ai.usage.p1 '{"feature":"ocr","provider":"openai","model":"gpt-5-mini","input_tokens":700,"output_tokens":200}'`, "report an AI call"},
		{nats + ` req ai.budget.check.p1 '{"estimated_tokens":200}'`, "may p1 spend 200 more? (no: 900 of 1,000 are used)"},
	}
	if s.nats != nil {
		tries = append(tries, [2]string{"NATS_URL=$(cat " + s.nats.OperatorFile() + ") nats micro ls", "whatever services may not: with the operator's password"})
	}
	fmt.Fprintf(w, "\n%s\n\n", paint(bold, "Try"))
	for _, line := range tries {
		fmt.Fprintf(w, "  %s\n  %s\n\n", paint(faint, "# "+line[1]), line[0])
	}
	fmt.Fprintf(w, "%s\n\n", paint(faint, "More: "+os.Args[0]+" --help. The nats command: https://github.com/nats-io/natscli, or make nats."))
}
