package render

import (
	"fmt"
	"strings"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/elsewhere-net/elsewhere/pkg/aggregate"
	pb "github.com/elsewhere-net/elsewhere/proto/elsewhere/v1"
)

// date writes a day.
func date(t *timestamppb.Timestamp) string {
	if t == nil {
		return "?"
	}
	return t.AsTime().UTC().Format(time.DateOnly)
}

// namesOf are the short names of failures.
func namesOf(all []pb.Failure) string {
	words := make([]string, len(all))
	for i, f := range all {
		words[i] = aggregate.ShortFailure(f)
	}
	return strings.Join(words, ", ")
}

// title is a certificate by its common name, or else its subject.
func title(c *pb.Certificate) string {
	if c.GetCommonName() != "" {
		return "“" + Clean(c.GetCommonName()) + "”"
	}
	return "“" + Clean(c.GetSubject()) + "”"
}

// flaws are what is wrong with the certificates of a handshake, a line each: which certificate, what,
// and the value that was seen.
func flaws(t *pb.TLSEvidence) (lines []string) {
	for i, c := range t.GetChain() {
		if len(c.GetFailures()) > 0 {
			lines = append(lines, fmt.Sprintf("certificate %d %s: %s (%s to %s, %s, %s)",
				i, title(c), namesOf(c.GetFailures()), date(c.GetNotBefore()), date(c.GetNotAfter()), Clean(c.GetKey()), Clean(c.GetSignature())))
		}
	}
	lines = append(lines, chainFlaws(t)...)
	for i, n := range t.GetNames() {
		if !n.GetSan() {
			lines = append(lines, "the certificate is not for "+match(n)+listed(t, i))
		}
	}
	if o := t.GetOcsp(); o != nil && (o.GetStatus() != "good" || o.GetProblem() != "") {
		lines = append(lines, ocsp(o))
	}
	return lines
}

// listed are the names that a certificate is for, beside the first one that it is not for.
func listed(t *pb.TLSEvidence, i int) string {
	if i > 0 || len(t.GetChain()) == 0 {
		return ""
	}
	names := append(append([]string{}, t.GetChain()[0].GetDnsNames()...), t.GetChain()[0].GetIpAddresses()...)
	for i := range names {
		names[i] = Clean(names[i])
	}
	if len(names) == 0 {
		return "; it has no subjectAltName"
	}
	return "; it is for " + joinAnswers(names)
}

// match is a name that was compared, and how the common name did where that is another matter.
func match(n *pb.NameMatch) string {
	if n.GetCommonName() && !n.GetSan() {
		return Clean(n.GetName()) + " (its common name alone matches)"
	}
	return Clean(n.GetName())
}

// chainFlaws are what is wrong with a chain as it was served.
func chainFlaws(t *pb.TLSEvidence) (lines []string) {
	c := t.GetChainAnalysis()
	if c == nil {
		return nil
	}
	missing := make([]string, len(c.GetMissing()))
	for i, m := range c.GetMissing() {
		missing[i] = title(m)
	}
	if len(missing) > 0 {
		lines = append(lines, "not served: "+strings.Join(missing, ", ")+from(c.GetIssuerUrl()))
	} else if c.GetIssuerUrl() != "" {
		lines = append(lines, "issuer: "+Clean(c.GetIssuerUrl()))
	}
	if !c.GetOrdered() && len(t.GetChain()) > 1 {
		lines = append(lines, "the chain is not in order")
	}
	for _, odd := range []struct {
		indexes []int32
		what    string
	}{{c.GetExtra(), "not on the path"}, {c.GetDuplicate(), "served before"}} {
		for _, i := range odd.indexes {
			if i >= 0 && int(i) < len(t.GetChain()) {
				lines = append(lines, fmt.Sprintf("certificate %d %s: %s", i, title(t.GetChain()[i]), odd.what))
			}
		}
	}
	if c.GetRootIncluded() {
		lines = append(lines, "the root is served too, which nobody needs")
	}
	if c.GetDistrust() != pb.Distrust_DISTRUST_UNSPECIFIED {
		why := Clean(c.GetDetail())
		if why == "" {
			why = strings.ReplaceAll(short(c.GetDistrust(), "DISTRUST_"), "_", " ")
		}
		lines = append(lines, "not trusted: "+why)
	}
	return lines
}

// from is where something was had.
func from(url string) string {
	if url == "" {
		return ""
	}
	return " (" + Clean(url) + ")"
}

