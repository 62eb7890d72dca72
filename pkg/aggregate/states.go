package aggregate

import (
	"time"

	pb "github.com/elsewhere-net/elsewhere/proto/elsewhere/v1"
)

// state is what one agent knows about one layer. The zero value is unknown: missing data never reads
// as healthy and never as blocked.
type state uint8

const (
	unknown state = iota
	good
	bad
)

// sight is what one agent saw of one thing.
type sight struct {
	agent   *agent
	thing   *thing
	state   state
	failure pb.Failure // why it is bad; FAILURE_NONE otherwise
	block   pb.BlockKind
	step    int  // the index of the step that shows it
	own     int  // the index of the agent's own handshake or exchange, beside which its variants stand
	connect int  // the index of the connect below it, or -1
	control int  // the index of a control step that passed, or -1
	pending bool // what went well proves nothing until the layer above it is known

	why reason // of an answer: how it comes that it differs from the zone's own servers

	wrong   []pb.Failure     // what makes a certificate bad, the gravest first
	minor   []pb.Failure     // what is worth a warning about one
	because []pb.OriginCause // why the client of the profile cannot use it, where the failure alone does not say
	maybe   []pb.OriginCause // why the client may mind what is minor, in that order; unspecified: it does not
	doubt   string           // the field of the profile that this rests on although it is not verified

	leaf *leaf         // the server's own certificate, if the sight is about it and it is known
	left time.Duration // how long it was still valid; never if that is not known
}

// leaf is a server's own certificate. All that show one share it.
type leaf struct{ *pb.Certificate }

// at is the step that shows it.
func (v *sight) at() *pb.Step { return v.agent.steps[v.step] }

// control is one control group: steps of one kind and family, or queries at one resolver.
type control struct {
	state   state
	failure pb.Failure // the last failure of the group
	step    int        // the step that passed, or the last one that failed
}

// fault is something wrong with an agent itself.
type fault struct {
	agent   *agent
	blame   pb.Blame
	failure pb.Failure
	step    int
	where   string // which resolver, or which family
}

// note adds a control step to its group: one success is enough; it fails if all that ran failed. What
// the agent did not do (policy, no time) says nothing.
func (c *control) note(i int, s *pb.Step) {
	switch f := s.GetFailure(); {
	case clean(s):
		*c = control{state: good, step: i, failure: pb.Failure_FAILURE_NONE}
	case c.state == good || f <= pb.Failure_FAILURE_NONE:
	case stageOf(f) == pb.Stage_STAGE_AGENT && f != pb.Failure_FAILURE_AGENT_NO_EGRESS:
	default:
		*c = control{state: bad, step: i, failure: f}
	}
}

// passed is the step that passed, or -1.
func (c *control) passed() int {
	if c.state == good {
		return c.step
	}
	return -1
}

// clean says whether s succeeded.
func clean(s *pb.Step) bool {
	return s.GetFailure() == pb.Failure_FAILURE_NONE && len(s.GetFailures()) == 0
}

// read turns the steps of a into what it saw. Controls and variants are read first: they run beside the
// steps that they explain, before or after them in the list.
func (f *facts) read(a *agent) {
	for i, s := range a.steps {
		switch s.GetRole() {
		case pb.Role_ROLE_CONTROL:
			f.readControl(a, i, s)
		case pb.Role_ROLE_REFERRAL:
			f.hear(a, s)
		case pb.Role_ROLE_AUTHORITY:
			f.hear(a, s)
			if s.GetKind() == pb.StepKind_STEP_KIND_DNS_QUERY {
				f.readAuthority(a, i, s)
			}
		default: // the target's are read below
			a.readVariant(i, s)
		}
	}
	firstName := len(f.answers)
	for i, s := range a.steps {
		if s.GetRole() == pb.Role_ROLE_PUBLIC && s.GetKind() == pb.StepKind_STEP_KIND_DNS_QUERY {
			f.readPublic(a, i, s)
		}
		if s.GetRole() != pb.Role_ROLE_TARGET {
			continue
		}
		f.readFault(a, i, s)
		switch s.GetKind() {
		case pb.StepKind_STEP_KIND_DNS_QUERY:
			f.readQuery(a, i, s)
		case pb.StepKind_STEP_KIND_TCP_CONNECT:
			f.readConnect(a, i, s)
		case pb.StepKind_STEP_KIND_TLS_HANDSHAKE:
			f.readHandshake(a, i, s)
		case pb.StepKind_STEP_KIND_HTTP_EXCHANGE:
			f.readExchange(a, i, s)
		case pb.StepKind_STEP_KIND_PATH_TRACE, pb.StepKind_STEP_KIND_TLS_ENUMERATION: // to look at, not to judge by
		case pb.StepKind_STEP_KIND_UNSPECIFIED:
		}
	}
	f.controlFaults(a)
	f.readName(a, f.answers[firstName:])
}

