package probe

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"mime"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"strconv"
	"time"

	"github.com/miekg/dns"

	pb "github.com/elsewhere-net/elsewhere/proto/elsewhere/v1"
)

// Bounds of a reply over HTTPS, in bytes.
const (
	maxHTTPHeader = 16 << 10
	maxHTTPBody   = dns.MaxMsgSize
)

// dnsMessage is the media type of a DNS message (RFC 8484, 6).
const dnsMessage = "application/dns-message"

// exchangeHTTPS asks once over HTTPS (RFC 8484), over HTTP/2 alone, which is the least it recommends.
func (a *asker) exchangeHTTPS(ctx context.Context) (*dns.Msg, error) {
	conn, err := a.secure(ctx, "h2")
	if err != nil {
		return nil, err
	}
	defer func() { _ = conn.Close() }()
	if conn.ConnectionState().NegotiatedProtocol != "h2" {
		return nil, httpError(errors.New("the server does not speak HTTP/2 here"))
	}
	exchanging, cancel := context.WithTimeout(ctx, exchangeTimeout)
	defer cancel()
	m := a.message(a.edns)
	request, err := a.request(exchanging, m)
	if err != nil {
		return nil, localError{err}
	}
	began := time.Now()
	wire, err := fetch(conn, request)
	if err != nil {
		if _, alert := remoteAlert(err); alert || isTimeout(err) {
			return nil, a.lastAlert(err)
		}
		return nil, httpError(err)
	}
	return a.replied(m, wire, transportName(a.opts.GetTransport()), time.Since(began))
}

// httpError is an error of HTTP below a query.
func httpError(err error) error {
	return transportError{pb.Failure_FAILURE_DNS_TRANSPORT_HTTP, err}
}

// request builds the HTTP request of a query.
func (a *asker) request(ctx context.Context, m *dns.Msg) (*http.Request, error) {
	wire, err := m.Pack()
	if err != nil {
		return nil, fmt.Errorf("pack the query: %w", err)
	}
	path := a.opts.GetHttpsPath()
	if path == "" {
		path = "/dns-query"
	}
	u := url.URL{Scheme: "https", Host: a.authority(), Path: path}
	method, body := http.MethodPost, io.Reader(bytes.NewReader(wire))
	if a.opts.GetTransport() == pb.Transport_TRANSPORT_HTTPS_GET {
		method, body = http.MethodGet, nil
		u.RawQuery = "dns=" + base64.RawURLEncoding.EncodeToString(wire)
	}
	r, err := http.NewRequestWithContext(ctx, method, u.String(), body)
	if err != nil {
		return nil, fmt.Errorf("build the request: %w", err)
	}
	r.Header.Set("Accept", dnsMessage)
	r.Header.Set("User-Agent", "") // Nothing about the agent is sent that the query does not need (RFC 8484, 8.2).
	if body != nil {
		r.Header.Set("Content-Type", dnsMessage)
	}
	return r, nil
}

// authority is the server's name, and its port unless it is the scheme's own (RFC 9113, 8.3.1).
func (a *asker) authority() string {
	name := a.tlsName()
	if port := a.server.Port(); port != 443 {
		return net.JoinHostPort(name, strconv.Itoa(int(port)))
	}
	if ip, err := netip.ParseAddr(name); err == nil && ip.Is6() {
		return "[" + name + "]"
	}
	return name
}

// fetch sends a request over an open connection and returns the body of the response. Redirects are not
// followed, and there is no proxy: it knows this one connection alone.
func fetch(conn *tls.Conn, r *http.Request) ([]byte, error) {
	protocols := new(http.Protocols)
	protocols.SetHTTP2(true)
	transport := &http.Transport{
		DialTLSContext:         func(context.Context, string, string) (net.Conn, error) { return conn, nil },
		Protocols:              protocols,
		DisableCompression:     true,
		MaxResponseHeaderBytes: maxHTTPHeader,
	}
	client, err := transport.NewClientConn(r.Context(), r.URL.Scheme, endpointOf(r.URL))
	if err != nil {
		return nil, err
	}
	defer func() { _ = client.Close() }()
	response, err := client.RoundTrip(r)
	if err != nil {
		return nil, err
	}
	defer func() { _ = response.Body.Close() }()
	return body(response)
}

// endpointOf is the host and port of a URL, as net/http names connections: with the scheme's port too.
func endpointOf(u *url.URL) string {
	port := u.Port()
	if port == "" {
		port = "443"
	}
	return net.JoinHostPort(u.Hostname(), port)
}

// body returns the message in a response, or why there is none.
func body(response *http.Response) ([]byte, error) {
	if response.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("status %d", response.StatusCode)
	}
	// Parameters are none that this type has.
	if media, _, err := mime.ParseMediaType(response.Header.Get("Content-Type")); err != nil || media != dnsMessage {
		return nil, fmt.Errorf("content type %q, not %s", response.Header.Get("Content-Type"), dnsMessage)
	}
	wire, err := io.ReadAll(io.LimitReader(response.Body, maxHTTPBody+1))
	if err != nil {
		return nil, err
	}
	if len(wire) > maxHTTPBody {
		return nil, fmt.Errorf("a body of more than %d bytes", maxHTTPBody)
	}
	return wire, nil
}
