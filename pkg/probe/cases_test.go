package probe

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"fmt"
	"math/big"
	"net"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/elsewhere-net/elsewhere/pkg/probe/probetest"
	pb "github.com/elsewhere-net/elsewhere/proto/elsewhere/v1"
)

// pki is an authority with a trusted root, and one whose root nobody knows.
type pki struct {
	testing.TB
	root, intermediate, stranger *probetest.Entity
	anchors                      anchors
}

func newPKI(t testing.TB) *pki {
	p := &pki{TB: t}
	p.root = p.authority("Root", nil, nil)
	p.stranger = p.authority("Stranger Root", nil, nil)
	p.intermediate = p.authority("Intermediate", p.root, nil)
	p.anchors = newAnchors([]*x509.Certificate{p.root.Certificate})
	return p
}

func (p *pki) make(d probetest.Draft) *probetest.Entity {
	p.Helper()
	e, err := d.Make()
	if err != nil {
		p.Fatal(err)
	}
	return e
}

func (p *pki) authority(name string, issuer *probetest.Entity, change func(*x509.Certificate)) *probetest.Entity {
	p.Helper()
	return p.make(probetest.Draft{Authority: true, Leaf: probetest.Leaf{Names: []string{name}}, Issuer: issuer, Change: change})
}

// leaf makes a certificate for www.example by the intermediate.
func (p *pki) leaf(change func(*x509.Certificate)) *probetest.Entity {
	p.Helper()
	return p.below(p.intermediate, change)
}

func (p *pki) below(issuer *probetest.Entity, change func(*x509.Certificate)) *probetest.Entity {
	p.Helper()
	return p.make(probetest.Draft{Leaf: probetest.Leaf{Names: []string{"www.example"}}, Issuer: issuer, Change: change})
}

// with makes one with a key that nobody has.
func (p *pki) with(public crypto.PublicKey) *probetest.Entity {
	p.Helper()
	return p.make(probetest.Draft{Leaf: probetest.Leaf{Names: []string{"www.example"}}, Issuer: p.intermediate, Public: public})
}

// edited makes one whose bytes are changed.
func (p *pki) edited(public crypto.PublicKey, from, to []byte) *probetest.Entity {
	p.Helper()
	return p.make(probetest.Draft{
		Leaf: probetest.Leaf{Names: []string{"www.example"}}, Issuer: p.intermediate, Public: public,
		Edit: func(tbs []byte) []byte {
			if !bytes.Contains(tbs, from) {
				p.Fatalf("% x is not in the certificate", from)
			}
			return bytes.ReplaceAll(tbs, from, to)
		},
	})
}

func rsaKey(bits int) *rsa.PublicKey {
	n := new(big.Int).SetBit(big.NewInt(1), bits-1, 1)
	return &rsa.PublicKey{N: n, E: 65537}
}

// entities are certificates in the order in which they are served.
type entities = []*probetest.Entity

func chainOf(list entities) (c servedChain) {
	c.name = "www.example"
	for _, e := range list {
		c.raw = append(c.raw, e.DER)
	}
	return c
}

// chainCase is a chain and what is to be said about it.
type chainCase struct {
	name     string
	serve    func(*pki) entities
	want     []pb.Failure
	distrust pb.Distrust
	each     string // The failures of each certificate: "0: cert_expired 1: …".
	layout   string // "extra", "duplicate", "root" and places, if there are any.
}

const (
	malformed   = pb.Failure_FAILURE_CERT_MALFORMED
	lapsed      = pb.Failure_FAILURE_CERT_EXPIRED
	notYet      = pb.Failure_FAILURE_CERT_NOT_YET_VALID
	mismatch    = pb.Failure_FAILURE_CERT_NAME_MISMATCH
	selfMade    = pb.Failure_FAILURE_CERT_SELF_SIGNED
	untrusted   = pb.Failure_FAILURE_CERT_UNTRUSTED_ROOT
	incomplete  = pb.Failure_FAILURE_CERT_CHAIN_INCOMPLETE
	disorder    = pb.Failure_FAILURE_CERT_CHAIN_ORDER
	weakKey     = pb.Failure_FAILURE_CERT_WEAK_KEY
	weakSig     = pb.Failure_FAILURE_CERT_WEAK_SIGNATURE
	unsupported = pb.Failure_FAILURE_CERT_KEY_UNSUPPORTED
	oldParent   = pb.Failure_FAILURE_CERT_INTERMEDIATE_EXPIRED
)

