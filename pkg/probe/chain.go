package probe

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rsa"
	"crypto/x509"
	"fmt"
	"slices"
	"strings"
	"time"

	"google.golang.org/protobuf/proto"

	pb "github.com/elsewhere-net/elsewhere/proto/elsewhere/v1"
)

// Bounds of a chain.
const (
	maxServed  = 500 // Certificates that are looked at.
	maxChain   = 16  // Those that are kept as evidence.
	maxRSABits = 8192
)

// judgement is a chain as it was served, and what is wrong with it. The failures are independent: each
// is found whatever else is wrong, where a library stops at the first: crypto/x509 says of an expired certificate
// of an unknown authority only that it has expired.
type judgement struct {
	servedChain
	now     time.Time // The coordinator's time.
	anchors anchors
	// fetch gets the certificates at a URL. Nil: nothing is fetched.
	fetch func(url string) ([]*x509.Certificate, error)

	served   []*link // As served, up to maxServed; repeated ones are the same link.
	leaf     *link
	finder   *finder
	best     *path // Nil: there is none.
	fetched  fetches
	failures []pb.Failure
	wrong    map[*link][]pb.Failure // What is wrong with each certificate.
	texts    []string
	analysis *pb.ChainEvidence
	matches  []*pb.NameMatch
	ocsp     *pb.OCSP
	turns    []time.Time // When the verdict may change.
}

// judge returns all that is to be said about the chain.
func (j *judgement) judge() examined {
	j.wrong, j.analysis = map[*link][]pb.Failure{}, &pb.ChainEvidence{}
	j.finder = newFinder(j.anchors)
	j.parse()
	if len(j.served) == 0 {
		j.failures = []pb.Failure{pb.Failure_FAILURE_CERT_MALFORMED}
		return j.examined()
	}
	j.chooseLeaf()
	if j.leaf.malformed() {
		j.blame(j.leaf, pb.Failure_FAILURE_CERT_MALFORMED)
		j.say("the certificate cannot be parsed: %v", j.leaf.err)
	}
	j.blameIf(expired(j.leaf.Certificate, j.now), j.leaf, pb.Failure_FAILURE_CERT_EXPIRED)
	j.blameIf(j.now.Before(j.leaf.NotBefore), j.leaf, pb.Failure_FAILURE_CERT_NOT_YET_VALID)
	j.compareNames()
	j.trust()
	j.order()
	j.status()
	for _, judge := range []func(*link, func(pb.Failure)){j.validity, j.strength} {
		for _, l := range j.path() {
			judge(l, func(f pb.Failure) { j.blame(l, f) })
		}
	}
	return j.examined()
}

// parse reads the certificates. One that cannot be parsed stays in its place, by its outline.
func (j *judgement) parse() {
	known := map[string]*link{}
	for i, der := range j.raw[:min(len(j.raw), maxServed)] {
		l := known[string(der)]
		if l == nil {
			l = parseLink(der, i)
			known[string(der)] = l
			if len(l.RawSubject) > 0 {
				j.finder.add(l)
			}
			j.turns = append(j.turns, l.NotBefore, l.NotAfter)
		} else if i < maxChain {
			j.analysis.Duplicate = append(j.analysis.GetDuplicate(), int32(i))
		}
		j.served = append(j.served, l)
	}
}

// parseLink reads one certificate.
func parseLink(der []byte, index int) *link {
	c, err := x509.ParseCertificate(der)
	if err == nil {
		return &link{Certificate: c, index: index}
	}
	c, keyUnknown := outline(der)
	return &link{Certificate: c, err: err, keyUnknown: keyUnknown, index: index}
}

