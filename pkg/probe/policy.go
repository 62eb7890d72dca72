package probe

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"github.com/miekg/dns"

	pb "github.com/elsewhere-net/elsewhere/proto/elsewhere/v1"
)

// Policy is what an agent's operator lets be measured, whatever a coordinator asks. It is not changed once it is in
// use: another one takes its place. Its zero value is Egress's, without any limit of a Budget.
type Policy struct {
	// Egress says where sockets may go.
	Egress Egress
	// Checks are the checks that are made: dns, tcp, tls, http, origin. Empty: all.
	Checks []string
	// DenyTypes are types of DNS records that no job may ask for.
	DenyTypes []uint16
	// OwnServers lets no DNS servers be asked but the agent's own resolvers, and those root servers that the operator
	// named.
	OwnServers bool
	// Budget bounds how often targets are looked at. Nil: they are not bounded.
	Budget *Budget
	// Stopped says why nothing is measured. Default: it is.
	Stopped string
}

// policy is the operator's policy of this moment.
func (e *Env) policy() Policy {
	if e.Policy != nil {
		return *e.Policy()
	}
	return Policy{Egress: e.Egress, Budget: e.Budget}
}

// Admits returns nil if the operator lets sockets be opened to an address, or why not.
func (e *Env) Admits(addr netip.AddrPort) error { return e.policy().Egress.CheckPort(addr) }

// refuses says what of a job is not allowed, as far as it shows before anything is resolved.
func (p *Policy) refuses(spec *pb.Spec) error {
	if p.Stopped != "" {
		return errors.New(p.Stopped)
	}
	if check := nameOf(spec); len(p.Checks) > 0 && !slices.Contains(p.Checks, check) {
		return fmt.Errorf("the agent's policy does not allow %s checks", check)
	}
	if d := spec.GetDns(); d != nil {
		if _, qtype, err := question(d); err == nil && slices.Contains(p.DenyTypes, qtype) {
			return fmt.Errorf("the agent's policy does not allow questions for %s", dns.Type(qtype))
		}
		return nil
	}
	_, port := target(spec)
	return p.Egress.Ports.check(port)
}

// CheckNames are the names of all checks, as Policy.Checks has them.
func CheckNames() []string { return []string{"dns", "tcp", "tls", "http", "origin"} }

// nameOf is the name of a spec's check.
func nameOf(spec *pb.Spec) string {
	switch spec.GetCheck().(type) {
	case *pb.Spec_Dns:
		return "dns"
	case *pb.Spec_Tcp:
		return "tcp"
	case *pb.Spec_Tls:
		return "tls"
	case *pb.Spec_Http:
		return "http"
	case *pb.Spec_Origin:
		return "origin"
	}
	return "unknown"
}

// RecordType is the type of DNS records of a name, such as ANY or TYPE65.
func RecordType(name string) (uint16, error) {
	_, t, err := question(&pb.DNSSpec{Name: "example", Type: name})
	return t, err
}

// ParsePrefix reads a range of addresses; an address is a range of one.
func ParsePrefix(text string) (netip.Prefix, error) {
	if ip, err := netip.ParseAddr(text); err == nil {
		return ip.Prefix(ip.BitLen())
	}
	prefix, err := netip.ParsePrefix(text)
	return prefix.Masked(), err
}

// Ports says which ports of targets may be connected to. Its zero value allows all. Deny beats Allow.
type Ports struct {
	// Allow are the only ones that may be. Empty: all.
	Allow []PortRange
	// Deny are those that may not.
	Deny []PortRange
}

// check returns nil if a port may be connected to, or why not.
func (p Ports) check(port uint16) error {
	if inRanges(p.Deny, port) || len(p.Allow) > 0 && !inRanges(p.Allow, port) {
		return fmt.Errorf("the agent's policy does not allow port %d", port)
	}
	return nil
}

// names says whether a port is allowed by itself: a range that holds it does not mean it.
func (p Ports) names(port uint16) bool { return slices.Contains(p.Allow, PortRange{port, port}) }

// PortRange is First to Last, both included.
type PortRange struct{ First, Last uint16 }

func inRanges(ranges []PortRange, port uint16) bool {
	return slices.ContainsFunc(ranges, func(r PortRange) bool { return r.First <= port && port <= r.Last })
}

// ParsePortRange reads a port, or two with a hyphen between them.
func ParsePortRange(text string) (PortRange, error) {
	low, high, two := strings.Cut(text, "-")
	if !two {
		high = low
	}
	first, err := strconv.ParseUint(low, 10, 16)
	last, errLast := strconv.ParseUint(high, 10, 16)
	if err != nil || errLast != nil || first == 0 || last < first {
		return PortRange{}, fmt.Errorf("%q is no port of 1 to 65535 and no range of them, such as 8000-8999", text)
	}
	return PortRange{uint16(first), uint16(last)}, nil
}
