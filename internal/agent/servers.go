package agent

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"

	"golang.org/x/time/rate"
)

const (
	// maxServers bounds the names, and the addresses of each and of all, of NATS that a coordinator may name.
	maxServers = 8
	// strangersBurst and strangersPerSecond bound the connects to servers that stand where no coordinator does.
	strangersBurst, strangersPerSecond = 8, 0.5
)

// errTooOften is why a server is not connected to.
var errTooOften = errors.New("the agent was told to connect elsewhere too often")

// servers are the addresses of the servers of NATS that a coordinator named, "IP:PORT". Their names are looked up here,
// all within the time that a registration has: the client library would wait for each of them, however many there are.
func servers(ctx context.Context, coordinator string, named []string) (addresses []string, err error) {
	own, _, err := net.SplitHostPort(coordinator)
	if err != nil {
		return nil, err
	}
	for _, n := range named[:min(len(named), maxServers)] {
		host, port, err := net.SplitHostPort(n)
		if err != nil {
			return nil, fmt.Errorf("NATS address: %w", err)
		}
		ips, err := net.DefaultResolver.LookupHost(ctx, cmp.Or(host, own))
		if err != nil {
			return nil, fmt.Errorf("NATS address: %w", err)
		}
		for _, ip := range ips[:min(len(ips), maxServers)] {
			addresses = append(addresses, net.JoinHostPort(ip, port))
		}
	}
	slices.Sort(addresses) // a name's come in any order, and the same ones are the same connection
	return addresses[:min(len(addresses), maxServers)], nil
}

// may returns what says why the agent must not connect to an address that a coordinator called NATS. The hosts of the
// coordinators that the operator named are as good as these. Any other address is one that a job could name: the
// operator's policy must admit it, and connects to it are few. Otherwise a coordinator could have all agents knock where
// they are not allowed to measure, or more often.
func (a *Agent) may(ctx context.Context) func(netip.AddrPort) error {
	var own []netip.Addr
	for _, hp := range a.opts.Coordinators {
		if host, _, err := net.SplitHostPort(hp); err == nil {
			ips, _ := net.DefaultResolver.LookupNetIP(ctx, "ip", host) // a name that is gone leads nowhere
			for _, ip := range ips {
				own = append(own, ip.Unmap())
			}
		}
	}
	return func(addr netip.AddrPort) error {
		if slices.Contains(own, addr.Addr()) {
			return nil
		}
		if err := a.opts.Env.Admits(addr); err != nil {
			return fmt.Errorf("%w, and no coordinator is there: name it with --coordinator if one should be", err)
		}
		if !a.strangers.Allow() {
			return errTooOften
		}
		return nil
	}
}

// newStrangers is what there is for servers that stand where no coordinator does.
func newStrangers() *rate.Limiter { return rate.NewLimiter(strangersPerSecond, strangersBurst) }
