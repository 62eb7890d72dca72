package aggregate

import (
	"fmt"
	"testing"

	pb "github.com/elsewhere-net/elsewhere/proto/elsewhere/v1"
)

// bigWorld is n agents in four regions that look at two addresses by TLS: one region in ten thousand
// ways the same, silent at one address; every tenth agent of another one too.
func bigWorld(n int) *world {
	w := tlsWorld()
	for i := range n {
		region := [...]string{"ap", "eu", "sa", "us"}[i%4]
		second := tls(ip2, "c2")
		if region == "ap" || region == "eu" && i%10 == 1 {
			second = blocked(ip2, timeout)
		}
		w.in(fmt.Sprintf("%s/%05d", region, i),
			query(i%200, none, "203.0.113.10", "203.0.113.11"), unnamed(i%200, nodata),
			unserialled(own(i%4, "A", "203.0.113.10", "203.0.113.11")), unserialled(own(i%3+4, "A", "203.0.113.10", "203.0.113.11")), tls(ip1, "c1"), second)
	}
	return w
}

func BenchmarkJudge10000(b *testing.B) {
	w := bigWorld(10_000)
	b.ReportAllocs()
	for b.Loop() {
		if v := w.judge(); len(v.GetFindings()) == 0 {
			b.Fatal("nothing found")
		}
	}
}

// BenchmarkJudgeOrigin10000 is agents in four regions that look at an origin of two addresses for a client: one
// region gets no answer from the second one, which has an old certificate too.
func BenchmarkJudgeOrigin10000(b *testing.B) {
	w := originWorld(strict())
	for i := range 10_000 {
		region := [...]string{"ap", "eu", "sa", "us"}[i%4]
		second := visited(ip2, hands{wrong: []pb.Failure{expired}}, 200)
		if region == "ap" {
			second = blocked(ip2, timeout)
		}
		w.in(fmt.Sprintf("%s/%05d", region, i), query(i%200, none, "203.0.113.10", "203.0.113.11"), then(visited(ip1, hands{}, 200), second))
	}
	b.ReportAllocs()
	for b.Loop() {
		if v := w.judge(); len(v.GetFindings()) == 0 {
			b.Fatal("nothing found")
		}
	}
}
