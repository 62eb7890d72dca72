package probe

import (
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/testing/protocmp"

	"github.com/elsewhere-net/elsewhere/pkg/probe/probetest"
	pb "github.com/elsewhere-net/elsewhere/proto/elsewhere/v1"
)

// FuzzChain: any certificates that parse, in any order, are judged without a crash, the same way twice,
// and become evidence that can be sent.
func FuzzChain(f *testing.F) {
	cert, roots := issue(f, probetest.CAOptions{}, probetest.Leaf{Names: []string{"www.example"}, Serve: probetest.WithRoot}, true)
	f.Add(cert.Certificate[0], cert.Certificate[1], cert.Certificate[2], "www.example", int64(0))
	f.Add(cert.Certificate[2], cert.Certificate[0], cert.Certificate[1], "127.0.0.1", int64(1)<<40)
	f.Fuzz(func(t *testing.T, a, b, c []byte, name string, seconds int64) {
		judge := func() examined {
			j := judgement{
				servedChain: servedChain{raw: [][]byte{a, b, c, a}, name: name, staple: b},
				now:         time.Unix(seconds%(1<<36), 0), anchors: newAnchors(roots),
			}
			return j.judge()
		}
		first := judge()
		if diff := cmp.Diff(first, judge(), protocmp.Transform(), cmp.AllowUnexported(examined{})); diff != "" {
			t.Errorf("judged twice: %s", diff)
		}
		ev := &pb.TLSEvidence{Chain: first.chain, ChainAnalysis: first.analysis, Names: first.names, Ocsp: first.ocsp}
		if _, err := proto.Marshal(ev); err != nil {
			t.Errorf("the evidence cannot be sent: %v", err)
		}
	})
}

func TestNobodyServedACertificate(t *testing.T) {
	t.Parallel()
	if got := (&judgement{anchors: newAnchors(nil)}).judge().failures; !slices.Equal(got, []pb.Failure{pb.Failure_FAILURE_CERT_MALFORMED}) {
		t.Errorf("%v", got)
	}
}
