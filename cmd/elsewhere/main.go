// Command elsewhere asks the network: does it work elsewhere?
package main

import (
	"context"
	"os"
	"os/signal"
	"syscall"

	"github.com/spf13/cobra"

	"github.com/elsewhere-net/elsewhere/internal/cli"
	"github.com/elsewhere-net/elsewhere/internal/demo"
	"github.com/elsewhere-net/elsewhere/internal/flags"
	"github.com/elsewhere-net/elsewhere/internal/restore"
	"github.com/elsewhere-net/elsewhere/internal/up"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)
	// After the first signal the second one has its default meaning: it ends the program at once.
	context.AfterFunc(ctx, stop)
	os.Exit(cli.Program{Version: flags.Version(), Extra: []*cobra.Command{up.Command(), demo.Command(), restore.Command()}}.Run(ctx, os.Args[1:]))
}
