package probe

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rsa"
	"crypto/x509"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	pb "github.com/elsewhere-net/elsewhere/proto/elsewhere/v1"
)

// maxChain is how many certificates of a chain are looked at.
const maxChain = 16

// judgement is a chain as it was served, and what is wrong with it. The failures are independent: each
// is found whatever else is wrong (domain.md, 4.2).
type judgement struct {
	served  []*x509.Certificate // Leaf first.
	name    string              // What the leaf must be valid for.
	now     time.Time           // The coordinator's time.
	anchors anchors

	failures []pb.Failure
	text     string // What the failures leave open, for people.
}

// judge returns all that is wrong with the chain, the gravest first.
func (j *judgement) judge() []pb.Failure {
	if len(j.served) == 0 {
		return []pb.Failure{pb.Failure_FAILURE_CERT_MALFORMED}
	}
	leaf := j.served[0]
	j.failIf(j.now.After(leaf.NotAfter), pb.Failure_FAILURE_CERT_EXPIRED)
	j.failIf(j.now.Before(leaf.NotBefore), pb.Failure_FAILURE_CERT_NOT_YET_VALID)
	// RFC 9525: the subjectAltName alone counts, and a wildcard stands for one whole label.
	if err := leaf.VerifyHostname(j.name); err != nil {
		j.fail(pb.Failure_FAILURE_CERT_NAME_MISMATCH)
		j.say(err.Error())
	}
	path := j.trust()
	for _, c := range path[1:] {
		j.failIf(j.now.After(c.NotAfter), pb.Failure_FAILURE_CERT_INTERMEDIATE_EXPIRED)
		j.failIf(j.now.Before(c.NotBefore), pb.Failure_FAILURE_CERT_NOT_YET_VALID)
	}
	j.strength(path)
	return j.failures
}

func (j *judgement) fail(f pb.Failure) {
	if !slices.Contains(j.failures, f) {
		j.failures = append(j.failures, f)
	}
}

func (j *judgement) failIf(bad bool, f pb.Failure) {
	if bad {
		j.fail(f)
	}
}

func (j *judgement) say(text string) {
	if j.text != "" {
		j.text += "; "
	}
	j.text += text
}

// trust looks for a path from the leaf to a root, at a time that lies inside every certificate's
// validity, so that expiry hides nothing. It returns the served certificates on the path.
func (j *judgement) trust() []*x509.Certificate {
	timeless := make([]*x509.Certificate, len(j.served))
	intermediates := x509.NewCertPool()
	for i, c := range j.served {
		timeless[i] = validAt(c, j.now)
		if i > 0 {
			intermediates.AddCert(timeless[i])
		}
	}
	chains, err := timeless[0].Verify(x509.VerifyOptions{
		Roots: j.anchors.pool, Intermediates: intermediates, CurrentTime: j.now,
	})
	if err != nil {
		// The library says only that there is no path, not which certificate it lacks.
		path := j.climb()
		j.distrust(path, err)
		return path
	}
	path := j.servedPart(chains[0])
	for _, chain := range chains { // Of several paths, one that has not expired counts.
		if p := j.servedPart(chain); !slices.ContainsFunc(p[1:], j.outside) {
			path = p
			break
		}
	}
	ordered := slices.ContainsFunc(chains, func(chain []*x509.Certificate) bool {
		return j.inOrder(j.servedPart(chain))
	})
	j.failIf(!ordered, pb.Failure_FAILURE_CERT_CHAIN_ORDER)
	return path
}

// outside says whether now is outside of a certificate's validity.
func (j *judgement) outside(c *x509.Certificate) bool {
	return j.now.Before(c.NotBefore) || j.now.After(c.NotAfter)
}

// validAt returns the certificate with its validity stretched to now. Only the parsed fields change;
// signatures are checked on the raw bytes.
func validAt(c *x509.Certificate, now time.Time) *x509.Certificate {
	stretched := *c
	if now.After(c.NotAfter) {
		stretched.NotAfter = now
	}
	if now.Before(c.NotBefore) {
		stretched.NotBefore = now
	}
	return &stretched
}

// servedPart returns the certificates of a verified chain that the server sent, without the root.
func (j *judgement) servedPart(chain []*x509.Certificate) []*x509.Certificate {
	path := []*x509.Certificate{j.served[0]}
	for _, c := range chain[1:max(len(chain)-1, 1)] {
		if i := j.index(c); i >= 0 {
			path = append(path, j.served[i])
		}
	}
	return path
}

