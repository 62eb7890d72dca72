package probe

import (
	"bytes"
	"crypto/x509"
	"fmt"
	"net"
	"slices"
	"strings"
	"time"

	pb "github.com/elsewhere-net/elsewhere/proto/elsewhere/v1"
)

// maxComparisons bounds how many of a leaf's names are compared with how many name constraints.
const maxComparisons = 20_000

// flaw is a reason not to trust a path that leads to a known root.
type flaw struct {
	link     *link // The certificate that has it. Nil: the root.
	distrust pb.Distrust
	words    string
}

// findFlaws returns all that is wrong with a path for a server, validity and strength of all but the root aside.
func (p *path) findFlaws(now time.Time) {
	add := func(l *link, d pb.Distrust, words string, args ...any) {
		p.flaws = append(p.flaws, flaw{l, d, fmt.Sprintf(words, args...)})
	}
	for i, l := range p.links {
		if i > 0 {
			if why := noAuthority(l.Certificate, p.links[1:i]); why != "" {
				add(l, pb.Distrust_DISTRUST_NOT_AN_AUTHORITY, "%q %s", l.Subject, why)
			}
		}
		if !forServers(l.Certificate) {
			add(l, pb.Distrust_DISTRUST_USAGE, "%q may be used for %s and not for servers", l.Subject, strings.Join(usages(l.Certificate), ", "))
		}
		if len(l.UnhandledCriticalExtensions) > 0 {
			add(l, pb.Distrust_DISTRUST_CRITICAL_EXTENSION, "%q has the critical extension %s, which is not known", l.Subject, l.UnhandledCriticalExtensions[0])
		}
	}
	for _, l := range p.links[1:] {
		if why := constrained(l.Certificate, p.links[0].Certificate); why != "" {
			add(l, pb.Distrust_DISTRUST_NAME_CONSTRAINTS, "%q %s", l.Subject, why)
		}
	}
	p.flawedRoot(now, add)
}

// flawedRoot looks at the root. That it is in the store says that it is an authority.
func (p *path) flawedRoot(now time.Time, add func(*link, pb.Distrust, string, ...any)) {
	if bytes.Equal(p.links[0].Raw, p.root.Raw) {
		return // The leaf itself is trusted; its validity is judged as a leaf's.
	}
	if why := constrained(p.root.Certificate, p.links[0].Certificate); why != "" {
		add(nil, pb.Distrust_DISTRUST_NAME_CONSTRAINTS, "the root %q %s", p.root.Subject, why)
	}
	if outside(p.root.Certificate, now) {
		add(nil, pb.Distrust_DISTRUST_UNKNOWN_ROOT, "the root %q is in the store and valid from %s to %s only",
			p.root.Subject, p.root.NotBefore.Format(time.DateOnly), p.root.NotAfter.Format(time.DateOnly))
	}
	if p.root.constraint == nil {
		return
	}
	var chain []*x509.Certificate
	for _, l := range p.links {
		chain = append(chain, l.Certificate)
	}
	if err := p.root.constraint(chain); err != nil {
		add(nil, pb.Distrust_DISTRUST_ISSUED_AFTER, "the root %q is trusted for older certificates only: %v", p.root.Subject, err)
	}
}

// outside says whether now is outside of a certificate's validity.
func outside(c *x509.Certificate, now time.Time) bool {
	return now.Before(c.NotBefore) || expired(c, now)
}

// expired says whether a certificate's validity is over. One that could not be parsed may have none.
func expired(c *x509.Certificate, now time.Time) bool {
	return !c.NotAfter.IsZero() && now.After(c.NotAfter)
}

// noAuthority says why a certificate may not issue the ones below it, given without the leaf
// (RFC 5280, 4.2.1.3, 4.2.1.9 and 6.1.4), or "".
// A certificate of version 1 has no extension to say so, and is left to the stores that took it (6.1.4, k).
func noAuthority(c *x509.Certificate, below []*link) string {
	switch {
	case c.Version == 3 && (!c.BasicConstraintsValid || !c.IsCA):
		return "is no authority"
	case c.KeyUsage != 0 && c.KeyUsage&x509.KeyUsageCertSign == 0:
		return "may not sign certificates (key usage)"
	}
	limited := c.MaxPathLen > 0 || c.MaxPathLen == 0 && c.MaxPathLenZero
	n := 0
	for _, l := range below {
		if !selfIssued(l.Certificate) { // They do not count.
			n++
		}
	}
	if limited && n > c.MaxPathLen {
		return fmt.Sprintf("allows %d authorities below it, and there are %d (path length)", c.MaxPathLen, n)
	}
	return ""
}