// chainCases are after badssl.com's list of certificates and what it lacks.
func chainCases() []chainCase {
	ago, soon := time.Now().Add(-time.Hour), time.Now().Add(time.Hour)
	type fs = []pb.Failure
	none := pb.Distrust_DISTRUST_UNSPECIFIED
	names := func(list ...string) func(*x509.Certificate) {
		return func(c *x509.Certificate) { c.DNSNames = list }
	}
	signedBy := func(alg x509.SignatureAlgorithm) func(p *pki) entities {
		return func(p *pki) entities {
			big := p.make(probetest.Draft{Authority: true, Leaf: probetest.Leaf{Names: []string{"RSA"}, RSABits: 2048}, Issuer: p.root})
			return entities{p.below(big, func(c *x509.Certificate) { c.SignatureAlgorithm = alg }), big}
		}
	}
	key := func(public crypto.PublicKey) func(p *pki) entities {
		return func(p *pki) entities { return entities{p.with(public), p.intermediate} }
	}
	curve := func(c elliptic.Curve) func(p *pki) entities {
		return func(p *pki) entities {
			k, err := ecdsa.GenerateKey(c, rand.Reader)
			if err != nil {
				p.Fatal(err)
			}
			return key(k.Public())(p)
		}
	}
	leaf := func(change func(*x509.Certificate)) func(p *pki) entities {
		return func(p *pki) entities { return entities{p.leaf(change), p.intermediate} }
	}
	above := func(change func(*x509.Certificate)) func(p *pki) entities {
		return func(p *pki) entities {
			i := p.authority("Changed", p.root, change)
			return entities{p.below(i, nil), i}
		}
	}
	return []chainCase{
		{"a good chain", leaf(nil), nil, none, "", ""},
		{"no intermediate is needed below a root", func(p *pki) entities { return entities{p.below(p.root, nil)} }, nil, none, "", ""},
		// badssl.com.
		{"expired", leaf(func(c *x509.Certificate) { c.NotAfter = ago }), fs{lapsed}, none, "0: cert_expired", ""},
		{"the wrong host", leaf(names("other.example")), fs{mismatch}, none, "0: cert_name_mismatch", ""},
		{"self-signed", func(p *pki) entities { return entities{p.below(nil, nil)} }, fs{selfMade}, pb.Distrust_DISTRUST_UNKNOWN_ROOT, "0: cert_self_signed", ""},
		{"an untrusted root, served", func(p *pki) entities { return entities{p.below(p.stranger, nil), p.stranger} }, fs{untrusted}, pb.Distrust_DISTRUST_UNKNOWN_ROOT, "1: cert_untrusted_root", "root"},
		{"an untrusted root, not served", func(p *pki) entities { return entities{p.below(p.stranger, nil)} }, fs{untrusted}, pb.Distrust_DISTRUST_NO_PATH, "0: cert_untrusted_root", ""},
		{"no common name, and a subjectAltName", leaf(func(c *x509.Certificate) { c.Subject = pkix.Name{Organization: []string{"O"}} }), nil, none, "", ""},
		{"no subject at all, and a subjectAltName", leaf(func(c *x509.Certificate) { c.Subject = pkix.Name{} }), nil, none, "", ""},
		{"an incomplete chain that points nowhere", func(p *pki) entities { return entities{p.leaf(nil)} }, fs{untrusted}, pb.Distrust_DISTRUST_NO_PATH, "0: cert_untrusted_root", ""},
		{"a reversed chain", func(p *pki) entities {
			lower := p.authority("Lower", p.intermediate, nil)
			return entities{p.below(lower, nil), p.root, p.intermediate, lower}
		}, fs{disorder}, none, "0: cert_chain_order", "root"},
		{"SHA-1", signedBy(x509.SHA1WithRSA), fs{weakSig}, none, "0: cert_weak_signature", ""},
		{"SHA-384", signedBy(x509.SHA384WithRSA), nil, none, "", ""},
		{"SHA-512", signedBy(x509.SHA512WithRSA), nil, none, "", ""},
		{"a signature by RSASSA-PSS with an ordinary key", signedBy(x509.SHA256WithRSAPSS), nil, none, "", ""},
		{"a thousand names", leaf(names(manyNames(1000)...)), nil, none, "", ""},
		{"ten thousand names", leaf(names(manyNames(10_000)...)), nil, none, "", ""},
		{"P-256", curve(elliptic.P256()), nil, none, "", ""},
		{"P-384", curve(elliptic.P384()), nil, none, "", ""},
		{"P-521", curve(elliptic.P521()), nil, none, "", ""},
		{"P-224", curve(elliptic.P224()), fs{weakKey}, none, "0: cert_weak_key", ""},
		{"RSA 1024", key(rsaKey(1024)), fs{weakKey}, none, "0: cert_weak_key", ""},
		{"RSA 2048", key(rsaKey(2048)), nil, none, "", ""},
		{"RSA 4096", key(rsaKey(4096)), nil, none, "", ""},
		{"RSA 8192", key(rsaKey(8192)), nil, none, "", ""},
		{"RSA 16384", key(rsaKey(16384)), fs{unsupported}, none, "0: cert_key_unsupported", ""},
		{"Ed25519", key(ed25519.PublicKey(make([]byte, 32))), nil, none, "", ""},
		{"Ed448", func(p *pki) entities { // Differs from Ed25519 in the last number (RFC 8410, 3).
			return entities{p.edited(ed25519.PublicKey(make([]byte, 32)), []byte{6, 3, 0x2b, 0x65, 0x70}, []byte{6, 3, 0x2b, 0x65, 0x71}), p.intermediate}
		}, fs{unsupported}, none, "0: cert_key_unsupported", ""},
		{"an RSASSA-PSS key", func(p *pki) entities { // 1.2.840.113549.1.1.10 in place of …1 (RFC 4055, 1.2).
			return entities{p.edited(rsaKey(2048), []byte{0x0d, 1, 1, 1, 5}, []byte{0x0d, 1, 1, 10, 5}), p.intermediate}
		}, fs{unsupported}, none, "0: cert_key_unsupported", ""},
		{"a curve that the library does not know", func(p *pki) entities { // secp256k1 in place of secp384r1.
			k, _ := ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
			return entities{p.edited(k.Public(), []byte{0x2b, 0x81, 4, 0, 34}, []byte{0x2b, 0x81, 4, 0, 10}), p.intermediate}
		}, fs{unsupported}, none, "0: cert_key_unsupported", ""},
		// What it lacks.
		{"not yet valid", leaf(func(c *x509.Certificate) { c.NotBefore = soon }), fs{notYet}, none, "0: cert_not_yet_valid", ""},
		{"an expired intermediate", above(func(c *x509.Certificate) { c.NotAfter = ago }), fs{oldParent}, none, "1: cert_intermediate_expired", ""},
		{"an intermediate that is not valid yet", above(func(c *x509.Certificate) { c.NotBefore = soon }), fs{notYet}, none, "1: cert_not_yet_valid", ""},
		{"a common name alone", leaf(func(c *x509.Certificate) { c.DNSNames, c.Subject.CommonName = nil, "www.example" }), fs{mismatch}, none, "0: cert_name_mismatch", ""},
		{"a wildcard", leaf(names("*.example")), nil, none, "", ""},
		{"a wildcard does not stand for two labels", leaf(names("*.net.example", "*.le")), fs{mismatch}, none, "0: cert_name_mismatch", ""},
		{"a wildcard does not stand for the apex", leaf(names("*.www.example")), fs{mismatch}, none, "0: cert_name_mismatch", ""},
		{"half a label is no wildcard", leaf(names("w*.example")), fs{mismatch}, none, "0: cert_name_mismatch", ""},
		{"letters of another case", leaf(names("WWW.Example")), nil, none, "", ""},
		{"an extra certificate in the middle", func(p *pki) entities { return entities{p.leaf(nil), p.stranger, p.intermediate} }, nil, none, "", "extra [1] root"},
		{"an extra intermediate at the end", func(p *pki) entities {
			return entities{p.leaf(nil), p.intermediate, p.authority("Other", p.root, nil)}
		}, nil, none, "", "extra [2]"},
		{"an extra one that has expired says so and harms nobody", func(p *pki) entities {
			return entities{p.leaf(nil), p.intermediate, p.authority("Old", p.root, func(c *x509.Certificate) { c.NotAfter = ago })}
		}, nil, none, "2: cert_intermediate_expired", "extra [2]"},
		{"the leaf twice", func(p *pki) entities { l := p.leaf(nil); return entities{l, l, p.intermediate} }, nil, none, "", "duplicate [1]"},
		{"the root included", func(p *pki) entities { return entities{p.leaf(nil), p.intermediate, p.root} }, nil, none, "", "root"},
		{"the root before the intermediate", func(p *pki) entities { return entities{p.leaf(nil), p.root, p.intermediate} }, fs{disorder}, none, "0: cert_chain_order", "root"},
		{"the intermediate first", func(p *pki) entities { return entities{p.intermediate, p.leaf(nil)} }, fs{mismatch, disorder}, none, "0: cert_name_mismatch 1: cert_chain_order", ""},
		{"the wrong intermediate", func(p *pki) entities {
			return entities{p.leaf(nil), p.authority("Other", p.root, nil)}
		}, fs{untrusted}, pb.Distrust_DISTRUST_NO_PATH, "0: cert_untrusted_root", "extra [1]"},
		{"a known root's name and another one's key", func(p *pki) entities {
			impostor := p.authority("Root", nil, nil)
			return entities{p.below(impostor, nil)}
		}, fs{untrusted}, pb.Distrust_DISTRUST_UNKNOWN_ROOT, "0: cert_untrusted_root", ""},
		{"untrusted and out of order", func(p *pki) entities {
			i := p.authority("Below Stranger", p.stranger, nil)
			return entities{p.below(i, nil), p.stranger, i}
		}, fs{untrusted, disorder}, pb.Distrust_DISTRUST_UNKNOWN_ROOT, "0: cert_chain_order 1: cert_untrusted_root", "root"},
		{"for clients only", leaf(func(c *x509.Certificate) { c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth} }), fs{untrusted}, pb.Distrust_DISTRUST_USAGE, "0: cert_untrusted_root", ""},
		{"any usage", leaf(func(c *x509.Certificate) { c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageAny} }), nil, none, "", ""},
		{"below an authority for clients only", above(func(c *x509.Certificate) { c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth} }), fs{untrusted}, pb.Distrust_DISTRUST_USAGE, "1: cert_untrusted_root", ""},
		{"a name that the authority may not issue", above(func(c *x509.Certificate) { c.PermittedDNSDomains = []string{"other.example"} }), fs{untrusted}, pb.Distrust_DISTRUST_NAME_CONSTRAINTS, "1: cert_untrusted_root", ""},
		{"a name that the authority may issue", above(func(c *x509.Certificate) { c.PermittedDNSDomains = []string{".example"} }), nil, none, "", ""},
		{"a name that the authority must not issue", above(func(c *x509.Certificate) { c.ExcludedDNSDomains = []string{"example"} }), fs{untrusted}, pb.Distrust_DISTRUST_NAME_CONSTRAINTS, "1: cert_untrusted_root", ""},
		{"a path that is too long", func(p *pki) entities {
			upper := p.authority("Upper", p.root, func(c *x509.Certificate) { c.MaxPathLenZero = true })
			lower := p.authority("Lower", upper, nil)
			return entities{p.below(lower, nil), lower, upper}
		}, fs{untrusted}, pb.Distrust_DISTRUST_NOT_AN_AUTHORITY, "2: cert_untrusted_root", ""},
		{"an intermediate that is no authority", above(func(c *x509.Certificate) { c.IsCA, c.KeyUsage = false, 0 }), fs{untrusted}, pb.Distrust_DISTRUST_NOT_AN_AUTHORITY, "1: cert_untrusted_root", ""},
		{"an intermediate whose key may not sign certificates", above(func(c *x509.Certificate) { c.KeyUsage = x509.KeyUsageDigitalSignature }), fs{untrusted}, pb.Distrust_DISTRUST_NOT_AN_AUTHORITY, "1: cert_untrusted_root", ""},
		{"a critical extension that nobody knows", leaf(func(c *x509.Certificate) {
			c.ExtraExtensions = []pkix.Extension{{Id: []int{1, 2, 3, 4}, Critical: true, Value: []byte{5, 0}}}
		}), fs{untrusted}, pb.Distrust_DISTRUST_CRITICAL_EXTENSION, "0: cert_untrusted_root", ""},
		{"cross-signed, and one of the paths has expired", func(p *pki) entities {
			old := p.make(probetest.Draft{Authority: true, Leaf: probetest.Leaf{Names: []string{"Cross"}, NotAfter: ago}, Issuer: p.root})
			good := p.make(probetest.Draft{Authority: true, Leaf: probetest.Leaf{Names: []string{"Cross"}}, Issuer: p.root, Key: old.Key})
			return entities{p.below(old, nil), old, good}
		}, nil, none, "1: cert_intermediate_expired", ""},
		{"cross-signed, and one of the roots is unknown", func(p *pki) entities {
			strange := p.make(probetest.Draft{Authority: true, Leaf: probetest.Leaf{Names: []string{"Cross"}}, Issuer: p.stranger})
			good := p.make(probetest.Draft{Authority: true, Leaf: probetest.Leaf{Names: []string{"Cross"}}, Issuer: p.root, Key: strange.Key})
			return entities{p.below(strange, nil), strange, good}
		}, nil, none, "", "extra [1]"},
		{"noise after a good chain", func(p *pki) entities {
			return entities{p.leaf(nil), p.intermediate, {DER: []byte("noise")}}
		}, nil, none, "2: cert_malformed", "extra [2]"},
		{"noise in place of the intermediate", func(p *pki) entities {
			return entities{p.leaf(nil), {DER: []byte("noise")}}
		}, fs{malformed}, pb.Distrust_DISTRUST_NO_PATH, "1: cert_malformed", "extra [1]"},
		{"noise in place of the leaf", func(p *pki) entities { return entities{{DER: []byte("noise")}, p.intermediate} }, fs{malformed, mismatch}, pb.Distrust_DISTRUST_NO_PATH, "0: cert_malformed cert_name_mismatch", "extra [1]"},
		{"a leaf that the library refuses is still read", func(p *pki) entities { // A U-label where A-labels belong.
			return entities{p.edited(nil, []byte("www.example"), []byte("www.\xc3\xa9xampl")), p.intermediate}
		}, fs{malformed, mismatch}, none, "0: cert_malformed cert_name_mismatch", ""},
		{
			"all that is wrong is said at once", func(p *pki) entities {
				i := p.authority("Worse", p.stranger, func(c *x509.Certificate) { c.NotAfter = ago })
				l := p.make(probetest.Draft{Leaf: probetest.Leaf{Names: []string{"other.example"}, NotAfter: ago, RSABits: 1024}, Issuer: i})
				return entities{l, p.stranger, i}
			},
			fs{lapsed, mismatch, untrusted, disorder, oldParent, weakKey},
			pb.Distrust_DISTRUST_UNKNOWN_ROOT,
			"0: cert_expired cert_name_mismatch cert_chain_order cert_weak_key 1: cert_untrusted_root 2: cert_intermediate_expired", "root",
		},
		{"distrusted, expired and for another name at once", leaf(func(c *x509.Certificate) {
			c.NotAfter, c.DNSNames, c.ExtKeyUsage = ago, nil, []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}
		}), fs{lapsed, mismatch, untrusted}, pb.Distrust_DISTRUST_USAGE, "0: cert_expired cert_name_mismatch cert_untrusted_root", ""},
	}
}

