package probe

import (
	"bytes"
	"cmp"
	"crypto"
	"crypto/md5" //nolint:gosec // To name a weak signature, it has to be recognised.
	"crypto/rsa"
	"crypto/x509"
	"errors"
	"slices"
)

// Bounds of the search for paths, so that a chain made to be costly costs some milliseconds.
const (
	maxPath      = 10  // Certificates on a path, without the root.
	maxPaths     = 8   // Paths that are compared.
	maxVisits    = 200 // Certificates that are stood on, all paths together.
	maxProofs    = 256 // What all signature checks may cost, in checks by a 2048 bit RSA key.
	maxProofBits = 16384
)

// link is a certificate that a path may be made of.
type link struct {
	*x509.Certificate
	err        error // Why it could not be parsed: then its outline alone is known.
	keyUnknown bool  // It is well-formed and could not be parsed because of its key's curve.
	index      int   // Its first place in what was served; -1 if it was fetched.
}

// malformed says whether a certificate is not what RFC 5280 says.
func (l *link) malformed() bool { return l.err != nil && !l.keyUnknown }

// path is a way from a leaf to a root.
type path struct {
	links     []*link // Leaf first, without the root.
	root      anchor
	unchecked []*link // Those whose signature could not be checked, only the issuer's name.
	flaws     []flaw  // What is wrong with it, expiry and strength aside.
}

// finder looks for paths by names and signatures alone: validity, strength and purpose are judged of
// what it finds, so that nothing wrong hides another thing that is. Unlike x509.Verify it says how far
// it came.
type finder struct {
	anchors   anchors
	bySubject map[string][]*link
	proofs    map[[2]*x509.Certificate]proof
	cost      int
	visits    int
	exhausted bool // A bound was met; there may be more to find.
	found     []path
	furthest  []*link // The longest way that was followed.
}

func newFinder(a anchors) *finder {
	return &finder{anchors: a, bySubject: map[string][]*link{}, proofs: map[[2]*x509.Certificate]proof{}}
}

// add adds a certificate that may be on a path.
func (f *finder) add(l *link) {
	key := string(l.RawSubject)
	f.bySubject[key] = append(f.bySubject[key], l)
}

// from looks for the paths that begin at a leaf.
func (f *finder) from(leaf *link) {
	f.found, f.furthest, f.visits, f.exhausted = nil, []*link{leaf}, 0, false
	if root, ok := f.anchors.find(leaf.Certificate); ok {
		f.found = []path{{links: []*link{leaf}, root: root}}
		return
	}
	f.follow([]*link{leaf})
}

// follow goes on from the last certificate of a way.
func (f *finder) follow(way []*link) {
	f.visits++
	if f.visits > maxVisits || len(f.found) >= maxPaths || len(way) > maxPath {
		f.exhausted = true
		return
	}
	if len(way) > len(f.furthest) {
		f.furthest = slices.Clone(way)
	}
	top := way[len(way)-1]
	for _, root := range f.anchors.named(top.RawIssuer) {
		if f.issued(root.Certificate, top.Certificate) != denied {
			f.found = append(f.found, f.path(way, root))
		}
	}
	for _, next := range f.issuers(top) {
		known := slices.ContainsFunc(way, func(l *link) bool { return sameEntity(l.Certificate, next.Certificate) })
		if !known && f.issued(next.Certificate, top.Certificate) != denied {
			f.follow(append(way[:len(way):len(way)], next))
		}
	}
}

// path completes a way.
func (f *finder) path(way []*link, root anchor) path {
	p := path{links: slices.Clone(way), root: root}
	for i, l := range way {
		parent := root.Certificate
		if i+1 < len(way) {
			parent = way[i+1].Certificate
		}
		if f.issued(parent, l.Certificate) == unchecked {
			p.unchecked = append(p.unchecked, l)
		}
	}
	return p
}

