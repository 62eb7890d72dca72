package aggregate

import (
	"cmp"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"

	pb "github.com/elsewhere-net/elsewhere/proto/elsewhere/v1"
)

// contrastSummary says what fails where, and that it works elsewhere.
func (f *facts) contrastSummary(b *pb.Finding, spots []*spot, contrast []*sight) string {
	fails := failsOf(spots)
	text := join(b.GetRegions()) + ": " + failing(b, fails)
	if len(contrast) > 0 {
		text += " while " + works(b, contrast)
	}
	text += passed(fails)
	if m := meaning(b.GetBlock()); m != "" {
		text += " → " + m
	}
	return text + "."
}

// works says who gets through, and to which addresses if they are others.
func works(b *pb.Finding, oks []*sight) string {
	text := join(regionNames(oks))
	switch got := responses(oks); {
	case b.GetStage() == pb.Stage_STAGE_TLS:
		text += " " + verb(regionNames(oks), "completes", "complete") + " the handshake"
	case b.GetStage() == pb.Stage_STAGE_HTTP && got != "":
		text += " " + verb(regionNames(oks), "gets", "get") + " " + got
	default:
		text += connects(oks)
	}
	if other := collect(oks, func(v *sight) string { return v.thing.text }); joined(other) != joined(b.GetAddresses()) {
		text += " to " + join(other)
	}
	return text
}

func joined(names []string) string { return strings.Join(names, " ") }

// blockHint says whom to let through where.
func (f *facts) blockHint(b *pb.Finding, spots []*spot) string {
	where := join(b.GetAddresses())
	switch b.GetBlock() {
	case pb.BlockKind_BLOCK_KIND_DROP, pb.BlockKind_BLOCK_KIND_REJECT_ICMP:
		return "allow the addresses of " + f.places(spots) + " in the firewall in front of " + where + ", or check rules by country."
	case pb.BlockKind_BLOCK_KIND_REJECT_RST:
		return "check that the service listens on " + where + " for everyone, and firewall rules that reset the addresses of " + f.places(spots) + "."
	case pb.BlockKind_BLOCK_KIND_RESET_AFTER_CONNECT:
		return "check allowlists in the server or load balancer at " + where + " for the addresses of " + f.places(spots) + "."
	case pb.BlockKind_BLOCK_KIND_SNI_RESET, pb.BlockKind_BLOCK_KIND_SNI_DROP:
		return "another name than " + quote(f.serverName()) + " gets through to " + where + " from there: ask the networks on the way from " + f.places(spots) + " about filters by name (SNI)."
	case pb.BlockKind_BLOCK_KIND_LARGE_PACKET_DROP:
		return "let ICMP “packet too big” (IPv4: “fragmentation needed”) through, or lower the MSS on the way between " + f.places(spots) + " and " + where + "."
	case pb.BlockKind_BLOCK_KIND_HTTP_DENY:
		return "check rules by country or address in the server, WAF or CDN at " + where + " for " + f.places(spots) + "."
	default:
		return "compare what " + where + " does for the addresses of " + f.places(spots) + " with what it does for the other regions."
	}
}

// places names the regions of spots with the addresses that their agents are seen at.
func (f *facts) places(spots []*spot) string {
	regions, families := map[*region]bool{}, map[bool]bool{}
	for _, s := range spots {
		regions[s.region], families[s.thing.six] = true, true
	}
	addresses := collect(f.agents, func(a *agent) string {
		seen, err := netip.ParseAddr(a.ask.GetVantage().GetObservedAddress())
		if err != nil || !regions[a.region] || !families[seen.Unmap().Is6()] {
			return "" // the address of the other family is not what the firewall sees
		}
		return seen.String()
	})
	text := join(regionsOf(spots))
	if len(addresses) > 0 {
		text += " (" + join(addresses) + ")"
	}
	return text
}

// downSummary says that nobody gets through, and in which ways.
func (f *facts) downSummary(d *pb.Finding, spots []*spot) string {
	fails := failsOf(spots)
	return "from all " + strconv.Itoa(len(d.GetRegions())) + " judged regions (" + join(d.GetRegions()) + "): " +
		failing(d, fails) + passed(fails) + "."
}

