package lab

import (
	"maps"
	"slices"

	pb "github.com/elsewhere-net/elsewhere/proto/elsewhere/v1"
)

// claim is one thing that a finding states: its code about one region and one address, about one region
// (addr is empty), or about one agent.
type claim struct {
	code                pb.FindingCode
	region, addr, agent string
}

// manner is how what is claimed may show.
type manner struct {
	failures []pb.Failure
	blocks   []pb.BlockKind
	alike    bool // all agents of the region met the same
}

// must is what has to be said of a case, and nothing besides.
type must struct {
	claims map[claim]manner
	// judgedAt are the regions and addresses that can be judged, with the code where that is about
	// certificates: not every region comes to every address, and not every one that does sees a certificate.
	judgedAt map[claim]bool
	outcome  pb.Outcome

	answering int // agents
}

// stand is what the agents of one region that could tell met at one address.
type stand struct {
	region, addr string
	six          bool
	open         []string // agents
	shut         []string
	met          []obstacle // by those of shut
	disputed     bool
}

func (s *stand) isShut() bool { return len(s.open) == 0 && !s.disputed }

// truth says what must be said, by the taxonomy's rules.
func (d *drawn) truth() must {
	t := &teller{drawn: d, must: must{claims: map[claim]manner{}, judgedAt: map[claim]bool{}}, judged: map[string]bool{}}
	t.answering = len(t.asked())
	t.tellNames()
	t.tellViews()
	if d.check != "dns" {
		t.look()
		t.tellDissent()
		if t.expect != "" {
			t.tellDoors()
		} else {
			t.tellReach()
			t.tellCertificates()
		}
		t.tellAgents()
	}
	t.conclude()
	return t.must
}

// teller collects what must be said.
type teller struct {
	*drawn
	must

	judged map[string]bool // regions
	unseen bool            // a region could have judged an address and did not
	stands []*stand
	certs  []*stand
}

func (t *teller) claim(code pb.FindingCode, region, addr string, met ...obstacle) {
	c := claim{code: code, region: region, addr: addr}
	m := t.claims[c]
	m.alike = true
	for _, o := range met {
		m.failures = slices.Compact(slices.Sorted(slices.Values(append(m.failures, o.failures...))))
		m.blocks = append(m.blocks, o.block)
		m.alike = m.alike && o.block == met[0].block && slices.Equal(o.failures, met[0].failures)
	}
	t.claims[c] = m
}

// asked are the agents that take part: those that are asked and not stopped.
func (d *drawn) asked() []*vantage {
	return slices.DeleteFunc(fleet(), func(a *vantage) bool { return !slices.Contains(d.from, a.region) || d.odd.has(asleep, a.id) })
}

// tellNames judges the name: both agents of a region ask the same resolver.
func (t *teller) tellNames() {
	bad, good := map[string]pb.Failure{}, false
	for _, a := range t.asked() {
		_, failure, known := t.resolves(a)
		switch {
		case !known:
			t.claims[claim{code: pb.FindingCode_FINDING_CODE_VANTAGE_FAULT, agent: a.id}] = manner{}
		case failure != 0:
			bad[a.region], t.judged[a.region] = failure, true
		default:
			good = true
			if t.check == "dns" {
				t.judged[a.region] = true
			}
		}
	}
	// The zone's own servers have the name: who heard them there knows that its resolver's denial is its own.
	for region, failure := range bad {
		if failure == pb.Failure_FAILURE_DNS_NXDOMAIN && t.hears(region) {
			t.claim(pb.FindingCode_FINDING_CODE_REGIONAL_RESOLUTION_FAILURE, region, "", obstacle{failures: []pb.Failure{failure}})
			delete(bad, region)
		}
	}
	code := pb.FindingCode_FINDING_CODE_REGIONAL_RESOLUTION_FAILURE
	switch failures := slices.Compact(slices.Sorted(maps.Values(bad))); {
	case good:
	case len(bad) == 1 && failures[0] == pb.Failure_FAILURE_DNS_SERVFAIL:
		code = pb.FindingCode_FINDING_CODE_INSUFFICIENT_VANTAGE
	default:
		code = pb.FindingCode_FINDING_CODE_UNRESOLVABLE
	}
	for region, failure := range bad {
		t.claim(code, region, "", obstacle{failures: []pb.Failure{failure}})
	}
}

// hears says whether an agent of a region reaches the zone's own servers.
func (d *drawn) hears(region string) bool {
	return slices.ContainsFunc(d.asked(), func(a *vantage) bool { return a.region == region && !d.odd.cuts(a.id, false) })
}

