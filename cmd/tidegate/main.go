// Command tidegate keeps AI spending inside a budget: it runs the whole system
// or some of its roles, and speaks to a running one.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"github.com/alecthomas/kong"
	"github.com/willabides/kongplete"
)

// version is set by the build: -ldflags "-X main.version=…".
var version = "dev"

type cli struct {
	Run     runCmd     `cmd:"" help:"Run the system: NATS, Postgres, consumer, gate, admin and edge in one process, or some of them."`
	Proxy   proxyCmd   `cmd:"" help:"Put a budget under any AI SDK on this machine: its calls, sent here, are reserved, metered and settled for one port."`
	Migrate migrateCmd `cmd:"" help:"Bring a database to this build's schema, then exit. run does that by itself."`

	Budget     budgetCmd     `cmd:"" help:"Read or store a port's budget."`
	Check      checkCmd      `cmd:"" help:"Ask whether a port may spend tokens now. Exit 0: allowed, 3: refused, 1: no answer."`
	Usage      usageCmd      `cmd:"" help:"Show what a port has spent in the current period of its budget."`
	Holds      holdsCmd      `cmd:"" help:"Show a port's reservations: live ones, and those whose usage was never reported."`
	Port       portCmd       `cmd:"" help:"List or delete ports."`
	User       userCmd       `cmd:"" help:"Erase a user from the ledger."`
	Token      tokenCmd      `cmd:"" help:"API tokens: for services over HTTP, and for the admin page's API."`
	LoginLink  loginLinkCmd  `cmd:"" help:"Print a one-time login link for the admin page."`
	Alert      alertCmd      `cmd:"" help:"Look at alerts and what became of them; test who receives them."`
	Top        topCmd        `cmd:"" help:"Show what the system does, live: rates, the backlog, and the ports that are nearest to their hard cap."`
	Quarantine quarantineCmd `cmd:"" help:"Look at events that could not be booked, and send them back."`
	Verify     verifyCmd     `cmd:"" help:"Compare ledger, totals and gates. Exit 0: they agree, 1: the differences are listed."`
	Rebook     rebookCmd     `cmd:"" help:"Book again what the usage stream holds: mends a ledger that lacks something. What it has is recognised."`
	Replay     replayCmd     `cmd:"" help:"Publish a recorded LLM trace (CSV) as usage events."`

	Meter meterCmd `cmd:"" help:"Say what would be counted for recorded provider replies, one JSON object a line."`

	Completion completionCmd `cmd:"" help:"Print what makes a shell complete commands and flags, as in: source <(tidegate completion bash)."`

	Version kong.VersionFlag `help:"Print the version and exit."`
}

// exitCode makes a command end with that code and no message.
type exitCode int

func (e exitCode) Error() string { return fmt.Sprintf("exit %d", int(e)) }

func newParser(ctx context.Context, c *cli) *kong.Kong {
	return kong.Must(c,
		kong.Name("tidegate"),
		kong.Description("Tidegate keeps AI spending inside a budget."),
		kong.ConfigureHelp(kong.HelpOptions{Compact: true}),
		kong.Vars{"version": version},
		kong.BindTo(ctx, (*context.Context)(nil)),
	)
}

// asked is the command of a command line that cannot be parsed, as far as it was understood.
func asked(err error) string {
	if parsing := (*kong.ParseError)(nil); errors.As(err, &parsing) {
		if command := parsing.Context.Selected(); command != nil {
			return command.FullPath()
		}
	}
	return "tidegate"
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	parser := newParser(ctx, new(cli))
	kongplete.Complete(parser) // and exit, where a shell asks
	parsed, err := parser.Parse(os.Args[1:])
	if err != nil {
		fmt.Fprintf(os.Stderr, "tidegate: %v\nSee: %s --help\n", err, asked(err))
		os.Exit(1)
	}
	context.AfterFunc(ctx, stop) // a second signal ends the process at once
	err = parsed.Run()
	var code exitCode
	if errors.As(err, &code) {
		os.Exit(int(code))
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "tidegate:", visible(err.Error(), "\t\n"))
		os.Exit(1)
	}
}
