// Command elsewhere-agent measures from where it stands.
package main

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"os"
	"os/signal"
	"runtime/debug"
	"strings"
	"syscall"

	"github.com/spf13/pflag"

	"github.com/elsewhere-net/elsewhere/internal/agent"
	"github.com/elsewhere-net/elsewhere/internal/agentpolicy"
	"github.com/elsewhere-net/elsewhere/internal/flags"
	"github.com/elsewhere-net/elsewhere/internal/identity"
	pb "github.com/elsewhere-net/elsewhere/proto/elsewhere/v1"
)

const help = `elsewhere-agent measures from where it stands and reports to a coordinator.

Private, loopback and other special-purpose addresses are not measured unless --allow-target says so.

Examples:
  elsewhere-agent --coordinator 10.0.0.1:7700 --data-dir /var/lib/elsewhere-agent --join @token   # the first time
  elsewhere-agent --coordinator 10.0.0.1:7700 --data-dir /var/lib/elsewhere-agent
  elsewhere-agent --coordinator 10.0.0.1:7700 --data-dir d --join @token --id fra-1 \
      --country DE --city Frankfurt --provider AWS --asn 16509
`

// maxStack bounds a goroutine's stack, in bytes: one that has no end is to take the agent down, and not the
// machine's memory.
const maxStack = 64 << 20

// maxAddresses is how many addresses the contract lets an agent declare.
const maxAddresses = 16

func main() { flags.Exit("elsewhere-agent", run()) }

// line is the command line.
type line struct {
	agent.Options

	probe    flags.Probe
	vantage  pb.Vantage
	labels   map[string]string
	insecure bool
	policy   string
}

func run() error {
	l := &line{}
	if err := flags.Parse(l.flags(), os.Args[1:], help); err != nil {
		return err
	}
	if err := l.check(); err != nil {
		return err
	}
	env, err := l.probe.Env()
	if err != nil {
		return err
	}
	if l.policy != "" {
		if l.Policy, err = agentpolicy.Open(l.policy, env.Egress); err != nil {
			return flags.Usagef("--policy: %w", err)
		}
	}
	l.Env, l.Vantage, l.Log = env, &l.vantage, flags.Logger()
	l.Rested = debug.FreeOSMemory // checks that ran together leave three times as much as is in use

	debug.SetMaxStack(maxStack)
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	context.AfterFunc(ctx, stop) // a second signal ends the program at once
	if err := l.identify(ctx); err != nil || ctx.Err() != nil {
		return err
	}
	a, err := agent.New(l.Options)
	if err != nil {
		return err
	}
	return a.Run(ctx)
}

// identify finds out who the agent is, and enrols it the first time.
func (l *line) identify(ctx context.Context) (err error) {
	if l.insecure {
		l.Log.Warn("INSECURE: no TLS, no authentication: whoever poses as the coordinator can have this agent measure")
		return nil
	}
	l.Identity, err = agent.Enrol(ctx, l.Options)
	if errors.Is(err, agent.ErrNotEnrolled) {
		return flags.Usagef("%w", err)
	}
	if ctx.Err() != nil {
		return nil // ended before it was let in: nothing is wrong
	}
	return err
}

func (l *line) flags() *pflag.FlagSet {
	set := pflag.NewFlagSet("elsewhere-agent", pflag.ContinueOnError)
	set.StringSliceVar(&l.Coordinators, "coordinator", nil, "gRPC `addresses` of coordinators, HOST:PORT; any of them will do (required)")
	set.StringVar(&l.DataDir, "data-dir", "", "`directory` for the agent's name and its results (required)")
	set.StringVar(&l.Join, "join", "", "`token` to be let in with, once, @FILE reads it from a file: `elsewhere token create` makes it; afterwards it is not looked at")
	set.StringVar(&l.ID, "id", "", "`name` of the agent, [a-z0-9-]{1,63} (default: the token's, or one that is made at the first start)")
	set.StringVar(&l.vantage.Region, "region", "default", "`region` where it stands, [a-z0-9-]{1,63}; with a token, that one's counts, and its labels, and what else it binds")
	set.StringVar(&l.vantage.Country, "country", "", "`country`, ISO 3166-1 alpha-2, such as DE")
	set.StringVar(&l.vantage.City, "city", "", "`city`")
	set.Uint32Var(&l.vantage.Asn, "asn", 0, "autonomous system `number`")
	set.StringVar(&l.vantage.Provider, "provider", "", "hosting or access `provider`")
	set.StringArrayVar(&l.vantage.Addresses, "address", nil, "public `IP` that the agent sends from, where it does not show by itself, as behind NAT; repeatable")
	set.StringToStringVar(&l.labels, "label", nil, "`key=value` by which the agent can be chosen; repeatable")
	l.probe.Add(set)
	set.StringVar(&l.policy, "policy", "", "`file` of YAML that says what may be measured, whatever a coordinator asks; it is read again when it changes (docs/agent-policy.md)")
	set.BoolVar(&l.insecure, "insecure", false, "run without TLS and authentication")
	return set
}

// check says what is wrong with the command line, if anything is.
func (l *line) check() error {
	l.vantage.Country = strings.ToUpper(l.vantage.GetCountry())
	l.vantage.Labels = l.labels
	switch {
	case len(l.Coordinators) == 0:
		return flags.Usagef("--coordinator is required: HOST:PORT")
	case l.DataDir == "":
		return flags.Usagef("--data-dir is required: a directory for the agent's results")
	case !identity.IsName(l.vantage.GetRegion()):
		return flags.Usagef("--region %q: must be 1 to 63 of a-z, 0-9 and -", l.vantage.GetRegion())
	case l.ID != "" && !identity.IsName(l.ID):
		return flags.Usagef("--id %q: must be 1 to 63 of a-z, 0-9 and -", l.ID)
	case l.vantage.GetCountry() != "" && len(l.vantage.GetCountry()) != 2:
		return flags.Usagef("--country %q: must be two letters, such as DE", l.vantage.GetCountry())
	case l.insecure && l.Join != "":
		return flags.Usagef("--join and --insecure: without TLS nobody is let in by a token; leave out one of them")
	}
	for _, text := range l.vantage.GetAddresses() {
		if ip, err := netip.ParseAddr(text); err != nil || ip.Zone() != "" {
			return flags.Usagef("--address %q: must be an IP address", text)
		}
	}
	if n := len(l.vantage.GetAddresses()); n > maxAddresses {
		return flags.Usagef("--address: %d of them; at most %d", n, maxAddresses)
	}
	for _, hp := range l.Coordinators {
		if host, _, err := net.SplitHostPort(hp); err != nil || host == "" {
			return flags.Usagef("--coordinator %q: must be HOST:PORT", hp)
		}
	}
	return nil
}
