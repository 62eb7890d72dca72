package aggregate

import (
	"cmp"
	"slices"
	"strconv"
	"strings"

	pb "github.com/elsewhere-net/elsewhere/proto/elsewhere/v1"
)

// showsChain is the handshake that shows the chain that counts: the one that v is about, unless its hello,
// of TLS 1.3, shows none, or the agent's own handshake shows the same one. Then agents leave all of it but
// the server's own certificate out of the variant.
func (v *sight) showsChain() int {
	chain, own := v.at().GetEvidence().GetTls().GetChain(), v.agent.steps[v.own].GetEvidence().GetTls().GetChain()
	same := len(chain) > 0 && len(own) > 0 && chain[0].GetSha256() == own[0].GetSha256() && len(chain) <= len(own)
	if len(chain) == 0 || same {
		return v.own
	}
	return v.step
}

// examine judges a served chain as the client does: what it refuses makes the sight bad, what it may mind
// is a warning, and what is a matter to the agent's library alone is nothing.
func (c *client) examine(v *sight) {
	t := v.at().GetEvidence().GetTls()
	note := func(failure pb.Failure, cause pb.OriginCause, s pb.Severity) {
		switch s {
		case pb.Severity_SEVERITY_ERROR:
			v.wrong = append(v.wrong, failure)
			v.because = append(v.because, cause)
		case pb.Severity_SEVERITY_WARN:
			v.minor = append(v.minor, failure)
			v.maybe = append(v.maybe, cause)
		case pb.Severity_SEVERITY_UNSPECIFIED, pb.Severity_SEVERITY_INFO:
		}
	}
	if !c.examines() {
		return
	}
	for _, failure := range v.at().GetFailures() {
		cause, severity := c.minds(failure, t.GetChainAnalysis().GetDistrust())
		note(failure, cause, severity)
		if cause == pb.OriginCause_ORIGIN_CAUSE_UNTRUSTED && t.GetChainAnalysis().GetDistrust() == pb.Distrust_DISTRUST_NO_PATH {
			v.because = append(v.because, pb.OriginCause_ORIGIN_CAUSE_INTERMEDIATE_MISSING) // It cannot be told apart.
		}
	}
	if c.GetVerification() == pb.Verification_VERIFICATION_STRICT && !c.named(v.at()) {
		note(pb.Failure_FAILURE_CERT_NAME_MISMATCH, c.misnamed(v), pb.Severity_SEVERITY_ERROR)
	}
	note(pb.Failure_FAILURE_CERT_KEY_UNSUPPORTED, pb.OriginCause_ORIGIN_CAUSE_KEY, c.refuses(leafIn(t.GetChain())))
}

// examines says whether the client looks at certificates, as far as that is known; nobody's client does.
func (c *client) examines() bool {
	return c == nil || c.GetVerification() >= pb.Verification_VERIFICATION_CHAIN
}

