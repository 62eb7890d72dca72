package threats

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/elsewhere-net/elsewhere/pkg/probe/probetest/space"
)

// What the operator allows of each agent, and how much memory it may take.
const (
	burst, perSecond = 10, 2
	agentMemory      = 128 << 20
)

// The hosts of the world. Only the targets may be measured.
const coordinatorAddr = "192.0.2.1"

// victimsOfWorld are addresses that no job may lead to.
var victimsOfWorld = []string{
	"10.0.0.1", "172.16.0.1", "192.168.0.1", "100.64.0.1", "169.254.169.254", "168.63.129.16", "198.51.100.66",
	"fd00:ec2::254", "fd00::1", "64:ff9b::a00:1", "64:ff9b::a9fe:a9fe", "2002:a00:1::1",
}

// loopbacks are the agent's own host, by its addresses and in disguise.
var loopbacks = []string{"127.0.0.1", "::1", "0.0.0.0", "::", "::ffff:127.0.0.1", "203.0.113.2", "localhost", "64:ff9b::7f00:1"}

// hostileWorld is the script of a world that has all of them, and counts what comes to each.
func hostileWorld() string {
	var addrs, rules strings.Builder
	for _, v := range victimsOfWorld {
		family, bits := "ip", "/32"
		if strings.Contains(v, ":") {
			family, bits = "ip6", "/128 nodad"
		}
		fmt.Fprintf(&addrs, "ip -n world addr add %s%s dev lo\n", v, bits)
		fmt.Fprintf(&rules, "%s daddr %s meta l4proto { tcp, udp } counter comment \"%s\"\n", family, v, v)
	}
	return lines(
		"mkdir -p /run/netns", "mount --make-rprivate /", "mount -t tmpfs none /run/netns",
		"ip link set lo up", "ip netns add world",
		"ip link add name near type veth peer name far netns world",
		"ip addr add 203.0.113.2/24 dev near", "ip addr add 2001:db8::2/64 dev near nodad", "ip link set near up",
		"ip -n world link set lo up",
		"ip -n world addr add 203.0.113.1/24 dev far", "ip -n world addr add 2001:db8::1/64 dev far nodad", "ip -n world link set far up",
		"ip route add default via 203.0.113.1", "ip -6 route add default via 2001:db8::1",
		"ip -n world addr add "+coordinatorAddr+"/32 dev lo",
		"for i in 0 1 2 3; do ip -n world addr add 198.51.100.1$i/32 dev lo; done",
		addrs.String(),
		"ip netns exec world nft -f - <<'END'",
		"table inet t {", "chain prerouting {", "type filter hook prerouting priority 0;",
		"ip daddr 198.51.100.10 tcp flags & (syn | ack) == syn counter comment \"target 0\"",
		"ip daddr 198.51.100.11 tcp flags & (syn | ack) == syn counter comment \"target 1\"",
		"ip daddr 198.51.100.12 tcp flags & (syn | ack) == syn counter comment \"target 2\"",
		"ip daddr 198.51.100.13 tcp flags & (syn | ack) == syn counter comment \"target 3\"",
		"ip daddr "+coordinatorAddr+" tcp dport { 22, 25 } counter comment \"other services of the coordinator's host\"",
		rules.String(),
		"}", "}", "END",
	)
}

// lane is one agent, and what is done to it, one after the other.
type lane struct {
	modes []string
	// victims are the addresses that the modes are about.
	victims []string
}

// TestHostileCoordinator (T10): who has a coordinator's identity can have agents measure what their operators allow, as
// often as they allow, and nothing else; and an agent survives all of it.
func TestHostileCoordinator(t *testing.T) {
	programs(t)
	if !space.Own(t) {
		return
	}
	space.Build(t, hostileWorld())
	for _, v := range victimsOfWorld { // The proof that packets would be seen.
		knock(t, bracket(v)+":80")
	}
	for i := range 4 {
		knock(t, fmt.Sprintf("198.51.100.1%d:80", i))
	}
	before := counters(t, "world")
	for _, what := range append([]string{"target 0", "target 1", "target 2", "target 3"}, victimsOfWorld...) {
		if before[what] == 0 {
			t.Fatalf("%s: the counter does not count", what)
		}
	}
	servers := []string{"10.0.0.1:4222", "169.254.169.254:80", "[64:ff9b::a00:1]:4222", "198.51.100.66:25", "127.0.0.1:22", coordinatorAddr + ":25", "198.51.100.13:4222"}
	for i := range 4 {
		accept(space.Listen(t, "world", fmt.Sprintf("198.51.100.1%d:80", i)))
	}
	t.Run("lanes", func(t *testing.T) {
		for i, l := range []lane{
			{modes: []string{"flood", "acks", "go-away", "more-servers"}, victims: servers},
			{modes: []string{"forbidden", "malformed", "endless-line"}, victims: append(append([]string{}, victimsOfWorld...), loopbacks...)},
			{modes: []string{"huge", "foreign", "retry-after", "epochs", "dismissal", "malformed"}},
			{modes: []string{"victims", "bomb", "cancel", "giant-registration", "authorities"}, victims: servers},
		} {
			t.Run(strings.Join(l.modes, ","), func(t *testing.T) {
				t.Parallel()
				l.run(t, i)
			})
		}
	})
	after := counters(t, "world")
	for _, v := range victimsOfWorld {
		if n := after[v] - before[v]; n != 0 {
			t.Errorf("%s: %d packets", v, n)
		}
	}
}

