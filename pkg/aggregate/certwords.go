package aggregate

import (
	"cmp"
	"slices"
	"strings"
	"time"

	pb "github.com/elsewhere-net/elsewhere/proto/elsewhere/v1"
)

// maxDetail bounds a probe's own sentence about a chain, which names a certificate or two.
const maxDetail = 4 * maxText

// certSummary says what is wrong with which certificate, and who gets a good one.
func (f *facts) certSummary(p *pb.Finding, fails, contrast []*sight) string {
	text := join(p.GetRegions()) + ": " + join(p.GetAddresses()) + " " + verb(p.GetAddresses(), "serves", "serve") + " " +
		fails[0].leaf.describe() + ", which fails as " + join(wordsOf(p.GetFailures())) + f.certValues(p, fails[0]) + inBrackets(sole(fails))
	if len(contrast) > 0 {
		other := collect(contrast, func(v *sight) string { return v.thing.text })
		if joined(other) == joined(p.GetAddresses()) {
			text += " while " + join(regionNames(contrast)) + " " + verb(regionNames(contrast), "gets", "get") + " a good one"
		} else { // not every region need reach every one of these
			text += " while " + join(other) + " " + verb(other, "serves", "serve") + " a good one"
		}
	}
	return text + "."
}

// certValues says for each failure which value was seen and which was needed, as far as one certificate shows it.
func (f *facts) certValues(p *pb.Finding, v *sight) string {
	var values []string
	for _, failure := range p.GetFailures() {
		if !slices.Contains(v.wrong, failure) && !slices.Contains(v.minor, failure) {
			continue
		}
		if value := f.certValue(failure, v); value != "" && !slices.Contains(values, value) {
			values = append(values, value)
		}
	}
	if len(values) == 0 {
		return ""
	}
	return ": " + strings.Join(values, "; ")
}

// certValue is the value that makes a failure, in words; "" where the failure says it all.
func (f *facts) certValue(failure pb.Failure, v *sight) string {
	t := v.at().GetEvidence().GetTls()
	c := culprit(t, failure)
	if c == nil {
		return "" // It was cut to fit.
	}
	switch failure {
	case pb.Failure_FAILURE_CERT_EXPIRED, pb.Failure_FAILURE_CERT_INTERMEDIATE_EXPIRED:
		if end := c.GetNotAfter(); end.IsValid() {
			return whose(t, c) + " ended " + day(end.AsTime())
		}
	case pb.Failure_FAILURE_CERT_NOT_YET_VALID:
		if begin := c.GetNotBefore(); begin.IsValid() {
			return whose(t, c) + " begins " + day(begin.AsTime())
		}
	case pb.Failure_FAILURE_CERT_NAME_MISMATCH:
		return f.otherNames(t, c)
	case pb.Failure_FAILURE_CERT_UNTRUSTED_ROOT:
		return shownUpTo(maxDetail, t.GetChainAnalysis().GetDetail())
	case pb.Failure_FAILURE_CERT_CHAIN_INCOMPLETE:
		if missing := t.GetChainAnalysis().GetMissing(); len(missing) > 0 {
			return "the intermediate " + quote(missing[0].GetSubject()) + " is not served"
		}
		return shownUpTo(maxDetail, t.GetChainAnalysis().GetDetail())
	case pb.Failure_FAILURE_CERT_WEAK_KEY, pb.Failure_FAILURE_CERT_KEY_UNSUPPORTED:
		return whose(t, c) + " has the key " + cmp.Or(shown(c.GetKey()), "(not told)")
	case pb.Failure_FAILURE_CERT_WEAK_SIGNATURE:
		return whose(t, c) + " is signed with " + cmp.Or(shown(c.GetSignature()), "(not told)")
	case pb.Failure_FAILURE_CERT_REVOKED:
		if at := t.GetOcsp().GetRevokedAt(); at.IsValid() {
			return "the stapled OCSP response says so since " + day(at.AsTime())
		}
	case pb.Failure_FAILURE_CERT_MALFORMED:
		return shown(c.GetParseError())
	default:
	}
	return ""
}

// culprit is the first certificate that has a failure, of those served and those missing, or else the leaf.
func culprit(t *pb.TLSEvidence, failure pb.Failure) *pb.Certificate {
	for _, c := range slices.Concat(t.GetChain(), t.GetChainAnalysis().GetMissing()) {
		if slices.Contains(c.GetFailures(), failure) {
			return c
		}
	}
	if len(t.GetChain()) > 0 {
		return t.GetChain()[0]
	}
	return nil
}

// whose is a certificate as the subject of a sentence about the leaf.
func whose(t *pb.TLSEvidence, c *pb.Certificate) string {
	if len(t.GetChain()) == 0 || c == t.GetChain()[0] {
		return "it"
	}
	return quote(c.GetSubject())
}

// otherNames says which names a certificate is for, and which one was asked for.
func (f *facts) otherNames(t *pb.TLSEvidence, c *pb.Certificate) string {
	asked := f.wantedName()
	names := slices.Concat(c.GetDnsNames(), c.GetIpAddresses())
	switch matched := t.GetNames(); {
	case len(matched) > 0 && matched[0].GetCommonName() && f.client == nil:
		return "its common name alone is for " + asked + ", which most clients do not look at"
	case len(names) == 0 && f.client != nil && f.client.GetCommonName() && c.GetCommonName() != "":
		return "it is for " + quote(c.GetCommonName()) + ", asked was " + asked
	case len(names) == 0:
		return "it names no host, asked was " + asked
	}
	return "it is for " + join(quoted(names)) + ", asked was " + asked
}