func manyNames(n int) []string {
	var names []string
	for i := range n - 1 {
		names = append(names, fmt.Sprintf("n%d.example", i))
	}
	return append(names, "www.example")
}

func TestChains(t *testing.T) {
	t.Parallel()
	p := newPKI(t)
	for _, tt := range chainCases() {
		t.Run(tt.name, func(t *testing.T) {
			q := *p
			q.TB = t
			c := chainOf(tt.serve(&q))
			j := judgement{servedChain: c, now: time.Now(), anchors: p.anchors}
			x := j.judge()
			if !slices.Equal(x.failures, tt.want) || x.analysis.GetDistrust() != tt.distrust {
				t.Errorf("failures %v, %v, want %v, %v: %s", x.failures, x.analysis.GetDistrust(), tt.want, tt.distrust, x.text)
			}
			if got := ofEach(x.chain); got != tt.each {
				t.Errorf("each: %q, want %q", got, tt.each)
			}
			if got := layout(x.analysis); got != tt.layout {
				t.Errorf("layout %q, want %q", got, tt.layout)
			}
			if len(x.chain) != len(c.raw) || x.served != int32(len(c.raw)) {
				t.Errorf("%d certificates kept, %d counted, %d served", len(x.chain), x.served, len(c.raw))
			}
			if (x.analysis.GetDetail() == "") != (tt.distrust == pb.Distrust_DISTRUST_UNSPECIFIED) {
				t.Errorf("detail %q", x.analysis.GetDetail())
			}
			agreesWithLibrary(t, c, p.root.Certificate, x)
		})
	}
}

