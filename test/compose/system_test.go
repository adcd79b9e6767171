package compose

import (
	"bytes"
	"context"
	"io"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/nats-io/nats-server/v2/server"

	"github.com/tidegate/tidegate/admin/ops"
	"github.com/tidegate/tidegate/consumer/quarantine"
	"github.com/tidegate/tidegate/events"
	"github.com/tidegate/tidegate/internal/testenv"
)

func TestMain(m *testing.M) { testenv.Main(m) }

// The program as docker-compose.yml starts it, and its roles in processes of their own, each
// as the NATS user that is there for it; a service as user p1, an operator as user admin: no
// permission that they need is missing.
func TestTheWholeSystemWorksAsComposed(t *testing.T) {
	t.Parallel()
	binary := testenv.Binary(t, "cmd/tidegate") // takes its time
	for name, roles := range map[string][]string{"one process": {""}, "a process for each role": {"consumer", "gate", "admin", "edge"}} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := serve(t)
			database := composedDatabase(t)
			ctx, stop := context.WithTimeout(t.Context(), 2*time.Minute)
			defer stop()
			var web string // of the edge
			for _, role := range roles {
				web = start(t, ctx, binary, s, database, role)
			}
			wantTheWholeSystem(t, ctx, s, web, database)
		})
	}
}

func wantTheWholeSystem(t *testing.T, ctx context.Context, s *server.Server, web, database string) {
	t.Helper()
	admin := login(t, s, "admin", password(t, "admin"))
	operator := budgets(t, admin)
	hard := int64(50_000)
	if _, err := operator.Set(ctx, events.SetRequest{PortID: "p1", Enabled: true, HardCapTokens: &hard}); err != nil {
		t.Fatalf("the operator cannot set a budget: %v", err)
	}
	p1 := port1(t, s)
	alerts := testenv.Must(p1.SubscribeSync("ai.alert.p1"))
	service := budgets(t, p1)
	if v, err := service.Check(ctx, events.CheckRequest{PortID: "p1", EstimatedTokens: 1}); err != nil || !v.Allowed {
		t.Fatalf("a check of the service: %+v, %v", v, err)
	}
	if v := p1.ask(t, ctx, "ai.budget.reserve.p1", `{"estimated_tokens":1,"idempotency_key":"k"}`); !strings.Contains(v, `"allowed":true`) {
		t.Errorf("a reservation of the service: %s", v)
	} else if _, id, _ := strings.Cut(v, `"reservation_id":"`); !strings.Contains(p1.ask(t, ctx, "ai.budget.release.p1", `{"reservation_id":"`+id[:strings.Index(id, `"`)]+`"}`), `"released":true`) {
		t.Errorf("the service cannot release %s", v)
	}
	publishTogether(t, ctx, p1)
	if _, err := service.Usage(ctx, events.ReportRequest{PortID: "p1"}); err != nil {
		t.Errorf("a report for the service: %v", err)
	}
	for {
		v, err := service.Check(ctx, events.CheckRequest{PortID: "p1", EstimatedTokens: 1})
		if err != nil || ctx.Err() != nil {
			t.Fatalf("waiting for the port's cap to be reached: %+v, %v", v, err)
		}
		if !v.Allowed && v.UsedTokens == hard {
			break
		}
		time.Sleep(10 * time.Millisecond)
	}
	if _, err := alerts.NextMsgWithContext(ctx); err != nil {
		t.Errorf("the port hears no alert: %v", err)
	}
	if v, err := ops.NewClient(admin.Conn, time.Minute).Verify(ctx, nil); err != nil || !v.OK || v.Gates != 1 {
		t.Errorf("verify says %+v, %v, want that ledger, totals and one gate agree", v, err)
	}
	quarantineAndReplay(t, ctx, p1, ops.NewClient(admin.Conn, time.Minute))
	overHTTP(t, ctx, web, ops.NewClient(admin.Conn, time.Minute))
	budgetsComeBack(t, ctx, database, operator)
	rebookAndDelete(t, ctx, ops.NewClient(admin.Conn, time.Minute))
}