// ocsp is a stapled response.
func ocsp(o *pb.OCSP) string {
	line := "OCSP: " + Clean(o.GetStatus())
	if o.GetRevokedAt() != nil {
		line += " since " + date(o.GetRevokedAt())
	}
	line += " (" + date(o.GetThisUpdate()) + " to " + date(o.GetNextUpdate()) + ")"
	if o.GetProblem() != "" {
		line += ", not to be relied on: " + Clean(o.GetProblem())
	}
	return line
}

// handshakeInDepth is a handshake with its chain.
func handshakeInDepth(s *pb.Step) section {
	t := s.GetEvidence().GetTls()
	words := []string{"tls " + Clean(s.GetAddress())}
	for _, w := range []string{t.GetVersion(), t.GetCipherSuite(), t.GetGroup(), t.GetSignatureScheme(), t.GetAlpn()} {
		words = append(words, when(w != "", Clean(w))...)
	}
	words = append(words, when(t.GetServerName() == "" && t != nil, "no server_name")...)
	words = append(words, when(t.GetNegotiationOnly(), "as far as the server's first flight")...)
	words = append(words, when(t.GetClientCertificateRequested(), "asks for a client certificate")...)
	out := section{title: strings.Join(append(words, ending(s, "", true)), gap)}
	if a := t.GetAlert(); a != nil {
		out.lines = append(out.lines, alert(a))
	}
	out.lines = append(out.lines, attempts(s)...)
	for i, c := range t.GetChain() {
		out.lines = append(out.lines, certificate(i, c)...)
	}
	if n := int(t.GetServed()); n > len(t.GetChain()) {
		out.lines = append(out.lines, fmt.Sprintf("… and %d more certificates", n-len(t.GetChain())))
	}
	if p := t.GetChainAnalysis().GetPath(); len(p) > 0 {
		out.lines = append(out.lines, "path: "+Clean(strings.Join(p, " ← ")))
	}
	for _, n := range t.GetNames() {
		if n.GetSan() {
			out.lines = append(out.lines, "the certificate is for "+Clean(n.GetName()))
		}
	}
	out.lines = append(out.lines, flaws(t)...)
	if o := t.GetOcsp(); o.GetStatus() == "good" && o.GetProblem() == "" {
		out.lines = append(out.lines, ocsp(o))
	}
	return out
}

// certificate is one certificate as it was served.
func certificate(i int, c *pb.Certificate) []string {
	if c.GetParseError() != "" {
		return []string{fmt.Sprintf("%d  cannot be read: %s", i, Clean(c.GetParseError()))}
	}
	lines := []string{
		fmt.Sprintf("%d  %s  %s, %s, %s to %s", i, Clean(c.GetSubject()), Clean(c.GetKey()), Clean(c.GetSignature()), date(c.GetNotBefore()), date(c.GetNotAfter())),
		"   issuer " + Clean(c.GetIssuer()),
	}
	names := append(append([]string{}, c.GetDnsNames()...), c.GetIpAddresses()...)
	if len(names) > 0 {
		lines = append(lines, "   for "+Clean(strings.Join(names, ", ")))
	}
	return append(lines, "   sha256 "+Clean(c.GetSha256()))
}

// accepted counts the suites of a version; of several there is an order.
func accepted(v *pb.VersionSupport) string {
	switch n := len(v.GetCipherSuites()); {
	case n == 1:
		return "1 suite"
	case v.GetServerPreference():
		return fmt.Sprintf("%d suites in the server's order", n)
	default:
		return fmt.Sprintf("%d suites in no order of its own", n)
	}
}

// enumeration is what a server accepts.
func enumeration(s *pb.Step) section {
	out := section{title: "what " + Clean(s.GetAddress()) + " accepts"}
	if line := strings.TrimSpace(failures(s) + " " + Clean(s.GetEvidence().GetText())); line != "" {
		out.lines = append(out.lines, line)
	}
	for _, v := range s.GetEvidence().GetTls().GetVersions() {
		if !v.GetSupported() {
			out.lines = append(out.lines, Clean(v.GetVersion())+gap+"no ("+aggregate.ShortFailure(v.GetFailure())+")")
			continue
		}
		line := Clean(v.GetVersion()) + gap + accepted(v)
		if g := v.GetGroups(); len(g) > 0 {
			line += "; groups " + Clean(strings.Join(g, ", "))
		}
		out.lines = append(out.lines, line)
		for _, suite := range v.GetCipherSuites() {
			out.lines = append(out.lines, gap+Clean(suite))
		}
	}
	return out
}