// downHint says what to look at first (rule 9).
func downHint(d *pb.Finding) string {
	switch d.GetStage() {
	case pb.Stage_STAGE_HTTP:
		return "the server is there and does not serve this: check the URL, the Host that was sent, and its log."
	case pb.Stage_STAGE_TLS:
		return "the port is open but the handshake fails: check what listens on " + join(d.GetAddresses()) + " and its TLS configuration."
	case pb.Stage_STAGE_TCP:
		return "check that the service runs and listens on " + join(d.GetAddresses()) +
			"; if it admits only the addresses of its CDN, it looks like this from everywhere else: compare its firewall with the ranges that the CDN publishes."
	default:
		return "check that the service runs."
	}
}

// loneSummary says what one region alone saw.
func (f *facts) loneSummary(w *pb.Finding, spots []*spot) string {
	fails := failsOf(spots)
	what := failing(w, fails)
	if w.GetStage() == pb.Stage_STAGE_DNS {
		what = seen(w.GetFailure()) + " " + join(collect(fails, (*sight).server)) + inBrackets(sole(fails))
	}
	return join(w.GetRegions()) + ": " + what + passed(fails) +
		"; no other region was judged, so this may be the target, the path or the region."
}

// familySummary says that one address family fails and the other works.
func (f *facts) familySummary(b *pb.Finding, spots []*spot, contrast []*sight) string {
	fails := failsOf(spots)
	return familyName(spots[0].thing.six) + " fails from " + join(b.GetRegions()) + ": " + failing(b, fails) +
		", while " + familyName(!spots[0].thing.six) + " works (" + works(b, contrast) + ")" + passed(fails) + "."
}

// familyHint says what repairs a family.
func familyHint(six bool, b *pb.Finding) string {
	record := "A"
	if six {
		record = "AAAA"
	}
	return "repair " + familyName(six) + " at " + join(b.GetAddresses()) + ", or take its " + record + " records out."
}

func familyName(six bool) string {
	if six {
		return "IPv6"
	}
	return "IPv4"
}

// differSummary says who contradicts whom, with the dissenters' networks and providers.
func (f *facts) differSummary(d *pb.Finding, differs state, spots []*spot) string {
	fails, oks := failsOf(spots), oksOf(spots)
	odd, others := fails, agentsOf(oks)
	if differs == good {
		odd, others = oks, agentsOf(fails)
	}
	who := collect(odd, func(v *sight) string { return v.agent.id + standing(v.agent) })
	at := join(d.GetAddresses())
	if at == "" {
		at = join(collect(fails, (*sight).server))
	}
	trouble := seen(d.GetFailure()) + " " + at
	if differs == good {
		return join(d.GetRegions()) + ": " + join(who) + " " + verb(who, "gets", "get") + " through, while " + join(others) + " " +
			verb(others, "gets", "get") + " " + trouble + "."
	}
	return join(d.GetRegions()) + ": " + join(who) + " " + verb(who, "gets", "get") + " " + trouble + ", while " + join(others) + " of the same region " +
		verb(others, "gets", "get") + " through."
}

// standing is an agent's network and provider, in brackets.
func standing(a *agent) string {
	provider := shown(a.ask.GetVantage().GetProvider())
	switch {
	case a.network == "":
		return ""
	case provider == "" || provider == shown(a.network):
		return " (" + shown(a.network) + ")"
	}
	return " (" + shown(a.network) + ", " + provider + ")"
}

// resolutionSummary says whose resolvers fail, and whose do not.
func (f *facts) resolutionSummary(r *pb.Finding, spots []*spot, contrast []*sight) string {
	fails := failsOf(spots)
	text := join(r.GetRegions()) + ": " + f.targetName() + ": " + seen(r.GetFailure()) + " " + join(collect(fails, (*sight).server))
	if len(r.GetFailures()) > 1 {
		text += "; ways seen: " + join(wordsOf(r.GetFailures()))
	}
	text += inBrackets(detail(fails[0].at())) + inBrackets(sole(fails))
	if len(contrast) > 0 {
		text += " while the name resolves in " + join(regionNames(contrast))
	}
	if !slices.ContainsFunc(fails, func(v *sight) bool { return v.control < 0 }) {
		text += "; the control names resolve there"
	}
	return text + "."
}

