// Package up is `elsewhere up`: a network in one process, for trying things and for CI jobs.
package up

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"github.com/elsewhere-net/elsewhere/internal/cli"
	"github.com/elsewhere-net/elsewhere/internal/cli/state"
	"github.com/elsewhere-net/elsewhere/internal/flags"
	"github.com/elsewhere-net/elsewhere/internal/network"
	"github.com/elsewhere-net/elsewhere/internal/publicdns"
	"github.com/elsewhere-net/elsewhere/pkg/probe"
	pb "github.com/elsewhere-net/elsewhere/proto/elsewhere/v1"
)

// homeRanges are what agents of `up` may measure beside the public network: they run on the user's own
// machine. Link-local ranges, where clouds keep credentials, stay refused.
var homeRanges = []netip.Prefix{
	netip.MustParsePrefix("127.0.0.0/8"), netip.MustParsePrefix("::1/128"),
	netip.MustParsePrefix("10.0.0.0/8"), netip.MustParsePrefix("172.16.0.0/12"),
	netip.MustParsePrefix("192.168.0.0/16"), netip.MustParsePrefix("fc00::/7"),
}

const maxRegions = 64

var regionName = regexp.MustCompile(`^[a-z0-9-]{1,61}$`) // "-1" is added for the agent's name

// up is the command line.
type up struct {
	regions, dataDir   string
	grpcAddr, httpAddr string
	public             string
	verbose            bool
	probe              flags.Probe
	out, errs          io.Writer
	stateDir           string
	temporary          bool
	control            net.Listener
	controlled         sync.WaitGroup
}

// Command is `elsewhere up`: a network for trying things and for CI jobs.
func Command() *cobra.Command {
	u := &up{}
	cmd := &cobra.Command{
		Use:   "up",
		Short: "Run a whole network in this process, for trying things and for CI jobs",
		Long: `Run a coordinator and an agent for each region in this process, with real sockets between them,
until it is interrupted. All agents stand on this machine, so they see what it sees: the regions are
names. They may measure this machine and private networks. Other commands of the same user find the network
and its token by themselves. When it is ready, the coordinator's address is printed on stdout, alone.`,
		Example: `  elsewhere up
  elsewhere up --regions a,b,c --data-dir ./net
  elsewhere tcp localhost:5432          # in another terminal`,
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) > 0 {
				return flags.Usagef("unexpected argument %q; 'elsewhere up --help' shows what there is", args[0])
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := flags.FromEnv(cmd.LocalNonPersistentFlags()); err != nil {
				return err
			}
			u.out, u.errs = cmd.OutOrStdout(), cmd.ErrOrStderr()
			u.stateDir = state.Dir(os.Getenv)
			return u.run(cmd.Context())
		},
	}
	set := cmd.Flags()
	set.StringVar(&u.regions, "regions", "us-east,eu-west,ap-south,sa-east", "`names` of the regions, an agent each")
	set.StringVar(&u.dataDir, "data-dir", "", "`directory` for the log and the agents' results (default: a temporary one)")
	set.StringVar(&u.grpcAddr, "grpc-addr", "127.0.0.1:7700", "`address` of the coordinator; port 0 takes a free one")
	set.StringVar(&u.httpAddr, "http-addr", "", "`address` for /metrics, /healthz and /readyz (default: none)")
	set.StringVar(&u.public, "public-resolvers", "", "YAML `file` of public resolvers to ask where a question wants them (default: well-known ones)")
	set.BoolVar(&u.verbose, "verbose", false, "show what coordinator and agents do")
	u.probe.Add(set)
	return cmd
}

func (u *up) run(ctx context.Context) (err error) {
	opts, err := u.options()
	if err != nil {
		return err
	}
	defer u.cleanUp(&err)
	fmt.Fprintf(u.errs, "starting a coordinator and an agent for each of %d regions ...\n", len(opts.Agents))
	n, err := network.Start(ctx, opts)
	if ctx.Err() != nil {
		return nil // interrupted before it was up
	}
	if err != nil {
		return explain(err)
	}
	if err := u.leaveWord(n); err != nil {
		fmt.Fprintf(u.errs, "other commands will need --coordinator %s --ca %s --token @%s: %v\n", n.Addr(), n.CA(), n.TokenFile(), err)
	}
	defer func() { _ = state.RemoveUp(u.stateDir, os.Getpid()) }()
	u.greet(n.Addr(), opts)
	select {
	case <-ctx.Done():
		fmt.Fprintln(u.errs, "stopping ...")
	case <-n.Done():
	}
	if err := n.Stop(); err != nil {
		return explain(err)
	}
	return nil
}

