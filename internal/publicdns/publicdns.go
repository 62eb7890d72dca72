// Package publicdns knows the public resolvers that many people use, as data that an operator can
// replace, and which of them are for an agent's place.
package publicdns

import (
	_ "embed" // resolvers.yaml
	"fmt"
	"net/netip"
	"slices"

	"buf.build/go/protovalidate"
	"google.golang.org/protobuf/proto"

	"github.com/elsewhere-net/elsewhere/internal/file"
	"github.com/elsewhere-net/elsewhere/internal/fleet"
	"github.com/elsewhere-net/elsewhere/pkg/profile/strictyaml"
	pb "github.com/elsewhere-net/elsewhere/proto/elsewhere/v1"
)

// MaxAsked is how many public resolvers one agent asks at most, as spec.proto has it.
const MaxAsked = 16

// maxFile bounds a list, in bytes.
const maxFile = 256 << 10

//go:embed resolvers.yaml
var shipped []byte

// Shipped are the resolvers that come with the program.
func Shipped() ([]*pb.PublicResolver, error) { return Parse("resolvers.yaml", shipped) }

// ReadFile reads a list. An error is one line that says where the file is wrong.
func ReadFile(path string) ([]*pb.PublicResolver, error) {
	data, err := file.Read(path, maxFile)
	if err != nil {
		return nil, err
	}
	return Parse(path, data)
}

// Parse reads a list from YAML; path is what errors call it. No resolver at all is an empty list, never nil.
func Parse(path string, data []byte) ([]*pb.PublicResolver, error) {
	var list pb.PublicResolvers
	if err := (strictyaml.File{Path: path, Max: maxFile, Rules: rules{}}).Unmarshal(data, &list); err != nil {
		return nil, err
	}
	if list.GetVersion() == 0 { // a file of comments alone has nothing that rules are held against
		return nil, fmt.Errorf("%s: it is empty; a list begins with: version: 1", path)
	}
	if list.Resolvers == nil {
		list.Resolvers = []*pb.PublicResolver{}
	}
	return list.GetResolvers(), nil
}

// rules are those of the proto.
type rules struct{}

// Validate implements protoyaml.Validator.
func (rules) Validate(m proto.Message) error { return protovalidate.Validate(m) }

// Asked are those of a list that any agent of a measurement asks, in the list's order: where the question
// names them, and where it wants those of each agent's place.
func Asked(list []*pb.PublicResolver, spec *pb.Spec, asks []*pb.Ask) []*pb.PublicResolver {
	wanted := map[*pb.PublicResolver]bool{}
	for _, address := range spec.GetDns().GetPublicResolvers() {
		wanted[find(list, address)] = true
	}
	if !spec.GetDns().GetLocalPublicResolvers() {
		asks = nil
	}
	places := make([]fleet.Selector, len(list))
	for i, r := range list {
		places[i] = placeOf(r)
	}
	for _, a := range asks {
		for _, r := range choose(list, places, a, spec.GetFamily()) {
			wanted[r.resolver] = true
		}
	}
	return slices.DeleteFunc(slices.Clone(list), func(r *pb.PublicResolver) bool { return !wanted[r] })
}

// For are the addresses that one agent asks, of the resolvers of its place and of its family.
func For(list []*pb.PublicResolver, agent *pb.Ask, family pb.Family) (addresses []string) {
	places := make([]fleet.Selector, len(list))
	for i, r := range list {
		places[i] = placeOf(r)
	}
	for _, r := range choose(list, places, agent, family) {
		addresses = append(addresses, r.address)
	}
	return addresses
}

// choice is a resolver and the address of it that is asked.
type choice struct {
	resolver *pb.PublicResolver
	address  string
}

// choose are the resolvers that an agent asks: the local ones first, at most MaxAsked.
func choose(list []*pb.PublicResolver, places []fleet.Selector, agent *pb.Ask, family pb.Family) []choice {
	var local, everywhere []choice
	for i, r := range list {
		address := addressFor(r, agent.GetVantage(), family)
		switch {
		case address == "":
		case r.GetWhere() == "":
			everywhere = append(everywhere, choice{r, address})
		case places[i].Matches(agent.GetAgent(), agent.GetVantage()):
			local = append(local, choice{r, address})
		}
	}
	all := slices.Concat(local, everywhere)
	return all[:min(len(all), MaxAsked)]
}

// placeOf is the place that a resolver is for. One that is for no place that can be read is for none.
func placeOf(r *pb.PublicResolver) fleet.Selector {
	place, err := fleet.ParseSelector(r.GetWhere())
	if err != nil {
		return fleet.Selector{} // it came from a newer coordinator: the rules admit what can be read
	}
	return place
}

// addressFor is the first address of the family that is asked for, or else of one that the agent has:
// IPv4 if it has both, or does not know.
func addressFor(r *pb.PublicResolver, v *pb.Vantage, family pb.Family) string {
	six := family == pb.Family_FAMILY_IPV6 || family == pb.Family_FAMILY_UNSPECIFIED && v.GetIpv6() && !v.GetIpv4()
	for _, text := range r.GetAddresses() {
		if addr, ok := addressOf(text); ok && addr.Is6() == six {
			return text
		}
	}
	return ""
}

// addressOf is the address of "IP" or "IP:PORT".
func addressOf(text string) (netip.Addr, bool) {
	ap, ok := endpoint(text)
	return ap.Addr(), ok
}

// Name is what people call the resolver at an address, "IP:PORT": "" if it is none of the list. An entry
// without a port is that address on any.
func Name(list []*pb.PublicResolver, address string) string { return find(list, address).GetName() }

// find is the resolver at an address, or nil.
func find(list []*pb.PublicResolver, address string) *pb.PublicResolver {
	at, ok := endpoint(address)
	for _, r := range list {
		for _, text := range r.GetAddresses() {
			own, fine := endpoint(text)
			if ok && fine && own.Addr() == at.Addr() && (own.Port() == 0 || own.Port() == at.Port()) {
				return r
			}
		}
	}
	return nil
}

// endpoint is "IP" or "IP:PORT"; without a port that is 0.
func endpoint(text string) (netip.AddrPort, bool) {
	if addr, err := netip.ParseAddr(text); err == nil {
		return netip.AddrPortFrom(addr.Unmap(), 0), true
	}
	ap, err := netip.ParseAddrPort(text)
	return netip.AddrPortFrom(ap.Addr().Unmap(), ap.Port()), err == nil
}
