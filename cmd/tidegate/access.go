package main

import (
	"context"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/tidegate/tidegate/admin/ops"
	"github.com/tidegate/tidegate/events"
)

type tokenCmd struct {
	Create tokenCreateCmd `cmd:"" help:"Make an API token. It is shown once, and stored hashed."`
	Ls     tokenLsCmd     `cmd:"" help:"List API tokens, newest first."`
	Revoke tokenRevokeCmd `cmd:"" help:"End an API token for ever."`
}

type tokenCreateCmd struct {
	remote
	Name       string        `arg:"" help:"What it is for."`
	Permission []string      `help:"What it may do; may be repeated." default:"admin.manage_settings" placeholder:"NAME"`
	Port       []string      `help:"The only ports it may touch; may be repeated. Default: every port." placeholder:"PORT"`
	Expires    time.Duration `help:"How long it is valid, such as 720h. Default: for ever."`
}

func (c *tokenCreateCmd) Run(ctx context.Context) error {
	return c.operate(ctx, func(ctx context.Context, client *ops.Client) error {
		r := ops.NewToken{Name: c.Name, Permissions: c.Permission, Ports: c.Port, CreatedBy: whoami()}
		if c.Expires != 0 {
			r.ExpiresAt = time.Now().Add(c.Expires).UTC()
		}
		t, err := client.CreateToken(ctx, r)
		if err != nil {
			return err
		}
		if c.JSON {
			return printJSON(t)
		}
		fmt.Println(t.Secret)
		fmt.Fprintln(os.Stderr, paint(faint, "keep it now: it is not stored and cannot be shown again")) // TOKEN=$(…) has the token alone
		return nil
	})
}

type tokenLsCmd struct{ remote }

func (c *tokenLsCmd) Run(ctx context.Context) error {
	return c.operate(ctx, func(ctx context.Context, client *ops.Client) error {
		tokens, err := client.Tokens(ctx)
		if err != nil {
			return err
		}
		if c.JSON {
			return printJSON(tokens)
		}
		rows := make([][]string, len(tokens))
		for i, t := range tokens {
			ports, used := "every port", "never"
			if t.Ports != nil {
				ports = strings.Join(t.Ports, " ")
			}
			if !t.LastUsedAt.IsZero() {
				used = when(t.LastUsedAt)
			}
			rows[i] = []string{t.ID, t.Name, t.State(time.Now()), strings.Join(t.Permissions, " "), ports, when(t.CreatedAt), t.CreatedBy, used}
		}
		grid(os.Stdout, []string{"id", "name", "state", "may", "on", "created", "by", "last used"}, rows)
		return nil
	})
}

type tokenRevokeCmd struct {
	remote
	ID string `arg:"" help:"The id that ls shows."`
}

func (c *tokenRevokeCmd) Run(ctx context.Context) error {
	return c.operate(ctx, func(ctx context.Context, client *ops.Client) error {
		if err := client.RevokeToken(ctx, c.ID, whoami()); err != nil {
			return err
		}
		if c.JSON {
			return printJSON(map[string]any{"revoked": c.ID})
		}
		fmt.Printf("revoked %s\n", c.ID)
		return nil
	})
}

type loginLinkCmd struct {
	remote
	Base string `help:"The address of the admin page. Default: as the system knows it, its --oidc-public-url or where it listens." env:"TIDEGATE_PUBLIC_URL" placeholder:"URL"`
}

func (c *loginLinkCmd) Run(ctx context.Context) error {
	return c.operate(ctx, func(ctx context.Context, client *ops.Client) error {
		l, err := client.LoginLink(ctx)
		if err != nil {
			return err
		}
		url := l.URL
		if c.Base != "" {
			url = strings.TrimSuffix(c.Base, "/") + l.Path
		}
		if c.JSON {
			return printJSON(map[string]any{"url": url, "expires_at": l.ExpiresAt})
		}
		fmt.Printf("%s\n%s\n", url, paint(faint, "signs one browser in, once, until "+when(l.ExpiresAt)))
		return nil
	})
}

type budgetSimulateCmd struct {
	remote
	Port   string  `arg:"" help:"The port."`
	Soft   *tokens `help:"Soft cap to try." placeholder:"N"`
	Hard   *tokens `help:"Hard cap to try." placeholder:"N"`
	Period *string `help:"day, week or month; default: that of the port's budget." enum:"day,week,month" placeholder:"PERIOD"`
}

func (c *budgetSimulateCmd) Run(ctx context.Context) error {
	return c.operate(ctx, func(ctx context.Context, client *ops.Client) error {
		r := ops.SimulateRequest{PortID: c.Port}
		if c.Soft != nil {
			r.SoftCapTokens = c.Soft.n
		}
		if c.Hard != nil {
			r.HardCapTokens = c.Hard.n
		}
		if c.Period != nil {
			r.Period = events.Period(*c.Period)
		}
		s, err := client.Simulate(ctx, r)
		if err != nil {
			return err
		}
		if c.JSON {
			return printJSON(s)
		}
		fmt.Printf("with this budget, %s of %s calls from %s to %s would have been refused", paint(bold, count(s.RefusedCalls)), count(s.Calls),
			s.From.Format(time.DateOnly), s.To.Add(-time.Nanosecond).Format(time.DateOnly))
		if !s.FirstRefusedAt.IsZero() {
			fmt.Printf(", from %s on (%s tokens)", when(s.FirstRefusedAt), count(s.RefusedTokens))
		}
		fmt.Printf("; %s would have carried the soft cap's warning\n", count(s.WarnedCalls))
		return nil
	})
}
