package access

import (
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	pb "github.com/elsewhere-net/elsewhere/proto/elsewhere/v1"
)

var noon = time.Date(2027, 3, 4, 12, 0, 0, 0, time.UTC)

func client(id string, q *pb.Quota) Caller {
	return Caller{Scope: pb.Scope_SCOPE_MEASURE, Token: &pb.Token{Id: id, Purpose: &pb.Token_Api{Api: &pb.APIToken{Quota: q}}}}
}

func tcp(host string) []Target {
	return Targets(&pb.Spec{Check: &pb.Spec_Tcp{Tcp: &pb.TCPSpec{Host: host, Port: 443}}})
}

// exceeded is what an ask is denied for.
func exceeded(err error) *Exceeded {
	var over *Exceeded
	errors.As(err, &over)
	return over
}

func TestTokensAreBoundedEachByItself(t *testing.T) {
	q := NewQuotas(TargetBudget{})
	few := client("few", &pb.Quota{Burst: 2, Hourly: 3600})
	for i, row := range []struct {
		what  string
		ask   Ask
		at    time.Duration
		retry time.Duration // -1: it goes
	}{
		{"the first", Ask{Caller: few, Agents: 1}, 0, -1},
		{"the second, a little later", Ask{Caller: few, Agents: 1}, time.Millisecond, -1},
		{"the third is one too many", Ask{Caller: few, Agents: 1}, time.Millisecond, 999 * time.Millisecond},
		{"another token has its own", Ask{Caller: client("more", nil), Agents: 1}, time.Millisecond, -1},
		{"an administrator has none", Ask{Caller: Caller{Scope: pb.Scope_SCOPE_ADMIN, Token: few.Token}, Agents: 1}, time.Millisecond, -1},
		{"after a second there is one more", Ask{Caller: few, Agents: 1}, 1100 * time.Millisecond, -1},
		{"too many agents never go", Ask{Caller: client("small", &pb.Quota{Agents: 10}), Agents: 11}, 0, 0},
		{"as many as may go", Ask{Caller: client("small", &pb.Quota{Agents: 10}), Agents: 10}, 0, -1},
	} {
		over := exceeded(q.Admit(noon.Add(row.at), row.ask))
		switch {
		case row.retry < 0 && over != nil:
			t.Errorf("%d, %s: %v", i, row.what, over)
		case row.retry >= 0 && (over == nil || (over.RetryAfter-row.retry).Abs() > 2*time.Millisecond || !strings.HasPrefix(over.Subject, "token:")):
			t.Errorf("%d, %s: %+v; want to be told %v", i, row.what, over, row.retry)
		}
	}
}

func TestATargetIsOneForAll(t *testing.T) {
	q := NewQuotas(TargetBudget{Burst: 100, PerSecond: 10})
	admit := func(user, host string, agents int) *Exceeded {
		return exceeded(q.Admit(noon, Ask{Caller: client(user, nil), Targets: tcp(host), Agents: agents}))
	}
	for _, row := range []struct {
		what, user, host string
		agents           int
		subject          string // "": it goes
	}{
		{"one uses most of it", "a", "198.51.100.7", 90, ""},
		{"another has what is left", "b", "198.51.100.7", 20, "target:198.51.100.7"},
		{"and no more", "b", "198.51.100.7", 10, ""},
		{"its neighbour is another target", "c", "198.51.100.8", 100, ""},
		{"and one more", "c", "198.51.100.9", 100, ""},
		{"and one more", "c", "198.51.100.10", 100, ""},
		{"until the network has enough", "c", "198.51.100.11", 1, "target:198.51.100.0/24"},
		{"names of one owner are one target", "a", "www.example.co.uk", 60, ""},
		{"whatever their case", "b", "API.example.CO.uk.", 60, "target:example.co.uk"},
		{"somebody else's is another", "b", "www.example2.co.uk", 60, ""},
		{"an IPv4 address in IPv6 is that address", "d", "::ffff:198.51.100.7", 1, "target:198.51.100.7"},
		{"more than there ever is", "d", "192.0.2.1", 101, "target:192.0.2.1"},
	} {
		over := admit(row.user, row.host, row.agents)
		if (over == nil) != (row.subject == "") || over != nil && over.Subject != row.subject {
			t.Errorf("%s: %v, want %q", row.what, over, row.subject)
		}
	}
	if over := admit("d", "192.0.2.1", 101); over.RetryAfter != 0 || !strings.Contains(over.Error(), "lower the limit") {
		t.Errorf("what can never go: %+v", over)
	}
	if over := admit("b", "198.51.100.7", 20); over.RetryAfter != 2*time.Second {
		t.Errorf("20 jobs of which none are left, at 10 a second: %+v; want 2 s", over)
	}
}

