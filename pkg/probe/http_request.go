package probe

import (
	"cmp"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"net/url"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/net/http/httpguts"

	pb "github.com/elsewhere-net/elsewhere/proto/elsewhere/v1"
)

// Bounds of a request, in bytes.
const (
	maxURL           = 8192
	maxRequestFields = 32 << 10
	maxLocation      = 2048 // Shown of a Location.
)

// request is what one exchange asks for, at whatever address.
type request struct {
	url    *url.URL
	method string
	host   string            // Sent as Host or :authority.
	name   string            // Asked for in the handshake and compared with the certificate.
	alpn   []string          // Offered in the handshake.
	fields []*pb.HeaderField // The spec's, sent besides.
	agent  string            // The version of the agent's program.
	client *client           // Whom the agent comes in place of. Nil: nobody.
}

// wellFormedHTTP says what is wrong with an HTTP check.
func wellFormedHTTP(spec *pb.HTTPSpec, family pb.Family) error {
	r, err := newRequest(spec, "")
	if err != nil {
		return err
	}
	if err := wellFormedHost(r.hostname(), uint32(r.port()), family); err != nil {
		return invalid("http.url", err)
	}
	return checkExpectations(spec)
}

// newRequest makes the request that a spec describes, or says what is wrong with it.
func newRequest(spec *pb.HTTPSpec, version string) (*request, error) {
	u, err := parseURL(spec.GetUrl())
	if err != nil {
		return nil, invalid("http.url", err)
	}
	r := &request{url: u, method: spec.GetMethod(), alpn: bothVersions, agent: cmp.Or(version, "unknown")}
	if r.method == "" {
		r.method = "GET"
	}
	r.host, r.name = authority(u), serverNameOf(u.Hostname())
	if h := spec.GetHostHeader(); h != "" {
		if err := checkHost(h); err != nil {
			return nil, invalid("http.host_header", err)
		}
		r.host, r.name = h, serverNameOf(hostOf(h))
		if ip, err := netip.ParseAddr(h); err == nil && ip.Is6() {
			r.host = "[" + h + "]"
		}
	}
	if n := spec.GetServerName(); n != "" {
		if err := wellFormedHost(n, 1, pb.Family_FAMILY_UNSPECIFIED); err != nil {
			return nil, invalid("http.server_name", err)
		}
		r.name = serverNameOf(n)
	}
	switch spec.GetVersion() {
	case pb.HTTPVersion_HTTP_VERSION_1_1:
		r.alpn = bothVersions[1:]
	case pb.HTTPVersion_HTTP_VERSION_2:
		r.alpn = bothVersions[:1]
		if !r.secure() {
			return nil, invalid("http.version", errors.New("HTTP/2 is asked for over TLS alone, and the URL says http"))
		}
	case pb.HTTPVersion_HTTP_VERSION_UNSPECIFIED:
	}
	return r, r.add(spec.GetHeaders())
}

// all are the header fields to send after Host: who asks, unless the spec says it otherwise, and the
// spec's. A compressed page is not asked for, but would be understood.
func (r *request) all() []*pb.HeaderField {
	var own []*pb.HeaderField
	for _, f := range []*pb.HeaderField{
		{Name: "User-Agent", Value: "elsewhere/" + r.agent + " (+https://github.com/elsewhere-net/elsewhere)"},
		{Name: "Accept", Value: "*/*"},
	} {
		if !slices.ContainsFunc(r.fields, func(o *pb.HeaderField) bool { return strings.EqualFold(o.GetName(), f.GetName()) }) {
			own = append(own, f)
		}
	}
	return append(own, r.fields...)
}

// add takes the spec's fields.
func (r *request) add(fields []*pb.HeaderField) error {
	size := 0
	for _, f := range fields {
		size += len(f.GetName()) + len(f.GetValue())
		switch {
		case !httpguts.ValidHeaderFieldName(f.GetName()) || !httpguts.ValidHeaderFieldValue(f.GetValue()):
			return invalid("http.headers", fmt.Errorf("%q is not a header field", f.GetName()+": "+f.GetValue()))
		case framing(f.GetName()):
			return invalid("http.headers", fmt.Errorf("%s is the connection's own; host_header sets Host", f.GetName()))
		case size > maxRequestFields:
			return invalid("http.headers", fmt.Errorf("they are longer than %d bytes in all", maxRequestFields))
		}
	}
	r.fields = fields
	return nil
}

// framing says whether a field is about the connection or the message's form (RFC 9110, 7.6.1), which
// are not the spec's to choose.
func framing(name string) bool {
	switch strings.ToLower(name) {
	case "host", "connection", "proxy-connection", "keep-alive", "te", "trailer", "transfer-encoding",
		"content-length", "upgrade", "expect", "http2-settings":
		return true
	}
	return false
}