// issuers returns the certificates that may have issued one, by name: first those whose key identifier
// fits (RFC 5280, 4.2.1.1), then in the order of their places.
// The identifier is a hint and no proof: renewed authorities keep the name and change the key, and some software
// copies the wrong identifier, so those that do not fit are tried too, later.
func (f *finder) issuers(l *link) []*link {
	candidates := f.bySubject[string(l.RawIssuer)]
	if len(candidates) < 2 {
		return candidates
	}
	fits := func(c *link) int {
		if len(l.AuthorityKeyId) > 0 && bytes.Equal(c.SubjectKeyId, l.AuthorityKeyId) {
			return 0
		}
		return 1
	}
	return slices.SortedStableFunc(slices.Values(candidates), func(a, b *link) int { return cmp.Compare(fits(a), fits(b)) })
}

// leads says whether a certificate was issued by another one, or by one that was, and so on.
func (f *finder) leads(from, to *link, depth int) bool {
	f.visits++
	if depth == 0 || f.visits > maxVisits {
		return false
	}
	return slices.ContainsFunc(f.issuers(from), func(next *link) bool {
		return next != from && f.issued(next.Certificate, from.Certificate) == proven &&
			(next == to || f.leads(next, to, depth-1))
	})
}

// selfSigned says whether a certificate is its own issuer, by name and by signature.
func (f *finder) selfSigned(c *x509.Certificate) bool {
	return selfIssued(c) && f.issued(c, c) == proven
}

// proof is what is known of a signature.
type proof int

const (
	denied    proof = iota // It is not by this key.
	unchecked              // Key or algorithm are none that can be checked.
	proven
)

// issued says whether parent, which has the issuer's name, signed child. Whether it was entitled to
// is another question.
// What a signature check costs grows with the square of the key's length. Certificates come from the target, and
// one with a key of a million bits would occupy the agent for long; the budget is therefore in work, not in checks.
func (f *finder) issued(parent, child *x509.Certificate) proof {
	key := [2]*x509.Certificate{parent, child}
	known, ok := f.proofs[key]
	if ok {
		return known
	}
	cost := 1
	if k, isRSA := parent.PublicKey.(*rsa.PublicKey); isRSA {
		bits := k.N.BitLen()
		cost += bits * bits / (2048 * 2048)
		if bits > maxProofBits {
			f.exhausted = true
			return denied
		}
	}
	if f.cost+cost > maxProofs {
		f.exhausted = true
		return denied
	}
	f.cost += cost
	f.proofs[key] = checkSignature(parent, child)
	return f.proofs[key]
}

// checkSignature checks one signature, weak ones too.
func checkSignature(parent, child *x509.Certificate) proof {
	key, isRSA := parent.PublicKey.(*rsa.PublicKey)
	switch {
	case parent.PublicKey == nil, child.SignatureAlgorithm == x509.UnknownSignatureAlgorithm,
		child.SignatureAlgorithm == x509.MD2WithRSA, isRSA && key.N.BitLen() < 1024: // The library refuses those.
		return unchecked
	case child.SignatureAlgorithm == x509.MD5WithRSA:
		if !isRSA {
			return denied
		}
		sum := md5.Sum(child.RawTBSCertificate) //nolint:gosec // As above.
		return proofIf(rsa.VerifyPKCS1v15(key, crypto.MD5, sum[:], child.Signature))
	}
	return proofIf(parent.CheckSignature(child.SignatureAlgorithm, child.RawTBSCertificate, child.Signature))
}

func proofIf(err error) proof {
	switch {
	case err == nil:
		return proven
	case errors.Is(err, x509.ErrUnsupportedAlgorithm):
		return unchecked
	}
	return denied
}

// selfIssued says whether a certificate names itself as its issuer.
func selfIssued(c *x509.Certificate) bool { return bytes.Equal(c.RawSubject, c.RawIssuer) }

// sameEntity says whether two certificates are of one name and key, so that a path needs one of them.
func sameEntity(a, b *x509.Certificate) bool {
	return bytes.Equal(a.RawSubject, b.RawSubject) && bytes.Equal(a.RawSubjectPublicKeyInfo, b.RawSubjectPublicKeyInfo)
}
