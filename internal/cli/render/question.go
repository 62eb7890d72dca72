package render

import (
	"net"
	"strconv"
	"strings"

	"github.com/elsewhere-net/elsewhere/pkg/aggregate"
	pb "github.com/elsewhere-net/elsewhere/proto/elsewhere/v1"
)

// Question says in the command line's words what a Spec asks.
func Question(spec *pb.Spec) string {
	var words []string
	switch check := spec.GetCheck().(type) {
	case *pb.Spec_Dns:
		words = dnsWords(check.Dns)
	case *pb.Spec_Tcp:
		words = []string{"tcp", hostPort(check.Tcp.GetHost(), check.Tcp.GetPort())}
		words = append(words, reachabilityWords(check.Tcp.GetExpect())...)
		words = append(words, when(check.Tcp.GetPath(), "--path")...)
	case *pb.Spec_Tls:
		words = tlsWords(check.Tls)
	case *pb.Spec_Http:
		words = httpWords(check.Http)
	case *pb.Spec_Origin:
		words = originWords(check.Origin)
	}
	switch spec.GetFamily() {
	case pb.Family_FAMILY_IPV4:
		words = append(words, "-4")
	case pb.Family_FAMILY_IPV6:
		words = append(words, "-6")
	case pb.Family_FAMILY_UNSPECIFIED:
	}
	return Clean(strings.Join(words, " "))
}

// reachabilityWords are what is expected of the way.
func reachabilityWords(r pb.Reachability) []string {
	return when(r != pb.Reachability_REACHABILITY_UNSPECIFIED, "--expect", aggregate.ShortReachability(r))
}

// when is words if they are to be said.
func when(said bool, words ...string) []string {
	if !said {
		return nil
	}
	return words
}

// each is a flag for each of its values.
func each(flag string, values []string) (words []string) {
	for _, v := range values {
		words = append(words, flag, word(v))
	}
	return words
}

// joined is a flag with all of its values.
func joined(flag string, values []string, between string) []string {
	return when(len(values) > 0, flag, word(strings.Join(values, between)))
}

// word quotes what a shell would take apart, as far as people need to see it.
func word(s string) string {
	if strings.ContainsAny(s, " \t\"'*$;&|<>()[]?\\") {
		return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'"
	}
	return s
}

// dnsWords are the words of a dns question.
func dnsWords(spec *pb.DNSSpec) []string {
	if isPropagation(spec) {
		return propagationWords(spec)
	}
	words := []string{"dns", spec.GetName(), typeOrA(spec.GetType())}
	words = append(words, when(spec.GetClass() == "CH", "CH")...)
	words = append(words, when(spec.GetResolver() != "", "@"+spec.GetResolver())...)
	words = append(words, transportWord(spec)...)
	words = append(words, when(spec.GetTlsHostname() != "", "+tls-hostname="+spec.GetTlsHostname())...)
	for _, o := range []struct {
		on   bool
		name string
	}{
		{spec.GetDnssec(), "+dnssec"},
		{spec.GetCheckingDisabled(), "+cd"},
		{spec.GetNoRecursion(), "+norec"},
		{spec.GetNsid(), "+nsid"},
		{spec.GetClientSubnet() != "", "+subnet=" + spec.GetClientSubnet()},
		{spec.GetBufferSize() != 0, "+bufsize=" + strconv.FormatUint(uint64(spec.GetBufferSize()), 10)},
		{spec.GetTrace(), "+trace"},
		{spec.GetAuthoritative(), "--authoritative"},
	} {
		words = append(words, when(o.on, o.name)...)
	}
	words = append(words, publicWords(spec)...)
	return append(words, each("--expect", spec.GetExpect())...)
}

// propagationWords are the words of a propagation question.
func propagationWords(spec *pb.DNSSpec) []string {
	words := []string{"propagation", spec.GetName(), typeOrA(spec.GetType())}
	words = append(words, joined("--public", spec.GetPublicResolvers(), ",")...)
	return append(words, each("--expect", spec.GetExpect())...)
}

