package render

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/elsewhere-net/elsewhere/pkg/aggregate"
	pb "github.com/elsewhere-net/elsewhere/proto/elsewhere/v1"
)

const (
	// barCells is how wide a bar is.
	barCells = 20
	// maxFollowers is how many agents or regions are named in one cell.
	maxFollowers = 2
)

// PropagationOf is the finding with the numbers of a propagation, or nil.
func PropagationOf(m *pb.Measurement) *pb.Finding {
	for _, f := range m.GetVerdict().GetFindings() {
		if f.GetCode() == pb.FindingCode_FINDING_CODE_PROPAGATION && f.GetPropagation() != nil {
			return f
		}
	}
	return nil
}

// isPropagation says whether a question is just what the propagation command asks.
func isPropagation(d *pb.DNSSpec) bool {
	return len(d.GetExpect()) > 0 && proto.Equal(d, &pb.DNSSpec{
		Name: d.GetName(), Type: d.GetType(), Expect: d.GetExpect(), Authoritative: true,
		PublicResolvers: d.GetPublicResolvers(), LocalPublicResolvers: len(d.GetPublicResolvers()) == 0,
	})
}

// propagation is who serves what, in words and bars: the sum, a bar for each region, a line for each
// perspective, and the zone's own servers that waiting does not help with. It has no lines where nothing is
// known of it.
func propagation(m *pb.Measurement, t theme, now time.Time) (lines []string) {
	p := PropagationOf(m).GetPropagation()
	if p == nil {
		return nil
	}
	lines = append(lines, t.strong.Render(headline(m, now)))
	lines = append(lines, regionBars(p, t)...)
	lines = append(lines, perspectives(p, t, now)...)
	return append(lines, behind(p, t)...)
}

// headline is the sum in one sentence: how many serve it, and until when the others do not.
func headline(m *pb.Measurement, now time.Time) string {
	p := PropagationOf(m).GetPropagation()
	if p.GetJudged() == 0 {
		return fmt.Sprintf("none of %d perspectives could be judged for %s", p.GetUnknown(), wantedData(m.GetSpec().GetDns()))
	}
	out := fmt.Sprintf("%d of %d perspectives (%d %%) serve %s", p.GetServing(), p.GetJudged(), percent(p.GetServing(), p.GetJudged()), wantedData(m.GetSpec().GetDns()))
	switch {
	case len(p.GetAuthorities()) > 0:
		out += fmt.Sprintf("; waiting is not enough: %s something else", laggards(p.GetAuthorities()))
	case p.GetServing() >= p.GetJudged():
	case p.GetUntil() != nil:
		out += "; the rest by " + moment(p.GetUntil().AsTime(), now)
	default:
		out += "; how long the rest takes is not known"
	}
	if n := p.GetUnknown(); n > 0 {
		out += fmt.Sprintf("; %d more could not be judged", n)
	}
	return out
}

// laggards counts the zone's own servers, whatever the regions that see them, and says what they do.
func laggards(all []*pb.Perspective) string {
	seen := map[string]bool{}
	for _, a := range all {
		seen[a.GetServer()] = true
	}
	if len(seen) == 1 {
		return "one of the zone's own servers serves"
	}
	return fmt.Sprintf("%d of the zone's own servers serve", len(seen))
}

// percent is how many of a hundred; all of them only where all are. n is not 0.
func percent(k, n int32) int32 { return k * 100 / n }

// wantedData is the name, the type and the data that are looked for.
func wantedData(d *pb.DNSSpec) string {
	words := []string{Clean(d.GetName()), Clean(typeOrA(d.GetType()))}
	all := make([]string, len(d.GetExpect()))
	for i, v := range d.GetExpect() {
		all[i] = word(Clean(v))
	}
	return strings.Join(append(words, joinAnswers(all)), " ")
}

// bar is a picture of k of n in so many cells: full only where all are, empty only where none is.
func bar(k, n int32, cells int) string {
	full := 0
	if n > 0 {
		full = int(k) * cells / int(n)
	}
	if full == 0 && k > 0 {
		full = 1
	}
	return strings.Repeat("█", full) + strings.Repeat("░", cells-full)
}

// tally counts the perspectives of a region.
type tally struct {
	region                   string
	serving, judged, unknown int32
}

// tallies count by region, sorted. Where the judge left perspectives out, those are of the ones that serve.
func tallies(p *pb.Propagation) (out []tally) {
	for _, one := range p.GetPerspectives() {
		i := slices.IndexFunc(out, func(t tally) bool { return t.region == one.GetRegion() })
		if i < 0 {
			out = append(out, tally{region: one.GetRegion()})
			i = len(out) - 1
		}
		switch perspectiveMark(one) {
		case markOK:
			out[i].serving++
			out[i].judged++
		case markFail:
			out[i].judged++
		case markUnknown, markWaiting:
			out[i].unknown++
		}
	}
	slices.SortFunc(out, func(a, b tally) int { return cmp.Compare(a.region, b.region) })
	return out
}

// perspectiveMark is whether a perspective serves what is expected.
func perspectiveMark(p *pb.Perspective) mark {
	switch {
	case p.GetServing():
		return markOK
	case p.GetJudged():
		return markFail
	}
	return markUnknown
}

