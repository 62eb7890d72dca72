package fleet

import (
	"bytes"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	pb "github.com/elsewhere-net/elsewhere/proto/elsewhere/v1"
)

var frankfurt = &pb.Vantage{
	Region: "eu-central-1", Country: "DE", City: "Frankfurt am Main", Provider: "AWS", Asn: 16509,
	Labels: map[string]string{"tier": "edge", "canary": ""},
}

func TestSelector(t *testing.T) {
	for _, c := range []struct {
		what, selector string
		want           bool
	}{
		{"nothing means the world", "", true},
		{"world is everywhere", "world", true},
		{"a region by its name", "eu-central-1", true},
		{"a part of a region is not the region", "eu-central", false},
		{"unless it says so", "~eu-central", true},
		{"a country by its code", "DE", true},
		{"a country by its name, in any case", "germany", true},
		{"another country", "FR", false},
		{"a city with spaces", "Frankfurt am Main", true},
		{"a part of a city", "~frankfurt", true},
		{"a provider", "aws", true},
		{"an AS", "AS16509", true},
		{"another AS", "AS1650", false},
		{"an agent by its name", "fra-1", true},
		{"a label by key and value", "tier=edge", true},
		{"a label by its key", "canary", true},
		{"a label by its value", "edge", true},
		{"AND holds when both do", "Germany+AWS", true},
		{"and not when one does not", "Germany+GCP", false},
		{"a list holds when one does", "JP,Germany+AWS", true},
		{"and not when none does", "JP,FR+AWS", false},
		{"spaces around words do not matter", " JP , Germany + AWS ", true},
		{"an unknown word is nobody", "mars", false},
		{"no word is a part of one", "frank", false},
		{"nor the end of one", "main", false},
		{"nor two of them", "~aws fra-1", false},
		{"with ~, world is a word as any other", "~world", false},
	} {
		t.Run(c.what, func(t *testing.T) {
			s, err := ParseSelector(c.selector)
			if err != nil {
				t.Fatal(err)
			}
			if got := s.Matches("fra-1", frankfurt); got != c.want {
				t.Errorf("%q: %v, want %v", c.selector, got, c.want)
			}
		})
	}
}

func TestAlternatives(t *testing.T) {
	s, err := ParseSelector("EU, ~eu, Germany+AWS")
	if err != nil {
		t.Fatal(err)
	}
	var items []string
	for _, item := range s.Alternatives() {
		items = append(items, item.String())
	}
	if !slices.Equal(items, []string{"eu", "~eu", "germany+aws"}) || s.String() != strings.Join(items, ",") {
		t.Errorf("%q of %q", items, s)
	}
	if items := s.Alternatives(); items[0].Matches("fra-1", frankfurt) || !items[1].Matches("fra-1", frankfurt) {
		t.Error("a word and a part of one are not the same item")
	}
}

func TestSelectorIsChecked(t *testing.T) {
	for _, bad := range []string{",", "a,,b", "a+", "+a", "~", "aws\x00fra-1", strings.Repeat("x", maxSelector+1), strings.Repeat("a,", maxTerms) + "a"} {
		if _, err := ParseSelector(bad); err == nil {
			t.Errorf("%.20q was taken", bad)
		}
	}
}

func FuzzSelector(f *testing.F) {
	for _, seed := range []string{"", "world", "Germany+AWS,JP", "~eu", "AS64500", "AS99999999999", "a++b"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		s, err := ParseSelector(text)
		if err == nil && len(s.String()) <= maxSelector { // some letters are longer in lower case
			again, err := ParseSelector(s.String())
			if err != nil || again.Matches("fra-1", frankfurt) != s.Matches("fra-1", frankfurt) {
				t.Errorf("%q, written as %q, is another selector: %v", text, s, err)
			}
		}
	})
}

