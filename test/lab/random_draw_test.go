package lab

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
)

// What may be wrong on the way to a target's address. The first four are about the first packet.
const (
	dropped    = "drop"
	refused    = "RST"
	prohibited = "ICMP admin-prohibited"
	noPort     = "ICMP port-unreachable"
	resetLater = "RST after connect"
	sniReset   = "RST for the name"
	sniDrop    = "silence for the name"
	bigUp      = "no large packets to it"
	bigDown    = "no large packets from it"
	denies     = "403"
	lossy      = "5 % loss"
)

// What a host may be like.
const (
	isFine     = "fine"
	isClosed   = "closed"
	isHung     = "hung"
	isExpired  = "expired certificate"
	isSelfMade = "self-signed certificate"
	isOther    = "another name's certificate"
	isCut      = "incomplete chain"
	isBroken   = "502"
	isHungPage = "hung page"
	isPlain    = "fine, with a small certificate" // never drawn
)

// What may be wrong with agents, for all cases of a shift.
const (
	cutOffBy    = "cut off by drop"
	rejectedBy  = "cut off by reject"
	withoutIPv6 = "without IPv6"
	deaf        = "without resolver"
	asleep      = "stopped"
)

// shift is how many cases run at once. They share what is wrong with the agents.
const shift = 32

// drawn is one case: a target, what is wrong, and who is asked about it.
type drawn struct {
	index    int
	check    string // tcp, tls, http or dns
	expect   string // of the way: open, blocked, refused, dropped or nothing
	from     []string
	hosts    []target
	troubles []trouble
	answers  []resolverFault
	odd      condition
}

// target is an address. One that only a resolver at fault has for the name is stray.
type target struct {
	addr  netip.Addr
	does  string
	stray bool
}

// trouble is on the way from agents to addresses, by their index.
type trouble struct {
	how  string
	from []string
	to   []int
}

// condition is what is wrong with agents.
type condition struct {
	how    string
	agents []string
}

func (t trouble) covers(agent string, to int) bool {
	return slices.Contains(t.from, agent) && slices.Contains(t.to, to)
}

// draw makes the case with this index of a seed, whatever other cases are drawn.
func draw(seed uint64, index int) *drawn {
	r := rand.New(rand.NewPCG(seed, uint64(index)))
	d := &drawn{index: index, from: regions(), odd: drawCondition(seed, index/shift)}
	d.check = oneOf(r, "tcp", "tcp", "tls", "tls", "http", "http", "dns")
	if d.check != "dns" && r.IntN(4) == 0 {
		d.expect = oneOf(r, "open", "blocked", "refused", "dropped")
	}
	if r.IntN(5) == 0 {
		d.from = some(r, regions(), 1+r.IntN(3))
	}
	for i := range 1 + r.IntN(3) {
		d.hosts = append(d.hosts, target{addr: d.address(i, r.IntN(5) < 2), does: isFine})
	}
	for range oneOf(r, 0, 1, 1, 1, 2, 2, 2, 2, 3, 3, 3, 3) {
		d.spoil(r)
	}
	d.prune()
	return d
}

// drawCondition says what is wrong with agents in a shift: nothing in every other one.
func drawCondition(seed uint64, number int) condition {
	if number%2 == 0 {
		return condition{}
	}
	r := rand.New(rand.NewPCG(seed, 1<<32+uint64(number)))
	c := condition{how: oneOf(r, cutOffBy, rejectedBy, withoutIPv6, deaf, asleep)}
	if c.agents = some(r, agentIDs(), 1); c.how != asleep && r.IntN(3) == 0 { // or both of a region
		c.agents = agentsIn(regions()[r.IntN(len(regions()))])
	}
	return c
}

// address is the case's own, one of eight of a family.
func (d *drawn) address(i int, six bool) netip.Addr {
	prefix := netip.MustParsePrefix(crowdNet)
	if six {
		prefix = netip.MustParsePrefix(crowdNet6)
	}
	bytes := prefix.Addr().AsSlice()
	n := 8*(d.index+1) + i
	bytes[len(bytes)-1], bytes[len(bytes)-2] = byte(n), byte(n>>8)
	addr, _ := netip.AddrFromSlice(bytes) // four or sixteen bytes
	return addr
}

