package render

import (
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"github.com/elsewhere-net/elsewhere/internal/publicdns"
	pb "github.com/elsewhere-net/elsewhere/proto/elsewhere/v1"
)

// What is odd about a zone's servers.
const (
	onlyAtParent, onlyAtZone = "at the parent only", "at the zone only"
	onlyByGlue, notInGlue    = "by glue only", "not in the glue"
	differentSerials         = "different serials"
)

// nameserver is one of a zone's own servers at one address, by the steps that asked it.
type nameserver struct {
	about *pb.AuthorityEvidence
	steps []*pb.Step
}

// zones are the zones' own servers: who they are, what they say, and whether they agree.
func zones(r *pb.Result, deep bool) (out []section) {
	byZone := map[string][]*nameserver{}
	var order []string
	for _, s := range stepsOf(r, pb.Role_ROLE_AUTHORITY, pb.StepKind_STEP_KIND_DNS_QUERY) {
		zone := s.GetEvidence().GetAuthority().GetZone()
		if byZone[zone] == nil {
			order = append(order, zone)
		}
		byZone[zone] = addStep(byZone[zone], s)
	}
	for _, zone := range order {
		servers := byZone[zone]
		slices.SortStableFunc(servers, func(a, b *nameserver) int {
			return strings.Compare(a.about.GetServer()+a.steps[0].GetAddress(), b.about.GetServer()+b.steps[0].GetAddress())
		})
		rows := make([][]string, len(servers))
		// Without a server that the zone itself lists, the zone was not asked whom it lists. One without a name
		// answered for the zone unasked, as a server of a zone above: no referral was seen.
		listed := slices.ContainsFunc(servers, func(n *nameserver) bool { return n.about.GetInChild() }) &&
			slices.ContainsFunc(servers, func(n *nameserver) bool { return n.about.GetInParent() && n.about.GetServer() != "" })
		for i, n := range servers {
			rows[i] = n.row(deep, listed)
		}
		out = append(out, section{title: "zone " + Clean(zone) + zoneFacts(servers, deep), lines: grid(rows)})
	}
	return out
}

// besidePropagation are the sections that matter beside who serves what: what is remarkable, and zones whose
// servers are at odds with each other or with what their parents say of them.
func besidePropagation(_ *pb.Measurement, r *pb.Result) []section {
	out := notes(r, false)
	found := zones(r, false)
	if len(found) == 0 {
		return append(out, lostWay(r)...)
	}
	for _, s := range found {
		text := strings.Join(append(s.lines, s.title), "\n")
		if slices.ContainsFunc([]string{onlyAtParent, onlyAtZone, onlyByGlue, notInGlue, differentSerials, markFail.String()}, func(odd string) bool { return strings.Contains(text, odd) }) {
			out = append(out, s)
		}
	}
	return out
}

// addStep puts a step to its server.
func addStep(servers []*nameserver, s *pb.Step) []*nameserver {
	for _, n := range servers {
		if n.steps[0].GetAddress() == s.GetAddress() {
			n.steps = append(n.steps, s)
			return servers
		}
	}
	return append(servers, &nameserver{s.GetEvidence().GetAuthority(), []*pb.Step{s}})
}

// zoneFacts are what is known of a zone as a whole.
func zoneFacts(servers []*nameserver, deep bool) string {
	var words []string
	if slices.ContainsFunc(servers, func(n *nameserver) bool { return n.about.GetSigned() }) {
		words = append(words, "signed")
	}
	serials := map[uint32]bool{}
	for _, n := range servers {
		if n.about.SoaSerial != nil {
			serials[n.about.GetSoaSerial()] = true
		}
	}
	if len(serials) > 1 {
		words = append(words, fmt.Sprintf("%d "+differentSerials, len(serials)))
	}
	if deep && slices.ContainsFunc(servers, func(n *nameserver) bool { return n.about.GetCached() }) {
		words = append(words, "delegation known before")
	}
	if len(words) == 0 {
		return ""
	}
	return " (" + strings.Join(words, ", ") + ")"
}

// row is a server on a line: name, address, serial, where it is listed as far as both are known, and what it
// says.
func (n *nameserver) row(deep, bothKnown bool) []string {
	name, serial := "-", ""
	if n.about.GetServer() != "" {
		name = Clean(n.about.GetServer())
	}
	if n.about.SoaSerial != nil {
		serial = "serial " + strconv.FormatUint(uint64(n.about.GetSoaSerial()), 10)
	}
	listed := n.atOdds()
	switch parent, child := n.about.GetInParent(), n.about.GetInChild(); {
	case parent && !child && bothKnown:
		listed = strings.TrimSpace(onlyAtParent + " " + listed)
	case child && !parent && bothKnown:
		listed = strings.TrimSpace(onlyAtZone + " " + listed)
	}
	var said []string
	for _, s := range n.steps {
		if one := n.says(s, deep); one != "" && !slices.Contains(said, one) {
			said = append(said, one)
		}
	}
	return []string{name, Clean(n.steps[0].GetAddress()), serial, listed, strings.Join(said, "; ")}
}