func fleetOf(regions, networks, each int) (agents []*pb.Agent) {
	for r := range regions {
		for n := range networks {
			for i := range each {
				agents = append(agents, &pb.Agent{
					Id:      fmt.Sprintf("r%d-n%d-%d", r, n, i),
					Vantage: &pb.Vantage{Region: fmt.Sprint("r", r), Asn: uint32(100*r + n + 1)},
				})
			}
		}
	}
	return agents
}

func count(agents []*pb.Agent, key func(*pb.Agent) string) map[string]int {
	n := map[string]int{}
	for _, a := range agents {
		n[key(a)]++
	}
	return n
}

func TestChooseSpreads(t *testing.T) {
	all := fleetOf(4, 3, 5)
	// One region has much more than the others; it gets no more for it.
	for i := range 100 {
		all = append(all, &pb.Agent{Id: fmt.Sprint("big-", i), Vantage: &pb.Vantage{Region: "r0", Asn: 1}})
	}
	for seed := range uint64(50) {
		chosen := Choose(all, 12, rand.New(rand.NewPCG(seed, 0)))
		regions := count(chosen, func(a *pb.Agent) string { return a.GetVantage().GetRegion() })
		if !maps.Equal(regions, map[string]int{"r0": 3, "r1": 3, "r2": 3, "r3": 3}) {
			t.Fatalf("seed %d: regions %v", seed, regions)
		}
		if networks := count(chosen, Network); len(networks) != 12 {
			t.Fatalf("seed %d: networks %v, want 12 different ones", seed, networks)
		}
	}
}

func TestChooseChanges(t *testing.T) {
	all := fleetOf(2, 2, 10)
	seen := map[string]int{}
	for seed := range uint64(400) {
		for _, a := range Choose(all, 4, rand.New(rand.NewPCG(seed, 0))) {
			seen[a.GetId()]++
		}
	}
	if len(seen) != len(all) {
		t.Errorf("%d of %d agents were ever chosen", len(seen), len(all))
	}
	for id, n := range seen { // 40 on average
		if n < 10 || n > 90 {
			t.Errorf("%s was chosen %d times of 400", id, n)
		}
	}
}

func TestChooseIsTheSameForTheSameChance(t *testing.T) {
	all := fleetOf(3, 2, 4)
	want := Choose(all, 7, rand.New(rand.NewPCG(1, 2)))
	slices.Reverse(all)
	if got := Choose(all, 7, rand.New(rand.NewPCG(1, 2))); !slices.Equal(got, want) {
		t.Errorf("the order of the agents changed the choice: %v, %v", got, want)
	}
	if got := Choose(all, 1000, rand.New(rand.NewPCG(1, 2))); len(got) != len(all) {
		t.Errorf("%d of %d agents within a limit of 1000", len(got), len(all))
	}
}

func TestNetwork(t *testing.T) {
	for _, c := range []struct{ what, observed, provider, want string }{
		{"an IPv4 address stands for its /24", "192.0.2.77", "", "192.0.2.0/24"},
		{"an IPv6 address for its /48", "2001:db8:1:2::3", "", "2001:db8:1::/48"},
		{"a mapped address is the IPv4 one", "::ffff:192.0.2.77", "", "192.0.2.0/24"},
		{"without an address the provider is all that is known", "", "AWS", "AWS"},
	} {
		if got := Network(&pb.Agent{Vantage: &pb.Vantage{ObservedAddress: c.observed, Provider: c.provider}}); got != c.want {
			t.Errorf("%s: %q, want %q", c.what, got, c.want)
		}
	}
}

