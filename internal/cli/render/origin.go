package render

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"charm.land/lipgloss/v2"

	"github.com/elsewhere-net/elsewhere/pkg/aggregate"
	pb "github.com/elsewhere-net/elsewhere/proto/elsewhere/v1"
)

// originWords are the words of an origin question.
func originWords(spec *pb.OriginSpec) []string {
	words := []string{"origin", word(spec.GetUrl())}
	words = append(words, when(spec.GetHostHeader() != "", "--host-header", spec.GetHostHeader())...)
	settings := make([]string, len(spec.GetVersions()))
	for i, v := range spec.GetVersions() {
		// As CloudFront's settings have them: "TLSv1.2", "TLSv1", "SSLv3".
		settings[i] = strings.TrimSuffix(strings.Replace(v, " ", "v", 1), ".0")
	}
	words = append(words, joined("--ssl-protocols", settings, ",")...)
	return append(words, profileWords(spec.GetProfile())...)
}

// profileWords are the words for the profile that a target is judged by.
func profileWords(p *pb.Profile) []string {
	return when(p.GetName() != "", "--profile", p.GetName())
}

// served answers the question for an origin, a line for each region: whether the profile's client can serve
// it, what viewers get if it cannot, or that it is not known. Other questions have no such answer.
func served(m *pb.Measurement, t theme, width int) []string {
	if m.GetSpec().GetOrigin() == nil {
		return nil
	}
	var lines, private []string
	widest := 0
	for _, region := range regions(m) {
		widest = max(widest, lipgloss.Width(Clean(region)))
	}
	judged := aggregate.Judged(m, m.GetResults())
	for _, region := range regions(m) {
		mark, said := servedFrom(m, region)
		if mark == markOK && !slices.Contains(judged, region) {
			mark, said = markUnknown, "not known: no agent of the region could go all the way"
		}
		if mark == markOK {
			for _, address := range inward(m, gather(m, region).addresses) {
				private = once(private, address)
			}
		}
		for i, line := range paragraph(mark.String()+" ", said, max(width-widest-len(gap), min(width, 40))) {
			head, line := pad("", widest+len(gap)+len(gap)), strings.TrimPrefix(line, gap)
			if i == 0 {
				head = pad(t.strong.Render(Clean(region)), widest) + gap
			}
			lines = append(lines, head+t.mark(mark).Render(line))
		}
	}
	if len(private) > 0 {
		lines = append(lines, "note: "+several(private)+gap+"no public address: "+client(m)+" needs a way of its own to get there")
	}
	return lines
}

// servedFrom answers it for one region.
func servedFrom(m *pb.Measurement, region string) (mark, string) {
	if why := refusals(m, region); len(why) > 0 {
		return markFail, strings.Join(why, "; ")
	}
	if why := unknown(m, region); why != "" {
		return markUnknown, "not known: " + why
	}
	e := gather(m, region)
	if len(e.addresses) == 0 {
		return markUnknown, "not known: no agent of the region got as far as the origin"
	}
	if len(inward(m, e.addresses)) > 0 {
		return markOK, client(m) + " can serve it, if it gets there: " + e.String()
	}
	return markOK, client(m) + " can serve it: " + e.String()
}

// inward are the addresses that the client would come to, of those given, to which the internet has no way.
func inward(m *pb.Measurement, addresses []string) (out []string) {
	ipv4 := m.GetSpec().GetOrigin().GetProfile().GetIpv4Only() && m.GetSpec().GetFamily() != pb.Family_FAMILY_IPV6
	for _, text := range addresses {
		at, err := netip.ParseAddrPort(text)
		if ip := at.Addr().Unmap(); err == nil && aggregate.Inside(ip) && (ip.Is4() || !ipv4) {
			out = append(out, text)
		}
	}
	return out
}

// client is what people call the profile's client.
func client(m *pb.Measurement) string {
	p := m.GetSpec().GetOrigin().GetProfile()
	if p.GetTitle() != "" {
		return Clean(p.GetTitle())
	}
	return Clean(p.GetName())
}

// refusals are what viewers get in a region, and why, each once: "502: the origin returns an expired certificate".
func refusals(m *pb.Measurement, region string) (all []string) {
	for _, f := range m.GetVerdict().GetFindings() {
		if f.GetSeverity() != pb.Severity_SEVERITY_ERROR || !slices.Contains(f.GetRegions(), region) {
			continue
		}
		said := Clean(f.GetSummary())
		if p := f.GetPrediction(); p != nil {
			said = strings.TrimRight(viewersGet(p)+" "+statuses(m, region, p), " ") + ": " + Clean(p.GetText()) + partly(m, f, region) + unless(f)
		}
		if !slices.Contains(all, said) {
			all = append(all, said)
		}
	}
	return all
}

