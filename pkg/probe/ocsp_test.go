package probe

import (
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/crypto/ocsp"

	"github.com/elsewhere-net/elsewhere/pkg/probe/probetest"
	pb "github.com/elsewhere-net/elsewhere/proto/elsewhere/v1"
)

// staple makes an OCSP response about a certificate.
func (p *pki) staple(leaf, issuer, responder *probetest.Entity, change func(*ocsp.Response)) []byte {
	p.Helper()
	r := ocsp.Response{
		Status: ocsp.Good, SerialNumber: leaf.Certificate.SerialNumber,
		ThisUpdate: time.Now().Add(-time.Hour), NextUpdate: time.Now().Add(time.Hour),
	}
	if responder != issuer {
		r.Certificate = responder.Certificate
	}
	if change != nil {
		change(&r)
	}
	der, err := ocsp.CreateResponse(issuer.Certificate, responder.Certificate, r, responder.Key)
	if err != nil {
		p.Fatal(err)
	}
	return der
}

func (p *pki) responder(issuer *probetest.Entity, usage x509.ExtKeyUsage, notAfter time.Time) *probetest.Entity {
	p.Helper()
	return p.make(probetest.Draft{Issuer: issuer, Leaf: probetest.Leaf{Names: []string{"Responder"}, NotAfter: notAfter}, Change: func(c *x509.Certificate) {
		c.ExtKeyUsage = []x509.ExtKeyUsage{usage}
	}})
}

func TestStaples(t *testing.T) {
	t.Parallel()
	p := newPKI(t)
	leaf := p.leaf(nil)
	revoke := func(r *ocsp.Response) { r.Status, r.RevokedAt = ocsp.Revoked, time.Now().Add(-time.Minute) }
	soon, ago := time.Now().Add(time.Hour), time.Now().Add(-time.Hour)
	revoked := []pb.Failure{pb.Failure_FAILURE_CERT_REVOKED}
	for _, tt := range []struct {
		why     string
		staple  []byte
		status  string
		problem string
		want    []pb.Failure
	}{
		{"good", p.staple(leaf, p.intermediate, p.intermediate, nil), "good", "", nil},
		{"revoked", p.staple(leaf, p.intermediate, p.intermediate, revoke), "revoked", "", revoked},
		{"unknown", p.staple(leaf, p.intermediate, p.intermediate, func(r *ocsp.Response) { r.Status = ocsp.Unknown }), "unknown", "", nil},
		{
			"by a responder that the issuer delegated",
			p.staple(leaf, p.intermediate, p.responder(p.intermediate, x509.ExtKeyUsageOCSPSigning, soon), revoke), "revoked", "", revoked,
		},
		{
			"by a certificate of the issuer's that is no responder's",
			p.staple(leaf, p.intermediate, p.responder(p.intermediate, x509.ExtKeyUsageServerAuth, soon), revoke), "revoked", "no responder", nil,
		},
		{
			"by a responder whose certificate has expired",
			p.staple(leaf, p.intermediate, p.responder(p.intermediate, x509.ExtKeyUsageOCSPSigning, ago), revoke), "revoked", "valid from", nil,
		},
		{"by a responder of somebody else", p.staple(leaf, p.intermediate, p.responder(p.stranger, x509.ExtKeyUsageOCSPSigning, soon), revoke), "revoked", "not the issuer's responder", nil},
		{"by somebody else", p.staple(leaf, p.stranger, p.stranger, revoke), "revoked", "not signed by the issuer", nil},
		{"about another certificate", p.staple(p.root, p.intermediate, p.intermediate, revoke), "", "no response matching", nil},
		{"over", p.staple(leaf, p.intermediate, p.intermediate, func(r *ocsp.Response) { revoke(r); r.NextUpdate = ago.Add(time.Minute) }), "revoked", "it was valid until", nil},
		{"not begun", p.staple(leaf, p.intermediate, p.intermediate, func(r *ocsp.Response) { revoke(r); r.ThisUpdate = soon }), "revoked", "not valid before", nil},
		{"an error of the responder's own", ocsp.TryLaterErrorResponse, "try later", "try later", nil},
		{"noise", []byte("noise"), "", "asn1", nil},
		{"too much", make([]byte, maxStaple+1), "", "not looked at", nil},
	} {
		c := chainOf(entities{leaf, p.intermediate})
		c.staple = tt.staple
		j := judgement{servedChain: c, now: time.Now(), anchors: p.anchors}
		x := j.judge()
		problem := x.ocsp.GetProblem()
		if x.ocsp.GetStatus() != tt.status || !strings.Contains(problem, tt.problem) || (problem == "") != (tt.problem == "") {
			t.Errorf("%s: status %q, problem %q, want %q, %q", tt.why, x.ocsp.GetStatus(), problem, tt.status, tt.problem)
		}
		if !slices.Equal(x.failures, tt.want) {
			t.Errorf("%s: failures %v, want %v", tt.why, x.failures, tt.want)
		}
		if (tt.status == "revoked") != (x.ocsp.GetRevokedAt() != nil) {
			t.Errorf("%s: revoked at %v", tt.why, x.ocsp.GetRevokedAt())
		}
	}
}

func TestAStapleOfAnUnknownIssuer(t *testing.T) {
	t.Parallel()
	p := newPKI(t)
	leaf := p.leaf(nil)
	c := chainOf(entities{leaf})
	c.staple = p.staple(leaf, p.intermediate, p.intermediate, func(r *ocsp.Response) { r.Status = ocsp.Revoked })
	j := judgement{servedChain: c, now: time.Now(), anchors: p.anchors}
	x := j.judge()
	if slices.Contains(x.failures, pb.Failure_FAILURE_CERT_REVOKED) || x.ocsp.GetProblem() == "" {
		t.Errorf("%v: %v", x.failures, x.ocsp)
	}
}

func TestAStapleThatIsAskedFor(t *testing.T) {
	t.Parallel()
	p := newPKI(t)
	feature, err := asn1.Marshal([]int{5})
	if err != nil {
		t.Fatal(err)
	}
	leaf := p.leaf(func(c *x509.Certificate) {
		c.ExtraExtensions = []pkix.Extension{{Id: oidTLSFeature, Value: feature}}
	})
	for _, staple := range [][]byte{nil, p.staple(leaf, p.intermediate, p.intermediate, nil)} {
		c := chainOf(entities{leaf, p.intermediate})
		c.staple = staple
		j := judgement{servedChain: c, now: time.Now(), anchors: p.anchors}
		x := j.judge()
		if said := strings.Contains(x.text, "RFC 7633"); said != (staple == nil) || !x.chain[0].GetMustStaple() || len(x.failures) > 0 {
			t.Errorf("%v: %s", x.chain[0].GetMustStaple(), x.text)
		}
	}
}

// FuzzStaple: any stapled response is judged without a crash, and revokes nothing by itself.
func FuzzStaple(f *testing.F) {
	p := newPKI(f)
	leaf := p.leaf(nil)
	f.Add(p.staple(leaf, p.intermediate, p.intermediate, nil))
	f.Add(p.staple(leaf, p.intermediate, p.responder(p.intermediate, x509.ExtKeyUsageOCSPSigning, time.Now().Add(time.Hour)), nil))
	f.Fuzz(func(t *testing.T, der []byte) {
		s := stapled{der: der, leaf: leaf.Certificate, issuer: p.intermediate.Certificate, now: time.Now()}
		if out := s.judge(); out.GetStatus() == revokedStatus && out.GetProblem() == "" {
			t.Errorf("revoked by a response that nobody signed: %v", out)
		}
	})
}