// readVariant puts what stands beside a handshake there.
func (a *agent) readVariant(i int, s *pb.Step) {
	switch {
	case s.GetKind() == pb.StepKind_STEP_KIND_TLS_ENUMERATION:
		a.enumerations = append(a.enumerations, i)
	case s.GetRole() == pb.Role_ROLE_VARIANT && s.GetKind() == pb.StepKind_STEP_KIND_TLS_HANDSHAKE && s.Beside != nil:
		if a.variants == nil {
			a.variants = map[int][]int{}
		}
		a.variants[int(s.GetBeside())] = append(a.variants[int(s.GetBeside())], i)
	}
}

// readControl adds a control step to its group.
func (f *facts) readControl(a *agent, i int, s *pb.Step) {
	switch s.GetKind() {
	case pb.StepKind_STEP_KIND_DNS_QUERY:
		if s.GetFailure() != pb.Failure_FAILURE_DNS_NODATA { // a control without one of the families
			a.resolver(s.GetAddress()).control.note(i, s)
		}
	case pb.StepKind_STEP_KIND_TCP_CONNECT:
		if t := f.address(s.GetAddress()); t != nil {
			a.control(t).note(i, s)
		}
	default: // nothing else is a control
	}
}

// control is the agent's control group for connects of t's family.
func (a *agent) control(t *thing) *control {
	if t.six {
		return &a.tcp[1]
	}
	return &a.tcp[0]
}

// weighStep says what a step of the target is worth: failed only if its kind can fail that way, it was
// tried often enough (rule 1), and a control passed beside it or the target's own bytes explain it
// (rule 2).
func (f *facts) weighStep(s *pb.Step, c *control) state {
	failure := s.GetFailure()
	switch {
	case clean(s):
		return good
	case !canFail(s.GetKind(), stageOf(failure)), c.state == bad:
		return unknown
	case answered(failure):
		return bad
	case silent(failure) && s.GetAttempts() < f.policy.GetMinAttempts():
		return unknown
	case c.state == good:
		return bad
	}
	return unknown
}

// canFail says whether a step of kind k can fail in stage s; the agent's own failures are not among
// them, they leave the step unknown.
func canFail(k pb.StepKind, s pb.Stage) bool {
	switch k {
	case pb.StepKind_STEP_KIND_DNS_QUERY:
		return s == pb.Stage_STAGE_DNS
	case pb.StepKind_STEP_KIND_TCP_CONNECT:
		return s == pb.Stage_STAGE_TCP
	case pb.StepKind_STEP_KIND_TLS_HANDSHAKE:
		return s == pb.Stage_STAGE_TCP || s == pb.Stage_STAGE_TLS
	case pb.StepKind_STEP_KIND_HTTP_EXCHANGE: // a redirect that is followed may fail in any stage
		return s != pb.Stage_STAGE_AGENT && s != pb.Stage_STAGE_UNSPECIFIED
	case pb.StepKind_STEP_KIND_PATH_TRACE, pb.StepKind_STEP_KIND_TLS_ENUMERATION, pb.StepKind_STEP_KIND_UNSPECIFIED:
	}
	return false
}

// newSight is a's step i about t, not weighed yet.
func (f *facts) newSight(a *agent, t *thing, i int) *sight {
	v := f.room()
	*v = sight{agent: a, thing: t, failure: pb.Failure_FAILURE_NONE, step: i, own: i, connect: -1, control: -1}
	return v
}

// weigh decides what the step shows, given the control group beside it.
func (f *facts) weigh(v *sight, c *control) {
	s := v.at()
	if v.state = f.weighStep(s, c); v.state == bad {
		v.failure, v.block, v.control = s.GetFailure(), v.blockOf(), c.passed()
	}
}