// chooseLeaf chooses the first certificate (RFC 8446, 4.4.2), unless that is an authority which another
// one was issued below: then the whole chain stands on its head.
// Clients take the first certificate for the server's own whatever it is, and so name and dates would be those of an
// authority; the true cause, the order, would be lost among failures that follow from it.
func (j *judgement) chooseLeaf() {
	j.leaf = j.served[0]
	if !j.leaf.IsCA {
		return
	}
	for _, l := range j.served {
		if !l.IsCA && l.err == nil && j.finder.leads(l, j.leaf, maxPath) {
			j.leaf = l
			j.say("the server's own certificate was served as number %d", l.index+1)
			return
		}
	}
}

// blame notes what is wrong with the chain, and with which certificate.
func (j *judgement) blame(l *link, f pb.Failure) {
	if !slices.Contains(j.failures, f) {
		j.failures = append(j.failures, f)
	}
	j.note(l, f)
}

func (j *judgement) blameIf(bad bool, l *link, f pb.Failure) {
	if bad {
		j.blame(l, f)
	}
}

// note notes what is wrong with a certificate that may be none of the chain's path.
func (j *judgement) note(l *link, f pb.Failure) {
	if l != nil && !slices.Contains(j.wrong[l], f) {
		j.wrong[l] = append(j.wrong[l], f)
	}
}

func (j *judgement) say(text string, args ...any) {
	j.texts = append(j.texts, fmt.Sprintf(text, args...))
}

// inOrder says whether a path was served in its order.
func (j *judgement) inOrder(p *path) bool {
	return inOrder(p.links, rootIndex(j.served, p.root.Certificate))
}

// order says how what was served is laid out.
func (j *judgement) order() {
	a, way := j.analysis, j.path()
	used := map[*link]bool{}
	for i := range j.finder.found {
		p := &j.finder.found[i]
		for _, l := range p.links {
			used[l] = true
		}
		if at := rootIndex(j.served, p.root.Certificate); at >= 0 {
			used[j.served[at]] = true
		}
	}
	for _, l := range way {
		a.Path = append(a.GetPath(), clean(l.Subject.String(), maxNameBytes))
		used[l] = true
	}
	if j.best != nil && !bytes.Equal(j.best.root.Raw, way[len(way)-1].Raw) {
		a.Path = append(a.GetPath(), clean(j.best.root.Subject.String(), maxNameBytes))
	}
	for i, l := range j.served[:min(len(j.served), maxChain)] {
		_, root := j.anchors.find(l.Certificate)
		a.RootIncluded = a.GetRootIncluded() || i > 0 && l != j.leaf && (root || selfIssued(l.Certificate) && l.IsCA)
		if !used[l] && l.index == i {
			a.Extra = append(a.GetExtra(), int32(i))
		}
	}
	a.Ordered = j.ordered()
	j.blameIf(!a.GetOrdered(), j.leaf, pb.Failure_FAILURE_CERT_CHAIN_ORDER)
}

// ordered says whether a path was served in its order: any that is as good as the best will do.
// A server cannot please two clients that take different paths; to serve one of them in order is enough.
func (j *judgement) ordered() bool {
	if j.best == nil {
		return inOrder(j.path(), -1)
	}
	return slices.ContainsFunc(j.finder.found, func(p path) bool {
		return len(p.flaws) == len(j.best.flaws) && j.inOrder(&p)
	})
}

// validity tells whether a certificate is out of time, whether it is on the path or not. The leaf has a
// failure of its own.
func (j *judgement) validity(l *link, tell func(pb.Failure)) {
	switch {
	case l == j.leaf:
	case expired(l.Certificate, j.now):
		tell(pb.Failure_FAILURE_CERT_INTERMEDIATE_EXPIRED)
	case j.now.Before(l.NotBefore):
		tell(pb.Failure_FAILURE_CERT_NOT_YET_VALID)
	}
}

