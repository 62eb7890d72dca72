package aggregate

import (
	"fmt"
	"math/rand/v2"
	"testing"

	pb "github.com/elsewhere-net/elsewhere/proto/elsewhere/v1"
)

// nature is what a server really is like, and what that is to the client; unspecified if it is well.
type nature struct {
	name  string
	cause pb.OriginCause
	seen  func(address string) []*pb.Step
}

func server(name string, cause pb.OriginCause, h hands) nature {
	return nature{name, cause, func(address string) []*pb.Step { return visited(address, h, 200) }}
}

// natures are servers of many kinds; half of them are well.
func natures() []nature {
	const well = pb.OriginCause_ORIGIN_CAUSE_UNSPECIFIED
	down := func(name string, cause pb.OriginCause, f pb.Failure) nature {
		return nature{name, cause, func(address string) []*pb.Step { return blocked(address, f) }}
	}
	return []nature{
		server("ordinary", well, hands{}),
		server("new", well, hands{version: "TLS 1.3", suite: suite13}),
		server("beyond the agents' library", well, hands{own: noSuite}),
		server("with a short key", well, hands{leaf: keyed("RSA 1024"), wrong: []pb.Failure{weakKey}}),
		{"without the page", well, func(address string) []*pb.Step { return visited(address, hands{}, 404) }},
		{"elsewhere", well, func(address string) []*pb.Step { return visited(address, hands{}, 302) }},
		server("expired", pb.OriginCause_ORIGIN_CAUSE_EXPIRED, hands{wrong: []pb.Failure{expired}}),
		server("out of order", pb.OriginCause_ORIGIN_CAUSE_CHAIN_ORDER, hands{wrong: []pb.Failure{disorder}}),
		server("for others", pb.OriginCause_ORIGIN_CAUSE_NAME_MISMATCH, forNames(hands{}, "x.test")),
		server("for agents alone", pb.OriginCause_ORIGIN_CAUSE_PROTOCOL, hands{version: "TLS 1.3", suite: suite13, offer: noVersion, accepts: accepting("TLS 1.3", []string{suite13})}),
		server("curious", pb.OriginCause_ORIGIN_CAUSE_CLIENT_CERTIFICATE, hands{asks: true}),
		server("plain", pb.OriginCause_ORIGIN_CAUSE_NOT_TLS, hands{own: notTLS, offer: notTLS}),
		down("closed", pb.OriginCause_ORIGIN_CAUSE_PORT_CLOSED, refused),
	}
}

// disturbed is what an agent saw, with trouble of its own at times: steps that it had no time for, or a hello
// that was lost.
func disturbed(r *rand.Rand, steps []*pb.Step) []*pb.Step {
	switch r.IntN(12) {
	case 0:
		return tcp(steps[0].GetAddress(), deadline)
	case 1:
		for _, s := range steps {
			if s.GetVariant() == pb.Variant_VARIANT_PROFILE_OFFER {
				s.Failure, s.Failures, s.Evidence.Tls = hung, []pb.Failure{hung}, &pb.TLSEvidence{}
			}
		}
	case 2:
		return steps[:1+r.IntN(len(steps))]
	}
	return steps
}

// strandedAgent is an agent that can reach nothing, not even its controls.
func strandedAgent(addresses []string) (steps []*pb.Step) {
	for _, address := range addresses {
		steps = append(steps, tcp(address, timeout)...)
	}
	return append(steps, failing4()...)
}

// Origins of up to three servers, each of a kind, seen by up to nine agents with troubles of their own: no
// server that is well is accused, and who is accused is so for what is true of it.
func TestOriginsAgainstTheTruth(t *testing.T) {
	accused := 0
	for seed := range uint64(2000) {
		r := rand.New(rand.NewPCG(seed, 3))
		w, real := originWorld(strict()), map[string]nature{}
		addresses := []string{ip1, ip2, ip3}[:1+r.IntN(3)]
		for _, address := range addresses {
			real[address] = natures()[r.IntN(len(natures()))]
		}
		for i := range 1 + r.IntN(9) {
			var parts [][]*pb.Step
			for _, address := range addresses {
				parts = append(parts, disturbed(r, real[address].seen(address)))
			}
			if r.IntN(12) == 0 {
				parts = [][]*pb.Step{strandedAgent(addresses)}
			}
			w.in(fmt.Sprintf("%s/%d", [...]string{"ap", "eu", "us"}[i%3], i), then(parts...))
		}
		for _, f := range w.judge().GetFindings() {
			if !isError(f) {
				continue
			}
			accused++
			for _, address := range f.GetAddresses() {
				if got, want := f.GetPrediction().GetCause(), real[address].cause; got != want {
					t.Errorf("seed %d: the server that is %s is accused: %s", seed, real[address].name, predicted(f))
				}
			}
		}
	}
	if accused < 1000 {
		t.Errorf("%d findings in all: this shows little", accused)
	}
}