// forServers says whether a certificate may be used for servers (RFC 5280, 4.2.1.12). In an authority
// it limits what is below.
func forServers(c *x509.Certificate) bool {
	return len(c.ExtKeyUsage)+len(c.UnknownExtKeyUsage) == 0 ||
		slices.Contains(c.ExtKeyUsage, x509.ExtKeyUsageServerAuth) || slices.Contains(c.ExtKeyUsage, x509.ExtKeyUsageAny)
}

// constrained says which of a leaf's names an authority's name constraints exclude (RFC 5280,
// 4.2.1.10), or "". A server has domain names and addresses; other kinds of names are not looked at.
func constrained(authority, leaf *x509.Certificate) string {
	domains := len(authority.PermittedDNSDomains) + len(authority.ExcludedDNSDomains)
	ranges := len(authority.PermittedIPRanges) + len(authority.ExcludedIPRanges)
	if len(leaf.DNSNames)*domains+len(leaf.IPAddresses)*ranges > maxComparisons {
		return fmt.Sprintf("has %d name constraints for %d names, more than are looked at", domains+ranges, len(leaf.DNSNames)+len(leaf.IPAddresses))
	}
	for _, name := range leaf.DNSNames {
		within := func(c string) bool { return withinDomain(name, c) }
		if slices.ContainsFunc(authority.ExcludedDNSDomains, func(c string) bool { return within(c) || standsFor(name, c) }) {
			return fmt.Sprintf("excludes the name %q", name)
		}
		if len(authority.PermittedDNSDomains) > 0 && !slices.ContainsFunc(authority.PermittedDNSDomains, within) {
			return fmt.Sprintf("permits the names below %s, and not %q", strings.Join(authority.PermittedDNSDomains, ", "), name)
		}
	}
	for _, ip := range leaf.IPAddresses {
		within := func(n *net.IPNet) bool { return n.Contains(ip) }
		if slices.ContainsFunc(authority.ExcludedIPRanges, within) {
			return fmt.Sprintf("excludes the address %s", ip)
		}
		if len(authority.PermittedIPRanges) > 0 && !slices.ContainsFunc(authority.PermittedIPRanges, within) {
			return fmt.Sprintf("does not permit the address %s", ip)
		}
	}
	return ""
}

// withinDomain says whether a name is a constraint's domain or below it; with a leading dot, below it only.
func withinDomain(name, constraint string) bool {
	name, constraint = strings.ToLower(strings.TrimSuffix(name, ".")), strings.ToLower(constraint)
	if constraint == "" || name == constraint {
		return true
	}
	return strings.HasSuffix(name, "."+strings.TrimPrefix(constraint, "."))
}

// standsFor says whether a name is a wildcard that stands for an excluded domain too.
// "*.example.com" is not below the excluded "www.example.com", yet it is good for that very name: an authority that
// may not speak for it would do so by the wildcard.
func standsFor(name, constraint string) bool {
	rest, wild := strings.CutPrefix(strings.ToLower(name), "*.")
	_, parent, _ := strings.Cut(strings.ToLower(constraint), ".")
	return wild && parent == rest
}

// inOrder says whether the certificates of a path were served in its order, the leaf first. Others
// between them are superfluous, not disorder; a root may come only after all of them.
func inOrder(links []*link, rootIndex int) bool {
	last := -1
	for i, l := range links {
		switch {
		case l.index < 0: // Not served at all is another matter.
		case i == 0 && l.index != 0, l.index < last:
			return false
		default:
			last = l.index
		}
	}
	return rootIndex < 0 || rootIndex >= last
}

// rootIndex returns the place in what was served of a root, or of another certificate of the same
// name and key that is self-issued; -1: it was not served.
func rootIndex(served []*link, root *x509.Certificate) int {
	return slices.IndexFunc(served, func(l *link) bool {
		return bytes.Equal(l.Raw, root.Raw) || selfIssued(l.Certificate) && sameEntity(l.Certificate, root)
	})
}