func (r *request) secure() bool { return r.url.Scheme == "https" }

func (r *request) hostname() string { return r.url.Hostname() }

func (r *request) port() uint16 { return portOf(r.url) }

// path is the request's target (RFC 9112, 3.2.1), without anything that could end the line.
func (r *request) path() string {
	var b strings.Builder
	for _, c := range []byte(r.url.RequestURI()) {
		if c <= ' ' || c >= 0x7f {
			fmt.Fprintf(&b, "%%%02X", c)
		} else {
			b.WriteByte(c)
		}
	}
	return b.String()
}

// next is the request that a redirect leads to. What the spec says of Host, server_name and header
// fields is for the origin that it names (RFC 6454, 4) and for no other.
func (r *request) next(location string) (*request, error) {
	ref, err := url.Parse(location)
	if err != nil {
		return nil, fmt.Errorf("the redirect's Location %q is no URL", location)
	}
	u := r.url.ResolveReference(ref)
	u.User, u.Fragment, u.RawFragment = nil, "", ""
	if err := checkURL(u); err != nil {
		return nil, fmt.Errorf("the redirect's Location %q: %w", location, err)
	}
	n := *r
	n.url = u
	if u.Scheme != r.url.Scheme || !strings.EqualFold(u.Hostname(), r.url.Hostname()) || portOf(u) != portOf(r.url) {
		n.host, n.name, n.fields = authority(u), serverNameOf(u.Hostname()), nil
	}
	return &n, nil
}

// parseURL reads a URL that a spec names.
func parseURL(s string) (*url.URL, error) {
	u, err := url.Parse(s)
	if err != nil {
		return nil, fmt.Errorf("%q is no URL", s)
	}
	if u.User != nil || strings.Contains(s, "#") {
		return nil, errors.New("the URL must have neither user information nor a fragment")
	}
	return u, checkURL(u)
}

// checkURL says whether a URL can be asked for.
func checkURL(u *url.URL) error {
	switch {
	case u.Scheme != "http" && u.Scheme != "https":
		return fmt.Errorf("the scheme %q is neither http nor https", u.Scheme)
	case u.Opaque != "" || u.Hostname() == "":
		return errors.New("the URL names no host")
	case len(u.String()) > maxURL:
		return fmt.Errorf("the URL is longer than %d bytes", maxURL)
	}
	if err := wellFormedHost(u.Hostname(), uint32(portOf(u)), pb.Family_FAMILY_UNSPECIFIED); err != nil {
		return err
	}
	return checkHost(canonical(u.Hostname()))
}

// targetOf returns the host and port of a URL, or neither.
func targetOf(text string) (host string, port uint16) {
	u, err := parseURL(text)
	if err != nil {
		return "", 0
	}
	return u.Hostname(), portOf(u)
}

// portOf is the port of a URL, 0 if it is none.
func portOf(u *url.URL) uint16 {
	if u.Port() == "" {
		return schemePort(u.Scheme)
	}
	n, err := strconv.ParseUint(u.Port(), 10, 16)
	if err != nil {
		return 0
	}
	return uint16(n)
}

// schemePort is a scheme's own port (RFC 9110, 4.2).
func schemePort(scheme string) uint16 {
	if scheme == "http" {
		return 80
	}
	return 443
}

// authority is a URL's host as it is sent: with the port unless it is the scheme's own (RFC 9110, 4.2.3).
func authority(u *url.URL) string {
	host := canonical(u.Hostname())
	if portOf(u) != schemePort(u.Scheme) {
		return net.JoinHostPort(host, strconv.Itoa(int(portOf(u))))
	}
	if strings.Contains(host, ":") {
		return "[" + host + "]"
	}
	return host
}

// hostOf is the host of a Host field.
func hostOf(field string) string {
	if ip, err := netip.ParseAddr(strings.Trim(field, "[]")); err == nil {
		return ip.String()
	}
	if host, _, err := net.SplitHostPort(field); err == nil {
		return host
	}
	return field
}

// checkHost says what is wrong with a Host field.
func checkHost(field string) error {
	for _, c := range []byte(field) {
		if c <= ' ' || c >= 0x7f {
			return fmt.Errorf("%q is no host", field)
		}
	}
	if _, port, err := net.SplitHostPort(field); err == nil {
		if _, err := strconv.ParseUint(port, 10, 16); err != nil {
			return fmt.Errorf("%q has no port", field)
		}
	}
	return wellFormedHost(hostOf(field), 1, pb.Family_FAMILY_UNSPECIFIED)
}

// serverNameOf is the name that a handshake asks for and that the certificate is compared with, as
// serverName.
func serverNameOf(host string) string {
	return serverName(&pb.TLSSpec{Host: host})
}