// tellViews compares what regions are answered with what the zone's own servers say there, or else with the
// others, in the family that a stray address would be of.
func (t *teller) tellViews() {
	views, odd := map[string]bool{}, false
	for _, a := range t.asked() {
		to, _, _ := t.resolves(a)
		view := ""
		for _, i := range to {
			h := t.hosts[i]
			if h.addr.Is6() == t.hosts[0].addr.Is6() {
				view += " " + h.addr.String()
			}
			odd = odd || h.stray && t.hears(a.region)
		}
		if view != "" {
			views[view] = true
		}
	}
	if odd || len(views) > 1 {
		t.claims[claim{code: pb.FindingCode_FINDING_CODE_ANSWERS_UNEXPLAINED}] = manner{}
	}
}

// look goes every way, and gathers what is met.
func (t *teller) look() {
	byKey, certByKey := map[claim]*stand{}, map[claim]*stand{}
	at := func(by map[claim]*stand, all *[]*stand, a *vantage, h target) *stand {
		k := claim{region: a.region, addr: port(h)}
		if by[k] == nil {
			by[k] = &stand{region: a.region, addr: port(h), six: h.addr.Is6()}
			*all = append(*all, by[k])
		}
		return by[k]
	}
	unseen := map[claim]bool{}
	for _, a := range t.asked() {
		to, _, _ := t.resolves(a)
		for _, i := range to {
			o, h := t.meets(a, i), t.hosts[i]
			k := claim{region: a.region, addr: port(h)}
			if o.stage == pb.Stage_STAGE_AGENT {
				t.claims[claim{code: pb.FindingCode_FINDING_CODE_VANTAGE_FAULT, agent: a.id}] = manner{}
			}
			if o.stage == pb.Stage_STAGE_AGENT || o.block == pb.BlockKind_BLOCK_KIND_LARGE_PACKET_DROP && t.expect != "" && t.expect != "open" {
				unseen[k] = true // of a door that should be shut, a path that is broken says nothing
				continue
			}
			t.judged[a.region], t.judgedAt[k] = true, true
			bad := o.stage == pb.Stage_STAGE_CERTIFICATE
			at(byKey, &t.stands, a, h).note(a, o, o.stage != pb.Stage_STAGE_UNSPECIFIED && !bad)
			if t.check != "tcp" && o.stage != pb.Stage_STAGE_TCP && o.stage != pb.Stage_STAGE_TLS {
				at(certByKey, &t.certs, a, h).note(a, o, bad)
			}
		}
	}
	for k := range unseen {
		t.unseen = t.unseen || byKey[k] == nil
	}
}

func (s *stand) note(a *vantage, o obstacle, shut bool) {
	if !shut {
		s.open = append(s.open, a.id)
		return
	}
	s.shut, s.met = append(s.shut, a.id), append(s.met, o)
}

// port is a host's address and port, as findings have it.
func port(h target) string {
	if h.addr.Is6() {
		return "[" + h.addr.String() + "]:443"
	}
	return h.addr.String() + ":443"
}

// tellDissent says which agents differ from their fellows. What they alone say elsewhere is about them.
func (t *teller) tellDissent() {
	t.settleBroken()
	dissenters := map[string]bool{}
	for _, s := range t.stands {
		if len(s.open) > 0 {
			for _, a := range s.shut {
				dissenters[a] = true
				t.claims[claim{code: pb.FindingCode_FINDING_CODE_AGENTS_DIFFER, agent: a}] = manner{}
			}
		}
	}
	for _, s := range t.stands {
		s.disputed = len(s.open) == 0 && !slices.ContainsFunc(s.shut, func(a string) bool { return !dissenters[a] })
	}
}

// settleBroken: who gets a 5xx has come to the server, and what the server says of itself is told.
func (t *teller) settleBroken() {
	for _, s := range t.stands {
		for i := len(s.met) - 1; i >= 0; i-- {
			if s.met[i].why == isBroken {
				if t.expect == "" {
					t.claim(pb.FindingCode_FINDING_CODE_UPSTREAM_ERROR, s.region, s.addr, s.met[i])
				}
				s.open = append(s.open, s.shut[i])
				s.shut, s.met = slices.Delete(s.shut, i, i+1), slices.Delete(s.met, i, i+1)
			}
		}
	}
}

// tellReach gives each region that is shut out of an address its one cause: the region, if the address is
// open from another one; else the family, if the other one is open; else the address.
func (t *teller) tellReach() {
	var open, shut []*stand
	for _, s := range t.stands {
		switch {
		case len(s.open) > 0:
			open = append(open, s)
		case s.isShut():
			shut = append(shut, s)
		}
	}
	regions := map[string]bool{}
	for _, s := range shut {
		regions[s.region] = true
	}
	for _, s := range shut {
		switch {
		case len(open) == 0 && len(regions) > 1:
			t.claim(pb.FindingCode_FINDING_CODE_TARGET_DOWN, s.region, s.addr, s.met...)
		case len(open) == 0:
			t.claim(pb.FindingCode_FINDING_CODE_INSUFFICIENT_VANTAGE, s.region, "", s.met...)
		default:
			t.claim(cause(s, open, shut), s.region, s.addr, s.met...)
		}
	}
}

