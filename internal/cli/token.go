package cli

import (
	"context"
	"net"
	"net/netip"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/elsewhere-net/elsewhere/internal/identity"
	pb "github.com/elsewhere-net/elsewhere/proto/elsewhere/v1"
)

// country is the form of a country, before it is made capitals.
var country = regexp.MustCompile(`^[A-Za-z]{2}$`)

// token is the token command.
func (s *settings) token() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "token",
		Short: "Make, list and revoke tokens, for agents and for clients",
		Long: `Make, list and revoke tokens. One kind lets an agent enrol, once; the other lets a client call.
All of it needs a token with the scope admin, such as the one in admin.token, which the coordinator's first
start leaves in its data directory.`,
		Example: `  elsewhere token create --region eu-west
  elsewhere token create --scope measure --name ci
  elsewhere token list
  elsewhere token revoke k3v7q2mz5a`,
		Args: unknownCommand,
		RunE: showHelp,
	}
	cmd.AddCommand(s.tokenCreate(), s.tokenList(), s.tokenRevoke())
	return cmd
}

// newToken is what the flags of token create say.
type newToken struct {
	region, id, country, city, provider string
	labels                              []string
	asn                                 uint32
	scope, name, ttl                    string
	burst, hourly, agents               int32
}

func (s *settings) tokenCreate() *cobra.Command {
	var n newToken
	cmd := &cobra.Command{
		Use:   "create --region REGION | --scope SCOPE --name WHO",
		Short: "Make a token",
		Long: `Make a token and print it, alone, on stdout. It is shown this once; the coordinator keeps no more than
its hash.

With --region it is for an agent: elsewhere-agent --join TOKEN makes a key of its own, and the token is used
up. The agent's region and labels are those of the token whatever the agent says, and so are --country,
--city, --asn and --provider where they are given. It is good for an hour unless --ttl says otherwise.

With --scope it is for a client: read (look), measure (ask and cancel too) or admin (all). It is good for
ever unless --ttl says otherwise. --burst, --hourly and --agents bound what it may ask.`,
		Example: `  elsewhere token create --region eu-west
  elsewhere token create --region eu-central --id fra-1 --label tier=edge --country DE --ttl 1d
  elsewhere token create --scope measure --name 'CI of the shop' --hourly 600 --agents 50
  elsewhere token create --scope read --name grafana -J`,
		Args: noWords,
		RunE: func(cmd *cobra.Command, _ []string) error { return s.createToken(cmd, n) },
	}
	f := cmd.Flags()
	f.SortFlags = false
	f.StringVar(&n.region, "region", "", "make a token for an agent of this `REGION`")
	f.StringVar(&n.id, "id", "", "the agent's `NAME` (default: the agent may say one that is not taken)")
	f.StringArrayVar(&n.labels, "label", nil, "a label of the agent, `KEY=VALUE`; may be repeated")
	f.StringVar(&n.country, "country", "", "the agent's `COUNTRY`, two letters")
	f.StringVar(&n.city, "city", "", "the agent's `CITY`")
	f.Uint32Var(&n.asn, "asn", 0, "the `NUMBER` of the agent's autonomous system")
	f.StringVar(&n.provider, "provider", "", "the `PROVIDER` that hosts the agent")
	f.StringVar(&n.scope, "scope", "", "make a token for a client that has this `SCOPE`: read, measure or admin")
	f.StringVar(&n.name, "name", "", "`WHO` the client is, in your words")
	f.StringVar(&n.ttl, "ttl", "", "how long it is good: a `TIME` such as 30m, 12h or 7d")
	f.Int32Var(&n.burst, "burst", 0, "`N` measurements may the client ask at once (default 100)")
	f.Int32Var(&n.hourly, "hourly", 0, "`N` measurements may the client ask in an hour (default 36000)")
	f.Int32Var(&n.agents, "agents", 0, "`N` agents may the client ask in one measurement (default 10000)")
	complete(cmd, "scope", "read", "measure", "admin")
	for _, flag := range []string{"region", "id", "label", "country", "city", "asn", "provider", "name", "ttl", "burst", "hourly", "agents"} {
		complete(cmd, flag)
	}
	return cmd
}

