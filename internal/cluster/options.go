package cluster

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"time"
)

const (
	// maxJoin bounds how many others can be named.
	maxJoin = 64
	// resolving is how long a name may take.
	resolving = 5 * time.Second
)

// check says what is wrong with the options, without looking at the world.
func (o Options) check() error {
	if !names.MatchString(o.Name) {
		return fmt.Errorf("gossip: %q is no name of a coordinator: give it 1 to 63 of a-z, 0-9 and -", o.Name)
	}
	if len(o.Join) > maxJoin {
		return fmt.Errorf("gossip: %d others to join; name at most %d, a few are enough", len(o.Join), maxJoin)
	}
	for _, other := range o.Join {
		if host, port, err := hostPort(other); err != nil || host == "" || port == 0 {
			return fmt.Errorf("gossip: cannot join %q: it must be HOST:PORT", other)
		}
	}
	if len(o.Keys) > 0 {
		if err := checkKeys(o.Keys); err != nil {
			return err
		}
	}
	return checkMeta(o.Meta)
}

// addresses are where to listen, and what to tell others; port 0 of either is the port that is listened to.
type addresses struct{ listen, tell netip.AddrPort }

// advertised is what others are told when port is listened to.
func (a addresses) advertised(port uint16) netip.AddrPort {
	if a.tell.Port() != 0 {
		port = a.tell.Port()
	}
	return netip.AddrPortFrom(a.tell.Addr(), port)
}

// addresses reads, resolves or guesses them.
func (o Options) addresses() (a addresses, err error) {
	ctx, cancel := context.WithTimeout(context.Background(), resolving)
	defer cancel()
	host, port, err := hostPort(o.Addr)
	if err != nil {
		return a, fmt.Errorf("gossip: cannot listen at %q: it must be HOST:PORT", o.Addr)
	}
	addr := netip.IPv6Unspecified() // Without a host it is every address, of IPv4 too.
	if host != "" {
		if addr, err = resolve(ctx, host); err != nil {
			return a, fmt.Errorf("gossip: cannot listen at %q: %w", o.Addr, err)
		}
	}
	a.listen, a.tell = netip.AddrPortFrom(addr, port), netip.AddrPortFrom(addr, 0)
	switch {
	case o.Advertise != "":
		a.tell, err = advertise(ctx, o.Advertise)
	case addr.IsUnspecified():
		a.tell, err = guess(ctx, addr, o.Join)
	}
	return a, err
}

// advertise reads "HOST[:PORT]".
func advertise(ctx context.Context, text string) (netip.AddrPort, error) {
	host, port, err := hostPort(text)
	if err != nil {
		host, port = strings.TrimSuffix(strings.TrimPrefix(text, "["), "]"), 0
	}
	addr, err := resolve(ctx, host)
	if err == nil && addr.IsUnspecified() {
		err = errors.New("nobody can be reached there")
	}
	if err != nil {
		return netip.AddrPort{}, fmt.Errorf("gossip: cannot advertise %q: %w", text, err)
	}
	return netip.AddrPortFrom(addr, port), nil
}

// guess is the address of this machine that the others see if they see any: the one from which the first of them is
// reached, or else the internet. Nothing is sent: these networks are for documents, RFC 5737 and 3849. (memberlist's own
// guess runs a program, knows no IPv6, and finds nothing where there is no route to the internet.)
func guess(ctx context.Context, listen netip.Addr, join []string) (netip.AddrPort, error) {
	network := "udp"
	if listen.Is4() {
		network = "udp4"
	}
	for _, to := range append(join[:len(join):len(join)], "192.0.2.1:9", "[2001:db8::1]:9") {
		conn, err := new(net.Dialer).DialContext(ctx, network, to)
		if err != nil {
			continue
		}
		from := conn.LocalAddr().(*net.UDPAddr).AddrPort().Addr().Unmap()
		_ = conn.Close()
		if !from.IsLoopback() && !from.IsLinkLocalUnicast() {
			return netip.AddrPortFrom(from, 0), nil
		}
	}
	return netip.AddrPort{}, fmt.Errorf("gossip listens at every address (%s): say which of them to advertise", listen)
}

// hostPort splits "HOST:PORT"; the host may be empty.
func hostPort(text string) (string, uint16, error) {
	host, digits, err := net.SplitHostPort(text)
	if err != nil {
		return "", 0, err
	}
	port, err := strconv.ParseUint(digits, 10, 16)
	return host, uint16(port), err
}

// resolve is the address of a host, the first if it has several.
func resolve(ctx context.Context, host string) (netip.Addr, error) {
	addrs, err := resolveAll(ctx, host)
	if err != nil {
		return netip.Addr{}, err
	}
	return addrs[0], nil
}

// resolveAll are the addresses of a host: one at least.
func resolveAll(ctx context.Context, host string) ([]netip.Addr, error) {
	addrs, err := net.DefaultResolver.LookupNetIP(ctx, "ip", host)
	if err != nil {
		return nil, err
	}
	for i, addr := range addrs {
		addrs[i] = addr.Unmap()
	}
	addrs = slices.DeleteFunc(addrs, func(addr netip.Addr) bool { return addr.Is6() && addr.IsLinkLocalUnicast() })
	if len(addrs) == 0 {
		return nil, fmt.Errorf("%s has no address that means the same on all machines", host)
	}
	return addrs, nil
}

// delegate is memberlist.Delegate: what is told of this coordinator. The rest of it is unused.
type delegate struct{ meta atomic.Pointer[[]byte] }

// NodeMeta is what others are told.
func (d *delegate) NodeMeta(int) []byte { return *d.meta.Load() }

// NotifyMsg ignores messages: no coordinator sends any.
func (*delegate) NotifyMsg([]byte) {}

// GetBroadcasts has nothing to send.
func (*delegate) GetBroadcasts(int, int) [][]byte { return nil }

// LocalState has nothing to compare.
func (*delegate) LocalState(bool) []byte { return nil }

// MergeRemoteState ignores what others compare.
func (*delegate) MergeRemoteState([]byte, bool) {}
