package aggregate

import (
	"slices"
	"strconv"
	"strings"

	pb "github.com/elsewhere-net/elsewhere/proto/elsewhere/v1"
)

// vantageFindings list the agents that have a problem of their own; what they saw of the target's
// failures was left out (rules 2 and 14).
func (f *facts) vantageFindings() []*pb.Finding {
	byBlame := map[pb.Blame][]fault{}
	for _, x := range f.faults {
		byBlame[x.blame] = append(byBlame[x.blame], x)
	}
	var findings []*pb.Finding
	for blame, faults := range byBlame {
		findings = append(findings, vantageFault(blame, faults))
	}
	return findings
}

// vantageFault is one finding about all agents, or all resolvers, at fault.
func vantageFault(blame pb.Blame, faults []fault) *pb.Finding {
	v := plainFinding(pb.FindingCode_FINDING_CODE_VANTAGE_FAULT)
	v.Blame, v.Confidence = blame, pb.Confidence_CONFIDENCE_MEDIUM
	v.Stage = pb.Stage_STAGE_AGENT
	if blame == pb.Blame_BLAME_RESOLVER {
		v.Stage = pb.Stage_STAGE_DNS
	}
	v.Regions = collect(faults, func(x fault) string { return x.agent.region.name })
	v.Agents = collect(faults, func(x fault) string { return x.agent.id })
	v.Failure = mostFrequent(faults)
	for _, x := range faults {
		v.Failures = append(v.Failures, x.failure)
	}
	slices.Sort(v.Failures)
	v.Failures = slices.Compact(v.Failures)
	refs := refs{seen: map[ref]bool{}}
	for _, x := range faults {
		refs.add(x.agent, x.step, maxEvidence)
	}
	v.Evidence = refs.list
	v.Summary, v.Hint = faultWords(blame, v, faults)
	return v
}

// mostFrequent is the failure that most faults show; of equals the one with the lowest number.
func mostFrequent(faults []fault) pb.Failure {
	count := map[pb.Failure]int{}
	best := faults[0].failure
	for _, x := range faults {
		count[x.failure]++
	}
	for failure, n := range count {
		if n > count[best] || n == count[best] && failure < best {
			best = failure
		}
	}
	return best
}

// faultWords says what is wrong with the agents, and what to do about it.
func faultWords(blame pb.Blame, v *pb.Finding, faults []fault) (summary, hint string) {
	who := join(v.GetAgents())
	where := collect(faults, func(x fault) string { return x.where })
	if blame == pb.Blame_BLAME_RESOLVER {
		return who + ": the resolver " + join(where) + " fails for the control names too (" + ShortFailure(v.GetFailure()) +
				"); what it says about the target was left out.",
			"repair or replace the resolver " + join(where) + " of " + who + "."
	}
	what := "cannot work by itself"
	if len(where) > 0 {
		what = "cannot reach the controls over " + join(where) + " either"
	}
	return who + ": " + what + " (" + ShortFailure(v.GetFailure()) + "); what it failed to reach was left out.",
		"check the network and the firewall of " + who + ", and that the controls are up."
}

// nobodyJudged is too little to say anything: no agent has an ok or a fail. While agents can still
// answer there is nothing to state yet.
func (f *facts) nobodyJudged() *pb.Finding {
	waiting := slices.ContainsFunc(f.agents, func(a *agent) bool {
		return a.ask.GetState() == pb.AskState_ASK_STATE_PENDING
	})
	judged := slices.ContainsFunc(f.agents, func(a *agent) bool { return a.judged })
	if judged || len(f.stillWaiting()) > 0 || waiting && f.m.GetState() <= pb.State_STATE_RUNNING {
		return nil
	}
	n := plainFinding(pb.FindingCode_FINDING_CODE_INSUFFICIENT_VANTAGE)
	n.Stage, n.Confidence = pb.Stage_STAGE_AGENT, pb.Confidence_CONFIDENCE_LOW
	n.Regions = collect(f.regions, func(r *region) string { return r.name })
	n.Agents = collect(f.agents, func(a *agent) string { return a.id })
	n.Failure, n.Failures = f.refusals()
	n.Summary = "nothing was judged: " + f.fates() + "."
	n.Hint = f.nobodyHint()
	return n
}

// nobodyHint says what would make something be judged.
func (f *facts) nobodyHint() string {
	every := func(is func(*agent) bool) bool {
		return len(f.agents) > 0 && !slices.ContainsFunc(f.agents, func(a *agent) bool { return !is(a) })
	}
	why := f.policies()
	switch {
	case why != "":
		return "the agents' operators do not let them go there: " + why + "; ask agents whose operators do."
	case every(func(a *agent) bool { return a.reason() == pb.Failure_FAILURE_AGENT_CAPABILITY_MISSING }):
		return "ask agents that can: `agents -4` and `agents -6` list those with a route to a family."
	case f.namesResolver() && every((*agent).failedAlone):
		return "the server that the question names answers nobody: check its address, its port, and over what it is asked."
	case every((*agent).failedAlone):
		return "nothing known to be good worked beside it, which would tell the target's failure from the agents': give the agents a --control that they can reach."
	}
	return "ask more agents, or agents in other regions; `agents` lists those that are there."
}