// agreesWithLibrary compares what was found with crypto/x509, where that can tell: it says only whether
// there is a path, at one time.
func agreesWithLibrary(t *testing.T, c servedChain, root *x509.Certificate, x examined) {
	t.Helper()
	opts := x509.VerifyOptions{Roots: x509.NewCertPool(), Intermediates: x509.NewCertPool(), DNSName: c.name}
	opts.Roots.AddCert(root)
	var leaf *x509.Certificate
	for i, der := range c.raw {
		parsed, err := x509.ParseCertificate(der)
		switch {
		case i == 0 && err != nil:
			return
		case i == 0:
			leaf = parsed
		case err == nil:
			opts.Intermediates.AddCert(parsed)
		}
	}
	_, err := leaf.Verify(opts)
	// The library has no opinion of these, or a different one: it does not look for the leaf.
	ours := slices.DeleteFunc(slices.Clone(x.failures), func(f pb.Failure) bool {
		return f == disorder && leaf.Subject.CommonName == "www.example" || f == weakKey || f == unsupported
	})
	if (err == nil) != (len(ours) == 0) {
		t.Errorf("failures %v, the library says %v", ours, err)
	}
}

// ofEach shows the failures of each certificate that has any.
func ofEach(chain []*pb.Certificate) string {
	var out []string
	for i, c := range chain {
		if len(c.GetFailures()) == 0 {
			continue
		}
		out = append(out, fmt.Sprintf("%d:", i))
		for _, f := range c.GetFailures() {
			out = append(out, Short(f))
		}
	}
	return strings.Join(out, " ")
}

