// Command elsewhere asks the network: does it work elsewhere?
package main

import (
	"context"
	"os"
	"os/signal"
	"syscall"

	"github.com/elsewhere-net/elsewhere/internal/cli"
)

// version is set by -ldflags "-X main.version=v1.2.3".
var version string

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	// After the first signal the second one has its default meaning: it ends the program at once.
	context.AfterFunc(ctx, stop)
	os.Exit(cli.Program{Version: version}.Run(ctx, os.Args[1:]))
}