// tellDoors holds each region's door against what is expected of it: open, shut, or shut in one way.
func (t *teller) tellDoors() {
	for _, s := range t.stands {
		var odd []string // shut, but not in the way that is expected
		for i, o := range s.met {
			if !o.shutAs(t.expect) {
				odd = append(odd, s.shut[i])
			}
		}
		switch {
		case t.expect != "open" && len(s.open) > 0:
			t.claim(pb.FindingCode_FINDING_CODE_EXPECTATION_FAILED, s.region, s.addr)
		case !s.isShut():
		case len(odd) == len(s.shut):
			t.claim(pb.FindingCode_FINDING_CODE_EXPECTATION_FAILED, s.region, s.addr, s.met...)
		default:
			for _, agent := range odd {
				t.claims[claim{code: pb.FindingCode_FINDING_CODE_AGENTS_DIFFER, agent: agent}] = manner{}
			}
		}
	}
}

// shutAs says whether what is met shuts a door as it is expected to be shut.
func (o obstacle) shutAs(expect string) bool {
	switch expect {
	case "blocked":
		return true
	case "refused":
		return slices.Contains([]string{refused, prohibited, noPort, resetLater, sniReset, isClosed}, o.why)
	case "dropped":
		return slices.Contains([]string{dropped, sniDrop, isHung, isHungPage}, o.why)
	}
	return false
}

// cause is what a region and an address that is shut for it are an example of, where something is open.
func cause(s *stand, open, shut []*stand) pb.FindingCode {
	has := func(all []*stand, is func(*stand) bool) bool { return slices.ContainsFunc(all, is) }
	opens := func(addr string) bool { return has(open, func(o *stand) bool { return o.addr == addr }) }
	// A region is shut altogether if nothing is open from it, and something that it tried is elsewhere.
	altogether := func(region string) bool {
		return !has(open, func(o *stand) bool { return o.region == region }) &&
			has(shut, func(o *stand) bool { return o.region == region && opens(o.addr) })
	}
	switch {
	case opens(s.addr), !has(shut, func(o *stand) bool { return o.addr == s.addr && !altogether(o.region) }):
		return pb.FindingCode_FINDING_CODE_REGIONAL_BLOCK
	case !has(open, func(o *stand) bool { return o.six == s.six }):
		return pb.FindingCode_FINDING_CODE_FAMILY_BROKEN
	}
	return pb.FindingCode_FINDING_CODE_PARTIAL_ADDRESS_FAILURE
}

// tellCertificates lists those that get a bad one; as the certificate's problem if nobody gets a good one.
func (t *teller) tellCertificates() {
	code := pb.FindingCode_FINDING_CODE_CERTIFICATE_PROBLEM
	if slices.ContainsFunc(t.certs, func(s *stand) bool { return len(s.open) > 0 }) {
		code = pb.FindingCode_FINDING_CODE_REGIONAL_CERTIFICATE
	}
	for _, s := range t.certs {
		t.judgedAt[claim{code: code, region: s.region, addr: s.addr}] = true
		if len(s.open) == 0 {
			t.claim(code, s.region, s.addr, s.met...)
		}
	}
}

// tellAgents says that nothing could be judged, if so.
func (t *teller) tellAgents() {
	if len(t.judged) == 0 {
		for _, region := range t.from {
			t.claim(pb.FindingCode_FINDING_CODE_INSUFFICIENT_VANTAGE, region, "")
		}
	}
}

// conclude is the outcome.
func (t *teller) conclude() {
	t.outcome = pb.Outcome_OUTCOME_OK
	weak := len(t.judged) < len(t.from) || t.expect != "" && t.unseen
	for c := range t.claims {
		switch severityOf(c.code) {
		case pb.Severity_SEVERITY_ERROR:
			t.outcome = pb.Outcome_OUTCOME_FAIL
			return
		default:
			weak = weak || c.code == pb.FindingCode_FINDING_CODE_INSUFFICIENT_VANTAGE
		}
	}
	if weak {
		t.outcome = pb.Outcome_OUTCOME_INCONCLUSIVE
	}
}

// severityOf is the severity of what cases may show.
func severityOf(code pb.FindingCode) pb.Severity {
	if slices.Contains([]pb.FindingCode{
		pb.FindingCode_FINDING_CODE_VANTAGE_FAULT, pb.FindingCode_FINDING_CODE_AGENTS_DIFFER, pb.FindingCode_FINDING_CODE_FAMILY_BROKEN,
		pb.FindingCode_FINDING_CODE_INSUFFICIENT_VANTAGE, pb.FindingCode_FINDING_CODE_ANSWERS_UNEXPLAINED,
	}, code) {
		return pb.Severity_SEVERITY_WARN
	}
	return pb.Severity_SEVERITY_ERROR
}
