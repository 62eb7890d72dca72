package aggregate

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	pb "github.com/elsewhere-net/elsewhere/proto/elsewhere/v1"
)

// How a zone's servers answer.
type zoneKind int

const (
	steadyZone  zoneKind = iota
	steeredZone          // each region its own
	turningZone          // now this, now that
	changedZone          // new data, which caches follow
	tornZone             // the second server has the old data
	emptyZone            // there is no such name
	deletedZone          // there is no such name any more, which caches follow
	zoneKinds
)

// How a resolver answers.
type resolverKind int

const (
	honest    resolverKind = iota
	faraway                // it asks the zone's servers from another region
	behind                 // it has the old data, and counts its TTL down
	lying                  // it makes up an address for any name
	crowded                // somebody answers before it does
	censoring              // it says that there is no such name
	failing53              // SERVFAIL, for this name
	silent53               // it answers nobody
	resolverKinds
)

// nameTruth is a name as it is.
type nameTruth struct {
	zone      zoneKind
	lame      bool // the second of the zone's servers does not serve it
	resolvers [4]resolverKind
	https     bool // the name's own hosts have certificates
	actors    []*actor
	turns     [2]int // of each server
}

const (
	oldData, newData, lie = "192.0.2.9", "192.0.2.1", "192.0.2.66"
)

func drawName(d *dice) *nameTruth {
	n := &nameTruth{zone: zoneKind(d.roll(int(zoneKinds))), https: d.roll(2) == 1}
	n.lame = n.zone != tornZone && d.roll(8) == 1
	for i := range n.resolvers {
		if d.roll(3) == 1 {
			n.resolvers[i] = resolverKind(d.roll(int(resolverKinds)))
		}
	}
	for r, region := range []string{"ap", "eu", "sa"}[:1+d.roll(3)] {
		for i := range 1 + d.roll(3) {
			a := &actor{id: fmt.Sprint(region, "/", i), region: region, asn: uint32(64500 + 10*r + d.roll(3)), resolver: d.roll(4)}
			if d.roll(4) == 1 {
				a.trouble = choose(d, controless, mute, absent)
			}
			n.actors = append(n.actors, a)
		}
	}
	return n
}

// gone says whether there is no such name.
func (n *nameTruth) gone() bool { return n.zone == emptyZone || n.zone == deletedZone }

// says is what the zone's server i says to a region.
func (n *nameTruth) says(region string, i int) string {
	switch n.zone {
	case steeredZone:
		return map[string]string{"ap": newData, "eu": "192.0.2.2", "sa": "192.0.2.3"}[region]
	case turningZone:
		n.turns[i]++ // each server by itself, and out of step with whoever asks it up to four times
		return fmt.Sprintf("192.0.2.%d", 1+n.turns[i]*2%5)
	case tornZone:
		if i == 1 {
			return oldData
		}
	case emptyZone, deletedZone:
		return ""
	case steadyZone, changedZone, zoneKinds:
	}
	return newData
}

// answer is what an agent's resolver tells it, with what the agent then looks at.
func (n *nameTruth) answer(a *actor) []*pb.Step {
	kind := n.resolvers[a.resolver]
	if n.zone == deletedZone && kind == behind {
		return invented(aged(a.resolver, 33, oldData))
	}
	if n.gone() && kind != lying && kind != failing53 && kind != silent53 {
		return unnamedOr(a, query(a.resolver, nxdomain))
	}
	switch kind {
	case honest, faraway, resolverKinds:
		place := a.region
		if kind == faraway {
			place = "sa"
		}
		data := n.says(place, a.resolver%2)
		return n.tried(a, aged(a.resolver, 60, data), data)
	case behind:
		if n.zone != changedZone && n.zone != tornZone {
			data := n.says(a.region, 0)
			return n.tried(a, aged(a.resolver, 30, data), data)
		}
		return n.tried(a, aged(a.resolver, 30, oldData), oldData)
	case lying:
		return n.tried(a, invented(aged(a.resolver, 3600, lie), lie), lie)
	case crowded:
		return n.tried(a, injected(n.says(a.region, 0), aged(a.resolver, 3600, lie)), lie)
	case censoring:
		return unnamedOr(a, query(a.resolver, nxdomain))
	case failing53:
		return unnamedOr(a, query(a.resolver, servfail))
	case silent53:
		return slices.Concat(query(a.resolver, dnsSilent), control53(a.resolver, dnsSilent))
	}
	return nil
}

// unnamedOr adds the control, if the agent has one.
func unnamedOr(a *actor, steps []*pb.Step) []*pb.Step {
	if a.trouble == controless {
		return steps
	}
	return append(steps, control53(a.resolver, none)...)
}

// tried shakes hands with an answer that the zone's servers do not give here, and with what they give.
func (n *nameTruth) tried(a *actor, steps []*pb.Step, data string) []*pb.Step {
	home := n.says(a.region, 0)
	if home == data {
		return steps
	}
	certificate := func(own bool) []pb.Failure {
		if own && n.https {
			return nil
		}
		return []pb.Failure{mismatch}
	}
	if home != "" {
		steps = answeredTLS(steps, home+":443", certificate(true)...)
	}
	return answeredTLS(steps, data+":443", certificate(data != lie)...)
}

