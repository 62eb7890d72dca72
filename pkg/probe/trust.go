package probe

import (
	"bytes"
	"fmt"
	"slices"

	pb "github.com/elsewhere-net/elsewhere/proto/elsewhere/v1"
)

// trust looks for a path from the leaf to a root, and says what is wrong with the best one there is.
func (j *judgement) trust() {
	j.finder.from(j.leaf)
	if len(j.finder.found) == 0 {
		j.complete()
	}
	if j.finder.exhausted {
		j.say("the chain was followed as far as the agent's bounds let it")
	}
	if j.choose(); j.best == nil {
		j.pathless()
		return
	}
	j.turns = append(j.turns, j.best.root.NotBefore, j.best.root.NotAfter)
	for _, flaw := range j.best.flaws {
		j.distrust(flaw.distrust, "%s", flaw.words)
		j.blame(flaw.link, pb.Failure_FAILURE_CERT_UNTRUSTED_ROOT)
	}
	for i, l := range j.best.links {
		parsed := l.err == nil && (i+1 == len(j.best.links) || j.best.links[i+1].err == nil)
		if parsed && slices.Contains(j.best.unchecked, l) { // Otherwise that is the failure.
			j.blame(nil, pb.Failure_FAILURE_CERT_KEY_UNSUPPORTED)
			j.say("the signature of %q cannot be checked: its algorithm or its issuer's key is not supported", l.Subject)
		}
	}
	j.absent(j.best.links)
}

// choose takes the best of the paths that were found. Of several, one that works counts.
// That is what a client does that builds paths itself (RFC 4158): an intermediate with two parents, one of which
// has expired, is well as long as the other has not. So paths are compared first by what would stop a client, then
// by what it would complain of, and last by length. A certificate that was not served counts against a path only
// after those: to fetch it is what clients differ in.
func (j *judgement) choose() {
	rank := func(p *path) []int {
		r := []int{len(p.unchecked), len(p.flaws), 0, 0, 0, 0, len(p.links)}
		for i, l := range p.links {
			weak := false
			j.strength(l, func(pb.Failure) { weak = true })
			r[2] += number(i > 0 && outside(l.Certificate, j.now))
			r[3] += number(weak)
			r[4] += number(l.index < 0)
		}
		r[5] = number(!j.inOrder(p))
		return r
	}
	for i := range j.finder.found {
		p := &j.finder.found[i]
		p.findFlaws(j.now)
		if j.best == nil || slices.Compare(rank(p), rank(j.best)) < 0 {
			j.best = p
		}
	}
}

func number(b bool) int {
	if b {
		return 1
	}
	return 0
}

// path returns the best path without its root, or how far one could be followed.
func (j *judgement) path() []*link {
	switch {
	case j.best != nil:
		return j.best.links
	case j.finder.furthest != nil:
		return j.finder.furthest
	}
	return []*link{j.leaf}
}

// distrust says why there is no path to a root that is trusted for this server. The first reason counts.
func (j *judgement) distrust(d pb.Distrust, words string, args ...any) {
	text := fmt.Sprintf(words, args...)
	if j.analysis.GetDistrust() == pb.Distrust_DISTRUST_UNSPECIFIED {
		j.analysis.Distrust = d
	}
	if j.analysis.GetDetail() != "" {
		text = j.analysis.GetDetail() + "; " + text
	}
	j.analysis.Detail = clean(text, maxText)
}

// pathless says why no path was found, as far as that can be known.
// A missing intermediate and an unknown root look the same from outside: the last certificate names an issuer
// that nobody has seen. To call the first "untrusted" sends people to buy another certificate, and to call the second
// "incomplete" to look for a file that does not exist; where nothing tells them apart, the words say so.
func (j *judgement) pathless() {
	way := j.finder.furthest
	top := way[len(way)-1]
	selfSigned := j.finder.selfSigned(top.Certificate)
	broken := slices.IndexFunc(j.served, func(l *link) bool {
		return l.malformed() && l != j.leaf && (len(l.RawSubject) == 0 || bytes.Equal(l.RawSubject, top.RawIssuer))
	})
	switch {
	case selfSigned && len(way) == 1:
		j.blame(top, pb.Failure_FAILURE_CERT_SELF_SIGNED)
		j.distrust(pb.Distrust_DISTRUST_UNKNOWN_ROOT, "%q is signed by itself", top.Subject)
	case selfSigned:
		j.blame(top, pb.Failure_FAILURE_CERT_UNTRUSTED_ROOT)
		j.distrust(pb.Distrust_DISTRUST_UNKNOWN_ROOT, "the chain ends at the root %q, which is not in the store", top.Subject)
		j.absent(way[:len(way)-1])
	case top.malformed():
		j.blame(top, pb.Failure_FAILURE_CERT_MALFORMED)
		j.distrust(pb.Distrust_DISTRUST_NO_PATH, "the path ends at %q, which cannot be parsed: %v", top.Subject, top.err)
	case broken >= 0:
		j.blame(j.served[broken], pb.Failure_FAILURE_CERT_MALFORMED)
		j.distrust(pb.Distrust_DISTRUST_NO_PATH, "certificate number %d cannot be parsed: %v", broken+1, j.served[broken].err)
	case len(j.anchors.named(top.RawIssuer)) > 0:
		j.blame(top, pb.Failure_FAILURE_CERT_UNTRUSTED_ROOT)
		j.distrust(pb.Distrust_DISTRUST_UNKNOWN_ROOT, "%q names the known root %q as its issuer, which did not sign it", top.Subject, top.Issuer)
	default:
		j.undecided(way)
	}
}

// undecided speaks of a way that ends at a certificate whose issuer nobody has seen.
func (j *judgement) undecided(way []*link) {
	top := way[len(way)-1]
	switch {
	case j.absent(way): // More may be missing, or the root is unknown; that this one is missing is certain.
		j.distrust(pb.Distrust_DISTRUST_NO_PATH, "the issuer %q of what was fetched could not be had: whether its root is trusted is not known", top.Issuer)
	case len(top.IssuingCertificateURL) > 0:
		j.blame(top, pb.Failure_FAILURE_CERT_CHAIN_INCOMPLETE)
		j.distrust(pb.Distrust_DISTRUST_NO_PATH,
			"%q was not served and could not be fetched (%s): a missing intermediate or an untrusted root, which cannot be told apart", top.Issuer, j.fetched.words())
	default:
		j.blame(top, pb.Failure_FAILURE_CERT_UNTRUSTED_ROOT)
		j.distrust(pb.Distrust_DISTRUST_NO_PATH,
			"%q was not served and is not a known root: an untrusted root or a missing intermediate, which cannot be told apart", top.Issuer)
	}
}

// absent notes the certificates of a path that had to be fetched, and says whether there are any.
func (j *judgement) absent(way []*link) bool {
	for i, l := range way {
		if l.index >= 0 || i == 0 {
			continue
		}
		j.analysis.Missing = append(j.analysis.GetMissing(), certificate(l.Certificate))
		j.blame(way[i-1], pb.Failure_FAILURE_CERT_CHAIN_INCOMPLETE)
		j.say("the intermediate %q was not served", l.Subject)
	}
	return len(j.analysis.GetMissing()) > 0
}
