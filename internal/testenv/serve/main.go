// Command serve runs the Postgres cluster that a failed test kept, until Ctrl-C.
package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"github.com/tidegate/tidegate/dev"
)

func main() {
	if err := serve(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func serve(args []string) error {
	if len(args) != 1 {
		return fmt.Errorf("usage: go run ./internal/testenv/serve DIR")
	}
	if _, err := os.Stat(args[0]); err != nil {
		return err // StartPostgres would make a new cluster
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	pg, err := dev.StartPostgres(ctx, dev.PostgresConfig{Dir: args[0], NoSync: true})
	if err != nil {
		return err
	}
	fmt.Printf("serving %s until Ctrl-C\n", pg.URL())
	<-ctx.Done()
	return pg.Stop(context.WithoutCancel(ctx))
}