// layout shows what is odd about the way in which a chain is served.
func layout(a *pb.ChainEvidence) string {
	var out []string
	if len(a.GetExtra()) > 0 {
		out = append(out, fmt.Sprint("extra ", a.GetExtra()))
	}
	if len(a.GetDuplicate()) > 0 {
		out = append(out, fmt.Sprint("duplicate ", a.GetDuplicate()))
	}
	if a.GetRootIncluded() {
		out = append(out, "root")
	}
	return strings.Join(out, " ")
}

func TestRootsThatAreTrustedForOldCertificatesOnly(t *testing.T) {
	t.Parallel()
	p := newPKI(t)
	p.anchors = anchors{added: map[string][]anchor{string(p.root.Certificate.RawSubject): {{
		p.root.Certificate, func(chain []*x509.Certificate) error {
			if len(chain) != 2 {
				t.Errorf("%d certificates, want those without the root", len(chain))
			}
			return errors.New("issued after 2020")
		},
	}}}}
	j := judgement{servedChain: chainOf(entities{p.leaf(nil), p.intermediate}), now: time.Now(), anchors: p.anchors}
	x := j.judge()
	if !slices.Equal(x.failures, []pb.Failure{untrusted}) || x.analysis.GetDistrust() != pb.Distrust_DISTRUST_ISSUED_AFTER ||
		!strings.Contains(x.analysis.GetDetail(), "issued after 2020") {
		t.Errorf("%v, %v", x.failures, x.analysis)
	}
}