// spoil adds a fault. What would only hide another one is left out at the end.
func (d *drawn) spoil(r *rand.Rand) {
	way := []string{dropped, dropped, refused, prohibited, noPort, resetLater, lossy}
	own := []string{isClosed}
	switch d.check {
	case "dns":
		d.misanswer(r)
		return
	case "tls":
		way = append(way, sniReset, sniDrop, bigUp, bigDown)
		own = append(own, isHung, isExpired, isSelfMade, isOther, isCut)
	case "http":
		way = append(way, sniReset, bigUp, denies, denies)
		own = append(own, isHung, isExpired, isBroken, isHungPage)
	}
	switch n := r.IntN(10); {
	case n < 1:
		d.misanswer(r)
	case n < 7:
		d.obstruct(r, oneOf(r, way...))
	default:
		d.breakHosts(r, oneOf(r, own...))
	}
}

// misanswer makes the resolver of a region or two say something else.
func (d *drawn) misanswer(r *rand.Rand) {
	answer := oneOf(r, "NXDOMAIN", "SERVFAIL", "another")
	for _, region := range some(r, regions(), 1+r.IntN(2)) {
		if slices.ContainsFunc(d.answers, func(f resolverFault) bool { return f.region == region }) {
			continue
		}
		other := answer
		if answer == "another" {
			stray := target{addr: d.address(3+len(d.answers), d.hosts[0].addr.Is6()), does: isFine, stray: true}
			d.hosts = append(d.hosts, stray)
			other = stray.addr.String()
		}
		d.answers = append(d.answers, resolverFault{region, other})
	}
}

// obstruct puts a trouble on the way.
func (d *drawn) obstruct(r *rand.Rand, how string) {
	t := trouble{how: how}
	switch n := r.IntN(10); {
	case n < 5:
		for _, region := range some(r, regions(), 1+r.IntN(2)) {
			t.from = append(t.from, agentsIn(region)...)
		}
	case n < 8:
		t.from = some(r, agentIDs(), 1+r.IntN(3))
	default:
		t.from = agentIDs()
	}
	six := r.IntN(2) == 0
	all, family := r.IntN(2) == 0, r.IntN(3) == 0
	for i, h := range d.hosts {
		if !h.stray && (all || family && h.addr.Is6() == six || r.IntN(2) == 0) {
			t.to = append(t.to, i)
		}
	}
	if how == sniReset || how == sniDrop {
		t.to = t.to[:min(len(t.to), 1)] // one middlebox
	}
	if len(t.to) > 0 && !d.clashes(t) {
		d.troubles = append(d.troubles, t)
	}
}

// clashes says whether a trouble cannot stand beside what is there: a middlebox ends connections, so that
// what is beyond it is not on the way; and of a lossy way it cannot be said whether a reset comes in time.
func (d *drawn) clashes(t trouble) bool {
	byName := func(how string) bool { return how == sniReset || how == sniDrop }
	for _, i := range t.to {
		if does := d.hosts[i].does; hidden(t.how) && (does == isClosed || does == isHung) {
			return true
		}
		for _, other := range d.troubles {
			if slices.Contains(other.to, i) && (byName(t.how) || byName(other.how) ||
				t.how == lossy && other.how == resetLater || t.how == resetLater && other.how == lossy) {
				return true
			}
		}
	}
	return false
}

// hidden says whether a trouble cannot be told from a host that says nothing.
func hidden(how string) bool {
	return how == sniReset || how == sniDrop || how == bigUp || how == bigDown
}

// breakHosts gives some of the hosts a fault of their own.
func (d *drawn) breakHosts(r *rand.Rand, does string) {
	all := r.IntN(2) == 0
	for i := range d.hosts {
		h := &d.hosts[i]
		hides := (does == isClosed || does == isHung) &&
			slices.ContainsFunc(d.troubles, func(t trouble) bool { return hidden(t.how) && slices.Contains(t.to, i) })
		if h.does == isFine && !h.stray && (all || r.IntN(2) == 0) && !hides {
			h.does = does
		}
	}
}