// detail is the value that makes an answer wrong, in words; "" where the failure says it all.
func detail(s *pb.Step) string {
	e := s.GetEvidence()
	switch s.GetFailure() {
	case pb.Failure_FAILURE_DNS_BOGON:
		return join(unique(e.GetAddresses()))
	case pb.Failure_FAILURE_DNS_DNSSEC_BOGUS:
		return shownUpTo(2*maxText, e.GetDnssec().GetDetail()) // A name or two, and the value at the end.
	case pb.Failure_FAILURE_DNS_CNAME_LOOP, pb.Failure_FAILURE_DNS_CNAME_BROKEN:
		return brokenLink(e.GetCnameChain())
	default:
		if carrier(s.GetFailure()) {
			return shown(e.GetText())
		}
		return ""
	}
}

// brokenLink says which link of a chain leads nowhere, as far as it is known.
func brokenLink(chain []*pb.CNAMELink) string {
	for _, l := range chain {
		if l.GetFailure() <= pb.Failure_FAILURE_NONE {
			continue
		}
		text := shown(l.GetName()) + " leads to " + shown(l.GetTarget()) + ": " + ShortFailure(l.GetFailure())
		if l.GetZone() != "" {
			text += " in zone " + shown(l.GetZone())
		}
		return text
	}
	if len(chain) == 0 {
		return ""
	}
	links := []string{shown(chain[0].GetName())} // It is a loop: no link is broken.
	for _, l := range chain[:min(len(chain), maxNames)] {
		links = append(links, shown(l.GetTarget()))
	}
	return strings.Join(links, " → ")
}

// targetName is the name that is looked at.
func (f *facts) targetName() string {
	s := f.m.GetSpec()
	for _, name := range []string{s.GetDns().GetName(), s.GetTcp().GetHost(), s.GetTls().GetHost(), f.urlHost()} {
		if name != "" {
			return shown(name)
		}
	}
	return "the name"
}

// serverName is the name that certificates are compared with.
func (f *facts) serverName() string {
	tls, http := f.m.GetSpec().GetTls(), f.m.GetSpec().GetHttp()
	host, _, err := net.SplitHostPort(http.GetHostHeader())
	if err != nil {
		host = http.GetHostHeader()
	}
	return cmp.Or(tls.GetServerName(), tls.GetHost(), http.GetServerName(), host, f.urlHost())
}

// resolverHint says what a failing resolver needs.
func (f *facts) resolverHint(r *pb.Finding, spots []*spot) string {
	servers := join(collect(failsOf(spots), (*sight).server))
	if r.GetFailure() == pb.Failure_FAILURE_DNS_BOGON {
		return servers + " answers otherwise than the others' resolvers: ask its operator about filters and names of its own; if the address is meant, the agents' operators can allow its range."
	}
	if wrongData(r.GetFailure()) {
		return unresolvableHint(r)
	}
	if carrier(r.GetFailure()) {
		return "compare the certificate of " + servers + " from " + join(r.GetRegions()) + " with the others' (`elsewhere tls`): something on the way may answer in its place."
	}
	if aboutName(r.GetFailure()) {
		return "ask the zone's own servers from " + join(r.GetRegions()) + "; if they have the record, " + servers +
			" holds an old answer or filters it."
	}
	return "check whether " + servers + " can reach the zone's servers, and its DNSSEC validation."
}

// unresolvableHint says where a name has to be repaired.
func unresolvableHint(u *pb.Finding) string {
	switch u.GetFailure() {
	case pb.Failure_FAILURE_DNS_NXDOMAIN:
		return "check the spelling, and that the record is in the zone and the zone is delegated."
	case pb.Failure_FAILURE_DNS_NODATA:
		return "the name exists without such a record: add it to the zone."
	case pb.Failure_FAILURE_DNS_BOGON:
		return "take the address out of the public zone; if it is meant to be looked at from inside, the agents' operators can allow its range."
	case pb.Failure_FAILURE_DNS_DNSSEC_BOGUS:
		return "sign the zone anew, or make the DS record at its parent fit its keys; until then validating resolvers do not answer for it."
	case pb.Failure_FAILURE_DNS_CNAME_LOOP:
		return "take one of the links out, or let it lead out of the circle."
	case pb.Failure_FAILURE_DNS_CNAME_BROKEN:
		return "repair the link, or take it out: what it leads to does not exist."
	default:
		if carrier(u.GetFailure()) {
			return "look at the server that was asked, at its certificate first: the query itself never came to be answered."
		}
		return "check the zone's own servers, its delegation and its DNSSEC signatures."
	}
}

