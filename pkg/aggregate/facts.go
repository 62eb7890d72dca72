package aggregate

import (
	"bytes"
	"cmp"
	"net/netip"
	"slices"

	"google.golang.org/protobuf/proto"

	pb "github.com/elsewhere-net/elsewhere/proto/elsewhere/v1"
)

// facts is all that is known about one measurement, indexed once and then only read.
type facts struct {
	m       *pb.Measurement
	policy  *pb.Policy // of m, complete
	client  *client    // whom the target is judged for; nil if for nobody in particular
	regions []*region  // every asked one, sorted by name
	agents  []*agent   // every asked one, sorted by id
	name    *thing     // stands for the target's name where an address would stand

	names   []*sight // what each agent's resolution came to; none where there was nothing to resolve
	answers []answer // each query to each resolver
	public  []answer // each query to a public resolver
	reach   []*sight // what each agent saw of each address, up to a completed handshake
	certs   []*sight // what each agent saw of each address's certificate
	faults  []fault  // what is wrong with the agents themselves

	impatient []*sight // exchanges that agents gave up before the client would have

	byAddress map[string]*thing
	canon     map[record]string
	leaves    map[string]*leaf
	sets      map[string]*dataset
	key       []byte // room for one of sets

	torn     []*poll               // what the zones' own servers disagree about
	pictures map[question]*picture // what they say
	counts   map[*dataset][2]uint32

	slab   []sight
	values []string // all answers' data, one after the other
}

// region is one asked region.
type region struct {
	name   string
	judged bool // an agent of it has an ok or a fail
}

// agent is one asked agent and what it sent.
type agent struct {
	id       string
	region   *region
	network  string // what it stands in, for people
	witness  string // what it has in common with others; "" if that is not known
	ask      *pb.Ask
	result   *pb.Result
	steps    []*pb.Step
	tcp      [2]control // by family: the control connects
	dns      []resolver
	usual    [2]resolver // room for dns: few agents have more
	said     []*said     // by the zone's own servers, asked from here
	heard    [2]bool     // by family: a server of the zone, or on the way to it, answered
	stranded bool        // none of the zone's servers serves it from here, and that is told
	judged   bool

	variants     map[int][]int // of each handshake, by its index
	enumerations []int         // steps that found out what a server accepts
}

// thing is what is judged by itself: an address (rule 6), or a name.
type thing struct {
	text   string
	six    bool
	unused bool // the client of the profile never comes to it

	// seenBy and seenAt find an agent's sight of it while that agent's steps are read.
	seenBy *agent
	seenAt *sight
}

// gather indexes the asks and the results that count.
func gather(m *pb.Measurement, results []*pb.Result) *facts {
	n := len(results)
	f := &facts{
		m: m, policy: Complete(m.GetPolicy()), client: newClient(m.GetSpec()), name: &thing{},
		byAddress: map[string]*thing{}, canon: map[record]string{}, leaves: map[string]*leaf{}, sets: map[string]*dataset{},
		answers: make([]answer, 0, 2*n), reach: make([]*sight, 0, 2*n), certs: make([]*sight, 0, 2*n),
	}
	f.pick(results, f.enlist(m.GetAsks()))
	f.witnesses()
	for _, a := range f.agents {
		if a.result != nil {
			a.steps = a.result.GetSteps()
			f.read(a)
		}
	}
	f.explain()
	return f
}

// mayAnswer keeps the verdict in step with the ledger: a result that came after the measurement was
// closed finds its ask lost, and changes neither.
func mayAnswer(s pb.AskState) bool {
	return s != pb.AskState_ASK_STATE_LOST && s != pb.AskState_ASK_STATE_REFUSED && s != pb.AskState_ASK_STATE_INELIGIBLE
}

// enlist makes an agent of each ask; of several asks of one agent the first in canonical order counts.
func (f *facts) enlist(asks []*pb.Ask) map[string]*agent {
	byID := make(map[string]*agent, len(asks))
	room := make([]agent, len(asks)) // one allocation for all
	f.agents = make([]*agent, 0, len(asks))
	for i, ask := range asks {
		switch a := byID[ask.GetAgent()]; {
		case a == nil:
			a = &room[i]
			a.id, a.ask, a.dns = ask.GetAgent(), ask, a.usual[:0]
			byID[a.id] = a
			f.agents = append(f.agents, a)
		case before(ask, a.ask):
			a.ask = ask
		}
	}
	byName := map[string]*region{}
	for _, a := range f.agents {
		v := a.ask.GetVantage()
		r := byName[v.GetRegion()]
		if r == nil {
			r = &region{name: v.GetRegion()}
			byName[r.name] = r
			f.regions = append(f.regions, r)
		}
		a.region, a.network = r, network(v)
	}
	slices.SortFunc(f.agents, func(a, b *agent) int { return cmp.Compare(a.id, b.id) })
	slices.SortFunc(f.regions, func(a, b *region) int { return cmp.Compare(a.name, b.name) })
	return byID
}

// pick gives each agent one result: the lowest round, then the first in canonical order, so that
// neither order nor duplicates matter, not even duplicates that contradict each other.
func (f *facts) pick(results []*pb.Result, byID map[string]*agent) {
	for _, r := range results {
		a := byID[r.GetAgent()]
		if a == nil || r == nil || foreign(f.m, r) || !mayAnswer(a.ask.GetState()) {
			continue
		}
		old := a.result
		if old == nil || r.GetRound() < old.GetRound() || r.GetRound() == old.GetRound() && before(r, old) {
			a.result = r
		}
	}
}

// foreign says whether r names another measurement than m.
func foreign(m *pb.Measurement, r *pb.Result) bool {
	return m.GetId() != "" && r.GetMeasurementId() != "" && m.GetId() != r.GetMeasurementId()
}

// before orders messages by their deterministic bytes. It is called for duplicates alone.
func before(a, b proto.Message) bool {
	if a == b {
		return false
	}
	wire := proto.MarshalOptions{Deterministic: true}
	left, _ := wire.Marshal(a) // fails for invalid UTF-8 alone, which does not come over a wire
	right, _ := wire.Marshal(b)
	return bytes.Compare(left, right) < 0
}

// everyRegionJudged says whether each asked region has an agent with an ok or a fail.
func (f *facts) everyRegionJudged() bool {
	return len(f.regions) > 0 && !slices.ContainsFunc(f.regions, func(r *region) bool { return !r.judged })
}

// address finds or makes the thing for an address, however it is spelled; nil if text is none.
func (f *facts) address(text string) *thing {
	if t, ok := f.byAddress[text]; ok {
		return t
	}
	ap, err := netip.ParseAddrPort(text)
	if err != nil || ap.Addr().Zone() != "" {
		f.byAddress[text] = nil
		return nil
	}
	own := netip.AddrPortFrom(ap.Addr().Unmap(), ap.Port())
	t := f.byAddress[own.String()]
	if t == nil {
		t = &thing{text: own.String(), six: own.Addr().Is6()}
		t.unused = t.six && f.ipv4Alone()
		f.byAddress[t.text] = t
	}
	f.byAddress[text] = t
	return t
}
