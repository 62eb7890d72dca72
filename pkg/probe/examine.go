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

// certificates judges a chain at the coordinator's time; judgement.judge has the order. What is missing of it
// may be fetched from where the certificates say (RFC 5280, 4.2.2.1), until ctx ends.
func (t *trace) certificates(ctx context.Context, c servedChain) examined {
	now, memory := t.now(), t.env.Chains
	if profileOf(t.job.GetSpec()).GetRoots() != "" { // What is remembered is by the agent's roots alone.
		memory = nil
	}
	if x, ok := memory.recall(&c, t.env.Roots, now); ok {
		return x
	}
	ctx, cancel := context.WithTimeout(ctx, fetchTimeout)
	defer cancel()
	j := judgement{servedChain: c, now: now, anchors: t.anchors(), fetch: func(url string) ([]*x509.Certificate, error) {
		return t.fetchIssuers(ctx, url)
	}}
	x := j.judge()
	if len(j.fetched.tried) == 0 {
		v := verdict{examined: x}
		v.from, v.until = j.holds()
		memory.remember(&c, t.env.Roots, v)
	}
	return x
}
