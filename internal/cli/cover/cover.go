// Package cover compares firewall rules with the ranges that a provider comes from, offline: agents
// cannot send from those, so that a firewall that admits its CDN alone looks shut to all of them.
package cover

import (
	"fmt"
	"slices"
	"strings"

	"go4.org/netipx"
	"google.golang.org/protobuf/types/known/timestamppb"

	pb "github.com/elsewhere-net/elsewhere/proto/elsewhere/v1"
)

// Report says whether the rules admit all the ranges, and what else they admit.
func Report(q Question, ranges *Ranges, rules *Rules) (*pb.CoverReport, error) {
	r := &pb.CoverReport{
		Provider: q.Provider, Service: ranges.Service, Port: uint32(q.Port),
		Groups: rules.groups, Warnings: slices.Concat(ranges.warnings, rules.warnings),
	}
	if !ranges.Published.IsZero() {
		r.PublishTime = timestamppb.New(ranges.Published)
	}
	for i := range families {
		f, err := family(i, ranges, rules)
		if err != nil {
			return nil, err
		}
		r.Families = append(r.Families, f)
		r.Warnings = append(r.Warnings, familyWarnings(f, rules, i, ranges)...)
	}
	r.Coverage = together(r.GetFamilies())
	for _, id := range rules.unknown {
		r.Warnings = append(r.Warnings, fmt.Sprintf("prefix list %s: its contents are not known; if it is %s's own, say so by --prefix-list %s.", id, q.Provider, id))
	}
	for _, g := range rules.groups {
		r.Warnings = append(r.Warnings, groupWarnings(g, r, rules.listed[g.GetId()])...)
	}
	return r, nil
}

// family compares the ranges of one family. What an unknown prefix list admits may be what is missing.
func family(i int, ranges *Ranges, rules *Rules) (*pb.FamilyCover, error) {
	f := &pb.FamilyCover{Family: families[i], Coverage: pb.Coverage_COVERAGE_UNKNOWN}
	wanted := ranges.sets[i]
	if wanted == nil {
		return f, nil
	}
	f.Ranges = int32(len(wanted.Prefixes()))
	missing, err := minus(wanted, rules.sets[i])
	if err != nil {
		return nil, err
	}
	if rules.lists[i] {
		missing = nil
	}
	surplus, err := minus(rules.sets[i], wanted)
	if err != nil {
		return nil, err
	}
	f.Missing, f.Surplus, f.Wider = texts(missing), texts(surplus), wider(rules.sets[i], wanted)
	switch {
	case len(f.GetMissing()) == 0:
		f.Coverage = pb.Coverage_COVERAGE_FULL
	case len(rules.unknown) > 0:
	case missing.Equal(wanted):
		f.Coverage = pb.Coverage_COVERAGE_NONE
	default:
		f.Coverage = pb.Coverage_COVERAGE_PARTIAL
	}
	return f, nil
}

// minus is what is in a and not in b; nil is the empty set.
func minus(a, b *netipx.IPSet) (*netipx.IPSet, error) {
	if a == nil || b == nil {
		return a, nil
	}
	var rest netipx.IPSetBuilder
	rest.AddSet(a)
	rest.RemoveSet(b)
	return rest.IPSet()
}

// wider are the blocks of a that hold some of b and more.
func wider(a, b *netipx.IPSet) (out []string) {
	if a == nil {
		return nil
	}
	for _, p := range a.Prefixes() {
		if b.OverlapsPrefix(p) && !b.ContainsPrefix(p) {
			out = append(out, p.String())
		}
	}
	return out
}

// texts are the fewest CIDR blocks of a set, sorted.
func texts(s *netipx.IPSet) (out []string) {
	if s == nil {
		return nil
	}
	for _, p := range s.Prefixes() {
		out = append(out, p.String())
	}
	return out
}

// together is the coverage of all families whose ranges are known.
func together(all []*pb.FamilyCover) pb.Coverage {
	seen := map[pb.Coverage]bool{}
	for _, f := range all {
		seen[f.GetCoverage()] = seen[f.GetCoverage()] || f.GetRanges() > 0
	}
	switch {
	case seen[pb.Coverage_COVERAGE_UNKNOWN]:
		return pb.Coverage_COVERAGE_UNKNOWN
	case seen[pb.Coverage_COVERAGE_PARTIAL], seen[pb.Coverage_COVERAGE_NONE] && seen[pb.Coverage_COVERAGE_FULL]:
		return pb.Coverage_COVERAGE_PARTIAL
	case seen[pb.Coverage_COVERAGE_NONE]:
		return pb.Coverage_COVERAGE_NONE
	}
	return pb.Coverage_COVERAGE_FULL // ranges of some family are always known
}

// familyWarnings are what to mind of one family.
func familyWarnings(f *pb.FamilyCover, rules *Rules, i int, ranges *Ranges) []string {
	name := FamilyName(f.GetFamily())
	everybody := [...]string{"0.0.0.0/0", "::/0"}[i]
	switch {
	case slices.Contains(texts(rules.sets[i]), everybody):
		return []string{"everybody is admitted over " + name + " (" + everybody + "), not the provider alone."}
	case ranges.sets[i] != nil:
		return nil
	case ranges.Service != "":
		return []string{"whether " + name + " is covered is not known: there is no " + name + " in " + ranges.Service + "."}
	}
	return []string{"whether " + name + " is covered is not known: the ranges hold none of it."}
}

// FamilyName is how people call a family.
func FamilyName(f pb.Family) string {
	return strings.Replace(strings.TrimPrefix(f.String(), "FAMILY_"), "IPV", "IPv", 1)
}

// groupWarnings are the traps of a group's weight: rules that do not fit are not there, and half of
// the provider stands outside.
func groupWarnings(g *pb.SecurityGroup, r *pb.CoverReport, listed *[2]bool) (out []string) {
	who := fmt.Sprintf("security group %s", g.GetId())
	for i, weight := range []int32{g.GetWeightIpv4(), g.GetWeightIpv6()} {
		name, missing := FamilyName(families[i]), int32(len(r.GetFamilies()[i].GetMissing()))
		switch {
		case weight > g.GetMaxWeight():
			out = append(out, fmt.Sprintf("%s: its inbound rules weigh %d for %s, of at most %d; the provider's prefix list alone weighs %d each time it is there, so open both ports in one rule, or have the quota raised.",
				who, weight, name, g.GetMaxWeight(), listWeight))
		case listed != nil && listed[i] && weight+listWeight > g.GetMaxWeight():
			out = append(out, fmt.Sprintf("%s: its inbound rules weigh %d for %s, of at most %d; the provider's prefix list, which weighs %d, does not fit a second time (80 and 443): open both ports in one rule, or have the quota raised.",
				who, weight, name, g.GetMaxWeight(), listWeight))
		case missing > 0 && weight+missing > g.GetMaxWeight():
			out = append(out, fmt.Sprintf("%s: its inbound rules weigh %d for %s, and the %d missing blocks make that %d of at most %d; the provider's managed prefix list weighs %d.",
				who, weight, name, missing, weight+missing, g.GetMaxWeight(), listWeight))
		}
	}
	if lists := g.GetUnknownPrefixLists(); len(lists) > 0 {
		out = append(out, fmt.Sprintf("%s: what %s weighs is not known; its inbound rules weigh more than the numbers here.", who, strings.Join(lists, " and ")))
	}
	return out
}
