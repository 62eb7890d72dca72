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
	"github.com/elsewhere-net/elsewhere/internal/up"
)

// version is set by -ldflags "-X main.version=v1.2.3".
var version string

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)
	// After the first signal the second one has its default meaning: it ends the program at once.
	context.AfterFunc(ctx, stop)
	os.Exit(cli.Program{Version: version, Extra: []*cobra.Command{up.Command(), demo.Command()}}.Run(ctx, os.Args[1:]))
}