// viewersGet is what viewers get: "502", "likely 502 or 504" where that is not verified.
func viewersGet(p *pb.Prediction) string {
	switch {
	case p.GetStatus() == "":
		return "the origin's own error"
	case p.GetSource().GetUnverified():
		return "likely " + Clean(p.GetStatus())
	}
	return Clean(p.GetStatus())
}

// statuses are those of the origin's own responses, where viewers get them.
func statuses(m *pb.Measurement, region string, p *pb.Prediction) string {
	if p.GetStatus() != "" {
		return ""
	}
	return strings.Join(gather(m, region).pages, ", ")
}

// unless says what else a finding may be, that nobody but the client itself can know: agents have not its addresses.
func unless(f *pb.Finding) string {
	if f.GetPrediction().GetCause() != pb.OriginCause_ORIGIN_CAUSE_FIREWALL || f.GetConfidence() != pb.Confidence_CONFIDENCE_LOW {
		return ""
	}
	return " (unless it admits " + Clean(f.GetPrediction().GetProfile()) + "'s own addresses alone)"
}

// partly says at which addresses, if a finding is about some of those that agents of a region looked at.
func partly(m *pb.Measurement, f *pb.Finding, region string) string {
	looked := map[string]bool{}
	for _, r := range m.GetResults() {
		if r.GetVantage().GetRegion() == region {
			for _, s := range targets(r, pb.StepKind_STEP_KIND_TCP_CONNECT) {
				looked[s.GetAddress()] = true
			}
		}
	}
	var at []string
	for _, a := range f.GetAddresses() {
		if looked[a] {
			at = append(at, Clean(a))
		}
	}
	if len(at) == 0 || len(at) == len(looked) {
		return ""
	}
	return fmt.Sprintf(" (at %s of %d addresses)", several(at), len(looked))
}

// proof is what agents of a region saw of an origin that can be served: how many of them, and at which
// addresses, what the client's own hello agreed on, and the status of the response.
type proof struct {
	agents                       int32
	addresses, handshakes, pages []string
}

// gather collects the proof of a region.
func gather(m *pb.Measurement, region string) (p proof) {
	for _, r := range m.GetResults() {
		if r.GetVantage().GetRegion() == region && p.add(r) {
			p.agents++
		}
	}
	return p
}

// add adds what one agent saw, and says whether it got through anywhere.
func (p *proof) add(r *pb.Result) (through bool) {
	for _, s := range r.GetSteps() {
		e := s.GetEvidence()
		switch {
		case stepMark(s) != markOK && e.GetHttp().GetStatus() == 0 && e.GetTls().GetVersion() == "":
		case s.GetRole() == pb.Role_ROLE_TARGET && s.GetKind() == pb.StepKind_STEP_KIND_TCP_CONNECT:
			through = true
			p.addresses = once(p.addresses, s.GetAddress())
		case s.GetRole() == pb.Role_ROLE_TARGET && e.GetHttp().GetStatus() != 0:
			p.pages = once(p.pages, fmt.Sprint(e.GetHttp().GetStatus()))
		case s.GetVariant() == pb.Variant_VARIANT_PROFILE_OFFER:
			p.handshakes = once(p.handshakes, e.GetTls().GetVersion()+" "+e.GetTls().GetCipherSuite())
		}
	}
	return through
}

// once appends what is not there yet, in a form that steers no terminal.
func once(list []string, s string) []string {
	if s = Clean(strings.TrimSpace(s)); s == "" || slices.Contains(list, s) {
		return list
	}
	return append(list, s)
}

// String is the proof in words.
func (p proof) String() string {
	words := []string{agents(p.agents), several(p.addresses)}
	for _, list := range [][]string{p.handshakes, p.pages} {
		if len(list) > 0 {
			words = append(words, several(list))
		}
	}
	if len(p.pages) == 0 {
		words = append(words, "no agent could ask for a page")
	}
	return strings.Join(words, ", ")
}

// several names the first of a list, and how many more there are.
func several(list []string) string {
	if len(list) == 1 {
		return list[0]
	}
	slices.Sort(list)
	return fmt.Sprintf("%s and %d more", list[0], len(list)-1)
}

// foretold is what the client of a profile makes of a finding, in a few words: "cloudfront answers 502".
func foretold(p *pb.Prediction) []string {
	if p == nil {
		return nil
	}
	return []string{"cause " + short(p.GetCause(), "ORIGIN_CAUSE_"), Clean(p.GetProfile()) + ": " + viewersGet(p)}
}

// source is where a fact comes from, "" for one that has none.
func source(s *pb.Source) string {
	if s.GetDocument() == "" {
		return ""
	}
	text := s.GetDocument()
	if s.GetDate() != "" {
		text += " (" + s.GetDate() + ")"
	}
	if s.GetUnverified() {
		text += ", unverified"
	}
	if s.GetNote() != "" {
		text += ": " + s.GetNote()
	}
	return text
}
