package aggregate

import (
	"net/netip"
	"slices"

	pb "github.com/elsewhere-net/elsewhere/proto/elsewhere/v1"
)

// reason is what an answer's difference from the zone's own servers comes from. They are asked from the same
// place (rule 4), so that what is usual elsewhere is no difference.
type reason uint8

const (
	unasked   reason = iota // nobody of the zone's own was heard there
	confirmed               // there is none
	steering                // it is what the zone gives another place, or proves to be the name's by a handshake
	stale                   // it is from before, and will run out
	forged                  // it is not the zone's
	odd                     // there is no telling
)

// Extended errors by which a resolver says that it does not give what the zone has (RFC 8914, 4.5 and 4.16 to
// 4.19): forged, blocked, censored, filtered, prohibited.
var withheld = []uint32{4, 15, 16, 17, 18}

// explain finds the reason of each answer's difference. What a forged answer leads to is nobody's fault, and
// nothing is judged by it (rule 12).
func (f *facts) explain() {
	f.torn = f.tornPolls()
	f.draw()
	f.countTTLs()
	forgeries := map[*agent][]string{}
	for a := range f.everyAnswer() {
		if a.why = f.reason(a); a.why == forged {
			forgeries[a.agent] = append(forgeries[a.agent], a.values...)
		}
	}
	f.disregard(forgeries)
}

// countTTLs finds what is answered whole, and what of it with different TTLs: caches count down, and what is
// made up does not.
func (f *facts) countTTLs() {
	f.counts = map[*dataset][2]uint32{} // the lowest and the highest
	for a := range f.everyAnswer() {
		if a.state != good || !a.whole || len(a.values) == 0 {
			continue
		}
		a.data = f.whole(a.values, true)
		ttl, ok := f.remaining(a.sight)
		if !ok {
			continue
		}
		old, known := f.counts[a.data]
		if !known {
			old = [2]uint32{ttl, ttl}
		}
		f.counts[a.data] = [2]uint32{min(old[0], ttl), max(old[1], ttl)}
	}
}

// reason finds why an answer is what it is.
func (f *facts) reason(a *answer) reason {
	p := f.pictures[f.questionOf(a.sight)]
	here := p.places[a.agent.region]
	switch {
	case a.state == bad && f.comparable(a.sight):
		return f.failureReason(a, here)
	case a.data == nil || !f.comparable(a.sight):
		return unasked
	case here == nil:
		switch {
		case p.steers:
			return steering
		case !p.chooses && f.severalReplies(a.at()) && f.overheard(a):
			return forged
		}
		return unasked
	}
	among := func(known map[string]bool) bool {
		return !slices.ContainsFunc(a.values, func(value string) bool { return !known[value] })
	}
	switch {
	case slices.Contains(here.data, a.data), p.chooses && among(here.values), f.translated(a, here):
		return confirmed
	case p.steers && among(p.values):
		return steering
	case f.madeUp(a, p, here):
		return forged
	case extended(a.at(), staleAnswer, staleNXDOMAIN):
		return stale
	case p.chooses:
		return confirmed // one more choice of many
	case p.steers && f.handshake(a, here) == good:
		return steering
	case !p.steers && f.runsDown(a, here):
		return stale
	}
	return odd
}

// comparable says whether an answer can be compared with what the zone's own servers were asked: for the same part
// of the network, with recursion, and for data that a zone has, rather than makes for each reply or counts up.
func (f *facts) comparable(v *sight) bool {
	dns := f.m.GetSpec().GetDns()
	switch f.questionOf(v).kind {
	case "SOA", "RRSIG", "NSEC", "NSEC3", "ANY":
		return false
	}
	return dns.GetClientSubnet() == "" && !dns.GetNoRecursion() && dns.GetClass() != "CH"
}

// failureReason finds why a resolver says that there is nothing, or something that cannot be, while the zone's
// own servers have it. A denial with the zone's SOA is one that is kept for a while (RFC 2308).
func (f *facts) failureReason(a *answer, here *place) reason {
	s := a.at()
	switch {
	case here == nil:
		return unasked
	case a.failure == pb.Failure_FAILURE_DNS_BOGON:
		if slices.ContainsFunc(a.agent.said, func(w *said) bool { return w.at().GetFailure() == a.failure }) {
			return confirmed
		}
		return odd
	case a.failure == pb.Failure_FAILURE_DNS_DNSSEC_BOGUS && f.spoilt(a, here):
		return odd
	case !denial(a.failure):
		return unasked
	case !here.gives() && !f.givesOther(a):
		return confirmed
	case extended(s, withheld...):
		return odd
	case extended(s, staleAnswer, staleNXDOMAIN):
		return stale
	}
	soa := denialSOA(s)
	if ttl, ok := denialTTL(s); ok && ttl > 0 && (f.inZone(s.GetName(), soa) || !aboutName(a.failure)) {
		return stale
	}
	return odd
}