// minds says what a failure of a chain is to a client that examines chains. Names and keys are its own
// matter, and not in here.
func (c *client) minds(failure pb.Failure, why pb.Distrust) (pb.OriginCause, pb.Severity) {
	const refused, warned = pb.Severity_SEVERITY_ERROR, pb.Severity_SEVERITY_WARN
	switch failure { //nolint:exhaustive // the others are none of certificates
	case pb.Failure_FAILURE_CERT_EXPIRED, pb.Failure_FAILURE_CERT_INTERMEDIATE_EXPIRED:
		return pb.OriginCause_ORIGIN_CAUSE_EXPIRED, refused
	case pb.Failure_FAILURE_CERT_NOT_YET_VALID:
		return pb.OriginCause_ORIGIN_CAUSE_NOT_YET_VALID, refused
	case pb.Failure_FAILURE_CERT_SELF_SIGNED:
		return pb.OriginCause_ORIGIN_CAUSE_SELF_SIGNED, refused
	case pb.Failure_FAILURE_CERT_UNTRUSTED_ROOT:
		if why == pb.Distrust_DISTRUST_UNSPECIFIED || why == pb.Distrust_DISTRUST_UNKNOWN_ROOT || why == pb.Distrust_DISTRUST_NO_PATH || why == pb.Distrust_DISTRUST_ISSUED_AFTER {
			return pb.OriginCause_ORIGIN_CAUSE_UNTRUSTED, refused
		}
		return pb.OriginCause_ORIGIN_CAUSE_CERTIFICATE_INVALID, refused
	case pb.Failure_FAILURE_CERT_CHAIN_INCOMPLETE:
		return pb.OriginCause_ORIGIN_CAUSE_INTERMEDIATE_MISSING, refused
	case pb.Failure_FAILURE_CERT_CHAIN_ORDER:
		if c.GetChainOrder() {
			return pb.OriginCause_ORIGIN_CAUSE_CHAIN_ORDER, refused
		}
		return pb.OriginCause_ORIGIN_CAUSE_UNSPECIFIED, warned
	case pb.Failure_FAILURE_CERT_REVOKED:
		return pb.OriginCause_ORIGIN_CAUSE_REVOKED, refused
	case pb.Failure_FAILURE_CERT_MALFORMED:
		return pb.OriginCause_ORIGIN_CAUSE_CERTIFICATE_INVALID, refused
	case pb.Failure_FAILURE_CERT_WEAK_SIGNATURE: // documents say nothing of it
		return pb.OriginCause_ORIGIN_CAUSE_CERTIFICATE_INVALID, warned
	}
	return pb.OriginCause_ORIGIN_CAUSE_UNSPECIFIED, pb.Severity_SEVERITY_UNSPECIFIED
}

// leafIn is the server's own certificate in a chain, which need not be in order; nil if there is none.
func leafIn(chain []*pb.Certificate) *pb.Certificate {
	if i := slices.IndexFunc(chain, func(c *pb.Certificate) bool { return !c.GetAuthority() }); i > 0 {
		return chain[i]
	}
	if len(chain) > 0 {
		return chain[0]
	}
	return nil
}

// refuses says whether the client takes a certificate's key: ERROR if it does not, WARN if documents say
// nothing of it.
func (c *client) refuses(leaf *pb.Certificate) pb.Severity {
	kind, size, _ := strings.Cut(leaf.GetKey(), " ")
	takes := true
	switch kind {
	case "RSA":
		bits, err := strconv.ParseUint(size, 10, 32)
		takes = err != nil || len(c.GetRsaBits()) == 0 || slices.Contains(c.GetRsaBits(), uint32(bits))
	case "ECDSA":
		group, known := curves[size]
		switch {
		case !known:
		case slices.Contains(c.GetUnverifiedCurves(), group):
			return pb.Severity_SEVERITY_WARN
		default:
			takes = len(c.GetCurves()) == 0 || slices.Contains(c.GetCurves(), group)
		}
	case "RSASSA-PSS":
		takes = c.signs("rsa_pss_pss_")
	case "Ed25519", "Ed448":
		takes = c.signs(strings.ToLower(kind))
	}
	if takes {
		return pb.Severity_SEVERITY_UNSPECIFIED
	}
	return pb.Severity_SEVERITY_ERROR
}

// curves are IANA's names of the groups, by the names of FIPS 186.
var curves = map[string]string{"P-224": "secp224r1", "P-256": "secp256r1", "P-384": "secp384r1", "P-521": "secp521r1"}

// signs says whether the client takes one of the signature schemes that begin with prefix, as far as that
// is known.
func (c *client) signs(prefix string) bool {
	return len(c.GetSignatureSchemes()) == 0 ||
		slices.ContainsFunc(c.GetSignatureSchemes(), func(s string) bool { return strings.HasPrefix(s, prefix) })
}

// mayMind adds to a warning that the client may refuse what it is about, as far as documents go.
func (f *facts) mayMind(p *pb.Finding, sights []*sight) {
	for _, v := range sights {
		for i, cause := range v.maybe {
			if cause != pb.OriginCause_ORIGIN_CAUSE_UNSPECIFIED && v.minor[i] == p.GetFailure() {
				field := map[pb.OriginCause]string{pb.OriginCause_ORIGIN_CAUSE_KEY: "unverified_curves"}[cause]
				f.client.wonder(p, cause, cmp.Or(field, "signature"))
				return
			}
		}
	}
}