// strength tells what is wrong with a certificate wherever it is used: its form, its key, and its
// signature unless it is a root's own, which nobody checks.
func (j *judgement) strength(l *link, tell func(pb.Failure)) {
	if l.malformed() {
		tell(pb.Failure_FAILURE_CERT_MALFORMED)
	}
	switch key := l.PublicKey.(type) {
	case *rsa.PublicKey:
		if key.N.BitLen() < 2048 {
			tell(pb.Failure_FAILURE_CERT_WEAK_KEY)
		} else if key.N.BitLen() > maxRSABits { // Go's and other clients' bound.
			tell(pb.Failure_FAILURE_CERT_KEY_UNSUPPORTED)
		}
	case *ecdsa.PublicKey:
		if key.Curve.Params().BitSize < 256 {
			tell(pb.Failure_FAILURE_CERT_WEAK_KEY)
		}
	case ed25519.PublicKey:
	default:
		if !l.malformed() {
			tell(pb.Failure_FAILURE_CERT_KEY_UNSUPPORTED)
		}
	}
	if weaklySigned(l.Certificate) {
		tell(pb.Failure_FAILURE_CERT_WEAK_SIGNATURE)
	}
}

// weaklySigned says whether a certificate that is no root is signed by way of a broken hash.
// SHA-1 is among them: two texts, each with a beginning of one's choice, can be given one hash (Leurent and Peyrin,
// 2020). A root is trusted because it is in the store, and its signature by itself proves nothing either way.
func weaklySigned(c *x509.Certificate) bool {
	if selfIssued(c) {
		return false
	}
	switch c.SignatureAlgorithm {
	case x509.MD2WithRSA, x509.MD5WithRSA, x509.SHA1WithRSA, x509.DSAWithSHA1, x509.ECDSAWithSHA1:
		return true
	default:
		return false
	}
}

// status looks at the stapled OCSP response.
func (j *judgement) status() {
	if j.staple == nil {
		if mustStaple(j.leaf.Certificate) {
			j.say("the certificate asks for a stapled OCSP response (RFC 7633), and none was sent")
		}
		return
	}
	var issuer *x509.Certificate
	if way := j.path(); len(way) > 1 {
		issuer = way[1].Certificate
	} else if j.best != nil {
		issuer = j.best.root.Certificate
	}
	s := stapled{der: j.staple, leaf: j.leaf.Certificate, issuer: issuer, now: j.now}
	j.ocsp = s.judge()
	j.turns = append(j.turns, s.turns...)
	j.blameIf(j.ocsp.GetStatus() == revokedStatus && j.ocsp.GetProblem() == "", j.leaf, pb.Failure_FAILURE_CERT_REVOKED)
}

// examined gathers what is to be said.
func (j *judgement) examined() examined {
	out := examined{served: int32(len(j.raw)), failures: j.failures, analysis: j.analysis, ocsp: j.ocsp, names: j.matches}
	for _, l := range j.served[:min(len(j.served), maxChain)] {
		if l.index < len(out.chain) { // A duplicate.
			out.chain = append(out.chain, proto.CloneOf(out.chain[l.index]))
			continue
		}
		j.validity(l, func(f pb.Failure) { j.note(l, f) })
		j.strength(l, func(f pb.Failure) { j.note(l, f) })
		c := certificate(l.Certificate)
		if l.err != nil {
			c.ParseError = clean(l.err.Error(), maxNameBytes)
		}
		c.Failures = j.wrong[l]
		out.chain = append(out.chain, c)
	}
	j.analysis.IssuerUrl = clean(j.fetched.words(), maxNameBytes)
	out.text = strings.Join(append(slices.Clone(j.texts), nonEmpty(j.analysis.GetDetail())...), "; ")
	return out
}

func nonEmpty(s string) []string {
	if s == "" {
		return nil
	}
	return []string{s}
}

// holds returns the time around now in which the verdict is the same: after from, and before until.
func (j *judgement) holds() (from, until time.Time) {
	slices.SortFunc(j.turns, time.Time.Compare)
	i, exact := slices.BinarySearchFunc(j.turns, j.now, time.Time.Compare)
	if i == 0 || i == len(j.turns) || exact {
		return j.now, j.now // Nothing is known of the time before or after.
	}
	return j.turns[i-1], j.turns[i]
}