// givesOther says whether the zone's own servers have the other family's addresses of a host whose name is said
// not to exist: that is said of both families (RFC 8020).
func (f *facts) givesOther(a *answer) bool {
	if a.failure != pb.Failure_FAILURE_DNS_NXDOMAIN || f.m.GetSpec().GetDns() != nil {
		return false
	}
	return slices.ContainsFunc([]string{"A", "AAAA"}, func(kind string) bool {
		p := f.pictures[question{a.at().GetName(), kind}]
		return p != nil && p.places[a.agent.region] != nil && p.places[a.agent.region].gives()
	})
}

// spoilt says whether what a resolver could not validate is not what the zone's own servers give there: other
// data, or without the signatures that come with it.
func (f *facts) spoilt(a *answer, here *place) bool {
	p := f.pictures[f.questionOf(a.sight)]
	for _, s := range a.agent.steps {
		if p.chooses || p.steers || s.GetVariant() != pb.Variant_VARIANT_CHECKING_DISABLED || s.Beside == nil || int(s.GetBeside()) != a.step {
			continue
		}
		got, whole := f.rrset(s)
		if whole && len(got) > 0 && len(here.values) > 0 && !slices.ContainsFunc(got, func(value string) bool { return here.values[value] }) {
			return true
		}
	}
	return a.at().GetEvidence().GetDnssec().GetReason() == pb.BogusReason_BOGUS_REASON_SIGNATURE_MISSING &&
		slices.ContainsFunc(here.shown.at().GetEvidence().GetReplies(), func(r *pb.DNSReply) bool {
			return !r.GetMismatched() && slices.ContainsFunc(r.GetAnswers(), func(rr *pb.Record) bool { return rr.GetType() == "RRSIG" })
		})
}

// inZone says whether a name is in the zone of a SOA record.
func (f *facts) inZone(name string, soa *pb.Record) bool {
	zone := f.canonical("CNAME", soa.GetName())
	return zone == "." || name == zone || len(name) > len(zone) && name[len(name)-len(zone)-1:] == "."+zone
}

// translated says whether an IPv6 address was made by the resolver for a name that has none (DNS64, RFC 6147).
func (f *facts) translated(a *answer, here *place) bool {
	return f.questionOf(a.sight).kind == "AAAA" && len(here.values) == 0
}

// runsDown says whether an answer's TTL shows that it is from a cache, and older than what the zone has: it is
// less than the zone gives, others have the same with another one, or it is no number that anybody sets. Of a
// record that is gone no TTL is known; there it also takes a resolver that makes up no others.
func (f *facts) runsDown(a *answer, here *place) bool {
	ttl, ok := f.remaining(a.sight)
	if !ok || ttl == 0 {
		return false
	}
	count := f.counts[a.data]
	counted := count[0] < count[1] || ttl%roundTTL != 0
	if len(here.values) == 0 {
		return counted && f.random(a) == bad
	}
	return counted || ttl < here.ttl
}

// roundTTL is what the TTLs that people set are multiples of, in seconds. One that is no multiple was counted
// down by a cache, nine times in ten.
const roundTTL = 10

// madeUp says whether there is proof that an answer is not the zone's. An address that is private where the zone
// has public ones is no proof: who asks from inside may have a view of its own.
func (f *facts) madeUp(a *answer, p *picture, here *place) bool {
	if slices.ContainsFunc(a.values, privateValue) && !here.private() {
		return false
	}
	switch {
	case extended(a.at(), withheld...):
		return true
	case p.chooses || p.steers: // what follows may be so with servers that choose
		return false
	case f.severalReplies(a.at()), here.denies() && len(here.values) == 0 && f.random(a) == good:
		return true
	}
	return f.handshake(a, here) == bad && !f.runsDown(a, here)
}

// privateValue says whether a value is an address of a private network.
func privateValue(value string) bool {
	ip, err := netip.ParseAddr(value)
	return err == nil && Inside(ip)
}

