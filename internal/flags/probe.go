package flags

import (
	"crypto/x509"
	"encoding/pem"
	"net"
	"net/netip"
	"os"
	"strings"

	"github.com/spf13/pflag"

	"github.com/elsewhere-net/elsewhere/pkg/probe"
)

// Probe is the flags that say what an agent's probes touch.
type Probe struct {
	resolvers, rootServers, controls, allowed, denied []string
	roots                                             string
}

// Add adds the flags to a set.
func (p *Probe) Add(set *pflag.FlagSet) {
	set.StringArrayVar(&p.resolvers, "resolver", nil, "`IP[:PORT]` of a resolver; repeatable (default: those of the system)")
	set.StringArrayVar(&p.rootServers, "root-server", nil, "`IP[:PORT]` of a DNS root server; repeatable (default: IANA's)")
	set.StringArrayVar(&p.controls, "control", nil, "`HOST:PORT` that is known to be good; repeatable (default: well-known public hosts)")
	set.StringVar(&p.roots, "roots", "", "PEM `file` of roots that targets may be trusted by, beside Mozilla's")
	set.StringArrayVar(&p.allowed, "allow-target", nil, "`CIDR` that may be measured although it is special; repeatable")
	set.StringArrayVar(&p.denied, "deny-target", nil, "`CIDR` that is never measured; repeatable")
}

// Env is what the flags say, with the default budget for each target. An error is ErrUsage.
func (p *Probe) Env() (*probe.Env, error) {
	env := &probe.Env{
		Controls: p.controls, Version: Version(), Delegations: &probe.Delegations{}, Budget: &probe.Budget{}, Chains: &probe.Chains{},
		Sockets: &probe.Sockets{},
	}
	for _, hp := range p.controls {
		if host, port, err := net.SplitHostPort(hp); err != nil || host == "" || port == "" {
			return nil, Usagef("--control %q: must be HOST:PORT", hp)
		}
	}
	var err error
	if env.Resolvers, err = servers("--resolver", p.resolvers); err != nil {
		return nil, err
	}
	if env.Hints, err = servers("--root-server", p.rootServers); err != nil {
		return nil, err
	}
	if env.Egress.Allow, err = prefixes("--allow-target", p.allowed); err != nil {
		return nil, err
	}
	if env.Egress.Deny, err = prefixes("--deny-target", p.denied); err != nil {
		return nil, err
	}
	if p.roots != "" {
		env.Roots, err = readRoots(p.roots)
	}
	return env, err
}

// servers reads the addresses of DNS servers.
func servers(flag string, list []string) (addrs []netip.AddrPort, err error) {
	for _, text := range list {
		addr, err := server(text)
		if err != nil {
			return nil, Usagef("%s %q: must be IP or IP:PORT", flag, text)
		}
		addrs = append(addrs, addr)
	}
	return addrs, nil
}

// server reads IP or IP:PORT, with brackets around IPv6 or without: [::1], ::1 and [::1]:53 are all in use, and an
// address is looked for first since "::1:53" is one.
func server(text string) (netip.AddrPort, error) {
	if addr, err := netip.ParseAddr(strings.Trim(text, "[]")); err == nil {
		return netip.AddrPortFrom(addr, 53), nil
	}
	return netip.ParseAddrPort(text)
}

// prefixes reads ranges; an address is a range of one.
func prefixes(flag string, list []string) (ranges []netip.Prefix, err error) {
	for _, text := range list {
		prefix, err := probe.ParsePrefix(text)
		if err != nil {
			return nil, Usagef("%s %q: must be CIDR, such as 10.0.0.0/8", flag, text)
		}
		ranges = append(ranges, prefix)
	}
	return ranges, nil
}

// readRoots reads roots in PEM. One that does not parse is an error and not passed over: the operator would learn of
// it only by servers that are called untrusted.
func readRoots(file string) ([]*x509.Certificate, error) {
	data, err := os.ReadFile(file)
	if err != nil {
		return nil, Usagef("--roots: %w", err)
	}
	var roots []*x509.Certificate
	for block, rest := pem.Decode(data); block != nil; block, rest = pem.Decode(rest) {
		if block.Type != "CERTIFICATE" {
			continue
		}
		cert, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, Usagef("--roots %s: certificate %d: %w", file, len(roots)+1, err)
		}
		roots = append(roots, cert)
	}
	if len(roots) == 0 {
		return nil, Usagef("--roots %s: there is no certificate in it", file)
	}
	return roots, nil
}