// For which of the two kinds of token a flag is.
var joinFlags, apiFlags = []string{"id", "label", "country", "city", "asn", "provider"}, []string{"name", "burst", "hourly", "agents"}

// createToken makes the token that the flags ask for.
func (s *settings) createToken(cmd *cobra.Command, n newToken) error {
	lifetime, err := n.lifetime()
	if err != nil {
		return err
	}
	changed := func(flags []string) string {
		for _, f := range flags {
			if cmd.Flags().Changed(f) {
				return f
			}
		}
		return ""
	}
	switch {
	case (n.region == "") == (n.scope == ""):
		return usagef("say what the token is for: --region REGION for an agent, or --scope read|measure|admin for a client")
	case n.scope == "":
		if f := changed(apiFlags); f != "" {
			return usagef("--%s is for a client's token, which --scope makes", f)
		}
		return s.createJoin(cmd.Context(), n, lifetime)
	}
	if f := changed(joinFlags); f != "" {
		return usagef("--%s is for an agent's token, which --region makes", f)
	}
	// The contract takes 0 for the default: who says 0 means none, and would get 36,000.
	for _, f := range []string{"burst", "hourly", "agents"} {
		if value, err := cmd.Flags().GetInt32(f); err == nil && cmd.Flags().Changed(f) && value < 1 {
			return usagef("--%s is %d; it is a number from 1 (who may not ask at all has the scope read)", f, value)
		}
	}
	return s.createAPI(cmd.Context(), n, lifetime)
}

// lifetime reads --ttl: a duration, or a number of days.
func (n newToken) lifetime() (*durationpb.Duration, error) {
	if n.ttl == "" {
		return nil, nil
	}
	d, err := time.ParseDuration(n.ttl)
	if days, found := strings.CutSuffix(n.ttl, "d"); found {
		var count uint64
		count, err = strconv.ParseUint(days, 10, 16)
		d = time.Duration(count) * 24 * time.Hour
	}
	if err != nil || d < time.Minute {
		return nil, usagef("--ttl is %q; it is a time from 1m, such as 30m, 12h or 7d", n.ttl)
	}
	return durationpb.New(d), nil
}

// createJoin makes a token for an agent.
func (s *settings) createJoin(ctx context.Context, n newToken, lifetime *durationpb.Duration) error {
	switch {
	case !identity.IsName(n.region):
		return usagef("--region %q: must be 1 to 63 of a-z, 0-9 and -", n.region)
	case n.id != "" && !identity.IsName(n.id):
		return usagef("--id %q: must be 1 to 63 of a-z, 0-9 and -", n.id)
	case lifetime.AsDuration() > 30*24*time.Hour:
		return usagef("--ttl is %q; a token for an agent is good for 30d at most", n.ttl)
	case n.country != "" && !country.MatchString(n.country):
		return usagef("--country is %q; it is two letters, such as DE", n.country)
	}
	vantage := &pb.Vantage{Region: n.region, Country: strings.ToUpper(n.country), City: n.city, Provider: n.provider, Asn: n.asn}
	for _, l := range n.labels {
		key, value, found := strings.Cut(l, "=")
		if !found || key == "" {
			return usagef("--label %q: must be KEY=VALUE", l)
		}
		if vantage.Labels == nil {
			vantage.Labels = map[string]string{}
		}
		vantage.Labels[key] = value
	}
	screen, err := s.listScreen()
	if err != nil {
		return err
	}
	e, err := s.endpoint()
	if err != nil {
		return err
	}
	return s.call(ctx, func(ctx context.Context, conn grpc.ClientConnInterface) error {
		resp, err := pb.NewAccessServiceClient(conn).CreateJoinToken(ctx, &pb.CreateJoinTokenRequest{
			Join: &pb.JoinToken{Agent: n.id, Vantage: vantage}, Lifetime: lifetime,
		})
		if err != nil {
			return err
		}
		return written(screen.JoinToken(resp, e.Address, onlyHere(e.Address)))
	})
}

