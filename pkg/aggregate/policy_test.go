package aggregate

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/testing/protocmp"
	"google.golang.org/protobuf/types/known/durationpb"

	pb "github.com/elsewhere-net/elsewhere/proto/elsewhere/v1"
)

func TestCompletePolicy(t *testing.T) {
	t.Parallel()
	defaults := &pb.Policy{
		MinRegions: 2, MinNetworks: 2, MinAttempts: 2, LatencyFactor: 3,
		LatencyFloor: durationpb.New(100 * time.Millisecond), ExpiryWarning: durationpb.New(14 * 24 * time.Hour),
	}
	with := func(set func(*pb.Policy)) *pb.Policy {
		p := proto.CloneOf(defaults)
		set(p)
		return p
	}
	own := &pb.Policy{
		MinRegions: 1, MinNetworks: 3, MinAttempts: 4, LatencyFactor: 1.5,
		LatencyFloor: durationpb.New(2 * time.Second), ExpiryWarning: durationpb.New(time.Minute),
	}
	for _, c := range []struct {
		sentence    string
		given, want *pb.Policy
	}{
		{"none is all defaults", nil, defaults},
		{"so is an empty one", &pb.Policy{}, defaults},
		{"what is said stays", own, own},
		{"and leaves the rest", &pb.Policy{MinRegions: 5}, with(func(p *pb.Policy) { p.MinRegions = 5 })},
		{
			"a duration is one value, not seconds and nanoseconds", &pb.Policy{LatencyFloor: durationpb.New(2 * time.Second)},
			with(func(p *pb.Policy) { p.LatencyFloor = durationpb.New(2 * time.Second) }),
		},
		{
			"a duration of zero is not left out", &pb.Policy{ExpiryWarning: &durationpb.Duration{}},
			with(func(p *pb.Policy) { p.ExpiryWarning = &durationpb.Duration{} }),
		},
	} {
		given := proto.Clone(c.given)
		if diff := cmp.Diff(c.want, Complete(c.given), protocmp.Transform()); diff != "" {
			t.Errorf("%s (-want +got):\n%s", c.sentence, diff)
		}
		if !proto.Equal(given, c.given) {
			t.Errorf("%s: the policy was modified", c.sentence)
		}
	}
}

// Each knob changes the verdict that it is about.
func TestPolicy(t *testing.T) {
	t.Parallel()
	by := func(w *world, p *pb.Policy) *world {
		w.m.Policy = p
		return w
	}
	everywhere := func() *world {
		return tcpWorld().in("ap", blocked(ip1, timeout)).in("eu", blocked(ip1, timeout))
	}
	alone := func() *world { return tcpWorld().in("ap", blocked(ip1, timeout)) }
	unnamedAlone := func() *world { return dnsWorld("A").in("ap", unnamed(1, servfail)) }
	twice := func() *world {
		return tcpWorld().in("ap/1", blocked(ip1, timeout)).in("ap/2", blocked(ip1, timeout)).in("eu", open(ip1))
	}
	named := func() *world {
		return dnsWorld("A").in("ap/1", unnamed(1, servfail)).in("ap/2", unnamed(2, servfail)).in("eu", answers(3, "A", "192.0.2.1"))
	}
	once := func() *world {
		return tcpWorld().in("ap", attemptsOf(1, blocked(ip1, timeout))).in("eu", open(ip1))
	}
	ends := func() *world { return tlsWorld().in("ap", ending(20*24*time.Hour, tls(ip1, "c1"))) }
	slow := func() *world {
		return tcpWorld().in("ap", taking(200, open(ip1))).in("eu", open(ip1)).in("us", open(ip1))
	}
	runCases(t, []verdictCase{
		{"two regions say that a target is down", everywhere(), []string{
			"fail", "ERROR target_down [ap eu] at 203.0.113.10:443 tcp_timeout block=drop blame=target high",
		}},
		{"unless three are wanted", by(everywhere(), &pb.Policy{MinRegions: 3}), []string{
			"inconclusive", "WARN insufficient_vantage [ap eu] at 203.0.113.10:443 tcp_timeout block=drop blame=unknown low",
		}},
		{"one region alone says so if one is enough", by(alone(), &pb.Policy{MinRegions: 1}), []string{
			"fail", "ERROR target_down [ap] at 203.0.113.10:443 tcp_timeout block=drop blame=target medium",
		}},
		{"and of a name", by(unnamedAlone(), &pb.Policy{MinRegions: 1}), []string{
			"fail", "ERROR unresolvable [ap] dns_servfail blame=zone medium",
		}},
		{"two networks make it sure", twice(), []string{
			"fail", "ERROR regional_block [ap] at 203.0.113.10:443 tcp_timeout block=drop blame=path high",
		}},
		{"unless three are wanted, and nothing else changes", by(twice(), &pb.Policy{MinNetworks: 3}), []string{
			"fail", "ERROR regional_block [ap] at 203.0.113.10:443 tcp_timeout block=drop blame=path medium",
		}},
		{"two resolvers make it sure", named(), []string{
			"fail", "ERROR regional_resolution_failure [ap] dns_servfail block=dns blame=resolver high",
		}},
		{"unless three perspectives are wanted", by(named(), &pb.Policy{MinNetworks: 3}), []string{
			"fail", "ERROR regional_resolution_failure [ap] dns_servfail block=dns blame=resolver medium",
		}},
		{"one lost packet is no block", once(), []string{"inconclusive"}},
		{"unless one attempt is enough", by(once(), &pb.Policy{MinAttempts: 1}), []string{
			"fail", "ERROR regional_block [ap] at 203.0.113.10:443 tcp_timeout block=drop blame=path medium",
		}},
		{"nor are two, if three are wanted", by(everywhere(), &pb.Policy{MinAttempts: 3}), []string{
			"inconclusive", "WARN insufficient_vantage [ap eu] agents=ap,eu blame=unknown low",
		}},
		{"a certificate for twenty days is good", ends(), []string{"ok"}},
		{"unless thirty are wanted", by(ends(), &pb.Policy{ExpiryWarning: durationpb.New(30 * 24 * time.Hour)}), []string{
			"ok", "WARN certificate_problem [ap] at 203.0.113.10:443 blame=target medium",
		}},
		{"three times as slow as others is far slower", slow(), []string{
			"ok", "INFO latency_outlier [ap] at 203.0.113.10:443 blame=unknown medium",
		}},
		{"unless twenty times is", by(slow(), &pb.Policy{LatencyFactor: 20}), []string{"ok"}},
		{"or half a second is no matter", by(slow(), &pb.Policy{LatencyFloor: durationpb.New(500 * time.Millisecond)}), []string{"ok"}},
	})
}