// wantedName is the name that a certificate should be for; a client of origins may take one of two.
func (f *facts) wantedName() string {
	if f.client != nil && len(f.client.names()) > 0 {
		return strings.Join(quoted(f.client.names()), " or ")
	}
	return quote(f.serverName())
}

func quoted(names []string) []string {
	all := make([]string, 0, min(len(names), maxNames+1))
	for _, n := range names[:min(len(names), maxNames+1)] {
		all = append(all, quote(n))
	}
	return all
}

func day(t time.Time) string { return t.UTC().Format("2006-01-02 15:04 UTC") }

// certHint says what repairs a certificate.
func (f *facts) certHint(p *pb.Finding, fails []*sight) string {
	where := join(p.GetAddresses())
	chain := fails[0].at().GetEvidence().GetTls()
	if hint := f.client.certHint(p, fails[0]); hint != "" {
		return hint
	}
	switch failure := p.GetFailure(); failure {
	case pb.Failure_FAILURE_CERT_EXPIRED:
		if slices.Contains(p.GetFailures(), pb.Failure_FAILURE_CERT_NAME_MISMATCH) {
			return "load a certificate for " + f.wantedName() + " that is valid now on every server behind " + where + "."
		}
		return "renew the certificate and load it on every server behind " + where + "."
	case pb.Failure_FAILURE_CERT_INTERMEDIATE_EXPIRED:
		return "put the successor of " + quote(culprit(chain, failure).GetSubject()) + " into the chain file of " + where +
			", or have the certificate issued anew, with its intermediates."
	case pb.Failure_FAILURE_CERT_NOT_YET_VALID:
		return "check the clock of whoever issued it, or load the certificate that is valid now on " + where + "."
	case pb.Failure_FAILURE_CERT_NAME_MISMATCH:
		return "load a certificate for " + f.wantedName() + " on " + where + "."
	case pb.Failure_FAILURE_CERT_SELF_SIGNED, pb.Failure_FAILURE_CERT_UNTRUSTED_ROOT:
		return trustHint(chain.GetChainAnalysis().GetDistrust(), where)
	case pb.Failure_FAILURE_CERT_CHAIN_INCOMPLETE:
		return incompleteHint(fails, where)
	case pb.Failure_FAILURE_CERT_CHAIN_ORDER:
		return "put the chain file of " + where + " in order: leaf first, each followed by its issuer."
	case pb.Failure_FAILURE_CERT_WEAK_KEY, pb.Failure_FAILURE_CERT_KEY_UNSUPPORTED:
		return "load a certificate with an RSA key of 2048 bits or more, or with an ECDSA key on P-256, on " + where + "."
	case pb.Failure_FAILURE_CERT_REVOKED:
		return "find out why it was revoked, and load a new certificate with a new key on " + where + "."
	default:
		return "replace the certificate on " + where + "."
	}
}

// trustHint says what makes a chain trusted, by why it is not.
func trustHint(why pb.Distrust, where string) string {
	switch why {
	case pb.Distrust_DISTRUST_USAGE:
		return "load a certificate that is meant for servers (extended key usage serverAuth) on " + where + "."
	case pb.Distrust_DISTRUST_NAME_CONSTRAINTS:
		return "load a certificate of an authority that may issue for these names on " + where + "."
	case pb.Distrust_DISTRUST_ISSUED_AFTER:
		return "the roots no longer count new certificates of this authority: load one of another authority on " + where + "."
	case pb.Distrust_DISTRUST_NOT_AN_AUTHORITY:
		return "load a certificate that an authority issued on " + where + ", and no other certificate's key."
	case pb.Distrust_DISTRUST_CRITICAL_EXTENSION:
		return "have the certificate issued without the critical extension, which clients must refuse, and load it on " + where + "."
	default:
	}
	return "load a certificate of a publicly trusted authority on " + where +
		", and its intermediates with it; if only some agents get this one, something near them may inspect TLS."
}

// incompleteHint names the certificate that completes a chain, and where it is to be had, as the first agent
// that looked for it found.
func incompleteHint(fails []*sight, where string) string {
	var c *pb.ChainEvidence
	for _, v := range fails {
		if c = v.at().GetEvidence().GetTls().GetChainAnalysis(); len(c.GetMissing()) > 0 {
			break
		}
	}
	to := " to the chain file of " + where + ", leaf first."
	switch at := shownUpTo(maxDetail, c.GetIssuerUrl()); {
	case len(c.GetMissing()) > 0:
		return "append the missing intermediate " + quote(c.GetMissing()[0].GetSubject()) + inBrackets(at) + to
	case at != "":
		return "append the missing intermediates, as the authority publishes them," + to + " They could not be had from where the certificate says (" + at + ")."
	}
	return "append the missing intermediate" + to
}

// differentSummary shows which regions and addresses serve which certificate.
func differentSummary(served map[*leaf][]*spot) string {
	parts := make([]string, 0, len(served))
	for l, spots := range served {
		parts = append(parts, join(addressesOf(spots))+" from "+join(regionsOf(spots))+": "+l.describe())
	}
	parts = unique(parts)
	text := strings.Join(parts[:min(len(parts), maxNames)], "; ")
	if more := len(parts) - maxNames; more > 0 {
		text += "; and " + plural(more, "other certificate")
	}
	return "valid certificates differ: " + text + "."
}

// expirySummary says when the first of the certificates ends.
func expirySummary(p *pb.Finding, v *sight, left time.Duration) string {
	return join(p.GetRegions()) + ": the certificate of " + join(p.GetAddresses()) + " expires in " +
		plural(int(left/(24*time.Hour)), "day") + ", at " + day(v.leaf.GetNotAfter().AsTime()) + ": " + v.leaf.describe() + "."
}
