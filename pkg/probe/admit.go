package probe

import (
	"net/netip"

	pb "github.com/elsewhere-net/elsewhere/proto/elsewhere/v1"
)

// Admit says at the agent's door, without touching the network, whether a job can be done here:
// FAILURE_NONE; agent_policy_denied for an address that the egress policy refuses;
// agent_capability_missing for an address family that the host has not; agent_internal for a job that
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
		if addr.Addr().IsLoopback() {
			return pb.Failure_FAILURE_NONE, ""
		}
		return lacks(addr.Addr().Is4(), addr.Addr().Is6())
	}
	if _, isDNS := spec.GetCheck().(*pb.Spec_Dns); isDNS {
		return pb.Failure_FAILURE_NONE, ""
	}
	return lacks(spec.GetFamily() == pb.Family_FAMILY_IPV4, spec.GetFamily() == pb.Family_FAMILY_IPV6)
}

// lacks says whether the host is without an address family that is needed. One that has the family and
// no way to the target can try, and will see that it is the agent's trouble.
func lacks(needs4, needs6 bool) (pb.Failure, string) {
	ipv4, ipv6 := Families()
	switch {
	case needs4 && !ipv4:
		return pb.Failure_FAILURE_AGENT_CAPABILITY_MISSING, "the agent has no IPv4"
	case needs6 && !ipv6:
		return pb.Failure_FAILURE_AGENT_CAPABILITY_MISSING, "the agent has no IPv6"
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
	ip, ok := literalAddr(host, spec.GetFamily())
	return netip.AddrPortFrom(ip, port), toConnect, ok
}