// accept takes all that come, and waits until they go: to be let go at once would be a failure, and tried again.
func accept(l net.Listener) {
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				_, _ = io.Copy(io.Discard, conn)
				_ = conn.Close()
			}()
		}
	}()
}

// bracket is an address as a URL has it.
func bracket(ip string) string {
	if strings.Contains(ip, ":") {
		return "[" + ip + "]"
	}
	return ip
}

// attack is what the hostile coordinator says that it did.
type attack struct {
	Registered, Connected, Streams, Jobs, Said, Accepted, Results int

	Bytes    int64
	Refusals map[string]int
	Errors   []string
}

// run does to an agent all that the lane has, and then lets an honest coordinator ask it.
func (l lane) run(t *testing.T, i int) {
	policy := write(t, "policy.yaml", fmt.Sprintf(`version: 1
targets: {allow: ["198.51.100.0/24"], deny: ["198.51.100.66"]}
limits: {target: {burst: %d, per_second: %d}}
`, burst, perSecond))
	w := &world{t: t, home: "world", grpc: fmt.Sprintf("%s:77%02d", coordinatorAddr, i), nats: fmt.Sprintf("%s:42%02d", coordinatorAddr, i)}
	target := fmt.Sprintf("198.51.100.1%d", i)
	name := fmt.Sprint("target ", i)
	before, began := counters(t, "world")[name], time.Now()
	honest := w.coordinate()
	agent := w.agent(fmt.Sprint("a", i), "--policy", policy, "--resolver", "203.0.113.1", "--root-server", "203.0.113.1", "--control", "203.0.113.1:9")
	w.online(1)
	honest.stop(t) // and somebody else comes with its authority
	for _, mode := range l.modes {
		did := l.attack(t, w, mode, target)
		l.happened(t, mode, did)
		if !agent.alive() {
			_, said := agent.said()
			t.Fatalf("%s: the agent died:\n%s", mode, said[max(0, len(said)-4000):])
		}
		allowed := burst + int(time.Since(began).Seconds()*perSecond) + 1
		if mode == "victims" { // Servers that stand where no coordinator does have an allowance of their own.
			allowed += 8 + int(time.Since(began).Seconds()/2)
		}
		if n := counters(t, "world")[name] - before; n > allowed {
			t.Errorf("%s: %d connects, and the operator allows %d jobs", mode, n, allowed)
		} else {
			t.Logf("%s: %d connects of %d jobs that are allowed; %+v", mode, n, allowed, did)
		}
		if peak := agent.peak(t); peak > agentMemory {
			t.Errorf("%s: the agent took %d MiB", mode, peak>>20)
		}
	}
	w.coordinate()
	w.online(1)
	eventually(t, "an honest measurement", func(context.Context) error {
		m := w.measure("tcp", target+":80", "--timeout", "8s")
		if m.GetLedger().GetAnswered() != 1 {
			return fmt.Errorf("%v %v", m.GetLedger(), m.GetAsks())
		}
		return nil
	})
	t.Logf("peak %d MiB", agent.peak(t)>>20)
}

// attack runs the hostile coordinator in one mode.
func (l lane) attack(t *testing.T, w *world, mode, target string) attack {
	t.Helper()
	p := start(t, "world", "hostile-coordinator", "--grpc-addr", w.grpc, "--nats-addr", w.nats, "--mode", mode,
		"--ca", filepath.Join(w.data, "ca.pem"), "--key", filepath.Join(w.data, "ca.key"), "--for", "3s", "--target", target+":80", "--victims", strings.Join(l.victims, ","))
	select {
	case <-p.done:
	case <-time.After(patience):
		t.Fatalf("%s: it does not end", mode)
	}
	stdout, stderr := p.said()
	var did attack
	if err := json.Unmarshal([]byte(stdout), &did); err != nil {
		t.Fatalf("%s: %v: %s %s", mode, err, stdout, stderr)
	}
	return did
}

// happened fails if the attack did not.
func (l lane) happened(t *testing.T, mode string, did attack) {
	t.Helper()
	refused := 0
	for _, n := range did.Refusals {
		refused += n
	}
	fine := did.Registered > 0
	switch mode {
	case "flood":
		fine = fine && did.Jobs > 5000 && did.Refusals[fmt.Sprintf("the agent looks at 198.51.100.10 at most %d times at once and %d times a second", burst, perSecond)] > 1000
	case "forbidden", "malformed", "foreign":
		fine = fine && did.Jobs > 100 && refused > 100
	case "huge":
		fine = fine && did.Bytes > 20<<20
	case "cancel":
		fine = fine && did.Jobs > 1000
	case "acks", "retry-after", "go-away":
		fine = fine && did.Said > 0
	case "more-servers", "bomb", "endless-line", "dismissal":
		fine = fine && did.Connected > 0
	}
	if !fine {
		t.Errorf("%s: the attack did not happen: %+v", mode, did)
	}
}
