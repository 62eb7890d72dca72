package probe

import (
	"net/netip"

	pb "github.com/elsewhere-net/elsewhere/proto/elsewhere/v1"
)

// Admit says at the agent's door, without touching the network, whether a job can be done here:
// FAILURE_NONE; agent_policy_denied for an address that the egress policy refuses;
// agent_capability_missing for one that the host has no route to; agent_internal for a job that
// makes no sense. The text says why, for people.
func Admit(env *Env, job *pb.Job) (pb.Failure, string) {
	if env == nil {
		env = &Env{}
	}
	spec := job.GetSpec()
	if err := wellFormed(spec); err != nil {
		return pb.Failure_FAILURE_AGENT_INTERNAL, clean(err.Error(), maxText)
	}
	t := newTrace(env, job)
	addr, purpose, ok := literal(spec)
	if ok {
		if err := t.permit(addr, purpose); err != nil {
			return pb.Failure_FAILURE_AGENT_POLICY_DENIED, err.Error()
		}
		if !addr.Addr().IsLoopback() && !routed(addr.Addr()) {
			return pb.Failure_FAILURE_AGENT_CAPABILITY_MISSING, "no route to " + addr.Addr().String()
		}
		return pb.Failure_FAILURE_NONE, ""
	}
	if _, isDNS := spec.GetCheck().(*pb.Spec_Dns); isDNS {
		return pb.Failure_FAILURE_NONE, ""
	}
	ipv4, ipv6 := Families()
	switch {
	case spec.GetFamily() == pb.Family_FAMILY_IPV4 && !ipv4:
		return pb.Failure_FAILURE_AGENT_CAPABILITY_MISSING, "no route to IPv4"
	case spec.GetFamily() == pb.Family_FAMILY_IPV6 && !ipv6:
		return pb.Failure_FAILURE_AGENT_CAPABILITY_MISSING, "no route to IPv6"
	}
	return pb.Failure_FAILURE_NONE, ""
}

// literal returns the address that a spec names itself, if it does.
func literal(spec *pb.Spec) (netip.AddrPort, purpose, bool) {
	if r := spec.GetDns().GetResolver(); r != "" {
		addr, err := resolverAddr(r)
		return addr, toQuery, err == nil
	}
	host, port := target(spec)
	ip, err := netip.ParseAddr(host)
	return netip.AddrPortFrom(ip.Unmap(), port), toConnect, err == nil
}
