package probe

import (
	"crypto/x509"
	"slices"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/elsewhere-net/elsewhere/pkg/probe/probetest"
	pb "github.com/elsewhere-net/elsewhere/proto/elsewhere/v1"
)

// FuzzChain: any certificates that parse, in any order, are judged without a crash, the same way twice,
// and become evidence that can be sent.
func FuzzChain(f *testing.F) {
	cert, roots := issue(f, probetest.CAOptions{}, probetest.Leaf{Names: []string{"www.example"}, Serve: probetest.WithRoot}, true)
	trusted := anchors{pool: x509.NewCertPool(), subjects: map[string]bool{string(roots[0].RawSubject): true}}
	trusted.pool.AddCert(roots[0])
	f.Add(cert.Certificate[0], cert.Certificate[1], cert.Certificate[2], "www.example", int64(0))
	f.Add(cert.Certificate[2], cert.Certificate[0], cert.Certificate[1], "127.0.0.1", int64(1)<<40)
	f.Fuzz(func(t *testing.T, a, b, c []byte, name string, seconds int64) {
		var served []*x509.Certificate
		for _, der := range [][]byte{a, b, c} {
			if parsed, err := x509.ParseCertificate(der); err == nil {
				served = append(served, parsed)
			}
		}
		judge := func() []pb.Failure {
			j := judgement{served: served, name: name, now: time.Unix(seconds%(1<<36), 0), anchors: trusted}
			return j.judge()
		}
		first := judge()
		if !slices.Equal(first, judge()) {
			t.Errorf("%v, then something else", first)
		}
		for _, s := range served {
			if _, err := proto.Marshal(certificate(s)); err != nil {
				t.Errorf("the evidence cannot be sent: %v", err)
			}
		}
	})
}

func TestNobodyServedACertificate(t *testing.T) {
	t.Parallel()
	if got := (&judgement{anchors: newAnchors(nil)}).judge(); !slices.Equal(got, []pb.Failure{pb.Failure_FAILURE_CERT_MALFORMED}) {
		t.Errorf("%v", got)
	}
}