// viewsSummary shows who is answered what.
func viewsSummary(views []*view) string {
	var parts []string
	for _, v := range views[:min(len(views), maxNames)] {
		values := make([]string, 0, len(v.values))
		for _, value := range v.values[:min(len(v.values), maxNames+1)] {
			values = append(values, shown(value))
		}
		got := join(values)
		if more := len(v.values) - maxNames; more > 0 {
			got = strings.Join(values[:maxNames], ", ") + " and " + strconv.Itoa(more) + " more"
		}
		parts = append(parts, join(regionNames(v.sights))+" ("+join(collect(v.sights, (*sight).server))+") "+
			verb(regionNames(v.sights), "gets", "get")+" "+got)
	}
	text := "answers differ: " + strings.Join(parts, "; ")
	if more := len(views) - maxNames; more > 0 {
		text += "; and " + plural(more, "other answer")
	}
	return text + ". The evidence does not say why."
}

// unevenSummary says which resolver fails beside one that does not.
func unevenSummary(u *pb.Finding, fails []*sight) string {
	return join(u.GetRegions()) + ": " + join(u.GetAgents()) + " " + verb(u.GetAgents(), "gets", "get") + " " + seen(u.GetFailure()) + " " +
		join(collect(fails, (*sight).server)) + " while another of its resolvers answers; the control names resolve at both."
}

// notServedSummary says what was expected and what came.
func (f *facts) notServedSummary(e *pb.Finding, missing []string, sights []*sight) string {
	wanted := make([]string, 0, len(missing))
	for _, w := range missing {
		wanted = append(wanted, shown(w))
	}
	text := "expected " + join(wanted) + " for " + f.targetName() + "; " + join(e.GetRegions()) + inBrackets(sole(sights))
	if e.GetFailure() != pb.Failure_FAILURE_NONE {
		return text + " " + verb(e.GetRegions(), "gets", "get") + " " + seen(e.GetFailure()) + " " + join(collect(sights, (*sight).server)) + "."
	}
	got, _ := f.rrset(sights[0].at())
	values := make([]string, 0, len(got))
	for _, value := range got[:min(len(got), maxNames)] {
		values = append(values, shown(value))
	}
	if len(values) == 0 {
		return text + " " + verb(e.GetRegions(), "gets", "get") + " an answer without such data from " + join(collect(sights, (*sight).server)) + "."
	}
	return text + " " + verb(e.GetRegions(), "gets", "get") + " " + join(values) + " from " + join(collect(sights, (*sight).server)) + "."
}

// certSummary says what is wrong with which certificate, and who gets a good one.
func (f *facts) certSummary(p *pb.Finding, fails, contrast []*sight) string {
	text := join(p.GetRegions()) + ": " + join(p.GetAddresses()) + " " + verb(p.GetAddresses(), "serves", "serve") + " " +
		fails[0].leaf.describe() + ", which fails as " + join(wordsOf(p.GetFailures())) + f.validity(p, fails[0]) + inBrackets(sole(fails))
	if len(contrast) > 0 {
		other := collect(contrast, func(v *sight) string { return v.thing.text })
		if joined(other) == joined(p.GetAddresses()) {
			text += " while " + join(regionNames(contrast)) + " " + verb(regionNames(contrast), "gets", "get") + " a good one"
		} else { // not every region need reach every one of these
			text += " while " + join(other) + " " + verb(other, "serves", "serve") + " a good one"
		}
	}
	return text + "."
}