func TestWhatIsDeniedTakesNothing(t *testing.T) {
	q := NewQuotas(TargetBudget{Burst: 100, PerSecond: 1})
	few := client("few", &pb.Quota{Burst: 1, Hourly: 1})
	both := append(tcp("192.0.2.1"), tcp("203.0.113.1")...)
	for range 50 {
		if exceeded(q.Admit(noon, Ask{Caller: few, Targets: both, Agents: 101})) == nil {
			t.Fatal("101 jobs of 100 went")
		}
	}
	if err := q.Admit(noon, Ask{Caller: few, Targets: both, Agents: 100}); err != nil {
		t.Errorf("after denials: %v", err)
	}
}

// TestNobodyForgetsForAnother: a user who thinks of as many targets as he likes gets no budget a new start.
func TestNobodyForgetsForAnother(t *testing.T) {
	q := NewQuotas(TargetBudget{Burst: 10, PerSecond: 0.01, Targets: 100})
	victim := Ask{Caller: client("a", nil), Targets: tcp("victim.example"), Agents: 10}
	if err := q.Admit(noon, victim); err != nil {
		t.Fatal(err)
	}
	refused := 0
	for i := range 10_000 {
		many := client("b", &pb.Quota{Burst: 1_000_000})
		if q.Admit(noon, Ask{Caller: many, Targets: tcp(fmt.Sprintf("x%d.example", i)), Agents: 1}) != nil {
			refused++
		}
	}
	if refused != 10_000-99 {
		t.Errorf("%d of 10,000 targets were refused where 99 could be counted", refused)
	}
	if q.Admit(noon, victim) == nil {
		t.Error("the first target's budget was forgotten")
	}
	if err := q.Admit(noon.Add(time.Hour), Ask{Caller: client("c", nil), Targets: tcp("late.example"), Agents: 1}); err != nil {
		t.Errorf("when the others are full again: %v", err)
	}
}

func TestTargets(t *testing.T) {
	for _, c := range []struct {
		what string
		spec *pb.Spec
		want string
	}{
		{"an address and its network", &pb.Spec{Check: &pb.Spec_Tcp{Tcp: &pb.TCPSpec{Host: "192.0.2.9"}}}, "192.0.2.9 192.0.2.0/24"},
		{"IPv6 by /48", &pb.Spec{Check: &pb.Spec_Tls{Tls: &pb.TLSSpec{Host: "2001:db8:1:2::3"}}}, "2001:db8:1:2::3 2001:db8:1::/48"},
		{"the host of a URL", &pb.Spec{Check: &pb.Spec_Http{Http: &pb.HTTPSpec{Url: "https://[2001:db8::1]:8443/x"}}}, "2001:db8::1 2001:db8::/48"},
		{"the host of an origin", &pb.Spec{Check: &pb.Spec_Origin{Origin: &pb.OriginSpec{Url: "https://origin.shop.example.com:8443"}}}, "example.com"},
		{"a name that nobody registered", &pb.Spec{Check: &pb.Spec_Tcp{Tcp: &pb.TCPSpec{Host: "localhost"}}}, "localhost"},
		{"a name with letters of its own", &pb.Spec{Check: &pb.Spec_Tcp{Tcp: &pb.TCPSpec{Host: "www.bücher.example"}}}, "xn--bcher-kva.example"},
		{"an owner below a public suffix of somebody's own", &pb.Spec{Check: &pb.Spec_Tcp{Tcp: &pb.TCPSpec{Host: "a.b.github.io"}}}, "b.github.io"},
		{
			"a lookup: the domain, and the servers that are named",
			&pb.Spec{Check: &pb.Spec_Dns{Dns: &pb.DNSSpec{Name: "www.example.com.", Resolver: "192.0.2.53:5353", PublicResolvers: []string{"[2001:db8::53]:53", "2001:db8::53"}}}},
			"example.com 192.0.2.53 192.0.2.0/24 2001:db8::53 2001:db8::/48",
		},
		{"a server by name", &pb.Spec{Check: &pb.Spec_Dns{Dns: &pb.DNSSpec{Name: "example.com", Resolver: "dns.example.net:853"}}}, "example.com example.net"},
		{"nothing", &pb.Spec{}, ""},
	} {
		var got []string
		for _, target := range Targets(c.spec) {
			got = append(got, target.String())
		}
		if strings.Join(got, " ") != c.want {
			t.Errorf("%s: %v, want %s", c.what, got, c.want)
		}
	}
}

