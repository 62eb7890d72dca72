package probe

import (
	"crypto/x509"
	"fmt"
	"slices"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/elsewhere-net/elsewhere/pkg/probe/probetest"
	pb "github.com/elsewhere-net/elsewhere/proto/elsewhere/v1"
)

// judgeAt judges a chain at a time, with what an Env remembers.
func judgeAt(t testing.TB, env *Env, c servedChain, now time.Time) examined {
	t.Helper()
	job := newJob(tlsSpec("www.example", 443, ""), time.Minute)
	job.CoordinatorTime = timestamppb.New(now)
	return newTrace(env, job).certificates(t.Context(), c)
}

// same says whether two verdicts say the same.
func same(a, b examined) bool {
	message := func(x examined) *pb.TLSEvidence {
		return &pb.TLSEvidence{Chain: x.chain, Served: x.served, ChainAnalysis: x.analysis, Names: x.names, Ocsp: x.ocsp}
	}
	return proto.Equal(message(a), message(b)) && slices.Equal(a.failures, b.failures) && a.text == b.text
}

// TestRemembering compares every verdict of the table with and without a memory, asked twice, and at
// times before, in and after each validity.
func TestRemembering(t *testing.T) {
	t.Parallel()
	p := newPKI(t)
	plain := &Env{Roots: []*x509.Certificate{p.root.Certificate}}
	minds := &Env{Roots: plain.Roots, Chains: &Chains{}}
	now := time.Now()
	for _, tt := range chainCases() {
		c := chainOf(tt.serve(p))
		c.names = []string{"origin.example"}
		for _, at := range []time.Duration{0, 0, -time.Hour * 24 * 400, 0, 2 * time.Hour, 0, time.Hour * 24 * 500, time.Hour * 24 * 500} {
			want := judgeAt(t, plain, c, now.Add(at))
			got := judgeAt(t, minds, c, now.Add(at))
			if !same(want, got) {
				t.Errorf("%s, %v later: %v, want %v", tt.name, at, got, want)
			}
			got.chain[0].DnsNames, got.chain[0].Der = nil, nil // As a result that is too long is cut.
		}
	}
	if n := minds.Chains.recent.Len(); n == 0 {
		t.Error("nothing was remembered")
	}
}

func TestWhatIsRemembered(t *testing.T) {
	t.Parallel()
	p := newPKI(t)
	now := time.Now()
	good := chainOf(entities{p.leaf(nil), p.intermediate})
	roots := []*x509.Certificate{p.root.Certificate}
	m := &Chains{}
	env := &Env{Roots: roots, Chains: m}
	judgeAt(t, env, good, now)
	recalls := func(c servedChain, roots []*x509.Certificate, now time.Time) bool {
		_, ok := m.recall(&c, roots, now)
		return ok
	}
	if !recalls(good, roots, now) {
		t.Error("a verdict was forgotten at once")
	}
	other := good
	other.name = "other.example"
	named := good
	named.names = []string{"other.example"}
	stapled := good
	stapled.staple = []byte{}
	moved := good
	moved.raw = [][]byte{good.raw[1], good.raw[0]}
	for why, c := range map[string]servedChain{"name": other, "further names": named, "staple": stapled, "order": moved} {
		if recalls(c, roots, now) {
			t.Errorf("a verdict was recalled for another %s", why)
		}
	}
	leaf, err := x509.ParseCertificate(good.raw[0])
	if err != nil {
		t.Fatal(err)
	}
	for _, at := range []time.Time{leaf.NotBefore, leaf.NotAfter, leaf.NotAfter.Add(time.Second)} {
		if recalls(good, roots, at) {
			t.Errorf("a verdict was recalled at %v, when another one may hold", at)
		}
	}
	if recalls(good, nil, now) || recalls(good, roots, now) {
		t.Error("a verdict by other roots was recalled")
	}
}

func TestMemoryIsBounded(t *testing.T) {
	t.Parallel()
	p := newPKI(t)
	m := &Chains{}
	env := &Env{Roots: []*x509.Certificate{p.root.Certificate}, Chains: m}
	c := chainOf(entities{p.leaf(nil), p.intermediate})
	now := time.Now()
	for i := range maxVerdicts + 10 {
		c.name = fmt.Sprint("n", i, ".example")
		judgeAt(t, env, c, now)
		first := c
		first.name = "n0.example"
		if _, ok := m.recall(&first, env.Roots, now); !ok {
			t.Fatalf("what is used was forgotten after %d", i)
		}
	}
	if len(m.verdicts) != maxVerdicts || m.recent.Len() != maxVerdicts {
		t.Errorf("%d and %d remembered", len(m.verdicts), m.recent.Len())
	}
	big := chainOf(entities{p.make(probetest.Draft{
		Leaf: probetest.Leaf{Names: manyNames(1000)}, Issuer: p.intermediate,
	}), p.intermediate})
	judgeAt(t, env, big, now)
	if _, ok := m.recall(&big, env.Roots, now); ok {
		t.Error("a chain over the bound was remembered")
	}
}

// BenchmarkJudging is what a verdict costs, without the handshake.
func BenchmarkJudging(b *testing.B) {
	p := newPKI(b)
	c := chainOf(entities{p.leaf(nil), p.intermediate})
	job := newJob(tlsSpec("www.example", 443, ""), time.Minute)
	for _, bb := range []struct {
		name   string
		chains *Chains
	}{{"anew", nil}, {"remembered", &Chains{}}} {
		b.Run(bb.name, func(b *testing.B) {
			b.ReportAllocs()
			t := newTrace(&Env{Roots: []*x509.Certificate{p.root.Certificate}, Chains: bb.chains}, job)
			for b.Loop() {
				if x := t.certificates(b.Context(), c); len(x.failures) > 0 {
					b.Fatal(x)
				}
			}
		})
	}
}