// onlyHere tells whether an address means this machine alone.
func onlyHere(address string) bool {
	host, _, _ := net.SplitHostPort(address) // checkAddress has looked at it
	ip, err := netip.ParseAddr(host)
	return host == "localhost" || err == nil && ip.IsLoopback()
}

// createAPI makes a token for a client.
func (s *settings) createAPI(ctx context.Context, n newToken, lifetime *durationpb.Duration) error {
	scope, known := pb.Scope_value["SCOPE_"+strings.ToUpper(n.scope)]
	if !known || scope == 0 {
		return usagef("--scope is %q; it is read, measure or admin", n.scope)
	}
	if n.name == "" {
		return usagef("--name is required: say whose token it is, so that you know later which one to revoke")
	}
	screen, err := s.listScreen()
	if err != nil {
		return err
	}
	api := &pb.APIToken{Name: n.name, Scope: pb.Scope(scope)}
	if n.burst != 0 || n.hourly != 0 || n.agents != 0 {
		api.Quota = &pb.Quota{Burst: n.burst, Hourly: n.hourly, Agents: n.agents}
	}
	return s.call(ctx, func(ctx context.Context, conn grpc.ClientConnInterface) error {
		resp, err := pb.NewAccessServiceClient(conn).CreateAPIToken(ctx, &pb.CreateAPITokenRequest{Api: api, Lifetime: lifetime})
		if err != nil {
			return err
		}
		return written(screen.APIToken(resp))
	})
}

func (s *settings) tokenList() *cobra.Command {
	return &cobra.Command{
		Use:   "list",
		Short: "List the tokens, the newest first",
		Long: `List the tokens, the newest first, without their secrets, which nobody has any more. Those that ended
more than a day ago are gone. --format json prints {"tokens": [...]}.`,
		Example: "  elsewhere token list\n  elsewhere token list --format csv",
		Args:    noWords,
		RunE: func(cmd *cobra.Command, _ []string) error {
			screen, err := s.listScreen()
			if err != nil {
				return err
			}
			return s.call(cmd.Context(), func(ctx context.Context, conn grpc.ClientConnInterface) error {
				resp, err := pb.NewAccessServiceClient(conn).ListTokens(ctx, &pb.ListTokensRequest{})
				if err != nil {
					return err
				}
				return written(screen.Tokens(resp, time.Now()))
			})
		},
	}
}

func (s *settings) tokenRevoke() *cobra.Command {
	return &cobra.Command{
		Use:   "revoke ID",
		Short: "End a token",
		Long: `End a token, by the id that 'elsewhere token list' shows: the part of the token after the first "_". What
a client has under way with it ends within 5 s. An agent that has enrolled with it stays: 'elsewhere agents
revoke' is for those.`,
		Example: "  elsewhere token revoke k3v7q2mz5a",
		RunE: func(cmd *cobra.Command, args []string) error {
			id, err := oneWord(cmd, args, "token")
			if err != nil {
				return err
			}
			if strings.Contains(id, "_") {
				return usagef("give the token's id alone, the part after its first \"_\": a whole token on a command line is a secret that others see")
			}
			screen, err := s.listScreen()
			if err != nil {
				return err
			}
			return s.call(cmd.Context(), func(ctx context.Context, conn grpc.ClientConnInterface) error {
				resp, err := pb.NewAccessServiceClient(conn).RevokeToken(ctx, &pb.RevokeTokenRequest{Id: id})
				if err != nil {
					return err
				}
				return written(screen.RevokedToken(resp, time.Now()))
			})
		},
	}
}

// oneWord is the only word of a command that takes one.
func oneWord(cmd *cobra.Command, args []string, what string) (string, error) {
	switch len(args) {
	case 0:
		return "", usagef("which %s? '%s --help' says how it is named", what, cmd.CommandPath())
	case 1:
		return args[0], nil
	}
	return "", usagef("unexpected word %q; one %s at a time", args[1], what)
}
