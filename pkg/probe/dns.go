package probe

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"sync"

	"github.com/miekg/dns"

	pb "github.com/elsewhere-net/elsewhere/proto/elsewhere/v1"
)

// question returns the name and type that a spec asks for.
func question(spec *pb.DNSSpec) (string, uint16, error) {
	name := canonical(spec.GetName())
	if _, ok := dns.IsDomainName(name); !ok || name == "" || strings.ContainsFunc(name, control) {
		return "", 0, fmt.Errorf("%q is not a domain name", spec.GetName())
	}
	mnemonic := spec.GetType()
	if mnemonic == "" {
		mnemonic = "A"
	}
	t, ok := dns.StringToType[mnemonic]
	if number, generic := strings.CutPrefix(mnemonic, "TYPE"); generic { // RFC 3597, 5.
		n, err := strconv.ParseUint(number, 10, 16)
		t, ok = uint16(n), err == nil
	}
	// Types 128 to 254 are for the protocol itself (RFC 6895, 3.1): transfers, signatures of messages.
	if !ok || t == 0 || t == dns.TypeOPT || t >= 128 && t < dns.TypeANY {
		return "", 0, fmt.Errorf("%q is not a record type that can be asked for", mnemonic)
	}
	return name, t, nil
}

// noResolver records that there is nobody to ask.
func (t *trace) noResolver(name string) {
	s := t.open(&pb.Step{Kind: pb.StepKind_STEP_KIND_DNS_QUERY, Role: pb.Role_ROLE_TARGET, Name: name})
	s.say(errors.New("the agent has no resolver to ask"))
	s.end(pb.Failure_FAILURE_AGENT_CAPABILITY_MISSING)
}

// resolution is a host's addresses as they become known, from both families' queries.
type resolution struct {
	ctx   context.Context
	host  string
	reach func(netip.Addr)
	found chan struct{} // Closed when there is an address.

	mu   sync.Mutex
	seen []netip.Addr // Those that are probed, in the order in which they came.
}

// resolve finds the addresses of a host and spawns reach for each of them as soon as it is known, so
// that a slow answer for one family does not delay the other.
func (t *trace) resolve(ctx context.Context, host string, reach func(netip.Addr)) {
	if ip, ok := literalAddr(host, t.job.GetSpec().GetFamily()); ok {
		reach(ip)
		return
	}
	r := &resolution{ctx: ctx, host: canonical(host), reach: reach, found: make(chan struct{})}
	if len(t.resolvers) == 0 {
		t.noResolver(r.host)
		return
	}
	qtypes := addressTypes(t.job.GetSpec().GetFamily())
	var asking sync.WaitGroup
	for _, qtype := range qtypes {
		asking.Add(1)
		t.spawn(func() {
			defer asking.Done()
			t.resolveType(r, qtype)
		})
	}
	t.authority(ctx, &asking, r.host, qtypes...)
}

// addressTypes returns the types of the addresses of a family.
func addressTypes(family pb.Family) []uint16 {
	switch family {
	case pb.Family_FAMILY_IPV4:
		return []uint16{dns.TypeA}
	case pb.Family_FAMILY_IPV6:
		return []uint16{dns.TypeAAAA}
	case pb.Family_FAMILY_UNSPECIFIED:
	}
	return []uint16{dns.TypeA, dns.TypeAAAA}
}

// literalAddr is the address of a host that needs no resolver: an address, or a name of this machine, which
// is never asked of one (RFC 6761, 6.3).
func literalAddr(host string, family pb.Family) (netip.Addr, bool) {
	if ip, err := netip.ParseAddr(host); err == nil {
		return ip.Unmap(), true
	}
	name := canonical(host)
	if name != "localhost" && !strings.HasSuffix(name, ".localhost") {
		return netip.Addr{}, false
	}
	if family == pb.Family_FAMILY_IPV6 {
		return netip.IPv6Loopback(), true
	}
	return netip.AddrFrom4([4]byte{127, 0, 0, 1}), true
}

// resolveType asks one resolver after the other until one of them knows.
func (t *trace) resolveType(r *resolution, qtype uint16) {
	for _, server := range t.resolvers {
		answer := t.inquire(r.ctx, query{
			server: server, name: r.host, qtype: qtype, role: pb.Role_ROLE_TARGET, enough: r.found,
		})
		// What an earlier resolver answered is not asked again, but a failure may be that resolver's own:
		// each failed query stays in the result as a step of its own.
		left := t.reachAll(r, answer.addresses)
		if left > 0 {
			answer.step.say(fmt.Errorf("%d more addresses were not probed", left))
		}
		if known(answer.failure) || over(r.ctx) {
			return
		}
	}
}

// known says whether an answer leaves nothing to ask another resolver.
func known(f pb.Failure) bool {
	switch f {
	case pb.Failure_FAILURE_NONE, pb.Failure_FAILURE_DNS_NXDOMAIN, pb.Failure_FAILURE_DNS_NODATA, pb.Failure_FAILURE_DNS_BOGON,
		pb.Failure_FAILURE_DNS_CNAME_LOOP, pb.Failure_FAILURE_DNS_CNAME_BROKEN:
		return true
	default:
		return false
	}
}

// reachAll goes on with the addresses that are new, and returns how many were one too many.
func (t *trace) reachAll(r *resolution, ips []netip.Addr) (left int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, ip := range ips {
		switch {
		case slices.Contains(r.seen, ip):
			continue
		case len(r.seen) == maxAddresses:
			left++
			continue
		case len(r.seen) == 0:
			close(r.found)
		}
		r.seen = append(r.seen, ip)
		t.spawn(func() { r.reach(ip) })
	}
	return left
}