// leaveWord tells other commands where the network is and how they are let in.
func (u *up) leaveWord(n *network.Network) error {
	ca, err := filepath.Abs(n.CA()) // they may run elsewhere
	if err != nil {
		return err
	}
	token, err := n.Token()
	if err != nil {
		return err
	}
	return state.WriteUp(u.stateDir, state.Up{Coordinator: n.Addr(), Token: token, CA: ca, PID: os.Getpid()})
}

// explain names the flag that helps.
func explain(err error) error {
	if errors.Is(err, syscall.EADDRINUSE) {
		err = fmt.Errorf("%w; another network may be up; --grpc-addr 127.0.0.1:0 takes a free port", err)
	}
	return &cli.Error{Code: cli.ExitNetwork, Err: err}
}

// options is what the flags say. The coordinator listens on loopback alone: agents that measure private networks would be a
// way into them for whoever has a token.
func (u *up) options() (network.Options, error) {
	env, err := u.probe.Env()
	if err != nil {
		return network.Options{}, err
	}
	addr, err := netip.ParseAddrPort(u.grpcAddr)
	if err != nil || !addr.Addr().IsLoopback() {
		return network.Options{}, flags.Usagef("--grpc-addr %q: must be a loopback address such as 127.0.0.1:7700: its agents may measure this machine", u.grpcAddr)
	}
	env.Egress.Allow = append(env.Egress.Allow, homeRanges...)
	opts := network.Options{GRPCAddr: u.grpcAddr, HTTPAddr: u.httpAddr, Log: slog.New(slog.DiscardHandler)}
	if u.verbose {
		opts.Log = flags.Logger()
	}
	if u.public != "" {
		if opts.PublicResolvers, err = publicdns.ReadFile(u.public); err != nil {
			return opts, flags.Usagef("--public-resolvers: %w", err)
		}
	}
	for region := range strings.SplitSeq(u.regions, ",") {
		region = strings.TrimSpace(region)
		if !regionName.MatchString(region) {
			return opts, flags.Usagef("--regions: %q must be 1 to 61 of a-z, 0-9 and -", region)
		}
		opts.Agents = append(opts.Agents, network.Agent{ID: region + "-1", Vantage: &pb.Vantage{Region: region}})
	}
	if err := distinct(opts.Agents); err != nil {
		return opts, err
	}
	if env.Controls == nil {
		if err := u.serveControl(env); err != nil {
			return opts, err
		}
	}
	for i := range opts.Agents { // Each has a budget of its own, as agents at different places have.
		own := *env
		own.Budget = &probe.Budget{}
		opts.Agents[i].Env = &own
	}
	opts.Dir, err = u.dir()
	return opts, err
}

// distinct says whether each region is there once: two agents of one name would be one agent to the fleet.
func distinct(agents []network.Agent) error {
	seen := map[string]bool{}
	for _, a := range agents {
		if seen[a.ID] {
			return flags.Usagef("--regions: %s is there twice", a.Vantage.GetRegion())
		}
		seen[a.ID] = true
	}
	if len(agents) > maxRegions {
		return flags.Usagef("--regions: %d regions; at most %d", len(agents), maxRegions)
	}
	return nil
}

// serveControl serves a control on loopback: for targets on this machine the public ones say nothing.
func (u *up) serveControl(env *probe.Env) (err error) {
	if u.control, err = net.Listen("tcp", "127.0.0.1:0"); err != nil {
		return fmt.Errorf("a control on loopback: %w", err)
	}
	env.Controls = append(probe.PublicControls(), u.control.Addr().String())
	u.controlled.Go(func() {
		for {
			conn, err := u.control.Accept()
			if err != nil {
				return
			}
			go func() {
				_ = conn.SetDeadline(time.Now().Add(10 * time.Second))
				_, _ = io.Copy(io.Discard, conn) // until the other end closes
				_ = conn.Close()
			}()
		}
	})
	return nil
}

func (u *up) dir() (string, error) {
	if u.dataDir != "" {
		return u.dataDir, nil
	}
	u.temporary = true
	dir, err := os.MkdirTemp("", "elsewhere-up-")
	u.dataDir = dir
	return dir, err
}

func (u *up) cleanUp(err *error) {
	if u.control != nil {
		_ = u.control.Close()
		u.controlled.Wait()
	}
	if u.temporary {
		*err = errors.Join(*err, os.RemoveAll(u.dataDir))
	}
}

func (u *up) greet(addr string, opts network.Options) {
	var regions []string
	for _, a := range opts.Agents {
		regions = append(regions, a.Vantage.GetRegion())
	}
	fmt.Fprintf(u.errs, `up: %s, all on this machine, reachable on loopback only
The agents may measure this machine and private networks. In another terminal:
  elsewhere tcp localhost:22
  elsewhere agents
Ctrl-C ends it.
`, strings.Join(regions, ", "))
	fmt.Fprintln(u.out, addr)
}