// prune leaves out what nobody can run into, since something else is in front of it.
func (d *drawn) prune() {
	for i := range d.hosts {
		if h := &d.hosts[i]; h.does != isFine && d.prover(func(o obstacle) bool { return o.why == h.does }, []int{i}) == nil {
			h.does = isFine
		}
	}
	for i := len(d.troubles) - 1; i >= 0; i-- { // those in front stay where they are
		if len(d.ways(i)) == 0 {
			d.troubles = slices.Delete(d.troubles, i, i+1)
		}
	}
}

// way is from an agent to an address.
type way struct {
	agent *vantage
	to    int
}

// prover is a way on which the first obstacle is one of those, or nil.
func (d *drawn) prover(is func(obstacle) bool, to []int) *way {
	for _, a := range fleet() {
		for _, i := range to {
			if is(d.meets(a, i)) {
				return &way{a, i}
			}
		}
	}
	return nil
}

// ways are where the trouble with this index is what is met first: one for each family, if there is one.
func (d *drawn) ways(index int) []way {
	t := d.troubles[index]
	var ways []way
	for _, six := range []bool{false, true} {
		to := slices.DeleteFunc(slices.Clone(t.to), func(i int) bool { return d.hosts[i].addr.Is6() != six })
		for _, a := range fleet() {
			i := slices.IndexFunc(to, func(i int) bool { return t.covers(a.id, i) && d.meetsFirst(index, a, i) })
			if i >= 0 {
				ways = append(ways, way{a, to[i]})
				break
			}
		}
	}
	return ways
}

// meetsFirst says whether a trouble is what an agent meets; loss is met wherever packets go.
func (d *drawn) meetsFirst(index int, a *vantage, i int) bool {
	if d.troubles[index].how == lossy {
		return !d.odd.cuts(a.id, d.hosts[i].addr.Is6())
	}
	return d.meets(a, i).trouble == index
}

// String tells the whole case.
func (d *drawn) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s, from %s", d.ask(), strings.Join(d.from, " "))
	for i, h := range d.hosts {
		fmt.Fprintf(&b, "\n  address %d %s: %s", i, h.addr, h.does)
		if h.stray {
			b.WriteString(", not the zone's")
		}
	}
	for _, t := range d.troubles {
		fmt.Fprintf(&b, "\n  %s from %s to addresses %v", t.how, strings.Join(t.from, " "), t.to)
	}
	for _, f := range d.answers {
		fmt.Fprintf(&b, "\n  the resolver of %s says %s", f.region, f.answer)
	}
	if d.odd.how != "" {
		fmt.Fprintf(&b, "\n  %s: %s", strings.Join(d.odd.agents, " "), d.odd.how)
	}
	return b.String()
}

// ask is the command line.
func (d *drawn) ask() string {
	name := d.name() + "." + zone
	ask := map[string]string{"tcp": "tcp " + name + ":443", "tls": "tls " + name, "http": "http https://" + name + "/"}[d.check]
	if d.check == "dns" {
		ask = "dns " + name + " " + kindOf(d.hosts[0].addr)
	}
	if d.expect != "" {
		ask += " --expect " + d.expect
	}
	if len(d.from) < len(regions()) {
		ask += " --from " + strings.Join(d.from, ",")
	}
	return ask
}

func (d *drawn) name() string { return fmt.Sprintf("r%d", d.index) }

// oneOf draws one.
func oneOf[T any](r *rand.Rand, all ...T) T { return all[r.IntN(len(all))] }

// some draws n, in their order.
func some(r *rand.Rand, all []string, n int) []string {
	all = slices.Clone(all)
	for len(all) > n {
		i := r.IntN(len(all))
		all = slices.Delete(all, i, i+1)
	}
	return all
}

// agentIDs are all agents.
func agentIDs() []string { return strings.Fields(all) }

// agentsIn are the agents of a region.
func agentsIn(region string) []string {
	return slices.DeleteFunc(agentIDs(), func(id string) bool { return !strings.HasPrefix(region, id[:2]) })
}