// world writes down what the agents see.
func (n *nameTruth) world() *world {
	w := dnsWorld("A")
	for _, a := range n.actors {
		switch a.trouble {
		case absent:
			w.ask(a.id, a.asn, pb.AskState_ASK_STATE_LOST, 0)
		case mute:
			w.from(a.id, a.asn, query(a.resolver, noEgress))
		default:
			w.from(a.id, a.asn, n.answer(a), n.server(a, 0), n.server(a, 1))
		}
	}
	return w
}

// server is what the zone's server i tells an agent.
func (n *nameTruth) server(a *actor, i int) []*pb.Step {
	data := n.says(a.region, i)
	switch {
	case n.lame && i == 1:
		return ownFails(2, lame)
	case data == "":
		return ownFails(i+1, nxdomain)
	case n.zone == tornZone && i == 1:
		return serial(6, own(2, "A", data))
	}
	return own(i+1, "A", data)
}

func FuzzNameTruth(f *testing.F) {
	for seed := range uint64(8) {
		f.Add(randomBytes(seed))
	}
	f.Fuzz(func(t *testing.T, data []byte) { checkName(t, drawName(&dice{data})) })
}

// TestNameTruth holds verdicts about names against the truth: no resolver, no server and no zone is accused
// of what it did not do.
func TestNameTruth(t *testing.T) {
	t.Parallel()
	for seed := range uint64(3_000) {
		checkName(t, drawName(&dice{randomBytes(seed)}))
		if t.Failed() {
			t.Fatalf("seed %d", seed)
		}
	}
}

func checkName(t *testing.T, n *nameTruth) {
	t.Helper()
	w := n.world()
	v := w.judge()
	for _, f := range v.GetFindings() {
		checkFinding(t, w, f)
		if why := n.wrong(f); why != "" {
			t.Errorf("%s: %s: %s", why, line(f), f.GetSummary())
		}
	}
	checkStepOrder(t, w, 1)
	if t.Failed() {
		var b strings.Builder
		fmt.Fprintf(&b, "zone %d lame %v resolvers %v https %v\n", n.zone, n.lame, n.resolvers, n.https)
		for _, a := range n.actors {
			fmt.Fprintf(&b, "%s resolver %d (%d) trouble %d\n", a.id, a.resolver, n.resolvers[a.resolver], a.trouble)
		}
		t.Log(b.String() + strings.Join(lines(v), "\n"))
	}
}

// by says whether each region that is named has an agent that can tell and asks such a resolver, and each
// agent that is named is one.
func (n *nameTruth) by(f *pb.Finding, kinds ...resolverKind) bool {
	is := func(a *actor) bool {
		return a.trouble != absent && a.trouble != mute && slices.Contains(kinds, n.resolvers[a.resolver])
	}
	for _, region := range f.GetRegions() {
		if !slices.ContainsFunc(n.actors, func(a *actor) bool { return a.region == region && is(a) }) {
			return false
		}
	}
	for _, a := range n.actors {
		if slices.Contains(f.GetAgents(), agentID(a.id)) && !is(a) {
			return false
		}
	}
	return true
}

// wrong says what is wrong with a finding, "" for nothing.
func (n *nameTruth) wrong(f *pb.Finding) string {
	is := func(right bool) string {
		if right {
			return ""
		}
		return "that is not so"
	}
	switch f.GetCode() {
	case pb.FindingCode_FINDING_CODE_ANSWERS_SUSPECT:
		return is(n.by(f, lying, crowded))
	case pb.FindingCode_FINDING_CODE_ANSWERS_STALE:
		// What a cache has of servers that choose may be a choice that nobody saw them make: a warning, no ERROR.
		return is(n.by(f, behind) && n.zone == deletedZone || n.by(f, behind, faraway) && n.zone == changedZone || n.zone == tornZone || n.zone == turningZone)
	case pb.FindingCode_FINDING_CODE_ANSWERS_UNSYNCED:
		return is(n.zone == tornZone)
	case pb.FindingCode_FINDING_CODE_ANSWERS_GEO:
		return is(n.zone == steeredZone || n.zone == turningZone) // one turn in each place looks like that
	case pb.FindingCode_FINDING_CODE_LAME_DELEGATION:
		return is(n.lame && slices.Equal(f.GetAddresses(), []string{"192.0.2.202:53"}))
	case pb.FindingCode_FINDING_CODE_REGIONAL_RESOLUTION_FAILURE:
		return is(n.by(f, censoring, failing53) && n.zone != deletedZone || n.zone == emptyZone)
	case pb.FindingCode_FINDING_CODE_UNRESOLVABLE:
		return is(n.gone() || n.by(f, censoring, failing53))
	case pb.FindingCode_FINDING_CODE_VANTAGE_FAULT:
		return is(f.GetBlame() == pb.Blame_BLAME_AGENT || n.by(f, silent53))
	default:
		return is(f.GetSeverity() != pb.Severity_SEVERITY_ERROR)
	}
}
