package probe

import (
	"context"
	"crypto/x509"

	pb "github.com/elsewhere-net/elsewhere/proto/elsewhere/v1"
)

// servedChain is what a server showed of itself in a handshake.
type servedChain struct {
	raw    [][]byte // The certificates as DER, in the order of the wire.
	name   string   // What the leaf must be valid for: a domain name or an address.
	names  []string // Further names; how they compare is shown and decides nothing.
	staple []byte   // The stapled OCSP response. Nil: none was.
}

// examined is what is to be said about a chain.
type examined struct {
	chain    []*pb.Certificate
	served   int32
	analysis *pb.ChainEvidence
	names    []*pb.NameMatch
	ocsp     *pb.OCSP
	failures []pb.Failure // The gravest first.
	text     string       // What the failures leave open, for people.
}

// certificates judges a chain by the procedure of domain.md 4.2, at the coordinator's time. What is missing
// of it may be fetched, until ctx ends.
func (t *trace) certificates(_ context.Context, c servedChain) examined {
	out := examined{served: int32(len(c.raw))}
	var served []*x509.Certificate
	for _, der := range c.raw[:min(len(c.raw), maxChain)] {
		parsed, err := x509.ParseCertificate(der)
		if err != nil {
			return examined{served: out.served, failures: []pb.Failure{pb.Failure_FAILURE_CERT_MALFORMED}, text: err.Error()}
		}
		served = append(served, parsed)
		out.chain = append(out.chain, certificate(parsed))
	}
	j := judgement{served: served, name: c.name, now: t.now(), anchors: t.anchors()}
	out.failures = j.judge()
	out.text = j.text
	return out
}