func TestLiveness(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := New()
		world, err := ParseSelector("")
		if err != nil {
			t.Fatal(err)
		}
		beat := &pb.Beat{Agent: "a", Vantage: frankfurt, Capacity: 256}
		if err := f.Register("a", "v1", frankfurt); err != nil {
			t.Fatal(err)
		}
		if got := f.Online(world); len(got) != 0 {
			t.Errorf("online before its first beat: %v", got)
		}
		if !f.Beat(beat) {
			t.Error("the first beat is a coming")
		}
		if f.Beat(beat) {
			t.Error("the second one is not")
		}
		_, changed := f.List(world)
		f.Beat(beat)
		select {
		case <-changed:
			t.Error("a beat like the one before is no change")
		default:
		}
		time.Sleep(offlineAfter + time.Second)
		if got := f.Get("a"); got.GetState() != pb.AgentState_AGENT_STATE_OFFLINE || len(f.Online(world)) != 0 {
			t.Errorf("after %v of silence: %v", offlineAfter, got.GetState())
		}
		if !f.Beat(beat) {
			t.Error("a beat after silence is a coming")
		}
		if err := f.Register("a", "v2", frankfurt); err != nil {
			t.Fatal(err)
		}
		if !f.Beat(beat) {
			t.Error("the first beat after a registration is a coming: the process is a new one")
		}
		if f.Beat(&pb.Beat{Agent: "a", Vantage: frankfurt, Draining: true}) || len(f.Online(world)) != 0 {
			t.Error("an agent that drains is not asked")
		}
		time.Sleep(forgetAfter + time.Second)
		if list, _ := f.List(world); len(list) != 0 {
			t.Errorf("after a day: %v", list)
		}
	})
}

func TestFleetIsBounded(t *testing.T) {
	f := New()
	for i := range maxAgents {
		if err := f.Register(fmt.Sprint("a", i), "", frankfurt); err != nil {
			t.Fatal(err)
		}
	}
	if err := f.Register("one-more", "", frankfurt); err == nil {
		t.Error("one more was taken")
	}
	f.Beat(&pb.Beat{Agent: "one-more"})
	if f.Get("one-more") != nil {
		t.Error("one more was taken by its beat")
	}
	if err := f.Register("a7", "", frankfurt); err != nil {
		t.Errorf("one that is known: %v", err)
	}
}

func TestTheEnrolmentDecides(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := New()
		world, err := ParseSelector("world")
		if err != nil {
			t.Fatal(err)
		}
		enrolled := &pb.Enrolment{
			Id: "a", EnrollTime: timestamppb.Now(), ExpireTime: timestamppb.Now(),
			Vantage: &pb.Vantage{Region: "eu-west", Asn: 1, Labels: map[string]string{"tier": "edge"}},
		}
		f.Enrolled(enrolled)
		if list, _ := f.List(world); len(list) != 1 || list[0].GetState() != pb.AgentState_AGENT_STATE_OFFLINE || list[0].GetVantage().GetRegion() != "eu-west" {
			t.Errorf("before it was heard of: %v", list)
		}
		if err := f.Register("a", "1", &pb.Vantage{Region: "mars", City: "Dublin", ObservedAddress: "192.0.2.1"}); err != nil {
			t.Fatal(err)
		}
		f.Beat(&pb.Beat{Agent: "a", Vantage: &pb.Vantage{
			Region: "us-east", City: "Cork", Asn: 64496, ObservedAddress: "198.51.100.1", Labels: map[string]string{"tier": "core"},
		}})
		want := &pb.Vantage{Region: "eu-west", City: "Cork", Asn: 1, ObservedAddress: "192.0.2.1", Labels: map[string]string{"tier": "edge"}}
		a := f.Get("a")
		if !proto.Equal(a.GetVantage(), want) || a.GetEnrollTime() == nil || a.GetState() != pb.AgentState_AGENT_STATE_ONLINE {
			t.Errorf("%v", a)
		}
		_, changed := f.List(world)
		revoked := proto.CloneOf(enrolled)
		revoked.RevokeTime = timestamppb.Now()
		f.Enrolled(revoked)
		<-changed
		if f.Beat(&pb.Beat{Agent: "a", Vantage: want}) || len(f.Online(world)) != 0 || f.Get("a").GetState() != pb.AgentState_AGENT_STATE_REVOKED {
			t.Errorf("revoked: %v", f.Get("a"))
		}
		time.Sleep(forgetAfter + time.Second)
		if list, _ := f.List(world); len(list) != 0 {
			t.Errorf("a day after it was revoked: %v", list)
		}
	})
}

