package aggregate

import (
	"slices"
	"strings"

	pb "github.com/elsewhere-net/elsewhere/proto/elsewhere/v1"
)

// question is a name and a type.
type question struct{ name, kind string }

// picture is what the zones' own servers say about a question, from place to place.
type picture struct {
	places map[*region]*place
	values map[string]bool // all data that they give, wherever they are asked

	chooses bool // at one place they give now this, now that: by turns, by weight
	steers  bool // they give one place something else than another, or say that who asks matters
}

// place is what they say to the agents of one region.
type place struct {
	data   []*dataset // in the end of a chain, each once
	values map[string]bool
	ttl    uint32 // the longest, in seconds
	shown  *said  // one that says it
}

// denies says whether the zone's servers say here that there is nothing, in one way or the other.
func (p *place) denies() bool {
	return slices.ContainsFunc(p.data, func(d *dataset) bool { return d.denied != pb.Failure_FAILURE_NONE })
}

// private says whether the zone's servers themselves lead to a private network.
func (p *place) private() bool {
	for value := range p.values {
		if privateValue(value) {
			return true
		}
	}
	return false
}

// gives says whether the zone's servers have data for this place, and never deny it.
func (p *place) gives() bool { return len(p.values) > 0 && !p.denies() }

// text is what they say here, in words.
func (p *place) text() string {
	texts := make([]string, 0, len(p.data))
	for _, d := range p.data[:min(len(p.data), maxNames)] {
		texts = append(texts, d.text())
	}
	return strings.Join(texts, ", or ")
}

// questionOf is what a query asked. The addresses tell what was asked for a host where the agent does not.
func (f *facts) questionOf(v *sight) question {
	s := v.at()
	kind := f.askedType(s)
	if s.GetType() == "" && slices.ContainsFunc(s.GetEvidence().GetAddresses(), f.isSix) {
		kind = "AAAA"
	}
	return question{s.GetName(), kind}
}

// draw makes the pictures of all that was asked.
func (f *facts) draw() {
	f.pictures = map[question]*picture{}
	for a := range f.everyAnswer() {
		if q := f.questionOf(a.sight); f.pictures[q] == nil {
			f.pictures[q] = f.pictureOf(q)
		}
	}
}

// pictureOf is the picture of one question.
func (f *facts) pictureOf(q question) *picture {
	p := &picture{places: map[*region]*place{}, values: map[string]bool{}}
	for _, a := range f.agents {
		for _, w := range f.finally(a, q) {
			here := p.places[a.region]
			if here == nil {
				here = &place{values: map[string]bool{}, shown: w}
				p.places[a.region] = here
			}
			here.add(w)
			for _, value := range w.data.values {
				p.values[value] = true
			}
			p.steers = p.steers || steered(w)
		}
	}
	torn := slices.ContainsFunc(f.torn, func(t *poll) bool { return t.kind == q.kind })
	var first *place
	for _, r := range f.regions {
		here := p.places[r]
		if here == nil {
			continue
		}
		slices.SortFunc(here.data, compareData)
		p.chooses = p.chooses || len(here.data) > 1 && !torn
		if first == nil {
			first = here
		}
		p.steers = p.steers || !slices.Equal(first.data, here.data)
	}
	p.steers = p.steers && !p.chooses
	return p
}

// add adds what one server says in the end.
func (p *place) add(w *said) {
	if !slices.Contains(p.data, w.data) {
		p.data = append(p.data, w.data)
	}
	for _, value := range w.data.values {
		p.values[value] = true
	}
	for _, r := range w.at().GetEvidence().GetReplies() {
		for _, rr := range r.GetAnswers() {
			p.ttl = max(p.ttl, rr.GetTtl())
		}
	}
}

// finally are the answers to a question that an agent got from the zones' own servers, CNAMEs followed; none
// if a chain leads to where no server answered.
func (f *facts) finally(a *agent, q question) []*said {
	var ends []*said
	names := []string{q.name}
	for i := 0; i < len(names); i++ {
		answered := false
		for _, w := range a.said {
			if w.name != names[i] || w.kind != q.kind || w.data == nil {
				continue
			}
			answered = true
			switch next := w.data.next; {
			case next == "":
				ends = append(ends, w)
			case !slices.Contains(names, next) && len(names) < maxChain:
				names = append(names, next)
			}
		}
		if !answered {
			return nil
		}
	}
	return ends
}

// placeOf is what the zone's own servers say to where an answer came to, or nil if they were not heard there.
func (f *facts) placeOf(v *sight) *place { return f.pictures[f.questionOf(v)].places[v.agent.region] }

// zoneDenies says whether the zone's own servers say where an answer came to that there is nothing.
func (f *facts) zoneDenies(v *sight) bool {
	here := f.placeOf(v)
	return here != nil && len(here.values) == 0
}