// says is what one query to a server showed. Of the zone's SOA and NS only failures are told, unless
// they are what was asked for.
func (n *nameserver) says(s *pb.Step, deep bool) string {
	if aboutZone(s) && len(n.steps) > 1 && stepMark(s) == markOK {
		return ""
	}
	said := joinAnswers(answersOf(s, s.GetType()))
	if text := s.GetEvidence().GetText(); stepMark(s) == markFail && text != "" {
		said = Clean(text)
	}
	if replies := s.GetEvidence().GetReplies(); stepMark(s) == markOK && len(replies) > 0 && replies[0].GetTransport() == "tcp" {
		said += " over TCP alone"
	}
	return ending(s, said, deep)
}

// atOdds says whether the address that a server was asked at is only what the zone above says, or only what the
// server's own zone says, where both were heard.
func (n *nameserver) atOdds() string {
	glue, own := n.about.GetGlue(), n.about.GetAddresses()
	at, err := netip.ParseAddrPort(n.steps[0].GetAddress())
	if err != nil || len(glue) == 0 || len(own) == 0 {
		return ""
	}
	switch ip := at.Addr().String(); {
	case !slices.Contains(own, ip):
		return onlyByGlue
	case !slices.Contains(glue, ip):
		return notInGlue
	}
	return ""
}

// publicResolvers are the public resolvers' answers, apart from those of the agents' own.
func publicResolvers(m *pb.Measurement, r *pb.Result, deep bool) []section {
	var rows [][]string
	for _, s := range stepsOf(r, pb.Role_ROLE_PUBLIC, pb.StepKind_STEP_KIND_DNS_QUERY) {
		said := joinAnswers(answers(m.GetSpec().GetDns(), s))
		if deep {
			said = strings.TrimSpace(said + " " + aside(s))
		}
		rows = append(rows, []string{Clean(s.GetAddress()), Clean(publicdns.Name(m.GetPublicResolvers(), s.GetAddress())), ending(s, said, deep)})
	}
	if len(rows) == 0 {
		return nil
	}
	return []section{{title: "public resolvers", lines: grid(rows)}}
}

// referrals are the way down from the root, each zone below the one that refers to it. Servers of one
// zone are asked at once: which came first says nothing.
func referrals(r *pb.Result, deep bool) []section {
	wanted := onTheWay(r)
	var lines []string
	last, begin := "", 0
	for _, s := range r.GetSteps() {
		a := s.GetEvidence().GetAuthority()
		asked := s.GetRole() == pb.Role_ROLE_REFERRAL || s.GetRole() == pb.Role_ROLE_AUTHORITY
		if !asked || a == nil || !slices.Contains(wanted, s.GetName()) || aboutZone(s) {
			continue
		}
		if a.GetZone() != last {
			last, begin = a.GetZone(), len(lines)
		}
		server := strings.TrimSpace(Clean(a.GetServer()) + " " + Clean(s.GetAddress()))
		indent := strings.Repeat(gap, labelsIn(a.GetZone()))
		lines = append(lines, indent+Clean(a.GetZone())+gap+server+gap+ending(s, onward(s), deep))
		slices.Sort(lines[begin:])
	}
	if len(lines) == 0 {
		return nil
	}
	return []section{{title: "from the root down", lines: lines}}
}

// lostWay is how far the walk came that did not find a zone's own servers, where those were asked for.
func lostWay(r *pb.Result) []section {
	way := referrals(r, false)
	if len(way) > 0 {
		way[0].title = "the zone's own servers were not found; from the root down"
	}
	return way
}

// onTheWay are the names that were looked up for the target, and those that they lead to: other names
// on the way are those of servers.
func onTheWay(r *pb.Result) (names []string) {
	for _, s := range stepsOf(r, pb.Role_ROLE_TARGET, pb.StepKind_STEP_KIND_DNS_QUERY) {
		names = append(names, s.GetName())
		for _, l := range s.GetEvidence().GetCnameChain() {
			names = append(names, strings.TrimSuffix(strings.ToLower(l.GetTarget()), "."))
		}
	}
	return names
}

// aboutZone says whether a query is about a zone itself rather than about a name in it.
func aboutZone(s *pb.Step) bool {
	zone := s.GetEvidence().GetAuthority().GetZone()
	return s.GetRole() == pb.Role_ROLE_AUTHORITY && s.GetName() == zone && (s.GetType() == "SOA" || s.GetType() == "NS")
}

// labelsIn is the number of labels of a name; the root has none.
func labelsIn(name string) int {
	if name = strings.Trim(name, "."); name == "" {
		return 0
	}
	return 1 + strings.Count(name, ".")
}

// onward is where a server sends the asker: another zone's servers, or the answer.
func onward(s *pb.Step) string {
	reply := counted(s)
	if len(reply.GetAnswers()) > 0 {
		return Clean(s.GetName()+" "+s.GetType()) + " " + joinAnswers(answersOf(s, s.GetType()))
	}
	zone, n := "", 0
	signed := ""
	for _, rr := range reply.GetAuthority() {
		switch rr.GetType() {
		case "NS":
			zone, n = rr.GetName(), n+1
		case "DS":
			signed = ", signed"
		}
	}
	if n == 0 {
		return Clean(reply.GetRcode())
	}
	servers := "servers"
	if n == 1 {
		servers = "server"
	}
	return fmt.Sprintf("→ %s (%d %s%s)", Clean(zone), n, servers, signed)
}