func TestBadTokensAreCountedByNetwork(t *testing.T) {
	f := NewFailures()
	count := func(now time.Time, addr string) (answered int) {
		for range 100 {
			if f.Failed(now, netip.MustParseAddr(addr)) == 0 {
				answered++
			}
		}
		return answered
	}
	for _, row := range []struct {
		what, addr string
		at         time.Duration
		want       int
	}{
		{"a burst", "192.0.2.1", 0, failureBurst},
		{"its neighbour has its own", "192.0.2.2", 0, failureBurst},
		{"one a second", "192.0.2.1", 3 * time.Second, 3},
		{"an IPv6 network", "2001:db8::1", 0, failureBurst},
		{"another address of it", "2001:db8::2", 0, 0},
	} {
		if got := count(noon.Add(row.at), row.addr); got != row.want {
			t.Errorf("%s: %d were answered, want %d", row.what, got, row.want)
		}
	}
	for i := range 2 * maxFailing {
		f.Failed(noon, netip.AddrFrom4([4]byte{10, byte(i >> 16), byte(i >> 8), byte(i)}))
	}
	if got := count(noon, "198.51.100.1"); got != 0 {
		t.Errorf("beyond as many as are counted, %d of one more address are answered; they count as one", got)
	}
	if f.Failed(noon, netip.Addr{}) == 0 {
		t.Error("a call from nowhere has a count of its own")
	}
}

func TestWhatOthersHaveAdmittedCountsHere(t *testing.T) {
	q := NewQuotas(TargetBudget{Burst: 100, PerSecond: 10})
	few := client("few", &pb.Quota{Burst: 2, Hourly: 3600})
	q.Charge(noon, few.Token, tcp("192.0.2.1"), 90)
	q.Charge(noon, nil, nil, 5)
	for _, row := range []struct {
		what string
		ask  Ask
		goes bool
	}{
		{"what is left of the target", Ask{Caller: few, Targets: tcp("192.0.2.1"), Agents: 10}, true},
		{"one more of it", Ask{Caller: client("other", nil), Targets: tcp("192.0.2.1"), Agents: 1}, false},
		{"one more of the token", Ask{Caller: few, Targets: tcp("198.51.100.1"), Agents: 1}, false},
	} {
		if over := exceeded(q.Admit(noon, row.ask)); (over == nil) != row.goes {
			t.Errorf("%s: %v", row.what, over)
		}
	}
	// More than there is is owed, and never more than a burst at a time.
	q.Charge(noon, few.Token, tcp("192.0.2.1"), 1_000_000)
	if over := exceeded(q.Admit(noon.Add(5*time.Second), Ask{Targets: tcp("192.0.2.1"), Agents: 1})); over == nil || over.RetryAfter > 10*time.Second {
		t.Errorf("what is owed: %+v", over)
	}
}
