package aggregate

import (
	"fmt"
	"slices"
	"strings"

	pb "github.com/elsewhere-net/elsewhere/proto/elsewhere/v1"
)

// trouble is what is wrong with an agent itself.
type trouble int

const (
	healthy    trouble = iota
	lossy              // every other packet of its own is lost: second attempts get through
	hurried            // it has time for one attempt each
	controless         // no control of its is up
	cut4               // nothing comes back over IPv4, from anywhere
	cut6               // the same over IPv6
	mute               // its own firewall: it cannot send
	noSix              // it has no IPv6
	deaf               // its resolver answers nobody
	absent             // it was lost
	unwilling          // it refused
	troubles           // how many there are
)

// fate is how the way to an address ends.
type fate struct {
	failure pb.Failure
	status  uint32 // for http_status
}

// actor is one agent and what is true of it.
type actor struct {
	id, region string
	asn        uint32
	trouble    trouble
	resolver   int             // 198.51.100.n
	filtered   map[string]fate // what the agent's own network does, by address
}

// truth is a small world as it is, whatever anybody sees of it.
type truth struct {
	spec      *pb.Spec
	addresses []string
	actors    []*actor
	down      map[string]fate            // by address, for everybody
	shut      map[string]map[string]fate // by region and address
	nameless  map[int]pb.Failure         // resolvers that cannot say the name, and work otherwise
}

// fates are what can happen to a check of a kind, by the depth that it goes to.
func fates(spec *pb.Spec) []fate {
	all := []fate{{failure: timeout}, {failure: refused}, {failure: prohibited}, {failure: portUnr}}
	if spec.GetTcp() != nil {
		return append(all, fate{failure: reset}, fate{failure: pb.Failure_FAILURE_TCP_CLOSED_EARLY})
	}
	all = append(all, fate{failure: hung}, fate{failure: tlsReset}, fate{failure: tlsAlert},
		fate{failure: pb.Failure_FAILURE_TLS_NOT_TLS}, fate{failure: expired}, fate{failure: mismatch})
	if spec.GetHttp() != nil {
		all = append(all, fate{failure: httpHung}, fate{httpStatus, 403}, fate{httpStatus, 404}, fate{httpStatus, 503})
	}
	return all
}

// drawTruth makes up a world; the first choice is always the harmless one.
func drawTruth(d *dice) *truth {
	w := choose(d, tcpWorld, tlsWorld, func() *world { return httpWorld("https://www.example/") },
		func() *world { return expectWorld(pb.Reachability_REACHABILITY_OPEN) },
		func() *world { return expectWorld(pb.Reachability_REACHABILITY_BLOCKED) },
		func() *world { return expectWorld(pb.Reachability_REACHABILITY_REFUSED) },
		func() *world { return expectWorld(pb.Reachability_REACHABILITY_DROPPED) })()
	t := &truth{
		spec: w.m.Spec, down: map[string]fate{}, shut: map[string]map[string]fate{}, nameless: map[int]pb.Failure{},
		addresses: choose(d, []string{ip1}, []string{ip1, ip2}, []string{ip1, v61}, []string{ip1, ip2, v61}, []string{ip1, v61, v62}),
	}
	all := fates(t.spec)
	for _, a := range t.addresses {
		if d.roll(6) == 1 {
			t.down[a] = choose(d, all...)
		}
	}
	for _, region := range []string{"ap", "eu", "sa", "us"}[:1+d.roll(4)] {
		t.shut[region] = map[string]fate{}
		if how := choose(d, all...); d.roll(5) == 1 { // the region has one fault, at some or all addresses
			for _, a := range t.addresses {
				if d.roll(4) > 0 {
					t.shut[region][a] = how
				}
			}
		}
		for i := range 1 + d.roll(3) {
			t.actors = append(t.actors, drawActor(d, region, i, t, all))
		}
	}
	for n := range 4 {
		if d.roll(12) == 1 {
			t.nameless[n] = choose(d, servfail, nxdomain, dnsSilent)
		}
	}
	return t
}

func drawActor(d *dice, region string, i int, t *truth, all []fate) *actor {
	a := &actor{
		id: fmt.Sprint(region, "/", i), region: region, asn: uint32(64500 + 10*len(t.shut) + d.roll(3)),
		resolver: d.roll(4), filtered: map[string]fate{},
	}
	if d.roll(3) == 1 {
		a.trouble = trouble(d.roll(int(troubles)))
	}
	if d.roll(8) == 1 {
		a.filtered[choose(d, t.addresses...)] = choose(d, all...)
	}
	return a
}

// fate is what truly happens to a's packets on their way to an address: the first obstacle ends it.
func (t *truth) fate(a *actor, address string) fate {
	first := fate{failure: none}
	for _, e := range []fate{a.filtered[address], t.shut[a.region][address], t.down[address]} {
		if e.failure != 0 && (first.failure == none || stageOf(e.failure) < stageOf(first.failure)) {
			first = e
		}
	}
	return first
}

// six says whether an address is IPv6.
func six(address string) bool { return strings.HasPrefix(address, "[") }

