package lab

import (
	"slices"

	pb "github.com/elsewhere-net/elsewhere/proto/elsewhere/v1"
)

// obstacle is the first thing that an agent meets on its way to an address. One without a stage is
// nothing, one of the stage of the agent is the agent's own.
type obstacle struct {
	why      string
	trouble  int // its index, or -1: it is something else
	stage    pb.Stage
	failures []pb.Failure // the ways it may show
	block    pb.BlockKind
}

// cuts says whether an agent cannot get out, whatever it is asked.
func (c condition) cuts(agent string, six bool) bool {
	return slices.Contains(c.agents, agent) && (c.how == cutOffBy || c.how == rejectedBy || c.how == withoutIPv6 && six)
}

// has says whether an agent is in this condition.
func (c condition) has(how, agent string) bool {
	return c.how == how && slices.Contains(c.agents, agent)
}

// meets is what an agent meets, in the order of the stages and no deeper than is asked.
func (d *drawn) meets(a *vantage, to int) obstacle {
	if d.odd.cuts(a.id, d.hosts[to].addr.Is6()) {
		return obstacle{why: d.odd.how, trouble: -1, stage: pb.Stage_STAGE_AGENT}
	}
	look := []func(*vantage, int) obstacle{d.meetsConnecting, d.meetsShaking, d.meetsAsking}
	depth := map[string]int{"tcp": 1, "tls": 2, "http": 3}[d.check]
	for _, meets := range look[:depth] {
		if o := meets(a, to); o.stage != pb.Stage_STAGE_UNSPECIFIED {
			return o
		}
	}
	return obstacle{trouble: -1}
}

func (d *drawn) meetsConnecting(a *vantage, to int) obstacle {
	tcp := func(why string, trouble int, block pb.BlockKind, failure pb.Failure) obstacle {
		return obstacle{why, trouble, pb.Stage_STAGE_TCP, []pb.Failure{failure}, block}
	}
	for i, t := range d.troubles { // rules are looked at in their order
		if !t.covers(a.id, to) {
			continue
		}
		switch t.how {
		case dropped:
			return tcp(t.how, i, pb.BlockKind_BLOCK_KIND_DROP, pb.Failure_FAILURE_TCP_TIMEOUT)
		case refused:
			return tcp(t.how, i, pb.BlockKind_BLOCK_KIND_REJECT_RST, pb.Failure_FAILURE_TCP_REFUSED)
		case prohibited:
			return tcp(t.how, i, pb.BlockKind_BLOCK_KIND_REJECT_ICMP, pb.Failure_FAILURE_TCP_ADMIN_PROHIBITED)
		case noPort:
			return tcp(t.how, i, pb.BlockKind_BLOCK_KIND_REJECT_ICMP, pb.Failure_FAILURE_TCP_PORT_UNREACHABLE)
		}
	}
	if d.hosts[to].does == isClosed {
		return tcp(isClosed, -1, pb.BlockKind_BLOCK_KIND_REJECT_RST, pb.Failure_FAILURE_TCP_REFUSED)
	}
	if i := d.troubled(resetLater, a, to); i >= 0 {
		o := tcp(resetLater, i, pb.BlockKind_BLOCK_KIND_RESET_AFTER_CONNECT, pb.Failure_FAILURE_TCP_RESET)
		if d.check != "tcp" {
			o.stage, o.failures = pb.Stage_STAGE_TLS, []pb.Failure{pb.Failure_FAILURE_TLS_RESET, pb.Failure_FAILURE_TCP_RESET}
		}
		return o
	}
	return obstacle{trouble: -1}
}

func (d *drawn) meetsShaking(a *vantage, to int) obstacle {
	shaking := func(why string, trouble int, block pb.BlockKind, failure pb.Failure) obstacle {
		return obstacle{why, trouble, pb.Stage_STAGE_TLS, []pb.Failure{failure}, block}
	}
	for i, t := range d.troubles {
		if !t.covers(a.id, to) {
			continue
		}
		switch t.how {
		case sniReset:
			return shaking(t.how, i, pb.BlockKind_BLOCK_KIND_SNI_RESET, pb.Failure_FAILURE_TLS_RESET)
		case sniDrop:
			return shaking(t.how, i, pb.BlockKind_BLOCK_KIND_SNI_DROP, pb.Failure_FAILURE_TLS_TIMEOUT)
		case bigUp, bigDown:
			return shaking(t.how, i, pb.BlockKind_BLOCK_KIND_LARGE_PACKET_DROP, pb.Failure_FAILURE_TLS_TIMEOUT)
		}
	}
	certificate := func(failure pb.Failure) obstacle {
		return obstacle{d.hosts[to].does, -1, pb.Stage_STAGE_CERTIFICATE, []pb.Failure{failure}, 0}
	}
	switch d.hosts[to].does {
	case isHung:
		return shaking(isHung, -1, 0, pb.Failure_FAILURE_TLS_TIMEOUT)
	case isExpired:
		return certificate(pb.Failure_FAILURE_CERT_EXPIRED)
	case isSelfMade:
		return certificate(pb.Failure_FAILURE_CERT_SELF_SIGNED)
	case isOther:
		return certificate(pb.Failure_FAILURE_CERT_NAME_MISMATCH)
	case isCut:
		return certificate(pb.Failure_FAILURE_CERT_CHAIN_INCOMPLETE)
	}
	return obstacle{trouble: -1}
}

func (d *drawn) meetsAsking(a *vantage, to int) obstacle {
	asking := func(why string, trouble int, block pb.BlockKind, failure pb.Failure) obstacle {
		return obstacle{why, trouble, pb.Stage_STAGE_HTTP, []pb.Failure{failure}, block}
	}
	if d.hosts[to].does == isHungPage {
		return asking(isHungPage, -1, 0, pb.Failure_FAILURE_HTTP_TIMEOUT)
	}
	if i := d.troubled(denies, a, to); i >= 0 {
		return asking(denies, i, pb.BlockKind_BLOCK_KIND_HTTP_DENY, pb.Failure_FAILURE_HTTP_STATUS)
	}
	if d.hosts[to].does == isBroken {
		return asking(isBroken, -1, 0, pb.Failure_FAILURE_HTTP_STATUS)
	}
	return obstacle{trouble: -1}
}

// troubled is the first trouble of a kind on a way, or -1.
func (d *drawn) troubled(how string, a *vantage, to int) int {
	return slices.IndexFunc(d.troubles, func(t trouble) bool { return t.how == how && t.covers(a.id, to) })
}

// resolves is what an agent's resolver says of the name: addresses by their index, or a failure; known
// is false if the resolver does not answer the agent at all.
func (d *drawn) resolves(a *vantage) (to []int, failure pb.Failure, known bool) {
	if d.odd.has(deaf, a.id) {
		return nil, 0, false
	}
	for _, f := range d.answers {
		switch {
		case f.region != a.region:
		case f.answer == "NXDOMAIN":
			return nil, pb.Failure_FAILURE_DNS_NXDOMAIN, true
		case f.answer == "SERVFAIL":
			return nil, pb.Failure_FAILURE_DNS_SERVFAIL, true
		default:
			return []int{slices.IndexFunc(d.hosts, func(h target) bool { return h.addr.String() == f.answer })}, 0, true
		}
	}
	for i, h := range d.hosts {
		if !h.stray {
			to = append(to, i)
		}
	}
	return to, 0, true
}
