package main

import (
	"net"
	"strconv"

	"github.com/spf13/pflag"

	"github.com/elsewhere-net/elsewhere/internal/cluster"
	"github.com/elsewhere-net/elsewhere/internal/coordinator"
	"github.com/elsewhere-net/elsewhere/internal/flags"
	"github.com/elsewhere-net/elsewhere/internal/identity"
)

// gossip is what makes a coordinator one of several.
type gossip struct {
	coordinator.Others
	key string
}

func (g *gossip) flags(set *pflag.FlagSet) {
	set.StringVar(&g.GossipAddr, "gossip-addr", "", "`address` where the coordinators find each other, by which this is one of three (default: it is alone)")
	set.StringSliceVar(&g.Join, "gossip-join", nil, "`addresses` where others do; one that is there is enough")
	set.StringVar(&g.key, "gossip-key", "", "`file` of the keys that they share, one a line: 32 bytes in base64; the first encrypts; it is read again when it changes (required without --insecure)")
	set.StringVar(&g.RouteAddr, "route-addr", "", "`address` where the others' NATS connects (default: a free port of the gossip's host, for good)")
	set.StringVar(&g.Name, "id", "", "`name` of this one of several, for good, [a-z0-9-]{1,63} (default: the data directory's, or one that is made)")
}

// read checks the flags and reads the keys.
func (g *gossip) read(set *pflag.FlagSet, opts *coordinator.Options) (err error) {
	if g.GossipAddr == "" {
		for _, name := range []string{"gossip-join", "gossip-key", "route-addr", "id"} {
			if f := set.Lookup(name); f != nil && f.Changed {
				return flags.Usagef("--%s is for one of several coordinators: give it --gossip-addr too", name)
			}
		}
		return nil
	}
	for flag, addrs := range map[string][]string{"--gossip-addr": {g.GossipAddr}, "--gossip-join": g.Join, "--route-addr": optional(g.RouteAddr)} {
		for _, addr := range addrs {
			_, port, err := net.SplitHostPort(addr)
			if _, bad := strconv.ParseUint(port, 10, 16); err != nil || bad != nil {
				return flags.Usagef("%s %q: must be HOST:PORT, such as 10.0.0.1:7703", flag, addr)
			}
		}
	}
	switch {
	case g.Name != "" && !identity.IsName(g.Name):
		return flags.Usagef("--id %q: must be 1 to 63 of a-z, 0-9 and -", g.Name)
	case g.key == "" && !opts.Insecure:
		return flags.Usagef("--gossip-key is required: a file that the coordinators share; make it with: head -c 32 /dev/urandom | base64 > gossip.key")
	case g.key != "":
		if g.Keys, err = cluster.OpenKeys(g.key); err != nil {
			return flags.Usagef("--gossip-key: %w", err)
		}
	}
	opts.Others = &g.Others
	return nil
}

func optional(s string) []string {
	if s == "" {
		return nil
	}
	return []string{s}
}