// severalReplies says whether replies with different data came to one query that was sent once: to two of them two
// caches behind one address may each have answered.
func (f *facts) severalReplies(s *pb.Step) bool {
	return s.GetAttempts() <= 1 && len(s.GetEvidence().GetReplies()) > 1 && len(f.repliesData(s, nil)) > 1
}

// repliesData are the different data that the whole replies to a query have, of those replies that are wanted; nil
// wants all.
func (f *facts) repliesData(s *pb.Step, wanted func(*pb.DNSReply) bool) (all []*dataset) {
	for _, r := range s.GetEvidence().GetReplies() {
		if r.GetMismatched() || r.GetTruncated() || r.GetRcode() != "NOERROR" || r.GetLeftOut() > 0 || wanted != nil && !wanted(r) {
			continue
		}
		if data := f.replyData(f.askedType(s), r); len(data.values) > 0 && !slices.Contains(all, data) {
			all = append(all, data)
		}
	}
	return all
}

// overheard says whether several replies came from the zone's own servers, too: somebody on the way answers whoever
// is asked.
func (f *facts) overheard(a *answer) bool {
	q := f.questionOf(a.sight)
	return slices.ContainsFunc(a.agent.said, func(w *said) bool { return w.name == q.name && w.kind == q.kind && f.severalReplies(w.at()) })
}

// replyData is what a reply has of a type.
func (f *facts) replyData(asked string, r *pb.DNSReply) *dataset {
	var values []string
	for _, rr := range r.GetAnswers() {
		if wantedType(asked, rr.GetType()) {
			values = append(values, f.canonical(rr.GetType(), rr.GetData()))
		}
	}
	slices.Sort(values)
	return f.intern(dataset{values: slices.Compact(values), denied: pb.Failure_FAILURE_NONE})
}

// handshake is how the name's handshake with an answered address ended: good if the certificate is the name's,
// bad if it is not, while an address of the zone's own shows one that is. A name whose servers have none, or
// behind something that shows its own for all, proves nothing by it.
func (f *facts) handshake(a *answer, here *place) state {
	there, home := unknown, unknown
	for _, s := range a.agent.steps {
		if s.GetKind() != pb.StepKind_STEP_KIND_TLS_HANDSHAKE || s.GetRole() != pb.Role_ROLE_TARGET && s.GetVariant() != pb.Variant_VARIANT_ANSWERED_ADDRESS {
			continue
		}
		ap, err := netip.ParseAddrPort(s.GetAddress())
		if err != nil {
			continue
		}
		ip := ap.Addr().Unmap().String()
		answered, foreign := slices.Contains(a.values, ip), slices.ContainsFunc(s.GetFailures(), notTheName)
		switch {
		case answered && clean(s):
			return good
		case answered && foreign && s.GetRole() == pb.Role_ROLE_VARIANT:
			there = bad
		case !answered && here.values[ip] && !foreign && (clean(s) || certFailure(s)):
			home = good
		}
	}
	if home == good {
		return there
	}
	return unknown
}

// notTheName says whether a failure shows that whoever answers is not entitled to the name.
func notTheName(failure pb.Failure) bool {
	return failure == pb.Failure_FAILURE_CERT_NAME_MISMATCH || failure == pb.Failure_FAILURE_CERT_SELF_SIGNED ||
		failure == pb.Failure_FAILURE_CERT_UNTRUSTED_ROOT
}

// random is what became of a name that does not exist, at the resolver of an answer: good if it got an address of
// the answer too, bad if it does not exist there either.
func (f *facts) random(a *answer) state {
	for _, s := range a.agent.steps {
		if s.GetVariant() != pb.Variant_VARIANT_RANDOM_LABEL || s.Beside == nil || int(s.GetBeside()) != a.step {
			continue
		}
		same := slices.ContainsFunc(s.GetEvidence().GetAddresses(), func(ip string) bool { return slices.Contains(a.values, f.canonical("A", ip)) })
		switch {
		case same:
			return good
		case s.GetFailure() == pb.Failure_FAILURE_DNS_NXDOMAIN:
			return bad
		}
	}
	return unknown
}

// disregard takes back what agents saw of addresses that forged answers gave them.
func (f *facts) disregard(forgeries map[*agent][]string) {
	if len(forgeries) == 0 {
		return
	}
	for _, seen := range [][]*sight{f.reach, f.certs} {
		for _, v := range seen {
			ap, err := netip.ParseAddrPort(v.thing.text)
			if err == nil && slices.Contains(forgeries[v.agent], ap.Addr().Unmap().String()) {
				v.state, v.failure = unknown, pb.Failure_FAILURE_NONE
			}
		}
	}
}
