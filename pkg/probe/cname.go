package probe

import (
	"github.com/miekg/dns"

	pb "github.com/elsewhere-net/elsewhere/proto/elsewhere/v1"
)

// maxChainLinks bounds what is kept of a CNAME chain.
const maxChainLinks = 16

// links returns the CNAME chain that leads on from a name in a reply's answer section, link by link. It
// ends where it comes back to a name that it had.
func links(m *dns.Msg, name string) []*pb.CNAMELink {
	var chain []*pb.CNAMELink
	targets := map[string]*dns.CNAME{}
	for _, rr := range m.Answer {
		if c, ok := rr.(*dns.CNAME); ok && targets[canonical(c.Hdr.Name)] == nil {
			targets[canonical(c.Hdr.Name)] = c
		}
	}
	for c := targets[name]; c != nil && len(chain) < maxChainLinks; c = targets[name] {
		delete(targets, name)
		name = canonical(c.Target)
		chain = append(chain, &pb.CNAMELink{Name: canonical(c.Hdr.Name), Target: name, Ttl: c.Hdr.Ttl})
	}
	return chain
}