// surplus warns of certificates that are served and nobody needs, where the client is particular about chains.
func (f *facts) surplus(oks []*sight) *pb.Finding {
	if f.client == nil || !f.client.GetChainOrder() {
		return nil
	}
	var with []*sight
	for _, v := range oks {
		if a := v.at().GetEvidence().GetTls().GetChainAnalysis(); a.GetRootIncluded() || len(a.GetExtra())+len(a.GetDuplicate()) > 0 {
			with = append(with, v)
		}
	}
	if len(with) == 0 {
		return nil
	}
	what := "certificates that are not on the path to a root"
	if with[0].at().GetEvidence().GetTls().GetChainAnalysis().GetRootIncluded() {
		what = "the root"
	}
	p := f.certWarning(with)
	p.Summary = join(p.GetRegions()) + ": " + join(p.GetAddresses()) + " " + verb(p.GetAddresses(), "serves", "serve") + " " + what + " along with the certificate."
	p.Hint = "leave it out of the chain file: the certificate first, each intermediate after the one that it issued, and nothing else."
	f.client.wonder(p, pb.OriginCause_ORIGIN_CAUSE_CHAIN_ORDER, "surplus")
	return p
}

// named says whether the certificate that a handshake showed is for one of the names that will do. Where
// nothing was compared with them, the agent's own word has to do.
func (c *client) named(s *pb.Step) bool {
	compared := false
	for _, m := range s.GetEvidence().GetTls().GetNames() {
		if !slices.Contains(c.names(), hostName(m.GetName())) {
			continue
		}
		compared = true
		if m.GetSan() || m.GetCommonName() && c.GetCommonName() {
			return true
		}
	}
	return !compared && !slices.Contains(s.GetFailures(), pb.Failure_FAILURE_CERT_NAME_MISMATCH)
}

// misnamed says why a certificate is for other names.
func (c *client) misnamed(v *sight) pb.OriginCause {
	leaf := leafIn(v.at().GetEvidence().GetTls().GetChain())
	switch {
	case c.otherName(v) != "":
		return pb.OriginCause_ORIGIN_CAUSE_SERVER_NAME
	case slices.ContainsFunc(c.GetLoadBalancerSuffixes(), func(suffix string) bool { return strings.HasSuffix(c.domain, strings.ToLower(suffix)) }):
		return pb.OriginCause_ORIGIN_CAUSE_LOAD_BALANCER_NAME
	case c.viewersName(leaf) != "":
		return pb.OriginCause_ORIGIN_CAUSE_HOST_NOT_FORWARDED
	}
	return pb.OriginCause_ORIGIN_CAUSE_NAME_MISMATCH
}

// otherName says for which other server_name the server has a certificate that would do; "" if for none.
func (c *client) otherName(v *sight) string {
	for _, kind := range []pb.Variant{pb.Variant_VARIANT_ORIGIN_NAME, pb.Variant_VARIANT_NO_NAME} {
		i := v.beside(kind)
		if i < 0 {
			continue
		}
		s := v.agent.steps[i]
		if len(s.GetEvidence().GetTls().GetChain()) == 0 || !c.named(s) {
			continue
		}
		if name := s.GetEvidence().GetTls().GetServerName(); name != "" {
			return "for the server_name " + quote(name)
		}
		return "without a server_name"
	}
	return ""
}

// viewersName is a name of the certificate that viewers may ask for, so that to forward Host would help;
// "" if there is none: a name of the same domain as the origin's, where no Host is forwarded.
func (c *client) viewersName(leaf *pb.Certificate) string {
	if c.forwards() || !slices.Contains(c.GetNames(), pb.NameSource_NAME_SOURCE_HOST) {
		return ""
	}
	labels := strings.Split(c.domain, ".")
	if len(labels) < 3 {
		return ""
	}
	parent := "." + strings.Join(labels[len(labels)-2:], ".")
	for _, name := range leaf.GetDnsNames() {
		name = hostName(name)
		if !strings.HasPrefix(name, "*") && strings.HasSuffix("."+name, parent) {
			return name
		}
	}
	return ""
}