// publicWords are the words for the public resolvers that are asked.
func publicWords(spec *pb.DNSSpec) []string {
	if list := spec.GetPublicResolvers(); len(list) > 0 {
		return []string{"--public=" + strings.Join(list, ",")}
	}
	return when(spec.GetLocalPublicResolvers(), "--public")
}

// transportWord is the option that says how a query travels.
func transportWord(spec *pb.DNSSpec) []string {
	path := ""
	if p := spec.GetHttpsPath(); p != "" {
		path = "=" + p
	}
	switch spec.GetTransport() {
	case pb.Transport_TRANSPORT_TCP:
		return []string{"+tcp"}
	case pb.Transport_TRANSPORT_TLS:
		return []string{"+tls"}
	case pb.Transport_TRANSPORT_HTTPS:
		return []string{"+https" + path}
	case pb.Transport_TRANSPORT_HTTPS_GET:
		return []string{"+https-get" + path}
	case pb.Transport_TRANSPORT_QUIC:
		return []string{"+quic"}
	case pb.Transport_TRANSPORT_UNSPECIFIED:
	}
	return nil
}

// tlsWords are the words of a tls question.
func tlsWords(spec *pb.TLSSpec) []string {
	words := []string{"tls", hostPort(spec.GetHost(), portOr443(spec.GetPort()))}
	words = append(words, when(spec.GetServerName() != "", "--servername", spec.GetServerName())...)
	words = append(words, when(spec.GetNoServerName(), "--noservername")...)
	words = append(words, each("--name", spec.GetNames())...)
	words = append(words, joined("--alpn", spec.GetAlpn(), ",")...)
	words = append(words, joined("--tls-version", spec.GetOffer().GetVersions(), ",")...)
	words = append(words, joined("--ciphers", spec.GetOffer().GetCipherSuites(), ":")...)
	words = append(words, joined("--groups", spec.GetOffer().GetGroups(), ":")...)
	words = append(words, joined("--sigalgs", spec.GetOffer().GetSignatureSchemes(), ":")...)
	words = append(words, reachabilityWords(spec.GetExpect())...)
	words = append(words, when(spec.GetEnumerate(), "--enumerate")...)
	return append(words, profileWords(spec.GetProfile())...)
}

// httpWords are the words of an http question.
func httpWords(spec *pb.HTTPSpec) []string {
	words := []string{"http", word(spec.GetUrl())}
	words = append(words, when(spec.GetMethod() != "" && spec.GetMethod() != "GET", "-X", spec.GetMethod())...)
	words = append(words, when(spec.GetHostHeader() != "", "--host-header", spec.GetHostHeader())...)
	words = append(words, when(spec.GetServerName() != "", "--servername", spec.GetServerName())...)
	for _, h := range spec.GetHeaders() {
		words = append(words, "-H", word(h.GetName()+": "+h.GetValue()))
	}
	words = append(words, when(spec.GetVersion() == pb.HTTPVersion_HTTP_VERSION_1_1, "--http1.1")...)
	words = append(words, when(spec.GetVersion() == pb.HTTPVersion_HTTP_VERSION_2, "--http2")...)
	if n := spec.GetMaxRedirects(); n > 0 {
		words = append(words, "--follow="+strconv.FormatUint(uint64(n), 10))
	}
	words = append(words, reachabilityWords(spec.GetExpect())...)
	words = append(words, joined("--expect-status", spec.GetExpectStatus(), ",")...)
	words = append(words, each("--expect-header", spec.GetExpectHeader())...)
	return append(words, when(spec.GetExpectBody() != "", "--expect-body", word(spec.GetExpectBody()))...)
}

// typeOrA and portOr443 fill in the contract's defaults.
func typeOrA(t string) string {
	if t == "" {
		return "A"
	}
	return t
}

func portOr443(port uint32) uint32 {
	if port == 0 {
		return 443
	}
	return port
}

func hostPort(host string, port uint32) string {
	return net.JoinHostPort(host, strconv.FormatUint(uint64(port), 10))
}
