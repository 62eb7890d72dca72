package aggregate

import (
	"slices"
	"strings"

	pb "github.com/elsewhere-net/elsewhere/proto/elsewhere/v1"
)

// Service says whether the client of a profile can serve a target, as one region sees it.
type Service struct {
	// Region is the region.
	Region string
	// Serves says whether it can, and Fails whether it cannot; where neither is so, nothing was judged there.
	Serves, Fails bool
	// Words say so in a line, with what was seen: "Amazon CloudFront can serve it: 200 OK, TLS 1.2, …".
	Words string
}

// Serves says for each asked region, sorted by name, what verdict means to the client of the profile that m
// is judged by; nil if there is none. m and results are those that the verdict was made of.
func Serves(m *pb.Measurement, results []*pb.Result, verdict *pb.Verdict) []Service {
	if newClient(m.GetSpec()) == nil {
		return nil
	}
	f := gather(m, results)
	services := make([]Service, 0, len(f.regions))
	for _, r := range f.regions {
		services = append(services, f.service(r, verdict))
	}
	return services
}

// service is what one region says.
func (f *facts) service(r *region, verdict *pb.Verdict) Service {
	s := Service{Region: r.name}
	for _, finding := range verdict.GetFindings() {
		if isError(finding) && slices.Contains(finding.GetRegions(), r.name) {
			s.Fails = true
			s.Words = f.client.answers(finding.GetPrediction()) + ": " + ShortCode(finding.GetCode())
			return s
		}
	}
	if s.Serves = r.judged; !s.Serves {
		s.Words = "nothing was judged"
		return s
	}
	s.Words = f.client.label() + " can serve it"
	if proofs := f.proofs(r); len(proofs) > 0 {
		s.Words += ": " + strings.Join(proofs, ", ")
	}
	return s
}

// speaks is the version that the server agreed on with the client's hello, or else with the agent.
func (v *sight) speaks() string {
	if i := v.beside(pb.Variant_VARIANT_PROFILE_OFFER); i >= 0 {
		if version := v.agent.steps[i].GetEvidence().GetTls().GetVersion(); version != "" {
			return shown(version)
		}
	}
	return shown(v.at().GetEvidence().GetTls().GetVersion())
}

// proofs are what shows that a region can be served: the responses, the handshakes and the first end of a
// certificate, as far as there are any.
func (f *facts) proofs(r *region) []string {
	here := func(all []*sight) []*sight {
		return slices.DeleteFunc(slices.Clone(all), func(v *sight) bool {
			return v.agent.region != r || v.state == unknown || v.thing.unused
		})
	}
	seen, certs := here(f.reach), here(f.certs)
	texts := []string{
		responses(seen),
		join(collect(certs, (*sight).speaks)),
	}
	if len(certs) > 0 {
		first := slices.MinFunc(certs, func(a, b *sight) int { return int(min(max(a.left-b.left, -1), 1)) })
		if first.left != never {
			texts = append(texts, "certificate until "+day(first.leaf.GetNotAfter().AsTime()))
		}
	}
	return slices.DeleteFunc(texts, func(text string) bool { return text == "" })
}
