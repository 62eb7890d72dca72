package render

import (
	"cmp"
	"slices"
	"strings"
	"time"

	"github.com/elsewhere-net/elsewhere/pkg/aggregate"
	pb "github.com/elsewhere-net/elsewhere/proto/elsewhere/v1"
)

// maxAnswers is how many answers of one query are shown to people; the JSON has all.
const maxAnswers = 6

// mark is how one thing that was looked at ended.
type mark int

const (
	markWaiting mark = iota
	markOK
	markFail
	markUnknown
)

// String is the sign that people see.
func (m mark) String() string {
	return [...]string{"·", "✓", "✗", "?"}[m]
}

// sight is one thing that an agent saw: an answer, an address that is open, one that is not.
type sight struct {
	mark mark
	what string // the address; "" where there is only one thing to look at
	said string // the answers, the TLS version, the status, or the failures
	more string // the time to live and flags of answers, who rejected a connect
	took time.Duration
}

// String is the sight in words: "203.0.113.10:443 ✓ 12 ms", "203.0.113.10:443 ✗ tcp_timeout 8.1 s".
func (s sight) String() string {
	words := make([]string, 0, 5)
	for _, w := range []string{s.what, s.mark.String(), s.said, s.more, human(s.took)} {
		if w != "" {
			words = append(words, w)
		}
	}
	return strings.Join(words, " ")
}

// sights are what a Result says about the target: for dns a sight for each different answer, else
// one for each address, at the deepest step it reached, else how the name failed.
func sights(spec *pb.Spec, r *pb.Result) []sight {
	if d := spec.GetDns(); d != nil {
		return dnsSights(d, r)
	}
	var out []sight
	at := map[string]int{}
	for _, s := range targets(r, pb.StepKind_STEP_KIND_TCP_CONNECT, pb.StepKind_STEP_KIND_TLS_HANDSHAKE, pb.StepKind_STEP_KIND_HTTP_EXCHANGE) {
		// A handshake stands for the connect below it, an exchange for both.
		if i, ok := at[s.GetAddress()]; ok {
			out[i] = stepSight(s).above(out[i])
			continue
		}
		at[s.GetAddress()] = len(out)
		out = append(out, stepSight(s))
	}
	if len(out) == 0 {
		out = nameSights(r)
	}
	return out
}

// targets are the steps about the target, of some kinds.
func targets(r *pb.Result, kinds ...pb.StepKind) []*pb.Step {
	var out []*pb.Step
	for _, s := range r.GetSteps() {
		if s.GetRole() == pb.Role_ROLE_TARGET && slices.Contains(kinds, s.GetKind()) {
			out = append(out, s)
		}
	}
	return out
}

// stepSight is a connect, a handshake or an exchange on one address.
func stepSight(s *pb.Step) sight {
	out := sight{mark: stepMark(s), what: Clean(s.GetAddress()), said: failures(s), took: s.GetDuration().AsDuration()}
	e := s.GetEvidence()
	switch s.GetKind() {
	case pb.StepKind_STEP_KIND_TCP_CONNECT:
		out.took, out.more = connectTime(s), icmp(e.GetIcmp())
	case pb.StepKind_STEP_KIND_HTTP_EXCHANGE:
		out.more = pageSaid(e.GetHttp())
	default:
		if out.mark == markOK {
			out.more = Clean(e.GetTls().GetVersion())
		}
	}
	return out
}

// above is the sight of a step that stands for the one below it, which may have had failures that did
// not stop it: those of certificates.
func (s sight) above(below sight) sight {
	switch {
	case below.mark != markFail:
	case s.mark == markOK:
		s.mark, s.said = markFail, below.said
	default:
		s.said = below.said + ", " + s.said
	}
	return s
}

// nameSights is how a name failed that led to no address.
func nameSights(r *pb.Result) []sight {
	var out []sight
	for _, s := range targets(r, pb.StepKind_STEP_KIND_DNS_QUERY) {
		one := sight{mark: stepMark(s), said: failures(s), took: s.GetDuration().AsDuration()}
		if one.mark != markOK && !slices.ContainsFunc(out, func(o sight) bool { return o.said == one.said }) {
			out = append(out, one)
		}
	}
	return out
}

// dnsSights are the answers of an agent's resolvers. Resolvers that say the same are one sight.
func dnsSights(spec *pb.DNSSpec, r *pb.Result) []sight {
	var out []sight
	steps := targets(r, pb.StepKind_STEP_KIND_DNS_QUERY)
	for _, s := range steps {
		one := sight{mark: stepMark(s), said: failures(s), took: s.GetDuration().AsDuration()}
		if one.mark == markOK {
			one.said, one.more = joinAnswers(answers(spec, s)), aside(s)
		}
		same := func(o sight) bool { return o.mark == one.mark && o.said == one.said }
		if slices.ContainsFunc(out, same) {
			continue
		}
		if len(steps) > 1 {
			one.what = "@" + Clean(s.GetAddress())
		}
		out = append(out, one)
	}
	if len(out) == 1 {
		out[0].what = ""
	}
	return out
}

// answers are the data of the asked type in the reply that counted, sorted.
func answers(spec *pb.DNSSpec, s *pb.Step) []string {
	return answersOf(s, cmp.Or(s.GetType(), spec.GetType())) // The spec has most types by number.
}

// joinAnswers puts a bounded number of answers on one line.
func joinAnswers(all []string) string {
	if len(all) > maxAnswers {
		all = append(slices.Clone(all[:maxAnswers]), "…")
	}
	return strings.Join(all, ", ")
}

// stepMark says how a step ended. What the agent could not do says nothing about the target.
func stepMark(s *pb.Step) mark {
	switch f := s.GetFailure(); {
	case f == pb.Failure_FAILURE_NONE:
		return markOK
	case f == pb.Failure_FAILURE_UNSPECIFIED || strings.HasPrefix(f.String(), "FAILURE_AGENT_"):
		return markUnknown
	}
	return markFail
}

// failures are the short names of all that was wrong with a step.
func failures(s *pb.Step) string {
	all := make([]string, 0, len(s.GetFailures()))
	for _, f := range s.GetFailures() {
		all = append(all, aggregate.ShortFailure(f))
	}
	if len(all) == 0 && s.GetFailure() != pb.Failure_FAILURE_NONE {
		all = append(all, aggregate.ShortFailure(s.GetFailure()))
	}
	return strings.Join(all, ", ")
}