// index returns the first place of a certificate in what was served, or -1.
func (j *judgement) index(c *x509.Certificate) int {
	return slices.IndexFunc(j.served, func(s *x509.Certificate) bool { return bytes.Equal(s.Raw, c.Raw) })
}

// inOrder says whether the certificates of a path were served in its order. Others between them are
// superfluous, not disorder; the root may come anywhere after the leaf only if it comes last.
func (j *judgement) inOrder(path []*x509.Certificate) bool {
	if !slices.IsSortedFunc(path, func(a, b *x509.Certificate) int { return j.index(a) - j.index(b) }) {
		return false
	}
	// The path has no root in it: one that was served before the last intermediate is out of place.
	top := j.index(path[len(path)-1])
	return !slices.ContainsFunc(j.served[1:max(top, 1)], func(c *x509.Certificate) bool {
		return selfIssued(c) && path[len(path)-1].CheckSignatureFrom(c) == nil
	})
}

// climb follows issuers through what was served, as far as it goes.
func (j *judgement) climb() []*x509.Certificate {
	path := []*x509.Certificate{j.served[0]}
	for len(path) < len(j.served) {
		top := path[len(path)-1]
		// Bounded by what was served: each turn adds a certificate that is not on the path yet.
		i := slices.IndexFunc(j.served, func(c *x509.Certificate) bool {
			return !slices.Contains(path, c) && !bytes.Equal(c.Raw, top.Raw) && issued(c, top)
		})
		if i < 0 {
			break
		}
		path = append(path, j.served[i])
	}
	return path
}

// issued says whether parent issued child. A signature that is too weak to be checked counts.
func issued(parent, child *x509.Certificate) bool {
	if !bytes.Equal(parent.RawSubject, child.RawIssuer) {
		return false
	}
	err := child.CheckSignatureFrom(parent)
	var weak x509.InsecureAlgorithmError
	return err == nil || errors.As(err, &weak)
}

// selfIssued says whether a certificate names itself as its issuer.
func selfIssued(c *x509.Certificate) bool { return bytes.Equal(c.RawSubject, c.RawIssuer) }

// distrust says why a path that was followed as far as it goes is not trusted.
func (j *judgement) distrust(path []*x509.Certificate, err error) {
	top := path[len(path)-1]
	var invalid x509.CertificateInvalidError
	switch {
	case len(path) == 1 && selfIssued(top):
		j.fail(pb.Failure_FAILURE_CERT_SELF_SIGNED)
	case j.anchors.subjects[string(top.RawIssuer)] && slices.ContainsFunc(path, weaklySigned):
		// The path leads to a root; only the weak signature is in its way.
	case errors.As(err, &invalid):
		j.fail(pb.Failure_FAILURE_CERT_UNTRUSTED_ROOT)
		j.say(err.Error())
	case selfIssued(top):
		j.fail(pb.Failure_FAILURE_CERT_UNTRUSTED_ROOT)
	case len(top.IssuingCertificateURL) > 0:
		j.fail(pb.Failure_FAILURE_CERT_CHAIN_INCOMPLETE)
		j.say(fmt.Sprintf("%q was not served; it is said to be at %s, so whether its root is trusted is not known", top.Issuer, top.IssuingCertificateURL[0]))
	default:
		j.fail(pb.Failure_FAILURE_CERT_UNTRUSTED_ROOT)
		j.say(fmt.Sprintf("%q was not served and is not a known root: an untrusted root or a missing intermediate, which cannot be told apart", top.Issuer))
	}
}

// strength judges keys, and signatures but a root's own, which nobody checks.
func (j *judgement) strength(path []*x509.Certificate) {
	for _, c := range path {
		switch key := c.PublicKey.(type) {
		case *rsa.PublicKey:
			j.failIf(key.N.BitLen() < 2048, pb.Failure_FAILURE_CERT_WEAK_KEY)
		case *ecdsa.PublicKey:
			j.failIf(key.Curve.Params().BitSize < 256, pb.Failure_FAILURE_CERT_WEAK_KEY)
		case ed25519.PublicKey:
		default:
			j.fail(pb.Failure_FAILURE_CERT_KEY_UNSUPPORTED)
		}
		j.failIf(weaklySigned(c), pb.Failure_FAILURE_CERT_WEAK_SIGNATURE)
	}
}

// weaklySigned says whether a certificate that is no root is signed by way of a broken hash.
func weaklySigned(c *x509.Certificate) bool {
	if selfIssued(c) {
		return false
	}
	name := c.SignatureAlgorithm.String()
	return strings.Contains(name, "SHA1") || strings.Contains(name, "MD5") || strings.Contains(name, "MD2")
}