// room is space for one sight; there are tens of thousands.
func (f *facts) room() *sight {
	if len(f.slab) == 0 {
		f.slab = make([]sight, 128)
	}
	v := &f.slab[0]
	f.slab = f.slab[1:]
	return v
}

// await makes what went well wait for the layer above.
func (v *sight) await() {
	if v.state == good {
		v.state, v.pending = unknown, true
	}
}

// onTop puts v in the place of what the agent saw one layer below at the same address, if that went
// well. It returns nil if the layer below is what broke, and has been judged.
func (f *facts) onTop(v *sight) *sight {
	old := v.thing.seenAt
	if v.thing.seenBy != v.agent {
		f.addReach(v)
		return v
	}
	if !old.pending {
		return nil
	}
	v.connect = old.connect
	*old = *v
	return old
}

// readConnect judges a connect. Where a handshake or an exchange has to follow, a connection alone
// proves nothing yet.
func (f *facts) readConnect(a *agent, i int, s *pb.Step) {
	t := f.address(s.GetAddress())
	if t == nil || t.seenBy == a {
		return
	}
	v := f.newSight(a, t, i)
	f.weigh(v, a.control(t))
	v.connect = i
	f.atDoor(v)
	if f.m.GetSpec().GetTls() != nil || f.exchanges() {
		v.await()
	}
	f.addReach(v)
}

// readHandshake judges a handshake, unless the connect below it is what broke.
func (f *facts) readHandshake(a *agent, i int, s *pb.Step) {
	t := f.address(s.GetAddress())
	if t == nil {
		return
	}
	v := f.newSight(a, t, i)
	f.weigh(v, a.control(t))
	if certFailure(s) {
		v.state = good // it connects and shakes hands; the certificate is judged by itself
	}
	f.meet(v, a.control(t))
	f.atDoor(v)
	if v = f.onTop(v); v == nil {
		return
	}
	// With a bad certificate the first broken stage is known (rule 12), whatever the server answers.
	if wrong := f.readCert(v); f.exchanges() && !wrong && completed(s) && !f.offerAlone(s) {
		v.await()
	}
	a.see(v)
}

// addReach keeps the first sight that an agent has of an address.
func (f *facts) addReach(v *sight) {
	v.thing.seenBy, v.thing.seenAt = v.agent, v
	v.agent.see(v)
	f.reach = append(f.reach, v)
}

// see makes the agent and its region judged ones by an ok or a fail.
func (a *agent) see(v *sight) {
	if v.state != unknown && !v.thing.unused {
		a.judged, a.region.judged = true, true
	}
}

// readFault notes a target step that the agent itself broke.
func (f *facts) readFault(a *agent, i int, s *pb.Step) {
	if !ownTrouble(s.GetFailure()) {
		return
	}
	f.faults = append(f.faults, fault{agent: a, blame: pb.Blame_BLAME_AGENT, failure: s.GetFailure(), step: i})
}

// ownTrouble says whether a failure shows that the agent is broken; that it may not, cannot or had no
// time is no trouble.
func ownTrouble(f pb.Failure) bool {
	return f == pb.Failure_FAILURE_AGENT_NO_EGRESS || f == pb.Failure_FAILURE_AGENT_INTERNAL ||
		f == pb.Failure_FAILURE_AGENT_CLOCK_SKEW
}

// namesResolver says whether the question is about a server that it names: then the server is what is
// looked at, and nobody's own.
func (f *facts) namesResolver() bool { return f.m.GetSpec().GetDns().GetResolver() != "" }

// controlFaults notes the control groups that failed (rules 2 and 14). A resolver is at fault if it
// fails for the target and the control names alike; control names are also looked up for the TCP
// controls' sake, and a resolver that has the target's name need not have those.
func (f *facts) controlFaults(a *agent) {
	for i, c := range a.tcp {
		if c.state == bad {
			f.faults = append(f.faults, fault{
				agent: a, blame: pb.Blame_BLAME_AGENT, failure: c.failure, step: c.step, where: [...]string{"IPv4", "IPv6"}[i],
			})
		}
	}
	for _, r := range a.dns {
		if r.control.state == bad && r.failed && !ownTrouble(r.control.failure) && !f.namesResolver() {
			f.faults = append(f.faults, fault{
				agent: a, blame: pb.Blame_BLAME_RESOLVER, failure: r.control.failure, step: r.control.step, where: shown(r.address),
			})
		}
	}
}