// budgetsComeBack changes a budget and puts the database back to before that, as far as the change
// goes: a gate must take it back from AI_BUDGETS.
func budgetsComeBack(t *testing.T, ctx context.Context, database string, operator *events.Client) {
	t.Helper()
	for hard := range int64(2) {
		if _, err := operator.Set(ctx, events.SetRequest{PortID: "p3", Enabled: true, HardCapTokens: &hard}); err != nil {
			t.Fatal(err)
		}
	}
	conn := testenv.Must(pgx.Connect(ctx, database))
	defer conn.Close(ctx)
	if _, err := conn.PgConn().Exec(ctx, `begin;
		alter table system_settings_audit disable trigger append_only;
		delete from system_settings_audit where port_id = 'p3' and version = 2;
		alter table system_settings_audit enable trigger append_only;
		update system_settings set version = 1, value = jsonb_set(value, '{hard_cap_tokens}', '0') where port_id = 'p3';
		update ai_change_stream set through = through - 1;
		commit`).ReadAll(); err != nil {
		t.Fatal(err)
	}
	for {
		b, err := operator.Get(ctx, "p3")
		if err != nil || ctx.Err() != nil {
			t.Fatalf("waiting for the budget to come back: %+v, %v", b, err)
		}
		if b.Version == 2 && *b.HardCapTokens == 1 {
			return
		}
		time.Sleep(20 * time.Millisecond)
	}
}

// overHTTP reports and asks as a service does that has a token and no NATS user.
func overHTTP(t *testing.T, ctx context.Context, web string, operator *ops.Client) {
	t.Helper()
	token, err := operator.CreateToken(ctx, ops.NewToken{Name: "service", Permissions: []string{"usage.report", "budget.reserve"}, Ports: []string{"p2"}, CreatedBy: "test"})
	if err != nil {
		t.Fatal(err)
	}
	for path, body := range map[string]string{
		"/v1/usage": `{"feature":"ocr","provider":"openai","model":"gpt-5-mini","input_tokens":1}`, "/v1/ports/p2/check": `{"estimated_tokens":1}`, "/v1/ports/p2/reserve": `{"estimated_tokens":1}`,
	} {
		req := testenv.Must(http.NewRequestWithContext(ctx, http.MethodPost, "http://"+web+path, strings.NewReader(body)))
		req.Header.Set("Authorization", "Bearer "+token.Secret)
		req.Header.Set("Content-Type", "application/json")
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		text, _ := io.ReadAll(resp.Body)
		resp.Body.Close()
		if resp.StatusCode != http.StatusOK {
			t.Errorf("%s: %d %s", path, resp.StatusCode, text)
		}
	}
	http.DefaultClient.CloseIdleConnections()
}

// start runs tidegate with the command and environment of docker-compose.yml, with all
// roles or one as that one's user, and returns when it is ready. At the end of the test it must
// stop as asked, have been forbidden nothing and have written no file but into its volume.
func start(t *testing.T, ctx context.Context, binary string, s *server.Server, database, role string) (web string) {
	t.Helper()
	composed := loadExample(t).Services["tidegate"]
	home := t.TempDir()
	cmd := exec.Command(binary, composed.Command...)
	cmd.Dir = home
	web = testenv.FreeAddr(t)
	here := strings.NewReplacer("nats:4222", s.Addr().String(), "0.0.0.0:8080", web, "/data", t.TempDir())
	for name, value := range composed.Environment {
		cmd.Env = append(cmd.Env, name+"="+here.Replace(*value))
	}
	cmd.Env = append(cmd.Env, "TIDEGATE_DATABASE_URL="+database)
	if role != "" {
		user := "tidegate-" + role
		cmd.Env = append(cmd.Env, "TIDEGATE_ROLES="+role, "TIDEGATE_NATS_URL=nats://"+user+":"+password(t, user)+"@"+s.Addr().String())
	}
	var output bytes.Buffer
	cmd.Stdout, cmd.Stderr = &output, &output
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		signalled := time.Now()
		_ = cmd.Process.Signal(syscall.SIGTERM)
		if err := cmd.Wait(); err != nil {
			t.Errorf("it ends with %v", err)
		}
		if took := time.Since(signalled); took > time.Duration(*composed.StopGracePeriod) {
			t.Errorf("it took %s to stop", took)
		}
		if text := strings.ToLower(output.String()); strings.Contains(text, "permission") {
			t.Errorf("%s was forbidden something", role)
		}
		if files, err := os.ReadDir(home); err != nil || len(files) > 0 {
			t.Errorf("it wrote %v, %v, but only its volume is writable", files, err)
		}
		if t.Failed() {
			t.Logf("tidegate %s printed:\n%s", role, output.String())
		}
	})
	for !answers(ctx, "http://"+web+"/healthz") || !answers(ctx, "http://"+web+"/readyz") {
		if ctx.Err() != nil {
			t.Fatal("it does not become ready")
		}
		time.Sleep(20 * time.Millisecond)
	}
	return web
}

