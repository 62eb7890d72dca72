package aggregate

import (
	"cmp"
	"net"
	"net/netip"
	"net/url"
	"slices"
	"strconv"
	"strings"

	"google.golang.org/protobuf/proto"

	pb "github.com/elsewhere-net/elsewhere/proto/elsewhere/v1"
)

// client is whom the target is judged for: the client of a profile, as it comes to this target. All that
// is known of it stands in the spec; what its profile does not say is not judged.
type client struct {
	*pb.Profile
	origin   bool // the whole way is judged, and not the handshake alone
	plain    bool // it comes without TLS
	domain   string
	host     string // that it sends, its own or the viewer's; the domain if none is forwarded
	port     uint16
	versions []string // that it offers

	configured bool // the question names them
}

// newClient is the client that a spec names, or nil.
func newClient(spec *pb.Spec) *client {
	o, t := spec.GetOrigin(), spec.GetTls()
	switch {
	case o != nil:
		c := &client{Profile: o.GetProfile(), origin: true}
		c.goTo(o.GetUrl())
		c.host = cmp.Or(hostName(o.GetHostHeader()), c.domain)
		c.speak(o.GetVersions())
		return c
	case t.GetProfile() != nil && t.GetExpect() == pb.Reachability_REACHABILITY_UNSPECIFIED:
		c := &client{Profile: t.GetProfile(), domain: hostName(cmp.Or(t.GetServerName(), t.GetHost())), port: uint16(t.GetPort())}
		c.host = c.domain
		if len(t.GetNames()) > 0 {
			c.host = hostName(t.GetNames()[0])
		}
		c.speak(nil)
		return c
	}
	return nil
}

// goTo takes the target from a URL; the spec was validated long ago.
func (c *client) goTo(text string) {
	u, err := url.Parse(text)
	if err != nil {
		return
	}
	c.domain, c.plain = hostName(u.Hostname()), u.Scheme == "http"
	port := cmp.Or(u.Port(), map[bool]string{true: "80", false: "443"}[c.plain])
	if n, err := strconv.ParseUint(port, 10, 16); err == nil {
		c.port = uint16(n)
	}
}

// hostName is the name in "HOST" or "HOST:PORT" as certificates are compared with it.
func hostName(text string) string {
	if host, _, err := net.SplitHostPort(text); err == nil {
		text = host
	}
	return strings.TrimSuffix(strings.ToLower(text), ".")
}

// speak sets the versions that it offers: as it is configured, or else its own.
func (c *client) speak(configured []string) {
	c.configured = len(configured) > 0
	for _, more := range [][]string{c.GetDefaultVersions(), c.GetVersions()} {
		if len(configured) == 0 {
			configured = more
		}
	}
	c.versions = configured
	if c.ssl3Alone() {
		c.versions = []string{ssl3}
	}
}

const ssl3 = "SSL 3.0"

// ssl3Alone says whether it offers SSL 3.0 and therefore nothing else.
func (c *client) ssl3Alone() bool {
	return c.GetSsl3ExcludesOthers() && slices.Contains(c.versions, ssl3)
}

// label is what people call it.
func (c *client) label() string { return shown(cmp.Or(c.GetTitle(), c.GetName(), "the client")) }

// forwards says whether it sends the viewer's Host in place of the origin's domain.
func (c *client) forwards() bool { return c.host != c.domain }

// names are those that the certificate may be for, any one of them.
func (c *client) names() []string {
	return c.from(c.GetNames()...)
}

// from resolves where names are taken from, each once.
func (c *client) from(sources ...pb.NameSource) []string {
	var names []string
	for _, s := range sources {
		name := map[pb.NameSource]string{pb.NameSource_NAME_SOURCE_ORIGIN: c.domain, pb.NameSource_NAME_SOURCE_HOST: c.host}[s]
		if name != "" && !slices.Contains(names, name) {
			names = append(names, name)
		}
	}
	return names
}

// row is what the profile says of a cause, or nil.
func (c *client) row(cause pb.OriginCause) *pb.ProfileCause {
	for _, row := range c.GetCauses() {
		if row.GetCause() == cause {
			return row
		}
	}
	return nil
}

// predict says what it answers for a cause. doubt names the field of the profile that the cause rests on
// although it is not verified; "" if there is none.
func (c *client) predict(cause pb.OriginCause, doubt string) *pb.Prediction {
	row := c.row(cause)
	p := &pb.Prediction{Profile: c.GetName(), Cause: cause, Status: row.GetStatus(), Text: row.GetText(), Source: row.GetSource()}
	if doubt != "" {
		p.Source = cmp.Or(c.GetSources()[doubt], p.GetSource(), &pb.Source{})
	}
	p.Source = proto.CloneOf(p.GetSource()) // The verdict shares nothing with the question.
	if doubt != "" {
		p.Source.Unverified = true
	}
	return p
}

// ipv4Alone says whether the client comes over IPv4 alone: unless the question is about IPv6 alone, which is
// how it is told to come by that.
func (f *facts) ipv4Alone() bool {
	return f.client != nil && f.client.origin && f.client.GetIpv4Only() && f.m.GetSpec().GetFamily() != pb.Family_FAMILY_IPV6
}

