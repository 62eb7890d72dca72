package threats

import (
	"fmt"
	"io"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/memberlist"

	"github.com/elsewhere-net/elsewhere/pkg/probe/probetest/space"
	pb "github.com/elsewhere-net/elsewhere/proto/elsewhere/v1"
)

// What a member of HashiCorp's memberlist says who wants to be the agent "honest" and the coordinator "c", by hand: its
// messages are a byte that names the kind, and MessagePack.
// https://github.com/hashicorp/memberlist/blob/v0.7.0/net.go
const (
	ping     = "\x00\x83\xa5SeqNo\x01\xa4Node\xa1c\xaaSourceNode\xa5rogue"
	alive    = "\x04\x85\xabIncarnation\xce\x7f\xff\xff\xff\xa4Node\xa6honest\xa4Addr\xc4\x04\x7f\x00\x00\x42\xa4Port\xcd\x1f\x0a\xa3Vsn\xc4\x06\x01\x05\x02\x00\x00\x00"
	dead     = "\x05\x83\xabIncarnation\xce\x7f\xff\xff\xff\xa4Node\xa6honest\xa4From\xa5rogue"
	pushPull = "\x06\x83\xa5Nodes\x01\xacUserStateLen\x00\xa4Join\xc3\x86\xa4Name\xa6honest\xa4Addr\xc4\x04\x7f\x00\x00\x42\xa4Port\xcd\x1f\x0a\xabIncarnation\x09\xa5State\x00\xa3Vsn\xc4\x06\x01\x05\x02\x00\x00\x00"
)

// gossip is all of that, and what is in a member's answer, over each network that it answers on.
var gossip = []struct {
	kind, text string
	answers    map[string]string
}{
	{"ping", ping, map[string]string{"udp": "\xa5SeqNo\x01", "tcp": "\xa5SeqNo\x01"}},
	{"push/pull", pushPull, map[string]string{"tcp": "\xa5Nodes"}},
	{"alive", alive, nil},
	{"dead", dead, nil},
}

// member starts a member of a gossip that listens at an address, until the test ends. It starts no conversation itself.
func member(t *testing.T, name, addr string, key []byte) (*memberlist.Memberlist, <-chan memberlist.NodeEvent) {
	t.Helper()
	events := make(chan memberlist.NodeEvent, 64)
	config := memberlist.DefaultLocalConfig()
	config.Name, config.BindAddr, config.BindPort, config.AdvertisePort = name, addr, 7946, 7946
	config.EnableCompression = false // To see what it answers.
	config.SecretKey, config.Events, config.LogOutput = key, &memberlist.ChannelEventDelegate{Ch: events}, io.Discard
	config.ProbeInterval, config.PushPullInterval, config.GossipInterval = time.Hour, time.Hour, time.Hour
	m, err := memberlist.Create(config)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = m.Shutdown() })
	return m, events
}

// TestT15RogueGossip: a coordinator that is alone does not gossip, so there is no key of it to steal. A member that says that it is
// an agent, or that one is dead, at each port of a coordinator, or that joins there with a key, changes nothing: not the
// log, not the list of agents, and jobs go where they went. First it shows that real members believe all of that.
func TestT15RogueGossip(t *testing.T) {
	programs(t)
	if !space.Own(t) {
		return
	}
	space.Build(t, "ip link set lo up\n")
	rogue := believed(t)
	w := &world{t: t, grpc: "127.0.0.1:7700", nats: "127.0.0.1:7702"}
	w.coordinate()
	target := serveBytes(t, "127.0.0.8:0", "here\r\n")
	w.agent("honest", "--allow-target", "127.0.0.0/8", "--resolver", "127.0.0.1:9", "--root-server", "127.0.0.1:9", "--control", target.String())
	w.online(1)
	before, agents := w.status(), w.agents()
	said := 0
	for _, port := range []string{"7700", "7702", "8700", "7946"} {
		addr := "127.0.0.1:" + port
		for _, message := range gossip {
			for _, network := range []string{"tcp", "udp"} {
				answer, there := tell(t, network, addr, message.text, 100*time.Millisecond)
				if there {
					said++
				}
				if wrong := message.answers[network]; answer != "" && (network == "udp" || wrong != "" && strings.Contains(answer, wrong)) {
					t.Errorf("%s over %s to port %s: an answer: %q", message.kind, network, port, answer)
				}
			}
		}
		if n, err := rogue.Join([]string{addr}); n > 0 || err == nil {
			t.Errorf("a member was let in at port %s", port)
		}
	}
	if said < 3*len(gossip) {
		t.Fatalf("only %d of the rogue's messages were sent", said)
	}
	w.onlyAuditSince(before)
	if now := w.agents(); now != agents {
		t.Errorf("the agents were %s and are %s", agents, now)
	}
	m := w.measure("tcp", target.String(), "--timeout", "20s")
	if m.GetLedger().GetAnswered() != 1 || m.GetAsks()[0].GetAgent() != "honest" {
		t.Errorf("a job went elsewhere: %v", m)
	}
}

// believed is the proof that a coordinator with gossip would be seen: a real member answers the messages and believes
// them, and one with a key lets in a member that has stolen it, which is returned.
func believed(t *testing.T) *memberlist.Memberlist {
	t.Helper()
	_, events := member(t, "c", "127.0.0.5", nil)
	for _, news := range []struct {
		text string
		is   memberlist.NodeEventType
	}{{alive, memberlist.NodeJoin}, {dead, memberlist.NodeLeave}} {
		tell(t, "udp", "127.0.0.5:7946", news.text, time.Millisecond)
		await(t, events, news.is)
	}
	for _, message := range gossip {
		for network, want := range message.answers {
			if answer, _ := tell(t, network, "127.0.0.5:7946", message.text, patience); !strings.Contains(answer, want) {
				t.Fatalf("%s over %s: a real member answers %q", message.kind, network, answer)
			}
		}
	}
	key := []byte("0123456789abcdef0123456789abcdef")
	member(t, "k", "127.0.0.6", key)
	rogue, _ := member(t, "honest", "127.0.0.7", key)
	if n, err := rogue.Join([]string{"127.0.0.6:7946"}); n != 1 || err != nil {
		t.Fatalf("a real member with the same key: %d, %v", n, err)
	}
	return rogue
}

// await waits until a member notices something about "honest".
func await(t *testing.T, events <-chan memberlist.NodeEvent, kind memberlist.NodeEventType) {
	t.Helper()
	deadline := time.After(patience)
	for {
		select {
		case e := <-events:
			if e.Event == kind && e.Node.Name == "honest" {
				return
			}
		case <-deadline:
			t.Fatalf("a real member does not notice that honest is %v", kind)
		}
	}
}

// tell says something and hears what comes first, for a while. It says whether there was another side.
func tell(t *testing.T, network, addr, text string, hears time.Duration) (answer string, there bool) {
	t.Helper()
	conn, err := net.DialTimeout(network, addr, 5*time.Second)
	if err != nil {
		return "", false
	}
	defer conn.Close()
	if _, err := io.WriteString(conn, text); err != nil {
		t.Error(err)
	}
	_ = conn.SetReadDeadline(time.Now().Add(hears))
	heard := make([]byte, 4096)
	n, err := conn.Read(heard)
	return string(heard[:n]), network == "tcp" || n > 0 || err == nil
}

// agents are all agents, but for the time of their last beat.
func (w *world) agents() string {
	w.t.Helper()
	list := &pb.ListAgentsResponse{}
	w.ask(list, "agents", "-J")
	for _, a := range list.GetAgents() {
		a.LastSeenTime = nil
	}
	return fmt.Sprint(list)
}
