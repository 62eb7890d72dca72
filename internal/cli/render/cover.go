package render

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"google.golang.org/protobuf/proto"

	"github.com/elsewhere-net/elsewhere/internal/cli/cover"
	pb "github.com/elsewhere-net/elsewhere/proto/elsewhere/v1"
)

// maxBlocks is how many CIDR blocks of a kind people are shown unasked.
const maxBlocks = 20

// Cover writes what firewall rules admit of a provider's ranges.
func (s Screen) Cover(r *pb.CoverReport) error {
	switch s.Format {
	case JUnit:
		return writeSuites(s.Out, coverSuite(r))
	case CSV:
		rows := [][]string{{"family", "kind", "cidr"}}
		for _, f := range r.GetFamilies() {
			for _, block := range f.GetMissing() {
				rows = append(rows, []string{cover.FamilyName(f.GetFamily()), "missing", block})
			}
			for _, block := range f.GetSurplus() {
				rows = append(rows, []string{cover.FamilyName(f.GetFamily()), "surplus", block})
			}
		}
		return s.list(r, nil, rows)
	case JSON, JSONL:
		return s.list(r, []proto.Message{r}, nil)
	case Table:
	}
	return s.print(s.coverLines(r))
}

// coverLines is the report for people.
func (s Screen) coverLines(r *pb.CoverReport) []string {
	t := s.theme()
	width, _ := s.size()
	head := []string{Clean(r.GetProvider())}
	if r.GetService() != "" {
		head = append(head, Clean(r.GetService()))
	}
	if r.GetPublishTime() != nil {
		head = append(head, "published "+r.GetPublishTime().AsTime().Format("2006-01-02 15:04 UTC"))
	}
	lines := []string{t.strong.Render(strings.Join(append(head, fmt.Sprintf("port %d", r.GetPort())), " · "))}
	for _, f := range r.GetFamilies() {
		m, text := sayCover(f)
		lines = append(lines, t.mark(m).Render(m.String())+" "+cover.FamilyName(f.GetFamily())+gap+text)
		lines = append(lines, s.blocks("missing", f.GetMissing())...)
		lines = append(lines, s.blocks("surplus", surplus(f))...)
	}
	for _, g := range r.GetGroups() {
		lines = append(lines, fmt.Sprintf("%s  weighs %d for IPv4 and %d for IPv6, of at most %d each",
			Clean(strings.TrimSpace(g.GetId()+" "+g.GetName())), g.GetWeightIpv4(), g.GetWeightIpv6(), g.GetMaxWeight()))
	}
	for _, w := range r.GetWarnings() {
		lines = append(lines, paragraph("WARN ", w, width)...)
	}
	switch r.GetCoverage() {
	case pb.Coverage_COVERAGE_FULL:
		return append(lines, t.ok.Render("COVERED")+": every range that is known is admitted")
	case pb.Coverage_COVERAGE_PARTIAL, pb.Coverage_COVERAGE_NONE:
		return append(lines, t.fail.Render("NOT COVERED")+": admit what is missing, or part of the provider stands outside")
	case pb.Coverage_COVERAGE_UNKNOWN, pb.Coverage_COVERAGE_UNSPECIFIED:
	}
	return append(lines, t.warn.Render("NOT KNOWN")+": what the rules admit could not be told")
}

// sayCover says what is admitted of one family.
func sayCover(f *pb.FamilyCover) (mark, string) {
	switch f.GetCoverage() {
	case pb.Coverage_COVERAGE_FULL:
		return markOK, "all of " + plural(int(f.GetRanges()), "range") + " admitted"
	case pb.Coverage_COVERAGE_PARTIAL:
		return markFail, "not all of " + plural(int(f.GetRanges()), "range") + " admitted, " + plural(len(f.GetMissing()), "block") + " missing"
	case pb.Coverage_COVERAGE_NONE:
		return markFail, "none of " + plural(int(f.GetRanges()), "range") + " admitted"
	case pb.Coverage_COVERAGE_UNKNOWN, pb.Coverage_COVERAGE_UNSPECIFIED:
	}
	if f.GetRanges() == 0 {
		return markUnknown, "the provider's ranges are not known"
	}
	return markUnknown, "not known: a prefix list may admit what is missing"
}

// surplus are the blocks that admit others than the provider, as rules have them: what is left of a block
// without the provider's ranges may be many pieces, which nobody wrote.
func surplus(f *pb.FamilyCover) (out []string) {
	pieces := slices.Clone(f.GetSurplus())
	for _, text := range f.GetWider() {
		block, err := netip.ParsePrefix(text)
		within := func(piece string) bool {
			p, bad := netip.ParsePrefix(piece)
			return err == nil && bad == nil && block.Overlaps(p)
		}
		if rest := slices.DeleteFunc(slices.Clone(pieces), within); len(pieces)-len(rest) > 1 {
			pieces = rest
			out = append(out, text+", but for the provider's ranges in it")
		}
	}
	return append(out, pieces...)
}

// blocks lists CIDR blocks, a line each.
func (s Screen) blocks(what string, all []string) []string {
	var lines []string
	for i, block := range all {
		if i == maxBlocks && !s.Verbose {
			return append(lines, fmt.Sprintf("  %s  and %d more; -v lists them", what, len(all)-i))
		}
		lines = append(lines, "  "+what+gap+Clean(block))
	}
	return lines
}

// coverSuite is the report as a test suite: a case for each family.
func coverSuite(r *pb.CoverReport) junitSuite {
	suite := junitSuite{
		Name: "allowlist cover " + Clean(r.GetProvider()), Time: seconds(0),
		Properties: []junitProperty{{"service", Clean(r.GetService())}, {"port", fmt.Sprint(r.GetPort())}},
	}
	for _, f := range r.GetFamilies() {
		one := junitCase{Name: cover.FamilyName(f.GetFamily()), Class: "elsewhere.cover", Time: seconds(0)}
		switch m, text := sayCover(f); m {
		case markFail:
			one.Failure = &junitFailure{Type: "missing", Message: text, Text: Clean(strings.Join(f.GetMissing(), "\n"))}
		case markUnknown:
			one.Skipped = &junitSkipped{Message: text}
		case markOK, markWaiting:
		}
		suite.Cases = append(suite.Cases, one)
	}
	return suite
}