// regionBars are a bar for each region.
func regionBars(p *pb.Propagation, t theme) []string {
	var rows [][]string
	for _, one := range tallies(p) {
		style := t.mark(markFail)
		switch {
		case one.judged == 0:
			style = t.mark(markUnknown)
		case one.serving == one.judged:
			style = t.mark(markOK)
		}
		row := []string{Clean(one.region), style.Render(bar(one.serving, one.judged, barCells)), fmt.Sprintf("%d/%d", one.serving, one.judged)}
		if one.unknown > 0 {
			row = append(row, t.mark(markUnknown).Render(fmt.Sprintf("%d unknown", one.unknown)))
		}
		rows = append(rows, row)
	}
	return grid(rows)
}

// perspectives are a line for each resolver as a region sees it, what is not yet as expected first; where
// they are many, those that are as expected are counted.
func perspectives(p *pb.Propagation, t theme, now time.Time) []string {
	all, order := slices.Clone(p.GetPerspectives()), []mark{markFail, markUnknown, markOK}
	slices.SortStableFunc(all, func(a, b *pb.Perspective) int {
		return cmp.Or(cmp.Compare(slices.Index(order, perspectiveMark(a)), slices.Index(order, perspectiveMark(b))), cmp.Compare(a.GetRegion(), b.GetRegion()))
	})
	var rows [][]string
	left := int(p.GetServing())
	for _, one := range all {
		if one.GetServing() && len(all) > maxRows {
			continue
		}
		if one.GetServing() {
			left--
		}
		m := perspectiveMark(one)
		sign := t.mark(m).Render(m.String())
		rows = append(rows, []string{gap + Clean(one.GetRegion()), sign, Clean(one.GetServer()), resolverOf(one), serves(one), lasts(one, now)})
	}
	lines := grid(rows)
	if left > 0 {
		lines = append(lines, t.faint.Render(fmt.Sprintf("%s… and %d more that serve it", gap, left)))
	}
	return lines
}

// resolverOf is the name of a public resolver, or the agents that a resolver is of.
func resolverOf(p *pb.Perspective) string {
	if p.GetPublic() || len(p.GetAgents()) == 0 {
		return Clean(p.GetName())
	}
	return strings.TrimSpace(Clean(p.GetName()) + " of " + few(p.GetAgents()))
}

// few names the first of many.
func few(all []string) string {
	if more := len(all) - maxFollowers; more > 0 {
		return Clean(strings.Join(all[:maxFollowers], ", ")) + fmt.Sprintf(" and %d more", more)
	}
	return Clean(strings.Join(all, ", "))
}

// serves is what a perspective serves, or why nothing.
func serves(p *pb.Perspective) string {
	if len(p.GetValues()) == 0 {
		return aggregate.ShortFailure(p.GetFailure())
	}
	all := make([]string, len(p.GetValues()))
	for i, v := range p.GetValues() {
		all[i] = Clean(v)
	}
	return joinAnswers(all)
}

// lasts is until when a perspective keeps what is not as expected.
func lasts(p *pb.Perspective, now time.Time) string {
	if perspectiveMark(p) != markFail || p.GetUntil() == nil {
		return ""
	}
	if len(p.GetValues()) == 0 {
		return "remembers that until " + moment(p.GetUntil().AsTime(), now)
	}
	return "until " + moment(p.GetUntil().AsTime(), now)
}

// behind are the zone's own servers that serve something else, each once, with what each region sees of it.
func behind(p *pb.Propagation, t theme) []string {
	if len(p.GetAuthorities()) == 0 {
		return nil
	}
	var rows [][]string
	at := map[string]int{}
	regions := [][]string{}
	for _, a := range p.GetAuthorities() {
		key := a.GetServer() + " " + serves(a)
		i, ok := at[key]
		if !ok {
			i = len(rows)
			at[key] = i
			rows = append(rows, []string{gap + t.fail.Render(markFail.String()), Clean(a.GetName()), Clean(a.GetServer()), serves(a), ""})
			regions = append(regions, nil)
		}
		if r := a.GetRegion(); r != "" && !slices.Contains(regions[i], r) {
			regions[i] = append(regions[i], r)
			rows[i][4] = t.faint.Render("(seen from " + few(regions[i]) + ")")
		}
	}
	return append([]string{t.fail.Render("the zone's own servers that serve something else: waiting does not help there, update them")}, grid(rows)...)
}

// moment is a time on the clock, and how far it is from now.
func moment(at, now time.Time) string {
	clock := at.Local().Format("15:04:05")
	if left := at.Sub(now).Abs(); left > 20*time.Hour {
		clock = at.Local().Format("2 Jan 15:04")
	}
	if !at.After(now) {
		return clock + ", " + rough(now.Sub(at)) + " ago"
	}
	return clock + ", in " + rough(at.Sub(now))
}

// rough is a duration for people who wait: 12 s, 4 min 10 s, 12 min, 3 h 5 min, 2 days.
func rough(d time.Duration) string {
	d = d.Round(time.Second)
	switch {
	case d < time.Minute:
		return fmt.Sprintf("%d s", d/time.Second)
	case d < 10*time.Minute && d%time.Minute != 0:
		return fmt.Sprintf("%d min %d s", d/time.Minute, d%time.Minute/time.Second)
	case d.Round(time.Minute) < time.Hour:
		return fmt.Sprintf("%d min", d.Round(time.Minute)/time.Minute)
	case d < 48*time.Hour:
		if d = d.Round(time.Minute); d%time.Hour == 0 {
			return fmt.Sprintf("%d h", d/time.Hour)
		}
		return fmt.Sprintf("%d h %d min", d/time.Hour, d%time.Hour/time.Minute)
	}
	return fmt.Sprintf("%d days", d.Round(24*time.Hour)/(24*time.Hour))
}