// BenchmarkList looks for agents among 9,000 of which much is said, and of which half are silent.
func BenchmarkList(b *testing.B) {
	f := New()
	for i := range 9000 {
		v := proto.CloneOf(frankfurt)
		for k := range 10 {
			v.Labels[fmt.Sprint("key-", k)] = fmt.Sprint("Value-", i)
		}
		f.Enrolled(&pb.Enrolment{Id: fmt.Sprint("a-", i), Vantage: v})
		f.Beat(&pb.Beat{Agent: fmt.Sprint("a-", i), Vantage: v})
		if i%2 == 0 {
			f.agents[fmt.Sprint("a-", i)].seen = time.Now().Add(-time.Minute)
		}
	}
	longest := "a-41" + strings.Repeat(",~nothing", maxTerms-1)
	for name, from := range map[string]string{"name": "a-41", "part": "~value-41", "world": "world", "longest": longest} {
		s, err := ParseSelector(from)
		if err != nil {
			b.Fatal(err)
		}
		b.Run(name, func(b *testing.B) {
			for b.Loop() {
				online := f.Online(s)
				if all, _ := f.List(s); len(online) == 0 || len(all) == 0 {
					b.Fatal("nobody")
				}
			}
		})
	}
}

// BenchmarkChoose picks twenty agents of the world, as most measurements do.
func BenchmarkChoose(b *testing.B) {
	world, err := ParseSelector("world")
	if err != nil {
		b.Fatal(err)
	}
	for _, agents := range []int{1000, 10_000, 100_000} {
		f := New()
		for i := range agents {
			id, v := fmt.Sprintf("agent-%06d", i), &pb.Vantage{Region: fmt.Sprintf("region-%02d", i%32), Country: "DE", Provider: "Example", Asn: uint32(64512 + i/32%1000)}
			f.Enrolled(&pb.Enrolment{Id: id, Vantage: v})
			f.Beat(&pb.Beat{Agent: id, Vantage: v})
		}
		b.Run(fmt.Sprint(agents), func(b *testing.B) {
			for i := uint64(0); b.Loop(); i++ {
				if len(Choose(f.Online(world), 20, rand.New(rand.NewPCG(i, 0)))) != 20 {
					b.Fatal("not twenty")
				}
			}
		})
	}
}

func TestAnAgentThatMovedIsAskedAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := New()
		f.Moved("stranger", "192.0.2.9")
		if f.Get("stranger") != nil {
			t.Error("one that nobody has heard of is listed")
		}
		beat := &pb.Beat{Agent: "a", Vantage: &pb.Vantage{Region: "eu-west"}}
		if !f.Beat(beat) || f.Beat(beat) {
			t.Error("the first beat is that of one that has come, and the second is not")
		}
		f.Moved("a", "192.0.2.1")
		if got := f.Get("a"); got.GetVantage().GetObservedAddress() != "192.0.2.1" || got.GetState() != pb.AgentState_AGENT_STATE_ONLINE {
			t.Errorf("after it has registered elsewhere: %v", got)
		}
		if !f.Beat(beat) || f.Beat(beat) {
			t.Error("the first beat after that is that of one that may have forgotten")
		}
	})
}

