package aggregate

import (
	"slices"

	"google.golang.org/protobuf/types/known/timestamppb"

	pb "github.com/elsewhere-net/elsewhere/proto/elsewhere/v1"
)

// steeredViews are the views that the zone's own servers have for different places, as far as they are what the
// places' resolvers answer.
func (f *facts) steeredViews(views []*view) []*view {
	var places []*view
	for _, v := range views {
		own := &view{values: v.values, votes: v.votes}
		for _, s := range v.sights {
			if (s.why == confirmed || s.why == steering) && f.pictures[f.questionOf(s)].steers {
				own.sights = append(own.sights, s)
			}
		}
		if len(own.sights) > 0 {
			places = append(places, own)
		}
	}
	return places
}

// byPlace states that the zone's own servers answer by place, and the resolvers there alike.
func (f *facts) byPlace(views []*view) *pb.Finding {
	all := sightsSeeing(views)
	g := plainFinding(pb.FindingCode_FINDING_CODE_ANSWERS_GEO)
	g.Stage, g.Blame = pb.Stage_STAGE_DNS, pb.Blame_BLAME_ZONE
	g.Regions = regionNames(sightsSeeing(oddViews(views)))
	g.Confidence = f.regionwise(all)
	g.Evidence = evidence(oneOfEach(views, nil), f.ownServers(all))
	g.Summary = "the zone's own servers answer by place: " + viewsText(views) + ", as they say there."
	g.Hint = "nothing is wrong if it is meant so; what is wrong at one of the addresses is wrong for its regions alone."
	return g
}

// answersThat are the answers with one reason for their difference. A denial that is from before stands for
// itself in a lookup alone: where something is to be reached, that there is no way to it is what is told.
func (f *facts) answersThat(why reason) []*answer {
	var all []*answer
	for a := range f.everyAnswer() {
		if a.why == why && (a.state == good || f.m.GetSpec().GetDns() != nil) {
			all = append(all, a)
		}
	}
	return all
}

// staleAnswers states that resolvers still serve an old answer, and until when.
func (f *facts) staleAnswers(old []*answer) *pb.Finding {
	sights := make([]*sight, 0, len(old))
	for _, a := range old {
		sights = append(sights, a.sight)
	}
	w := plainFinding(pb.FindingCode_FINDING_CODE_ANSWERS_STALE)
	if failures := slices.DeleteFunc(failuresOf(sights), func(x pb.Failure) bool { return x == pb.Failure_FAILURE_NONE }); len(failures) > 0 {
		w.Failure, w.Failures = failures[0], failures
	}
	w.Stage, w.Blame = pb.Stage_STAGE_DNS, pb.Blame_BLAME_RESOLVER
	w.Regions, w.Agents = regionNames(sights), agentsOf(sights)
	w.Confidence = f.regionwise(sights)
	w.Evidence = evidence(sights, f.ownServers(sights))
	w.Propagation = f.holding(old)
	w.Summary = f.targetName() + ": " + f.heldText(old) + inBrackets(sole(sights)) + ", while the zone's own servers say " + f.zoneText(sights) +
		suffix("; ", f.delegationText()) + "."
	switch {
	case slices.ContainsFunc(sights, func(v *sight) bool { return extended(v.at(), staleAnswer, staleNXDOMAIN) }):
		w.Hint = "it serves what has run out because it does not get anything newer: check its way to the zone's servers."
	case w.GetPropagation().GetUntil() != nil:
		w.Hint = "wait until " + moment(w.GetPropagation().GetUntil()) + ", or have the name flushed there; if it has not changed by then, ask all of the zone's servers (--authoritative)."
	default:
		w.Hint = "wait, or have the name flushed there; if it does not change, ask all of the zone's servers (--authoritative)."
	}
	return w
}

// suffix puts something before a text that is there.
func suffix(before, text string) string {
	if text == "" {
		return ""
	}
	return before + text
}

// holding is who holds what until when.
func (f *facts) holding(old []*answer) *pb.Propagation {
	numbers := &pb.Propagation{}
	var ends []*timestamppb.Timestamp
	all := grouped(slices.Values(old))
	for _, p := range all {
		p.shows, p.judged = p.all[0], true
		ends = append(ends, f.until(p.shows.sight))
		if len(numbers.GetPerspectives()) < maxPerspectives {
			numbers.Perspectives = append(numbers.GetPerspectives(), f.describe(p))
		}
	}
	numbers.Judged, numbers.Until = int32(len(all)), latest(ends)
	return numbers
}

// suspectAnswers state which answers are not the zone's, and how that shows: one finding for each kind of proof.
func (f *facts) suspectAnswers() []*pb.Finding {
	byProof := map[string][]*sight{}
	for _, a := range f.answersThat(forged) {
		proof := f.proof(a)
		byProof[proof] = append(byProof[proof], a.sight)
	}
	var findings []*pb.Finding
	for proof, sights := range byProof {
		s := plainFinding(pb.FindingCode_FINDING_CODE_ANSWERS_SUSPECT)
		s.Stage, s.Blame = pb.Stage_STAGE_DNS, pb.Blame_BLAME_RESOLVER
		if proof == several {
			s.Blame = pb.Blame_BLAME_PATH
		}
		if proof == withheldThere {
			s.Block = pb.BlockKind_BLOCK_KIND_DNS
		}
		s.Regions, s.Agents = regionNames(sights), agentsOf(sights)
		s.Confidence = f.regionwise(sights)
		s.Evidence = evidence(sights, f.ownServers(sights))
		s.Summary = join(s.GetRegions()) + inBrackets(sole(sights)) + ": " + join(collect(sights, (*sight).server)) + " " +
			verb(collect(sights, (*sight).server), "answers", "answer") + " " + f.valuesText(sights) + " for " + f.targetName() +
			suffix(", while the zone's own servers say ", f.zoneText(sights)) + "; " + proof + "."
		s.Hint = suspectHint(s)
		findings = append(findings, s)
	}
	return findings
}

// How it shows that an answer is not the zone's.
const (
	several       = "replies with different data came to one query, so somebody on the way answers in the resolver's place"
	withheldThere = "the resolver itself says that it does not give what the zone has (extended error)"
	rewritten     = "it gives the same address for a name that does not exist"
	notAtHome     = "a handshake with what it answers shows a certificate that is not the name's"
)

// proof is how it shows that an answer is not the zone's, in the order in which it counts.
func (f *facts) proof(a *answer) string {
	switch {
	case extended(a.at(), withheld...):
		return withheldThere
	case f.severalReplies(a.at()):
		return several
	case f.random(a) == good:
		return rewritten
	}
	return notAtHome
}

// suspectHint says what to do about it.
func suspectHint(s *pb.Finding) string {
	if s.GetBlame() == pb.Blame_BLAME_PATH {
		return "ask from " + join(s.GetRegions()) + " over an encrypted transport (+tls, +https): what nobody can answer in between shows who does."
	}
	return "ask the operator of the resolver in " + join(s.GetRegions()) + " about filters and rewritten answers; the zone itself needs no change."
}

// valuesText is what sights were answered with.
func (f *facts) valuesText(sights []*sight) string {
	var values []string
	for _, v := range sights {
		got, _ := f.rrset(v.at())
		values = append(values, got...)
	}
	return listed(unique(values))
}