func TestRootsThatHaveExpired(t *testing.T) {
	t.Parallel()
	p := newPKI(t)
	old := p.make(probetest.Draft{Authority: true, Leaf: probetest.Leaf{Names: []string{"Old"}, NotAfter: time.Now().Add(-time.Hour)}})
	j := judgement{
		servedChain: chainOf(entities{p.below(old, nil)}), now: time.Now(),
		anchors: newAnchors([]*x509.Certificate{old.Certificate}),
	}
	x := j.judge()
	if !slices.Equal(x.failures, []pb.Failure{untrusted}) || !strings.Contains(x.text, "in the store and valid") {
		t.Errorf("%v: %s", x.failures, x.text)
	}
}

func TestASelfSignedCertificateThatTheOperatorTrusts(t *testing.T) {
	t.Parallel()
	p := newPKI(t)
	own := p.below(nil, nil)
	j := judgement{servedChain: chainOf(entities{own}), now: time.Now(), anchors: newAnchors([]*x509.Certificate{own.Certificate})}
	if x := j.judge(); len(x.failures) > 0 || len(x.analysis.GetPath()) != 1 || x.analysis.GetRootIncluded() {
		t.Errorf("%v: %v", x.failures, x.analysis)
	}
}

func TestConstraints(t *testing.T) {
	t.Parallel()
	_, ten, _ := net.ParseCIDR("10.0.0.0/8")
	for _, tt := range []struct {
		why       string
		authority x509.Certificate
		names     string
		ip        net.IP
		allowed   bool
	}{
		{"a domain permits itself", x509.Certificate{PermittedDNSDomains: []string{"a.example"}}, "A.example", nil, true},
		{"a domain permits what is below it", x509.Certificate{PermittedDNSDomains: []string{"a.example"}}, "b.a.example", nil, true},
		{"a domain does not permit what only ends like it", x509.Certificate{PermittedDNSDomains: []string{"a.example"}}, "ba.example", nil, false},
		{"a leading dot leaves out the domain itself", x509.Certificate{PermittedDNSDomains: []string{".a.example"}}, "a.example", nil, false},
		{"a wildcard would stand for what is excluded", x509.Certificate{ExcludedDNSDomains: []string{"www.a.example"}}, "*.a.example", nil, false},
		{"a wildcard beside what is excluded", x509.Certificate{ExcludedDNSDomains: []string{"www.a.example"}}, "*.b.example", nil, true},
		{"an address in a permitted range", x509.Certificate{PermittedIPRanges: []*net.IPNet{ten}}, "", net.IPv4(10, 1, 1, 1), true},
		{"an address outside of it", x509.Certificate{PermittedIPRanges: []*net.IPNet{ten}}, "", net.IPv4(11, 1, 1, 1), false},
		{"an address in an excluded range", x509.Certificate{ExcludedIPRanges: []*net.IPNet{ten}}, "", net.IPv4(10, 1, 1, 1), false},
		{"more constraints than are looked at", x509.Certificate{PermittedDNSDomains: append(manyNames(maxComparisons), "a.example")}, "a.example", nil, false},
		{"one kind of name does not limit the other", x509.Certificate{PermittedDNSDomains: []string{"a.example"}}, "", net.IPv4(10, 1, 1, 1), true},
	} {
		leaf := &x509.Certificate{}
		if tt.names != "" {
			leaf.DNSNames = []string{tt.names}
		}
		if tt.ip != nil {
			leaf.IPAddresses = []net.IP{tt.ip}
		}
		if why := constrained(&tt.authority, leaf); (why == "") != tt.allowed {
			t.Errorf("%s: %q", tt.why, why)
		}
	}
}

func TestABoundedLook(t *testing.T) {
	t.Parallel()
	p := newPKI(t)
	hostile := entities{p.below(p.authority("Twin", p.root, nil), nil)}
	key := p.make(probetest.Draft{Leaf: probetest.Leaf{RSABits: 2048}}).Key
	for range 600 { // All of them may have issued the leaf and each other, by name.
		hostile = append(hostile, p.make(probetest.Draft{
			Authority: true, Leaf: probetest.Leaf{Names: []string{"Twin"}}, Key: key, Public: rsaKey(8192),
		}))
	}
	began := time.Now()
	j := judgement{servedChain: chainOf(hostile), now: time.Now(), anchors: p.anchors}
	x := j.judge()
	if took := time.Since(began); took > 30*time.Second { // It takes 0.3 s; without bounds, hours.
		t.Errorf("%v", took)
	}
	if j.finder.cost > maxProofs || len(j.served) != maxServed {
		t.Errorf("signature checks for %d, %d looked at", j.finder.cost, len(j.served))
	}
	if len(x.chain) != maxChain || x.served != 601 || !strings.Contains(x.text, "bounds") {
		t.Errorf("%d kept, %d counted: %s", len(x.chain), x.served, x.text)
	}
}