// A coordinator that starts is told by another which agents live, and has of them what that one has.
func TestWhatAnotherHasHeard(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		digest := bytes.Repeat([]byte{1}, 32)
		enrolled := &pb.Enrolment{Id: "fra-1", Vantage: &pb.Vantage{Region: "eu-central-1"}, EnrollTime: timestamppb.Now()}
		other, started := New(), New()
		for _, f := range []*Fleet{other, started} {
			f.Enrolled(enrolled)
		}
		other.Beat(&pb.Beat{Agent: "gone", Vantage: frankfurt})
		time.Sleep(offlineAfter)
		if err := other.Register("fra-1", "v1", &pb.Vantage{ObservedAddress: "192.0.2.1"}); err != nil {
			t.Fatal(err)
		}
		other.Beat(&pb.Beat{Agent: "fra-1", Vantage: frankfurt, Version: "v1", Capacity: 256, Running: 3, Authorities: digest})
		other.Beat(&pb.Beat{Agent: "leaves", Vantage: frankfurt, Draining: true})
		other.Beat(&pb.Beat{Agent: "moved", Vantage: frankfurt})
		other.Moved("moved", "192.0.2.7")
		time.Sleep(2 * time.Second)

		joined := map[string]bool{}
		for _, h := range other.Beats() {
			joined[h.GetBeat().GetAgent()] = started.Heard(h)
		}
		if want := map[string]bool{"fra-1": true, "leaves": false, "moved": true}; !maps.Equal(joined, want) {
			t.Errorf("have come: %v, want %v", joined, want)
		}
		for id := range joined {
			if got, want := started.Get(id), other.Get(id); !proto.Equal(got, want) {
				t.Errorf("of %s it has\n%v, and the other one\n%v", id, got, want)
			}
		}
		if got, want := started.Deaf(digest), other.Deaf(digest); !slices.Equal(got, want) {
			t.Errorf("deaf are %q, and of the other one %q", got, want)
		}
		if started.Beat(&pb.Beat{Agent: "fra-1", Vantage: frankfurt}) || !started.Beat(&pb.Beat{Agent: "moved", Vantage: frankfurt}) {
			t.Error("after that a beat is a coming of one that has moved, and of no other")
		}
		// What was heard here since counts, and so does silence since.
		old := &pb.HeardBeat{Beat: &pb.Beat{Agent: "fra-1", Vantage: frankfurt, Draining: true}, Age: durationpb.New(time.Second)}
		if started.Heard(old) || started.Get("fra-1").GetState() != pb.AgentState_AGENT_STATE_ONLINE {
			t.Error("an older beat has taken the place of a newer one")
		}
		time.Sleep(offlineAfter - time.Second)
		if got := started.Get("leaves").GetState(); got != pb.AgentState_AGENT_STATE_OFFLINE {
			t.Errorf("one that was silent for %v, as two coordinators have it together, is %v", offlineAfter+time.Second, got)
		}
		started.Enrolled(&pb.Enrolment{Id: "revoked", RevokeTime: timestamppb.Now()})
		for what, h := range map[string]*pb.HeardBeat{
			"from the future":  {Beat: &pb.Beat{Agent: "x"}, Age: durationpb.New(-time.Hour)},
			"of a revoked one": {Beat: &pb.Beat{Agent: "revoked"}},
		} {
			if started.Heard(h) {
				t.Errorf("a beat %s is a coming", what)
			}
		}
	})
}

// What agents trust is what they tell: whoever tells nothing, or too much, is taken for one that has not heard.
func TestDeaf(t *testing.T) {
	f := New()
	digest, other := bytes.Repeat([]byte{1}, 32), bytes.Repeat([]byte{2}, 32)
	for name, told := range map[string][]byte{"knows": digest, "old": other, "silent": nil, "babbles": bytes.Repeat(digest, 100)} {
		f.Beat(&pb.Beat{Agent: name, Authorities: told})
	}
	f.Beat(&pb.Beat{Agent: "leaves", Draining: true})
	if got := f.Deaf(digest); !slices.Equal(got, []string{"babbles", "old", "silent"}) {
		t.Errorf("deaf are %q", got)
	}
	f.Beat(&pb.Beat{Agent: "old", Authorities: digest})
	if got := f.Deaf(digest); !slices.Equal(got, []string{"babbles", "silent"}) {
		t.Errorf("deaf are %q after one has heard", got)
	}
}
