package probe

import (
	"crypto/x509"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"

	pb "github.com/elsewhere-net/elsewhere/proto/elsewhere/v1"
)

// matchName compares a certificate with a domain name or an address by two matchers: the strict one of
// RFC 9525, to which subjectAltName alone counts, and the old one of RFC 6125, 6.4.4, which falls back on
// the common name of a certificate without any dNSName.
func matchName(c *x509.Certificate, name string) *pb.NameMatch {
	out := &pb.NameMatch{Name: clean(name, maxNameBytes)}
	if ip, err := netip.ParseAddr(name); err == nil {
		out.San = slices.ContainsFunc(c.IPAddresses, func(b net.IP) bool {
			listed, ok := netip.AddrFromSlice(b)
			return ok && listed.Unmap() == ip.Unmap()
		})
		return out
	}
	host := canonical(name)
	out.San = slices.ContainsFunc(c.DNSNames, func(san string) bool { return matchDomain(san, host) })
	out.CommonName = len(c.DNSNames) == 0 && matchDomain(c.Subject.CommonName, host)
	return out
}

// matchDomain compares a presented name with a canonical one. A wildcard is the whole left-most label and
// stands for one label (RFC 9525, 6.3); alone it stands for nothing.
// Both are compared as A-labels in lower case, without the final dot, which is no part of the name (RFC 9525, 6.3;
// RFC 6125, 6.4.2).
func matchDomain(presented, host string) bool {
	presented = canonical(presented)
	if presented == "" || host == "" {
		return false
	}
	rest, wild := strings.CutPrefix(presented, "*.")
	if !wild {
		return presented == host
	}
	label, parent, _ := strings.Cut(host, ".")
	return label != "" && parent != "" && canonical(rest) == parent
}

// compareNames compares the leaf with all names that were asked for. The first one decides.
func (j *judgement) compareNames() {
	for _, name := range append([]string{j.name}, j.names...) {
		j.matches = append(j.matches, matchName(j.leaf.Certificate, name))
	}
	first := j.matches[0]
	if first.GetSan() {
		j.compareFirst()
		return
	}
	j.blame(j.leaf, pb.Failure_FAILURE_CERT_NAME_MISMATCH)
	if first.GetCommonName() {
		j.say("the common name matches %s, and there is no subjectAltName, which alone counts for most clients", j.name)
		return
	}
	j.say("the certificate is for %s and not for %s", presented(j.leaf.Certificate), j.name)
}

// compareFirst compares what clients compare, the first certificate, where the leaf was served behind it.
func (j *judgement) compareFirst() {
	served := j.served[0]
	if served == j.leaf || matchName(served.Certificate, j.name).GetSan() {
		return
	}
	j.blame(served, pb.Failure_FAILURE_CERT_NAME_MISMATCH)
	j.say("clients compare the first certificate, %q, which is not for %s", served.Subject, j.name)
}

// presented lists a certificate's names for people.
func presented(c *x509.Certificate) string {
	const most = 5
	names := slices.Clone(c.DNSNames[:min(len(c.DNSNames), most)])
	for _, ip := range c.IPAddresses[:min(len(c.IPAddresses), most-len(names))] {
		names = append(names, ip.String())
	}
	more := len(c.DNSNames) + len(c.IPAddresses) - len(names)
	switch {
	case len(names) == 0 && c.Subject.CommonName != "":
		return fmt.Sprintf("no name in subjectAltName (common name %q)", c.Subject.CommonName)
	case len(names) == 0:
		return "no name"
	case more > 0:
		return fmt.Sprintf("%s and %d more", strings.Join(names, ", "), more)
	}
	return strings.Join(names, ", ")
}