// composedDatabase is what deploy/postgres.sh makes in a new cluster, whose superuser here has
// the name that the script gives to Tidegate's role.
func composedDatabase(t *testing.T) string {
	t.Helper()
	pg := testenv.PrivatePostgres(t)
	superuser := testenv.Must(url.Parse(pg.DatabaseURL("postgres")))
	script := strings.NewReplacer(" tidegate ", " composed ", " tidegate;", " composed;").Replace(string(testenv.Must(os.ReadFile("../../deploy/postgres.sh"))))
	cmd := exec.Command("sh", "-c", script)
	cmd.Env = append(os.Environ(), "PGHOST="+superuser.Query().Get("host"), "POSTGRES_USER="+superuser.User.Username(), "POSTGRES_DB=postgres", "POSTGRES_PASSWORD="+exampleEnv(t)["POSTGRES_PASSWORD"])
	if out, err := cmd.CombinedOutput(); err != nil || len(out) > 0 {
		t.Fatalf("deploy/postgres.sh: %v\n%s", err, out)
	}
	ours := *superuser
	ours.User, ours.Path = url.User("composed"), "/composed"
	conn := testenv.Must(pgx.Connect(t.Context(), ours.String()))
	defer conn.Close(t.Context())
	var harmless bool
	if err := conn.QueryRow(t.Context(), `select not (rolsuper or rolcreaterole or rolcreatedb or rolreplication or rolbypassrls) from pg_roles where rolname = current_user`).Scan(&harmless); err != nil || !harmless {
		t.Errorf("Tidegate's role may do more than it needs: %t, %v", harmless, err)
	}
	return ours.String()
}

func (c *client) ask(t *testing.T, ctx context.Context, subject, question string) string {
	t.Helper()
	return string(testenv.Must(c.RequestWithContext(ctx, subject, []byte(question))).Data)
}

func answers(ctx context.Context, url string) bool {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return false
	}
	req.Close = true
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return false
	}
	resp.Body.Close()
	return resp.StatusCode == http.StatusOK
}

func budgets(t *testing.T, c *client) *events.Client {
	t.Helper()
	b, err := events.NewClient(c.Conn, events.ClientConfig{WhenUnavailable: events.FailClosed})
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// publishTogether publishes 50,000 tokens of p1 in atomic batches.
func publishTogether(t *testing.T, ctx context.Context, c *client) {
	t.Helper()
	p, err := events.NewPublisher(c.Conn, events.PublisherConfig{})
	if err != nil {
		t.Fatal(err)
	}
	for range 500 {
		p.Record(events.Usage{PortID: "p1", Feature: "ocr", Provider: "anthropic", Model: "claude", InputTokens: 100})
	}
	if err := p.Close(ctx); err != nil {
		t.Fatal(err)
	}
	c.wantNothingForbidden(t)
}

// quarantineAndReplay lets p1 publish nonsense and an operator list and replay it.
func quarantineAndReplay(t *testing.T, ctx context.Context, p1 *client, operator *ops.Client) {
	t.Helper()
	if _, err := p1.RequestWithContext(ctx, "ai.usage.p1", []byte("nonsense")); err != nil {
		t.Fatal(err)
	}
	var held uint64 // its sequence
	for held == 0 {
		if err := operator.Quarantine(ctx, func(e quarantine.Event) bool { held = e.Sequence; return false }); err != nil {
			t.Fatal(err)
		}
		time.Sleep(10 * time.Millisecond)
	}
	if err := operator.QuarantineReplay(ctx, held); err != nil {
		t.Error(err)
	}
}

// rebookAndDelete has the consumers read the stream again, and then deletes p1.
func rebookAndDelete(t *testing.T, ctx context.Context, operator *ops.Client) {
	t.Helper()
	p, err := operator.Rebook(ctx, time.Time{})
	for err == nil && p.Behind() > 0 {
		time.Sleep(10 * time.Millisecond)
		p, err = operator.Position(ctx)
	}
	if err != nil {
		t.Errorf("the stream is not booked again: %v", err)
	}
	if _, err := operator.DeletePort(ctx, "p1", "test"); err != nil {
		t.Error(err)
	}
}

func (c *client) wantNothingForbidden(t *testing.T) {
	t.Helper()
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.forbidden) > 0 {
		t.Errorf("forbidden: %q", c.forbidden)
	}
}
