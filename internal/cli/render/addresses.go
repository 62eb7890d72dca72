package render

import (
	"fmt"
	"net/netip"
	"slices"

	"google.golang.org/protobuf/proto"

	"github.com/elsewhere-net/elsewhere/pkg/aggregate"
	pb "github.com/elsewhere-net/elsewhere/proto/elsewhere/v1"
)

// agentAddress is an address that a firewall sees an agent at.
type agentAddress struct {
	agent, region string
	ip            netip.Addr
}

// agentAddresses are those of an agent, of one family or of both.
func agentAddresses(id string, v *pb.Vantage, family pb.Family) (out []agentAddress) {
	for _, ip := range aggregate.Addresses(v, family) {
		out = append(out, agentAddress{id, v.GetRegion(), ip})
	}
	return out
}

// note warns of an address that means nothing to a firewall outside.
func (a agentAddress) note() string {
	if aggregate.Inside(a.ip) {
		return "private: no firewall outside of its network sees it"
	}
	return ""
}

// cidr is the address as firewalls want it.
func (a agentAddress) cidr() string { return netip.PrefixFrom(a.ip, a.ip.BitLen()).String() }

// Addresses writes the addresses that firewalls see agents at. plain is the CIDR blocks alone, sorted and
// each once.
func (s Screen) Addresses(list *pb.ListAgentsResponse, family pb.Family, plain bool) error {
	if s.Format == JSON || s.Format == JSONL {
		items := make([]proto.Message, len(list.GetAgents()))
		for i, a := range list.GetAgents() {
			items[i] = a
		}
		return s.list(list, items, nil)
	}
	rows := [][]string{{"AGENT", "REGION", "COUNTRY", "PROVIDER", "CIDR", "NOTE"}}
	var blocks []netip.Addr
	for _, a := range list.GetAgents() {
		v := a.GetVantage()
		all := agentAddresses(a.GetId(), v, family)
		if len(all) == 0 {
			rows = append(rows, []string{a.GetId(), v.GetRegion(), v.GetCountry(), v.GetProvider(), "", "not known; declare it by the agent's --address"})
		}
		for _, one := range all {
			blocks = append(blocks, one.ip)
			rows = append(rows, []string{a.GetId(), v.GetRegion(), v.GetCountry(), v.GetProvider(), one.cidr(), one.note()})
		}
	}
	if plain {
		return s.plainAddresses(blocks)
	}
	return s.list(list, nil, rows)
}

// plainAddresses writes a CIDR block a line, and on Err how many mean nothing to a firewall outside.
func (s Screen) plainAddresses(all []netip.Addr) error {
	slices.SortFunc(all, netip.Addr.Compare)
	all = slices.Compact(all)
	lines, inside := make([]string, len(all)), 0
	for i, ip := range all {
		lines[i] = agentAddress{ip: ip}.cidr()
		if aggregate.Inside(ip) {
			inside++
		}
	}
	if inside > 0 {
		fmt.Fprintf(s.Err, "%d of %d private: no firewall outside of their networks sees them; the agents' --address declares what it sees\n", inside, len(all))
	}
	return s.print(lines)
}