// failedAlone says whether a target failed for an agent that has no control to compare it with.
func (a *agent) failedAlone() bool {
	good := slices.ContainsFunc(a.steps, func(s *pb.Step) bool { return s.GetRole() == pb.Role_ROLE_CONTROL && clean(s) })
	return !good && a.reason() > pb.Failure_FAILURE_NONE && stageOf(a.reason()) != pb.Stage_STAGE_AGENT
}

// policies are what agents that may not do what was asked say of it, if that is why nothing was judged.
func (f *facts) policies() string {
	var texts []string
	for _, a := range f.agents {
		if a.reason() != pb.Failure_FAILURE_AGENT_POLICY_DENIED {
			return ""
		}
		said := map[pb.Role][]string{}
		for _, s := range a.steps {
			if s.GetFailure() == pb.Failure_FAILURE_AGENT_POLICY_DENIED {
				said[s.GetRole()] = append(said[s.GetRole()], s.GetEvidence().GetText())
			}
		}
		mine := said[pb.Role_ROLE_REDIRECT] // Where a redirect led to says more than that it was not followed.
		if detail := a.ask.GetDetail(); len(mine) == 0 && detail != "" {
			mine = []string{detail}
		} else if len(mine) == 0 {
			mine = said[pb.Role_ROLE_TARGET]
		}
		for _, text := range unique(mine) {
			texts = append(texts, "“"+shownUpTo(3*maxText, text)+"”")
		}
	}
	return join(unique(texts))
}

// reason is why an agent says nothing of use: its own reason for not answering, or what most of its steps
// for the target say that could not be judged, its own reasons before those of the target. That one
// family has no data is the least of reasons.
func (a *agent) reason() pb.Failure {
	if why := a.ask.GetFailure(); why > pb.Failure_FAILURE_NONE {
		return why
	}
	var own, others, nodata []fault
	for _, s := range a.steps {
		given := fault{failure: s.GetFailure()}
		switch {
		case s.GetRole() != pb.Role_ROLE_TARGET || given.failure <= pb.Failure_FAILURE_NONE:
		case stageOf(given.failure) == pb.Stage_STAGE_AGENT:
			own = append(own, given)
		case given.failure == pb.Failure_FAILURE_DNS_NODATA:
			nodata = append(nodata, given)
		default:
			others = append(others, given)
		}
	}
	for _, why := range [][]fault{own, others, nodata} {
		if len(why) > 0 {
			return mostFrequent(why)
		}
	}
	return pb.Failure_FAILURE_UNSPECIFIED
}

// refusals are the agents' own reasons (rule 18): the most frequent one, and all.
func (f *facts) refusals() (pb.Failure, []pb.Failure) {
	var given []fault
	var all []pb.Failure
	for _, a := range f.agents {
		if reason := a.reason(); stageOf(reason) == pb.Stage_STAGE_AGENT {
			given = append(given, fault{failure: reason})
			all = append(all, reason)
		}
	}
	if len(given) == 0 {
		return pb.Failure_FAILURE_NONE, nil
	}
	slices.Sort(all)
	return mostFrequent(given), slices.Compact(all)
}

// fates says what became of the asks, with the reason where one was given.
func (f *facts) fates() string {
	if len(f.agents) == 0 {
		return "no agent was asked"
	}
	count, reasons := map[pb.AskState]int{}, map[pb.AskState][]string{}
	for _, a := range f.agents {
		s := a.ask.GetState()
		count[s]++
		if why := a.reason(); why > pb.Failure_FAILURE_NONE {
			reasons[s] = append(reasons[s], ShortFailure(why))
		}
	}
	var parts []string
	for s, word := range [...]string{
		pb.AskState_ASK_STATE_UNSPECIFIED: "without an answer", pb.AskState_ASK_STATE_PENDING: "without an answer yet",
		pb.AskState_ASK_STATE_ANSWERED: "answered with nothing that can be judged", pb.AskState_ASK_STATE_LOST: "lost",
		pb.AskState_ASK_STATE_REFUSED: "refused", pb.AskState_ASK_STATE_INELIGIBLE: "ineligible",
	} {
		if n := count[pb.AskState(s)]; n > 0 {
			part := strconv.Itoa(n) + " " + word
			if why := unique(reasons[pb.AskState(s)]); len(why) > 0 {
				part += " (" + join(why) + ")"
			}
			parts = append(parts, part)
		}
	}
	return "of " + plural(len(f.agents), "agent") + ", " + strings.Join(parts, ", ")
}

// unique sorts names and leaves out doubles.
func unique(names []string) []string {
	return collect(names, func(s string) string { return s })
}