// misfit is why the client does not come to the target at all, whatever the network says; unspecified if
// it does. The profile has to say what it answers to that.
func (c *client) misfit() pb.OriginCause {
	if c == nil || !c.origin {
		return pb.OriginCause_ORIGIN_CAUSE_UNSPECIFIED
	}
	ports := c.GetHttpsPorts()
	if c.plain {
		ports = c.GetHttpPorts()
	}
	_, notAddress := netip.ParseAddr(c.domain)
	switch {
	case notAddress == nil && !c.GetAddressOrigins() && c.row(pb.OriginCause_ORIGIN_CAUSE_ADDRESS_ORIGIN) != nil:
		return pb.OriginCause_ORIGIN_CAUSE_ADDRESS_ORIGIN
	case len(ports) > 0 && !slices.ContainsFunc(ports, func(p string) bool { return withinPorts(p, c.port) }):
		return pb.OriginCause_ORIGIN_CAUSE_PORT_NOT_ALLOWED
	}
	return pb.OriginCause_ORIGIN_CAUSE_UNSPECIFIED
}

// withinPorts says whether a port is in "443" or "1024-65535".
func withinPorts(ports string, port uint16) bool {
	from, to, ok := strings.Cut(ports, "-")
	if !ok {
		to = from
	}
	low, err := strconv.ParseUint(from, 10, 16)
	high, err2 := strconv.ParseUint(to, 10, 16)
	return err == nil && err2 == nil && uint64(port) >= low && uint64(port) <= high
}

// causes are why the client cannot use what a sight saw, the first one first.
func (v *sight) causes() []pb.OriginCause {
	if len(v.because) > 0 {
		return v.because
	}
	return []pb.OriginCause{causeOf(v)}
}

// causeOf is the cause that a failing step shows by itself.
func causeOf(v *sight) pb.OriginCause {
	switch v.block {
	case pb.BlockKind_BLOCK_KIND_REJECT_RST:
		return pb.OriginCause_ORIGIN_CAUSE_PORT_CLOSED
	case pb.BlockKind_BLOCK_KIND_DROP, pb.BlockKind_BLOCK_KIND_REJECT_ICMP, pb.BlockKind_BLOCK_KIND_SNI_RESET,
		pb.BlockKind_BLOCK_KIND_SNI_DROP, pb.BlockKind_BLOCK_KIND_LARGE_PACKET_DROP:
		return pb.OriginCause_ORIGIN_CAUSE_FIREWALL
	case pb.BlockKind_BLOCK_KIND_RESET_AFTER_CONNECT:
		return pb.OriginCause_ORIGIN_CAUSE_NOT_RESPONDING
	case pb.BlockKind_BLOCK_KIND_HTTP_DENY, pb.BlockKind_BLOCK_KIND_DNS, pb.BlockKind_BLOCK_KIND_UNSPECIFIED:
	}
	responded := v.at().GetEvidence().GetHttp().GetStatus() > 0
	switch v.failure { //nolint:exhaustive // the others are of connects, which are blocks, or of certificates
	case pb.Failure_FAILURE_TLS_TIMEOUT:
		return pb.OriginCause_ORIGIN_CAUSE_NOT_RESPONDING
	case pb.Failure_FAILURE_HTTP_RESET, pb.Failure_FAILURE_HTTP_CLOSED:
		if !responded {
			return pb.OriginCause_ORIGIN_CAUSE_NOT_RESPONDING
		}
		return pb.OriginCause_ORIGIN_CAUSE_RESPONSE
	case pb.Failure_FAILURE_HTTP_TIMEOUT, pb.Failure_FAILURE_HTTP_MALFORMED, pb.Failure_FAILURE_HTTP_TOO_LARGE:
		return pb.OriginCause_ORIGIN_CAUSE_RESPONSE
	case pb.Failure_FAILURE_HTTP_STATUS:
		return pb.OriginCause_ORIGIN_CAUSE_UPSTREAM
	case pb.Failure_FAILURE_TLS_CLIENT_CERT_REQUIRED:
		return pb.OriginCause_ORIGIN_CAUSE_CLIENT_CERTIFICATE
	}
	return pb.OriginCause_ORIGIN_CAUSE_TLS_NEGOTIATION
}

// mainCause is the one that most of the failing sights have first; of equals the one with the lowest number.
func mainCause(fails []*sight) pb.OriginCause {
	count := map[pb.OriginCause]int{}
	best := pb.OriginCause_ORIGIN_CAUSE_UNSPECIFIED
	for _, v := range fails {
		count[v.causes()[0]]++
	}
	for cause, n := range count {
		if n > count[best] || n == count[best] && cause < best {
			best = cause
		}
	}
	return best
}

// codeOf is the finding that a cause is where nobody gets through (rule 15).
func codeOf(cause pb.OriginCause) pb.FindingCode {
	switch {
	case cause == pb.OriginCause_ORIGIN_CAUSE_PROTOCOL:
		return pb.FindingCode_FINDING_CODE_PROTOCOL_MISMATCH
	case cause == pb.OriginCause_ORIGIN_CAUSE_CIPHER:
		return pb.FindingCode_FINDING_CODE_CIPHER_MISMATCH
	case ofCertificate(cause):
		return pb.FindingCode_FINDING_CODE_CERTIFICATE_PROBLEM
	}
	return pb.FindingCode_FINDING_CODE_ORIGIN_INCOMPATIBLE
}

// ofCertificate says whether a cause is a matter of the certificate that is served.
func ofCertificate(cause pb.OriginCause) bool {
	return cause >= pb.OriginCause_ORIGIN_CAUSE_NAME_MISMATCH && cause <= pb.OriginCause_ORIGIN_CAUSE_CERTIFICATE_INVALID
}

// told says whether the target's own bytes show a cause, so that one region is enough to know it.
func told(cause pb.OriginCause) bool {
	return cause >= pb.OriginCause_ORIGIN_CAUSE_NOT_TLS && cause <= pb.OriginCause_ORIGIN_CAUSE_CERTIFICATE_INVALID
}
