package probe

import (
	"errors"
	"fmt"
	"net/netip"
	"strings"

	"github.com/miekg/dns"

	pb "github.com/elsewhere-net/elsewhere/proto/elsewhere/v1"
)

// wellFormed says what is wrong with a spec. The coordinator has validated it; a job that is wrong
// all the same must not break the agent, nor make it say or do what no user could have asked for.
func wellFormed(spec *pb.Spec) error {
	if err := keepsContract(spec); err != nil {
		return err
	}
	switch c := spec.GetCheck().(type) {
	case *pb.Spec_Dns:
		return wellFormedDNS(c.Dns)
	case *pb.Spec_Tcp:
		return wellFormedHost(c.Tcp.GetHost(), c.Tcp.GetPort(), spec.GetFamily())
	case *pb.Spec_Tls:
		return wellFormedTLS(c.Tls, spec.GetFamily())
	case *pb.Spec_Http:
		return wellFormedHTTP(c.Http, spec.GetFamily())
	case *pb.Spec_Origin:
		return wellFormedOrigin(c.Origin, spec.GetFamily())
	}
	return fmt.Errorf("the job's check %T is not known to this agent", spec.GetCheck())
}

// wellFormedDNS says what is wrong with a lookup.
func wellFormedDNS(spec *pb.DNSSpec) error {
	if _, _, err := question(spec); err != nil {
		return err
	}
	if r := spec.GetResolver(); r != "" {
		if _, _, err := resolverHost(r, spec.GetTransport()); err != nil {
			return invalid("dns.resolver", err)
		}
	}
	for i, r := range spec.GetPublicResolvers() {
		if _, err := resolverAddr(r, spec.GetTransport()); err != nil {
			return invalid(fmt.Sprintf("dns.public_resolvers[%d]", i), err)
		}
	}
	if n := spec.GetTlsHostname(); n != "" {
		if err := wellFormedHost(n, 1, pb.Family_FAMILY_UNSPECIFIED); err != nil {
			return invalid("dns.tls_hostname", err)
		}
	}
	if p := spec.GetHttpsPath(); p != "" && (p[0] != '/' || len(p) > 255 || strings.ContainsFunc(p, unprintable) || strings.ContainsAny(p, "?#")) {
		return invalid("dns.https_path", fmt.Errorf("%q is no path", p))
	}
	if p := spec.GetClientSubnet(); p != "" {
		if _, err := netip.ParsePrefix(p); err != nil {
			return invalid("dns.client_subnet", err)
		}
	}
	return nil
}

// unprintable says whether a character is none of the visible ones of ASCII.
func unprintable(r rune) bool { return r <= ' ' || r > '~' }

// wellFormedTLS says what is wrong with a handshake.
func wellFormedTLS(spec *pb.TLSSpec, family pb.Family) error {
	names := spec.GetNames()
	if n := spec.GetServerName(); n != "" {
		names = append(names[:len(names):len(names)], n)
	}
	for _, n := range names {
		if err := wellFormedHost(n, 1, pb.Family_FAMILY_UNSPECIFIED); err != nil {
			return err
		}
	}
	if p := spec.GetProfile(); p != nil {
		if err := wholeProfile("tls.profile", p); err != nil {
			return err
		}
	}
	return wellFormedHost(spec.GetHost(), max(spec.GetPort(), 1), family)
}

// control says whether a character ends a word, a line or a text. Labels of DNS may hold any octet (RFC 2181, 11),
// but names are written into more than queries; one that needs such an octet has \032 and the like (RFC 1035, 5.1).
func control(r rune) bool { return r <= ' ' || r == 0x7f }

// wellFormedHost says what is wrong with a host and a port.
func wellFormedHost(host string, port uint32, family pb.Family) error {
	if port == 0 || port > 65535 {
		return fmt.Errorf("port %d is not in 1 to 65535", port)
	}
	ip, err := netip.ParseAddr(host)
	if err != nil {
		if _, ok := dns.IsDomainName(host); !ok || host == "" || strings.ContainsAny(host, "%:/") || strings.ContainsFunc(host, control) {
			return fmt.Errorf("%q is neither an address nor a domain name", host)
		}
		return nil
	}
	if ip.Zone() != "" {
		return errors.New("an address must not have a zone")
	}
	if !inFamily(ip, family) {
		return fmt.Errorf("%s is not an address of the family asked for", ip)
	}
	return nil
}
