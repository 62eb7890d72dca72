// Command elsewhere-coordinator asks agents what they see, keeps what they answer, and says what it
// means.
package main

import (
	"context"
	"net"
	"os"
	"os/signal"
	"strconv"
	"syscall"

	"github.com/spf13/pflag"

	"github.com/elsewhere-net/elsewhere/internal/coordinator"
	"github.com/elsewhere-net/elsewhere/internal/flags"
	"github.com/elsewhere-net/elsewhere/internal/publicdns"
)

const help = `elsewhere-coordinator hands questions to agents, keeps their results and judges them.

Examples:
  elsewhere-coordinator --insecure --data-dir /var/lib/elsewhere
  elsewhere-coordinator --insecure --data-dir d --grpc-addr 10.0.0.1:7700 --nats-addr 10.0.0.1:7702
`

func main() { flags.Exit("elsewhere-coordinator", run()) }

func run() error {
	var opts coordinator.Options
	set := pflag.NewFlagSet("elsewhere-coordinator", pflag.ContinueOnError)
	set.StringVar(&opts.DataDir, "data-dir", "", "`directory` for the log and its checkpoint (required)")
	set.StringVar(&opts.GRPCAddr, "grpc-addr", "127.0.0.1:7700", "`address` for clients and agents")
	set.StringVar(&opts.HTTPAddr, "http-addr", "127.0.0.1:7701", "`address` for /metrics, /healthz and /readyz, in clear; empty for none")
	set.StringVar(&opts.NATSAddr, "nats-addr", "127.0.0.1:7702", "`address` where agents take their jobs")
	set.StringVar(&opts.Advertise, "advertise", "", "`host` that agents are told for NATS (default: the one that they reached)")
	set.DurationVar(&opts.Retention.Age, "retention-age", 0, "how long measurements are kept (default 720h)")
	set.Int64Var(&opts.Retention.Bytes, "retention-bytes", 0, "how large the log may grow, in `bytes` (default 10 GiB)")
	public := set.String("public-resolvers", "", "YAML `file` of public resolvers to ask where a question wants them (default: well-known ones)")
	insecure := set.Bool("insecure", false, "run without TLS and authentication: anyone who reaches the addresses may do anything")
	if err := flags.Parse(set, os.Args[1:], help); err != nil {
		return err
	}
	if opts.DataDir == "" {
		return flags.Usagef("--data-dir is required: a directory for the log")
	}
	if err := checkAddrs(&opts); err != nil {
		return err
	}
	if err := readPublic(&opts, *public); err != nil {
		return err
	}
	if !*insecure {
		return flags.Usagef("TLS and tokens are not built yet: run with --insecure, on a network that you trust")
	}
	opts.Log = flags.Logger()
	opts.Log.Warn("INSECURE: no TLS, no authentication: anyone who reaches these addresses may measure, and may pose as any agent",
		"grpc", opts.GRPCAddr, "nats", opts.NATSAddr)

	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	context.AfterFunc(ctx, stop) // a second signal ends the program at once
	c, err := coordinator.New(ctx, opts)
	if err != nil {
		return err
	}
	return c.Run(ctx)
}

// readPublic reads the list of public resolvers, if the operator has one.
func readPublic(opts *coordinator.Options, path string) (err error) {
	if path == "" {
		return nil
	}
	if opts.PublicResolvers, err = publicdns.ReadFile(path); err != nil {
		return flags.Usagef("--public-resolvers: %w", err)
	}
	return nil
}

// checkAddrs says which address cannot be listened on by its form alone.
func checkAddrs(opts *coordinator.Options) error {
	for _, a := range []struct{ flag, addr string }{
		{"--grpc-addr", opts.GRPCAddr}, {"--nats-addr", opts.NATSAddr}, {"--http-addr", opts.HTTPAddr},
	} {
		if a.addr == "" && a.flag == "--http-addr" {
			continue
		}
		_, port, err := net.SplitHostPort(a.addr)
		if _, bad := strconv.ParseUint(port, 10, 16); err != nil || bad != nil {
			return flags.Usagef("%s %q: must be HOST:PORT, such as 127.0.0.1:7700; port 0 takes a free one", a.flag, a.addr)
		}
	}
	return nil
}
