package render

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	pb "github.com/elsewhere-net/elsewhere/proto/elsewhere/v1"
)

// maxNamed is how many agents the head of a section names before it counts.
const maxNamed = 3

// section is a part of what an agent saw that takes lines of its own: a zone's servers, a path, a
// chain of certificates.
type section struct {
	title string
	lines []string
}

// sections are what a Result shows beside its sights. In depth that is all there is, with times, for
// one agent; otherwise what was asked for and what is remarkable, in words that agents which saw the
// same share.
func sections(m *pb.Measurement, r *pb.Result, deep bool) []section {
	spec := m.GetSpec()
	out := []section{}
	if deep {
		out = append(out, exchanges(r)...)
	}
	out = append(out, notes(r, deep)...)
	if deep || spec.GetDns().GetAuthoritative() {
		found := zones(r, deep)
		if out = append(out, found...); len(found) == 0 && spec.GetDns().GetAuthoritative() && !deep && !spec.GetDns().GetTrace() {
			out = append(out, lostWay(r)...)
		}
	}
	if deep || len(spec.GetDns().GetPublicResolvers()) > 0 || spec.GetDns().GetLocalPublicResolvers() {
		out = append(out, publicResolvers(m, r, deep)...)
	}
	if deep || spec.GetDns().GetTrace() {
		out = append(out, referrals(r, deep)...)
	}
	for _, s := range r.GetSteps() {
		switch {
		case !deep && s.GetRole() != pb.Role_ROLE_TARGET: // The target's own says what the other ones showed.
		case s.GetKind() == pb.StepKind_STEP_KIND_PATH_TRACE:
			out = append(out, path(s))
		case s.GetKind() == pb.StepKind_STEP_KIND_TLS_ENUMERATION:
			out = append(out, enumeration(s))
		}
	}
	return slices.DeleteFunc(out, func(s section) bool { return s.title == "" && len(s.lines) == 0 })
}

// inDepth are the sections of one agent in depth, under its row. A nil Result has none.
func inDepth(m *pb.Measurement, r *pb.Result) (lines []string) {
	for _, s := range sections(m, r, true) {
		lines = append(lines, s.indented(2)...)
	}
	return lines
}

// indented are the lines of a section, its title first.
func (s section) indented(depth int) (lines []string) {
	margin := strings.Repeat(gap, depth)
	if s.title != "" {
		lines, margin = append(lines, margin+s.title), margin+gap
	}
	for _, l := range s.lines {
		lines = append(lines, strings.TrimRight(margin+l, " "))
	}
	return lines
}

// shared are the sections of all agents, each different one once, with who saw it.
func shared(m *pb.Measurement, t theme) []string {
	return merged(m, t, func(m *pb.Measurement, r *pb.Result) []section { return sections(m, r, false) })
}

// merged are some sections of all agents.
func merged(m *pb.Measurement, t theme, of func(*pb.Measurement, *pb.Result) []section) (lines []string) {
	type seen struct {
		section
		agents []string
	}
	var order []string
	all := map[string]*seen{}
	results := slices.Clone(m.GetResults())
	slices.SortFunc(results, func(a, b *pb.Result) int { return cmp.Compare(a.GetAgent(), b.GetAgent()) })
	for _, r := range results {
		for _, s := range of(m, r) {
			key := s.title + "\n" + strings.Join(s.lines, "\n")
			if all[key] == nil {
				all[key] = &seen{section: s}
				order = append(order, key)
			}
			if who := Clean(r.GetAgent()); !slices.Contains(all[key].agents, who) {
				all[key].agents = append(all[key].agents, who)
			}
		}
	}
	for _, key := range order {
		s := all[key]
		one := s.indented(0)
		one[0] += t.faint.Render(gap + "(" + witnesses(s.agents, len(results)) + ")")
		lines = append(lines, one...)
	}
	return lines
}

// witnesses names the agents that saw something.
func witnesses(seen []string, answered int) string {
	switch {
	case len(seen) == answered && answered > 1:
		return fmt.Sprintf("all %d agents", answered)
	case len(seen) <= maxNamed:
		return strings.Join(seen, ", ")
	}
	return fmt.Sprintf("%s and %d more", strings.Join(seen[:maxNamed], ", "), len(seen)-maxNamed)
}

// stepsOf are the steps of some kind that were for something.
func stepsOf(r *pb.Result, role pb.Role, kind pb.StepKind) (out []*pb.Step) {
	for _, s := range r.GetSteps() {
		if s.GetRole() == role && s.GetKind() == kind {
			out = append(out, s)
		}
	}
	return out
}

// ending is how a step ended, in depth with its time.
func ending(s *pb.Step, said string, deep bool) string {
	words := []string{stepMark(s).String()}
	if stepMark(s) != markOK {
		words = append(words, failures(s))
	}
	if said != "" {
		words = append(words, said)
	}
	if deep {
		words = append(words, human(s.GetDuration().AsDuration()))
	}
	return strings.Join(words, " ")
}