// verdictOn is what can be known of the address by asking the agent. It does without the judge's code.
func (t *truth) verdictOn(a *actor, address string) state {
	e := t.fate(a, address)
	ownWords := slices.Contains([]pb.Failure{tlsAlert, pb.Failure_FAILURE_TLS_NOT_TLS, expired, mismatch, httpStatus}, e.failure)
	switch {
	case a.trouble == absent, a.trouble == unwilling, a.trouble == deaf, a.trouble == mute, t.nameless[a.resolver] != 0,
		six(address) && (a.trouble == cut6 || a.trouble == noSix), !six(address) && a.trouble == cut4:
		return unknown
	case e.failure == none:
		return good
	case ownWords:
		return bad
	case a.trouble == controless, a.trouble == hurried && (e.failure == timeout || e.failure == hung):
		return unknown
	}
	return bad
}

// world writes down what the agents of t see, as they would.
func (t *truth) world() *world {
	w := tcpWorld()
	w.m.Spec = t.spec
	for _, a := range t.actors {
		switch a.trouble {
		case absent:
			w.ask(a.id, a.asn, pb.AskState_ASK_STATE_LOST, 0)
		case unwilling:
			w.ask(a.id, a.asn, pb.AskState_ASK_STATE_REFUSED, pb.Failure_FAILURE_AGENT_OVERLOADED)
		default:
			w.from(a.id, a.asn, t.steps(a))
		}
	}
	return w
}

// steps are those that a records.
func (t *truth) steps(a *actor) []*pb.Step {
	steps, named := t.queries(a)
	if !named {
		return steps
	}
	failed := [2]bool{}
	for _, address := range t.addresses {
		own := t.visit(a, address)
		steps = append(steps, own...)
		if last := own[len(own)-1]; last.GetFailure() != none && last.GetFailure() != noFamily {
			failed[family(address)] = true
		}
	}
	for i, control := range []string{"192.0.2.1:443", "[2001:db8:c::1]:443"} {
		switch {
		case !failed[i] || a.trouble == controless:
		case a.trouble == mute:
			steps = append(steps, ctl(control, noEgress)...)
		case a.trouble == [...]trouble{cut4, cut6}[i]:
			steps = append(steps, ctl(control, timeout)...)
		default:
			steps = append(steps, ctl(control, none)...)
		}
	}
	return steps
}

func family(address string) int {
	if six(address) {
		return 1
	}
	return 0
}

// queries are those for the target's addresses, and whether they brought some.
func (t *truth) queries(a *actor) (steps []*pb.Step, named bool) {
	switch failure := t.nameless[a.resolver]; {
	case a.trouble == mute:
		return query(a.resolver, noEgress), false
	case a.trouble == deaf:
		return slices.Concat(query(a.resolver, dnsSilent), query(a.resolver, dnsSilent), control53(a.resolver, dnsSilent)), false
	case failure != 0:
		steps = slices.Concat(query(a.resolver, failure), query(a.resolver, failure))
		if a.trouble != controless {
			steps = append(steps, control53(a.resolver, none)...)
		}
		return steps, false
	}
	var of [2][]string
	for _, address := range t.addresses {
		ip := strings.Trim(address[:strings.LastIndex(address, ":")], "[]")
		of[family(address)] = append(of[family(address)], ip)
	}
	for i, ips := range of {
		f := none
		if len(ips) == 0 {
			f = nodata
		}
		q := query(a.resolver, f, ips...)
		q[0].Type = [...]string{"A", "AAAA"}[i]
		steps = append(steps, q...)
	}
	return append(steps, control53(a.resolver, none)...), true
}

// visit is the way to one address, as far as it goes.
func (t *truth) visit(a *actor, address string) []*pb.Step {
	e := t.fate(a, address)
	if six(address) && a.trouble == noSix {
		return attemptsOf(0, tcp(address, noFamily))
	}
	if a.trouble == [...]trouble{cut4, cut6}[family(address)] {
		return tcp(address, timeout)
	}
	attempts := int32(2)
	if a.trouble == hurried || e.failure == none && a.trouble != lossy {
		attempts = 1
	}
	var steps []*pb.Step
	switch stageOf(e.failure) {
	case pb.Stage_STAGE_TCP:
		steps = tcp(address, e.failure)
	case pb.Stage_STAGE_TLS, pb.Stage_STAGE_CERTIFICATE:
		serial := "good"
		if stageOf(e.failure) == pb.Stage_STAGE_TLS {
			serial = ""
		}
		steps = tls(address, serial, e.failure)
		if serial != "" && t.spec.GetHttp() != nil {
			steps = append(steps, response(address, 200, none))
		}
	default:
		steps = open(address)
		if t.spec.GetTcp() == nil {
			steps = tls(address, "good")
		}
		if t.spec.GetHttp() != nil {
			status := e.status
			if e.failure == none {
				status = 200
			}
			steps = append(steps, response(address, status, e.failure))
		}
	}
	steps[len(steps)-1].Attempts = attempts
	return steps
}
