package probe

import (
	"cmp"
	"net/netip"

	pb "github.com/elsewhere-net/elsewhere/proto/elsewhere/v1"
)

// SpecError says which field of a spec is wrong, and how.
type SpecError struct {
	// Field is its path in the Spec, such as "http.expect_body".
	Field string
	// Err says how, for people.
	Err error
}

func (e *SpecError) Error() string { return e.Field + ": " + e.Err.Error() }

func (e *SpecError) Unwrap() error { return e.Err }

func invalid(field string, err error) error { return &SpecError{Field: field, Err: err} }

// Validate says what is wrong with a spec that the rules in the contract cannot see, such as a regular
// expression that does not compile or a header field that is not the spec's to choose. The error is a
// SpecError where one field is to blame.
func Validate(spec *pb.Spec) error {
	switch c := spec.GetCheck().(type) {
	case *pb.Spec_Http:
		return wellFormedHTTP(c.Http, spec.GetFamily())
	case *pb.Spec_Origin:
		if err := wellFormedOrigin(c.Origin, spec.GetFamily()); err != nil {
			return err
		}
		return offerable("origin", c.Origin.GetProfile(), c.Origin.GetVersions())
	case *pb.Spec_Tls:
		if p := c.Tls.GetProfile(); p != nil {
			if err := wholeProfile("tls.profile", p); err != nil {
				return err
			}
			return offerable("tls", p, nil)
		}
	}
	return nil // The rules see all there is of the others.
}

// Admit says at the agent's door, without touching the network, whether a job can be done here:
// FAILURE_NONE; agent_policy_denied for an address that the egress policy refuses, a host that was
// looked at too often, or one that opted out;
// agent_capability_missing for an address family that the host has not; agent_internal for a job that
// makes no sense. The text says why, for people.
func Admit(env *Env, job *pb.Job) (pb.Failure, string) {
	if env == nil {
		env = &Env{}
	}
	spec, t := job.GetSpec(), newTrace(env, job)
	if err := cmp.Or(wellFormed(spec), t.badOptOut); err != nil {
		return pb.Failure_FAILURE_AGENT_INTERNAL, clean(err.Error(), maxText)
	}
	rules := env.policy()
	if err := cmp.Or(rules.refuses(spec), t.optedOut()); err != nil {
		return pb.Failure_FAILURE_AGENT_POLICY_DENIED, clean(err.Error(), maxText)
	}
	if f, why := admissible(t, &rules); f != pb.Failure_FAILURE_NONE {
		return f, why
	}
	if err := rules.Budget.admit(asked(spec), price(spec)); err != nil {
		return pb.Failure_FAILURE_AGENT_POLICY_DENIED, clean(err.Error(), maxText)
	}
	return pb.Failure_FAILURE_NONE, ""
}

// optedOut says that the target of the job does not want to be looked at, as far as the job names it.
func (t *trace) optedOut() error {
	host, _ := target(t.job.GetSpec())
	return t.optOut.Check(cmp.Or(host, t.job.GetSpec().GetDns().GetName()))
}

// admissible says whether the policy and the families of the host let a job be done.
func admissible(t *trace, rules *Policy) (pb.Failure, string) {
	spec := t.job.GetSpec()
	if addr, purpose, ok := literal(spec); ok {
		if _, err := t.policy(rules, addr, purpose); err != nil {
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

// asked is the bucket of the host that a job names, which is known before anything is resolved: many
// names of one address are counted by the guard. A lookup is about its name, or about the server that it
// names.
func asked(spec *pb.Spec) bucketKey {
	if addr, _, ok := literal(spec); ok && addr.Addr().Is6() {
		return bucketKey{host: network(addr.Addr()).String()}
	}
	host, _ := target(spec)
	if d := spec.GetDns(); d != nil {
		host = cmp.Or(d.GetResolver(), d.GetName())
	}
	return bucketKey{host: canonical(host)}
}

// lacks says whether the host is without an address family that is needed. One that has the family and
// no way to the target can try, and will see that it is the agent's trouble.
func lacks(needs4, needs6 bool) (pb.Failure, string) {
	switch {
	case needs4 && !hasFamily(publicIPv4):
		return pb.Failure_FAILURE_AGENT_CAPABILITY_MISSING, "the agent has no IPv4"
	case needs6 && !hasFamily(publicIPv6):
		return pb.Failure_FAILURE_AGENT_CAPABILITY_MISSING, "the agent has no IPv6"
	}
	return pb.Failure_FAILURE_NONE, ""
}

// literal returns the address that a spec names itself, if it does.
func literal(spec *pb.Spec) (netip.AddrPort, purpose, bool) {
	if r := spec.GetDns().GetResolver(); r != "" {
		addr, err := resolverAddr(r, spec.GetDns().GetTransport())
		return addr, toQuery, err == nil
	}
	host, port := target(spec)
	ip, ok := literalAddr(host, spec.GetFamily())
	return netip.AddrPortFrom(ip, port), toConnect, ok
}
