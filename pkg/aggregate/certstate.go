package aggregate

import (
	"math"
	"slices"
	"time"

	pb "github.com/elsewhere-net/elsewhere/proto/elsewhere/v1"
)

// certFailure says whether the handshake completed with something wrong about the certificates.
func certFailure(s *pb.Step) bool {
	return stageOf(s.GetFailure()) == pb.Stage_STAGE_CERTIFICATE
}

// completed says whether a handshake came to its end, whatever the certificates.
func completed(s *pb.Step) bool { return clean(s) || certFailure(s) }

// certFailures are the certificate failures of a step, sorted, without the warnings.
func certFailures(s *pb.Step) []pb.Failure {
	var all []pb.Failure
	for _, f := range s.GetFailures() {
		if stageOf(f) == pb.Stage_STAGE_CERTIFICATE && !minorCert(f) {
			all = append(all, f)
		}
	}
	if f := s.GetFailure(); len(all) == 0 && certFailure(s) && !minorCert(f) {
		all = append(all, f)
	}
	slices.Sort(all)
	return slices.Compact(all)
}

// readCert judges the certificate of a completed handshake and says whether it is bad. Its failure is
// the first ERROR of the step's own list. Where reachability is expected, certificates are no matter.
func (f *facts) readCert(v *sight) bool {
	shows := v.showsChain()
	s := v.agent.steps[shows]
	if f.reachability() != pb.Reachability_REACHABILITY_UNSPECIFIED || v.state != good || len(s.GetEvidence().GetTls().GetChain()) == 0 && !certFailure(s) {
		return false
	}
	c := f.room()
	*c = *v
	c.step = shows
	c.leaf, c.left = f.leafOf(s.GetEvidence().GetTls())
	if f.client != nil {
		f.client.examine(c)
	} else {
		c.wrong = certFailures(s)
		c.minor = slices.DeleteFunc(slices.Clone(s.GetFailures()), func(failure pb.Failure) bool { return !minorCert(failure) })
	}
	if len(c.wrong) > 0 {
		c.state, c.failure = bad, c.wrong[0]
		if f.client == nil && slices.Contains(c.wrong, s.GetFailure()) {
			c.failure = s.GetFailure()
		}
	}
	f.certs = append(f.certs, c)
	return c.state == bad
}

// never is how long a certificate is valid whose end is not known, or behind it: it is not about to end.
const never = time.Duration(math.MaxInt64)

// leafOf is the first certificate served, and how long it was still valid by the coordinator's time.
func (f *facts) leafOf(e *pb.TLSEvidence) (*leaf, time.Duration) {
	if len(e.GetChain()) == 0 || e.GetChain()[0].GetSha256() == "" {
		return nil, never
	}
	c := e.GetChain()[0]
	l := f.leaves[c.GetSha256()]
	if l == nil {
		l = &leaf{c}
		f.leaves[c.GetSha256()] = l
	}
	end, now := c.GetNotAfter(), e.GetJudgedTime()
	if !end.IsValid() || !now.IsValid() || end.GetSeconds() < now.GetSeconds() {
		return l, never
	}
	return l, end.AsTime().Sub(now.AsTime())
}