// validity says which value was seen and which was needed.
func (f *facts) validity(p *pb.Finding, v *sight) string {
	c := v.leaf
	if c == nil {
		return ""
	}
	switch p.GetFailure() {
	case pb.Failure_FAILURE_CERT_EXPIRED:
		return ": it ended " + day(c.GetNotAfter().AsTime())
	case pb.Failure_FAILURE_CERT_NOT_YET_VALID:
		return ": it begins " + day(c.GetNotBefore().AsTime())
	case pb.Failure_FAILURE_CERT_NAME_MISMATCH:
		names := slices.Concat(c.GetDnsNames(), c.GetIpAddresses())
		if len(names) == 0 {
			return ": it names no host, asked was " + quote(f.serverName())
		}
		return ": it is for " + join(quoted(names)) + ", asked was " + quote(f.serverName())
	case pb.Failure_FAILURE_CERT_UNTRUSTED_ROOT, pb.Failure_FAILURE_CERT_CHAIN_INCOMPLETE:
		if detail := v.at().GetEvidence().GetTls().GetChainAnalysis().GetDetail(); detail != "" {
			return ": " + shown(detail)
		}
		return ""
	default:
		return ""
	}
}

func quoted(names []string) []string {
	all := make([]string, 0, min(len(names), maxNames+1))
	for _, n := range names[:min(len(names), maxNames+1)] {
		all = append(all, quote(n))
	}
	return all
}

// lacking names the certificate that completes a chain, and where it is to be had, as the first agent
// that looked for it found.
func lacking(fails []*sight) string {
	var c *pb.ChainEvidence
	for _, v := range fails {
		if c = v.at().GetEvidence().GetTls().GetChainAnalysis(); len(c.GetMissing()) > 0 {
			break
		}
	}
	text := ""
	if len(c.GetMissing()) > 0 {
		text = " " + quote(c.GetMissing()[0].GetSubject())
	}
	if c.GetIssuerUrl() != "" {
		text += " (" + shown(c.GetIssuerUrl()) + ")"
	}
	return text
}

func day(t time.Time) string { return t.UTC().Format("2006-01-02 15:04 UTC") }

// certHint says what repairs a certificate.
func (f *facts) certHint(p *pb.Finding, fails []*sight) string {
	where := join(p.GetAddresses())
	switch p.GetFailure() {
	case pb.Failure_FAILURE_CERT_EXPIRED, pb.Failure_FAILURE_CERT_INTERMEDIATE_EXPIRED:
		return "renew the certificate and load it on every server behind " + where + "."
	case pb.Failure_FAILURE_CERT_NOT_YET_VALID:
		return "check the clock of whoever issued it, or load the certificate that is valid now on " + where + "."
	case pb.Failure_FAILURE_CERT_NAME_MISMATCH:
		return "load a certificate for " + quote(f.serverName()) + " on " + where + "."
	case pb.Failure_FAILURE_CERT_SELF_SIGNED, pb.Failure_FAILURE_CERT_UNTRUSTED_ROOT:
		return "load a certificate of a publicly trusted authority on " + where +
			", and its intermediates with it; if only some agents get this one, something near them may inspect TLS."
	case pb.Failure_FAILURE_CERT_CHAIN_INCOMPLETE:
		return "append the missing intermediate" + lacking(fails) + " to the chain file of " + where + ", leaf first."
	case pb.Failure_FAILURE_CERT_CHAIN_ORDER:
		return "put the chain file of " + where + " in order: leaf first, each followed by its issuer."
	default:
		return "replace the certificate on " + where + "."
	}
}

// differentSummary shows which regions and addresses serve which certificate.
func differentSummary(served map[*leaf][]*spot) string {
	parts := make([]string, 0, len(served))
	for l, spots := range served {
		parts = append(parts, join(addressesOf(spots))+" from "+join(regionsOf(spots))+": "+l.describe())
	}
	parts = unique(parts)
	text := strings.Join(parts[:min(len(parts), maxNames)], "; ")
	if more := len(parts) - maxNames; more > 0 {
		text += "; and " + plural(more, "other certificate")
	}
	return "valid certificates differ: " + text + "."
}

// expirySummary says when the first of the certificates ends.
func expirySummary(p *pb.Finding, v *sight, left time.Duration) string {
	return join(p.GetRegions()) + ": the certificate of " + join(p.GetAddresses()) + " expires in " +
		plural(int(left/(24*time.Hour)), "day") + ", at " + day(v.leaf.GetNotAfter().AsTime()) + ": " + v.leaf.describe() + "."
}
