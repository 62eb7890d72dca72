package aggregate

import (
	"cmp"
	"maps"
	"net"
	"slices"
	"strconv"
	"strings"

	"google.golang.org/protobuf/types/known/timestamppb"

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

// places names the regions of spots with the addresses that a firewall sees their agents at.
func (f *facts) places(spots []*spot) string {
	regions, families := map[*region]bool{}, map[pb.Family]bool{}
	for _, s := range spots {
		regions[s.region] = true
		families[[...]pb.Family{pb.Family_FAMILY_IPV4, pb.Family_FAMILY_IPV6}[s.thing.family()]] = true
	}
	var addresses []string
	for _, a := range f.agents {
		if !regions[a.region] {
			continue
		}
		for family := range families {
			for _, ip := range Addresses(a.ask.GetVantage(), family) {
				addresses = append(addresses, ip.String())
			}
		}
	}
	text := join(regionsOf(spots))
	if len(addresses) > 0 {
		text += " (" + join(unique(addresses)) + ")"
	}
	return text
}

// downSummary says that nobody gets through, and in which ways.
func (f *facts) downSummary(d *pb.Finding, spots []*spot) string {
	fails := failsOf(spots)
	text := "from all " + strconv.Itoa(len(d.GetRegions())) + " judged regions (" + join(d.GetRegions()) + "): " + failing(d, fails) + passed(fails)
	if byNameOrSize(d.GetBlock()) {
		text += " → " + meaning(d.GetBlock())
	}
	return text + "."
}

// byNameOrSize says whether other handshakes at the same address get through, which is worth saying even if
// nobody else does.
func byNameOrSize(b pb.BlockKind) bool {
	return b == pb.BlockKind_BLOCK_KIND_SNI_RESET || b == pb.BlockKind_BLOCK_KIND_SNI_DROP || b == pb.BlockKind_BLOCK_KIND_LARGE_PACKET_DROP
}

// downHint says what to look at first (rule 9).
func (f *facts) downHint(d *pb.Finding) string {
	where := join(d.GetAddresses())
	switch {
	case d.GetBlock() == pb.BlockKind_BLOCK_KIND_LARGE_PACKET_DROP:
		return "let ICMP “packet too big” (IPv4: “fragmentation needed”) through in front of " + where + ", or lower the MSS there."
	case byNameOrSize(d.GetBlock()):
		return "another name than " + quote(f.serverName()) + " gets through to " + where + ": check what the server, or a firewall in front of it, does with this name (SNI)."
	}
	if hint := f.handshakeHint(d.GetFailure(), where); hint != "" && len(d.GetFailures()) == 1 {
		return hint
	}
	switch d.GetStage() {
	case pb.Stage_STAGE_HTTP:
		return "the server is there and does not serve this: check the URL, the Host that was sent, and its log."
	case pb.Stage_STAGE_TLS:
		return "the port is open but the handshake fails: check what listens on " + where + " and its TLS configuration."
	case pb.Stage_STAGE_TCP:
		hint := "check that the service runs and listens on " + where
		if d.GetBlock() == pb.BlockKind_BLOCK_KIND_REJECT_RST {
			return hint + "." // nobody listens there; a firewall is silent or says so
		}
		return hint + "; if it admits only the addresses of its CDN, it looks like this from everywhere else: " +
			"`elsewhere allowlist cover` holds its firewall's rules against the ranges that the CDN publishes."
	default:
		return "check that the service runs."
	}
}

// handshakeHint says what to change where the server itself says what is wrong; "" where it does not.
func (f *facts) handshakeHint(failure pb.Failure, where string) string {
	switch failure {
	case pb.Failure_FAILURE_TLS_NOT_TLS:
		return "the port is open and speaks no TLS: ask for what it speaks, or turn TLS on at " + where + "."
	case pb.Failure_FAILURE_TLS_CLIENT_CERT_REQUIRED:
		return "agents have no certificate to show: let " + where + " serve those without one, or look at it by `elsewhere tcp`."
	case pb.Failure_FAILURE_TLS_UNRECOGNIZED_NAME:
		return "add " + quote(f.serverName()) + " to the names that " + where + " serves, or ask for one that it does (--servername)."
	case pb.Failure_FAILURE_TLS_VERSION_UNSUPPORTED, pb.Failure_FAILURE_TLS_NO_SHARED_CIPHER:
		return "`elsewhere tls --enumerate` shows which versions and suites " + where + " accepts; turn on TLS 1.2 or 1.3 with suites that clients have."
	default:
		return ""
	}
}

// loneSummary says what too few regions saw.
func (f *facts) loneSummary(w *pb.Finding, spots []*spot) string {
	fails := failsOf(spots)
	what := failing(w, fails)
	if w.GetStage() == pb.Stage_STAGE_DNS {
		what = seen(w.GetFailure()) + " " + join(collect(fails, (*sight).server)) + inBrackets(sole(fails))
	}
	text := join(w.GetRegions()) + ": " + what + passed(fails) + "; no other region was judged, so this may be the target, the path or the region"
	if len(w.GetRegions()) > 1 {
		text += "; the policy wants " + strconv.Itoa(int(f.policy.GetMinRegions())) + " regions to see it"
	}
	return text + "."
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
	if own := f.zoneText(fails); own != "" {
		text += "; the zone's own servers say " + own
	}
	return text + "."
}

// detail is the value that makes an answer wrong, in words; "" where the failure says it all.
func detail(s *pb.Step) string {
	e := s.GetEvidence()
	switch s.GetFailure() {
	case pb.Failure_FAILURE_DNS_BOGON:
		if e.GetText() != "" { // Which of them, and why.
			return shownUpTo(3*maxText, e.GetText())
		}
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
	if c := f.client; c != nil {
		return cmp.Or(append(c.from(c.GetServerName()), c.domain)...)
	}
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
	if hint := f.contradictionHint(failsOf(spots), servers); hint != "" && r.GetFailure() != pb.Failure_FAILURE_DNS_BOGON {
		return hint
	}
	if r.GetFailure() == pb.Failure_FAILURE_DNS_BOGON && r.GetBlame() == pb.Blame_BLAME_RESOLVER {
		return servers + " answers otherwise than the others' resolvers: ask its operator about filters and names of its own; if the address is meant, the agents' operators can allow its range."
	}
	if wrongData(r.GetFailure()) {
		return unresolvableHint(r, failsOf(spots))
	}
	if carrier(r.GetFailure()) {
		return "compare the certificate of " + servers + " from " + join(r.GetRegions()) + " with the others' (`elsewhere tls`): something on the way may answer in its place."
	}
	if r.GetBlame() == pb.Blame_BLAME_PATH {
		return "the zone's own servers do not answer " + join(r.GetRegions()) + " either, and those above them do: look for what drops queries between " +
			join(r.GetRegions()) + " and " + join(collect(f.agents, func(a *agent) string { return silentServers(a, r) })) + "."
	}
	if aboutName(r.GetFailure()) {
		return "ask the zone's own servers from " + join(r.GetRegions()) + "; if they have the record, " + servers +
			" holds an old answer or filters it."
	}
	return "check whether " + servers + " can reach the zone's servers, and its DNSSEC validation."
}

// silentServers is one of the zone's own servers that does not answer an agent of r's regions, "" for the others.
func silentServers(a *agent, r *pb.Finding) string {
	if len(a.said) == 0 || !slices.Contains(r.GetRegions(), a.region.name) {
		return ""
	}
	return a.said[0].server()
}

// contradictionHint says what a resolver needs that says otherwise than the zone's own servers; "" if that is not
// known.
func (f *facts) contradictionHint(fails []*sight, servers string) string {
	switch {
	case because(fails, stale):
		ends := make([]*timestamppb.Timestamp, 0, len(fails))
		for _, v := range fails {
			ends = append(ends, f.until(v))
		}
		hint := servers + " keeps a denial from before the zone had it; wait"
		if end := latest(ends); end != nil {
			hint += " until " + moment(end)
		}
		return hint + ", or have the name flushed there."
	case because(fails, odd) && fails[0].failure == pb.Failure_FAILURE_DNS_DNSSEC_BOGUS:
		return "the zone's own servers answer otherwise there, so what comes to " + servers + " is not the zone's: look at what its queries go through."
	case because(fails, odd):
		return "the zone's own servers answer from there, so " + servers + " withholds the name: ask its operator about filters."
	case because(fails, confirmed):
		return "the zone's own servers say the same there: check what they have for " + f.targetName() + ", and rules by place."
	}
	return ""
}

// unresolvableHint says where a name has to be repaired.
func unresolvableHint(u *pb.Finding, fails []*sight) string {
	switch u.GetFailure() {
	case pb.Failure_FAILURE_DNS_NXDOMAIN:
		return "check the spelling, and that the record is in the zone and the zone is delegated."
	case pb.Failure_FAILURE_DNS_NODATA:
		if otherFamily(fails) {
			return "the name has addresses of the other family alone: whoever has no way to those cannot get there; add a record of this one to the zone."
		}
		return "the name exists without such a record: add it to the zone."
	case pb.Failure_FAILURE_DNS_BOGON:
		return "take the address out of the public zone; if it is meant to be looked at from inside, the agents' operators can allow its range."
	case pb.Failure_FAILURE_DNS_DNSSEC_BOGUS:
		return "sign the zone anew, or make the DS record at its parent fit its keys; until then validating resolvers do not answer for it."
	case pb.Failure_FAILURE_DNS_CNAME_LOOP:
		return "take one of the links out, or let it lead out of the circle."
	case pb.Failure_FAILURE_DNS_CNAME_BROKEN:
		return "repair the link, or what it leads to, or take it out."
	default:
		if carrier(u.GetFailure()) {
			return "look at the server that was asked, at its certificate first: the query itself never came to be answered."
		}
		return "check the zone's own servers, its delegation and its DNSSEC signatures."
	}
}

// otherFamily says whether the name has addresses of another family than the one that was asked for.
func otherFamily(fails []*sight) bool {
	return slices.ContainsFunc(fails, func(v *sight) bool {
		return slices.ContainsFunc(v.agent.steps, func(s *pb.Step) bool {
			return s.GetVariant() == pb.Variant_VARIANT_OTHER_FAMILY && int(s.GetBeside()) == v.step && clean(s)
		})
	})
}

// viewsSummary shows who is answered what, and what the zone's own servers say to those that nothing explains.
func (f *facts) viewsSummary(left []*sight, views []*view) string {
	text := "answers differ: " + viewsText(views)
	if own := f.zoneText(left); own != "" {
		text += "; the zone's own servers say " + own
	}
	return text + ". The evidence does not say why."
}

// viewsText says who is answered what.
func viewsText(views []*view) string {
	var parts []string
	for _, v := range views[:min(len(views), maxNames)] {
		parts = append(parts, join(regionNames(v.sights))+" ("+join(collect(v.sights, (*sight).server))+") "+
			verb(regionNames(v.sights), "gets", "get")+" "+listed(v.values))
	}
	text := strings.Join(parts, "; ")
	if more := len(views) - maxNames; more > 0 {
		text += "; and " + plural(more, "other answer")
	}
	return text
}

// zoneText is what the zone's own servers say in the places of sights, "" if they were not heard.
func (f *facts) zoneText(sights []*sight) string {
	where := map[string][]string{}
	for _, v := range sights {
		if here := f.placeOf(v); here != nil {
			where[here.text()] = append(where[here.text()], v.agent.region.name)
		}
	}
	var parts []string
	for _, text := range slices.Sorted(maps.Keys(where)) {
		parts = append(parts, text+" in "+join(unique(where[text])))
	}
	return join(parts)
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
