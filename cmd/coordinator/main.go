// Command elsewhere-coordinator asks agents what they see, keeps what they answer, and says what it
// means.
package main

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/signal"
	"strconv"
	"syscall"
	"time"

	"github.com/spf13/pflag"

	"github.com/elsewhere-net/elsewhere/internal/access"
	"github.com/elsewhere-net/elsewhere/internal/coordinator"
	"github.com/elsewhere-net/elsewhere/internal/flags"
	"github.com/elsewhere-net/elsewhere/internal/publicdns"
)

const help = `elsewhere-coordinator hands questions to agents, keeps their results and judges them.

Its first start makes in the data directory, for the owner's eyes alone:
  ca.pem, ca.key    the authority by which agents and clients know this network
  admin.token       the token to be let in with as its administrator

Examples:
  elsewhere-coordinator --data-dir /var/lib/elsewhere
  elsewhere-coordinator --data-dir /var/lib/elsewhere --grpc-addr 0.0.0.0:7700 --nats-addr 0.0.0.0:7702
  elsewhere --token @/var/lib/elsewhere/admin.token --ca /var/lib/elsewhere/ca.pem \
      token create --region eu-west     # prints what an agent there is given by --join
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
	var several gossip
	several.flags(set)
	set.DurationVar(&opts.Retention.Age, "retention-age", 0, "how long measurements are kept (default 720h)")
	set.Int64Var(&opts.Retention.Bytes, "retention-bytes", 0, "how large the log may grow, in `bytes` (default 10 GiB)")
	public := set.String("public-resolvers", "", "YAML `file` of public resolvers to ask where a question wants them (default: well-known ones)")
	optOuts := set.String("opt-outs", "", "`file` of those who do not want to be measured: a name, an address or a network a line; it is read again when it changes (default: nobody)")
	set.IntVar(&opts.TargetBudget.Burst, "target-burst", 0, "`jobs` that may look at one target at once, of all users together (default 500000)")
	set.Float64Var(&opts.TargetBudget.PerSecond, "target-rate", 0, "`jobs` a second that may look at one target in the long run (default 50000)")
	set.StringVar(&opts.CanaryAddr, "canary-addr", "", "`IP:PORT` of a target of the coordinator's own, as agents reach it, by which it sees whether they really look (default: none)")
	set.DurationVar(&opts.CanaryInterval, "canary-interval", 0, "how often all agents are asked about it (default 10m)")
	set.DurationVar(&opts.Identity.AgentLife, "agent-certificate-life", 0, "how long an agent's certificate is good, from 3s; it renews at two thirds (default 24h)")
	set.BoolVar(&opts.Insecure, "insecure", false, "run without TLS and authentication: anyone who reaches the addresses may do anything")
	set.BoolVar(&opts.UnsafeDurability, "unsafe-durability", false, "acknowledge results before the disk has them: a power cut loses some; for tests alone")
	if err := flags.Parse(set, os.Args[1:], help); err != nil {
		return err
	}
	if opts.DataDir == "" {
		return flags.Usagef("--data-dir is required: a directory for the log")
	}
	if err := checkAddrs(&opts); err != nil {
		return err
	}
	if err := readLists(&opts, *public, *optOuts); err != nil {
		return err
	}
	if err := several.read(set, &opts); err != nil {
		return err
	}
	opts.Log = flags.Logger()
	if err := mayStart(opts); err != nil {
		return err
	}

	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	context.AfterFunc(ctx, stop) // a second signal ends the program at once
	c, err := coordinator.New(ctx, opts)
	if err != nil && ctx.Err() != nil {
		return nil // ended before it had all that it needs, such as other coordinators: nothing is wrong
	}
	if err != nil {
		return err
	}
	return c.Run(ctx)
}

// shortestLife is the shortest life of a certificate in which an agent can renew it: its times are whole seconds.
const shortestLife = 3 * time.Second

// mayStart refuses what would be a danger that nobody meant, and says loudly what somebody did mean.
func mayStart(opts coordinator.Options) error {
	if life := opts.Identity.AgentLife; life != 0 && life < shortestLife {
		return flags.Usagef("--agent-certificate-life %v: must be at least %v", life, shortestLife)
	}
	if opts.TargetBudget.Burst < 0 || opts.TargetBudget.PerSecond < 0 {
		return flags.Usagef("--target-burst and --target-rate must not be below 0")
	}
	if err := rightClock(time.Now(), flags.BuildTime()); err != nil {
		return err
	}
	if opts.UnsafeDurability {
		opts.Log.Warn("UNSAFE DURABILITY: results are acknowledged before the disk has them; a power cut loses some")
	}
	if !opts.Insecure {
		return fitDisk(opts.DataDir, opts.Log)
	}
	for _, a := range []struct{ flag, addr string }{{"--grpc-addr", opts.GRPCAddr}, {"--nats-addr", opts.NATSAddr}} {
		if wildcard(a.addr) {
			return flags.Usagef("%s %s with --insecure would let in anyone who reaches any address of this machine: leave out --insecure, or give the one address to listen on", a.flag, a.addr)
		}
	}
	opts.Log.Warn("INSECURE: no TLS, no authentication: anyone who reaches these addresses may measure, and may pose as any agent",
		"grpc", opts.GRPCAddr, "nats", opts.NATSAddr)
	return fitDisk(opts.DataDir, opts.Log)
}

// rightClock refuses a clock that is certainly wrong.
func rightClock(now, built time.Time) error {
	if now.Before(built) {
		return fmt.Errorf("the clock says %s, which is before this program was built (%s): set the clock; certificates and deadlines go by it",
			now.UTC().Format(time.RFC3339), built.UTC().Format(time.RFC3339))
	}
	return nil
}

// wildcard tells whether an address means every address of the machine.
func wildcard(addr string) bool {
	host, _, _ := net.SplitHostPort(addr) // checkAddrs has looked at it
	ip, err := netip.ParseAddr(host)
	return host == "" || err == nil && ip.Unmap().IsUnspecified()
}

// readLists reads the lists of public resolvers and of those who opted out, if the operator has them.
func readLists(opts *coordinator.Options, public, optOuts string) (err error) {
	if public != "" {
		if opts.PublicResolvers, err = publicdns.ReadFile(public); err != nil {
			return flags.Usagef("--public-resolvers: %w", err)
		}
	}
	if optOuts != "" {
		if opts.OptOuts, err = access.OpenOptOuts(optOuts); err != nil {
			return flags.Usagef("--opt-outs: %w", err)
		}
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
