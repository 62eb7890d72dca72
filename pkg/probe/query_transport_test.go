package probe

import (
	"crypto/tls"
	"crypto/x509"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/miekg/dns"

	"github.com/elsewhere-net/elsewhere/pkg/probe/probetest"
	pb "github.com/elsewhere-net/elsewhere/proto/elsewhere/v1"
)

// transportCase is a server, how it is asked, and how the query ends.
type transportCase struct {
	name      string
	transport pb.Transport
	leaf      probetest.Leaf // Its certificate. The zero value: a good one.
	listen    func(*testing.T, *tls.Config) (netip.AddrPort, error)
	hostname  string // Asked for. Default: dns.example.
	want      []pb.Failure
	replied   bool
	text      string // Part of the step's text.
}

const (
	overTCP   = pb.Transport_TRANSPORT_TCP
	overTLS   = pb.Transport_TRANSPORT_TLS
	overHTTPS = pb.Transport_TRANSPORT_HTTPS
	overGET   = pb.Transport_TRANSPORT_HTTPS_GET
	overQUIC  = pb.Transport_TRANSPORT_QUIC
)

var zoneAnswer = probetest.Reply(func(q *dns.Msg) *dns.Msg {
	m := new(dns.Msg).SetReply(q)
	m.Answer = []dns.RR{&dns.A{
		Hdr: dns.RR_Header{Name: q.Question[0].Name, Rrtype: dns.TypeA, Class: dns.ClassINET, Ttl: 60}, A: []byte{127, 0, 0, 2},
	}}
	return m
})

// otherID answers with another ID than the query's.
func otherID(query []byte) []byte {
	wire := zoneAnswer(query)
	wire[0]++
	return wire
}

// noise answers with the query's ID, and nothing that can be read.
func noise(query []byte) []byte {
	return []byte{query[0], query[1], 0x81, 0x80, 0, 1, 0, 9, 0, 0, 0, 0, 0xc0}
}

// silence does not answer.
func silence([]byte) []byte { return nil }

func stream(answer probetest.Answer) func(*testing.T, *tls.Config) (netip.AddrPort, error) {
	return func(t *testing.T, config *tls.Config) (netip.AddrPort, error) {
		host, err := probetest.ListenDNSStream(at("127.0.0.1"), config, answer)
		return must[*probetest.Host](t)(host, err).Addr(), err
	}
}

func plain(answer probetest.Answer) func(*testing.T, *tls.Config) (netip.AddrPort, error) {
	return func(t *testing.T, _ *tls.Config) (netip.AddrPort, error) { return stream(answer)(t, nil) }
}

// protocols serves DNS over TLS with a choice of application protocols.
func protocols(names ...string) func(*testing.T, *tls.Config) (netip.AddrPort, error) {
	return func(t *testing.T, config *tls.Config) (netip.AddrPort, error) {
		config.NextProtos = names
		return stream(zoneAnswer)(t, config)
	}
}

func behaving(b probetest.Behaviour) func(*testing.T, *tls.Config) (netip.AddrPort, error) {
	return func(t *testing.T, _ *tls.Config) (netip.AddrPort, error) {
		host, err := probetest.Listen(at("127.0.0.1"), b)
		return must[*probetest.Host](t)(host, err).Addr(), err
	}
}

func saying(words string) func(*testing.T, *tls.Config) (netip.AddrPort, error) {
	return func(t *testing.T, _ *tls.Config) (netip.AddrPort, error) {
		host, err := probetest.ListenSaying(at("127.0.0.1"), []byte(words))
		return must[*probetest.Host](t)(host, err).Addr(), err
	}
}

func web(h http.Handler) func(*testing.T, *tls.Config) (netip.AddrPort, error) {
	return func(t *testing.T, config *tls.Config) (netip.AddrPort, error) {
		config.NextProtos = []string{"h2"}
		server, err := probetest.ListenHTTPS(at("127.0.0.1"), config, h)
		return must[*probetest.HTTPSServer](t)(server, err).Addr(), err
	}
}

// page serves a response of a status, a content type and a size, whatever is asked.
func page(status int, contentType string, size int) func(*testing.T, *tls.Config) (netip.AddrPort, error) {
	return web(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", contentType)
		w.Header().Set("Location", "https://127.0.0.1:1/elsewhere")
		w.WriteHeader(status)
		_, _ = w.Write(make([]byte, size))
	}))
}

func quicServer(answer probetest.Answer, alpn string) func(*testing.T, *tls.Config) (netip.AddrPort, error) {
	return func(t *testing.T, config *tls.Config) (netip.AddrPort, error) {
		config.NextProtos = []string{alpn}
		server, err := probetest.ListenDNSOverQUIC(at("127.0.0.1"), config, answer)
		return must[*probetest.QUICServer](t)(server, err).Addr(), err
	}
}

// datagrams answers whatever comes over UDP.
func datagrams(answer func([]byte) []byte) func(*testing.T, *tls.Config) (netip.AddrPort, error) {
	return func(t *testing.T, _ *tls.Config) (netip.AddrPort, error) {
		server, err := probetest.ListenDatagrams(at("127.0.0.1"), func(q []byte) [][]byte {
			if wire := answer(q); wire != nil {
				return [][]byte{wire}
			}
			return nil
		})
		return must[*probetest.Datagrams](t)(server, err).Addr(), err
	}
}

// closed is a port where nobody listens, over neither protocol, on an address that no other test uses.
func closed(t *testing.T, _ *tls.Config) (netip.AddrPort, error) {
	server, err := probetest.ServeDNS(at("127.0.0.77"), probetest.Zone{}, true)
	if err != nil {
		return netip.AddrPort{}, err
	}
	return server.Addr(), server.Close()
}

func TestTransports(t *testing.T) {
	t.Parallel()
	const (
		timeout     = pb.Failure_FAILURE_DNS_TIMEOUT
		unreachable = pb.Failure_FAILURE_DNS_UNREACHABLE
		badTLS      = pb.Failure_FAILURE_DNS_TRANSPORT_TLS
		badHTTP     = pb.Failure_FAILURE_DNS_TRANSPORT_HTTP
		badQUIC     = pb.Failure_FAILURE_DNS_TRANSPORT_QUIC
		mismatch    = pb.Failure_FAILURE_DNS_ID_MISMATCH
		malformed   = pb.Failure_FAILURE_DNS_MALFORMED
	)
	type failures = []pb.Failure
	names := []string{"dns.example", "127.0.0.1"}
	expired := probetest.Leaf{Names: names, NotAfter: time.Now().Add(-time.Hour)}
	other := probetest.Leaf{Names: []string{"other.example"}}
	doh := func(a probetest.Answer) func(*testing.T, *tls.Config) (netip.AddrPort, error) {
		return web(probetest.DNSOverHTTPS(a))
	}
	all(t, func(c transportCase) string { return c.name }, []transportCase{
		{name: "TCP brings the answer", transport: overTCP, listen: plain(zoneAnswer), replied: true},
		{name: "TCP: a closed port cannot be reached", transport: overTCP, listen: closed, want: failures{unreachable}},
		{name: "TCP: a server that says nothing", transport: overTCP, listen: plain(silence), want: failures{timeout}},
		{name: "TCP: a server that hangs up has not answered", transport: overTCP, listen: behaving(probetest.HangUp), want: failures{timeout}},
		{name: "TCP: a reply with another ID is nobody's", transport: overTCP, listen: plain(otherID), want: failures{mismatch}, replied: true},
		{name: "TCP: noise under the right ID is malformed", transport: overTCP, listen: plain(noise), want: failures{malformed}},
		{name: "TCP: a reply cut short by the end of the stream", transport: overTCP, listen: saying("\xff\xffx"), want: failures{timeout}},

		{name: "TLS brings the answer", transport: overTLS, listen: stream(zoneAnswer), replied: true},
		{name: "TLS: the server's address is in the certificate", transport: overTLS, listen: stream(zoneAnswer), hostname: "127.0.0.1", replied: true},
		{name: "TLS: an expired certificate is a failure beside the answer", transport: overTLS, leaf: expired, listen: stream(zoneAnswer), want: failures{badTLS}, replied: true, text: "cert_expired"},
		{name: "TLS: a certificate for another name", transport: overTLS, leaf: other, listen: stream(zoneAnswer), want: failures{badTLS}, replied: true, text: "cert_name_mismatch"},
		{name: "TLS: a certificate without the server's address", transport: overTLS, leaf: other, listen: stream(zoneAnswer), hostname: "127.0.0.1", want: failures{badTLS}, replied: true, text: "cert_name_mismatch"},
		{name: "TLS: a bad certificate and no answer are two failures", transport: overTLS, leaf: expired, listen: stream(silence), want: failures{timeout, badTLS}},
		{name: "TLS: a server of another protocol is asked again without one", transport: overTLS, listen: protocols("h2"), replied: true},
		{name: "TLS: a server that knows the protocol", transport: overTLS, listen: protocols("dot"), replied: true},
		{name: "TLS: a closed port cannot be reached", transport: overTLS, listen: closed, want: failures{unreachable}},
		{name: "TLS: plain DNS on the port", transport: overTLS, listen: saying("\x00\x04junk"), want: failures{badTLS}, text: "tls_not_tls"},
		{name: "TLS: reset after the hello", transport: overTLS, listen: behaving(probetest.Abort), want: failures{badTLS}, text: "tls_reset"},
		{name: "TLS: silence after the hello", transport: overTLS, listen: behaving(probetest.Accept), want: failures{badTLS}, text: "tls_timeout"},
		{name: "TLS: silence after the query", transport: overTLS, listen: stream(silence), want: failures{timeout}},
		{name: "TLS: a reply with another ID", transport: overTLS, listen: stream(otherID), want: failures{mismatch}, replied: true},

		{name: "HTTPS by POST brings the answer", transport: overHTTPS, listen: doh(zoneAnswer), replied: true},
		{name: "HTTPS by GET brings the answer", transport: overGET, listen: doh(zoneAnswer), replied: true},
		{name: "HTTPS: an expired certificate is a failure beside the answer", transport: overHTTPS, leaf: expired, listen: doh(zoneAnswer), want: failures{badTLS}, replied: true, text: "cert_expired"},
		{name: "HTTPS: a server of HTTP/1.1 alone", transport: overHTTPS, listen: protocols("http/1.1"), want: failures{badHTTP}, text: "does not speak HTTP/2"},
		{name: "HTTPS: a server of no protocol", transport: overHTTPS, listen: protocols(), want: failures{badHTTP}, text: "does not speak HTTP/2"},
		{name: "HTTPS: another protocol behind h2 never answers", transport: overHTTPS, listen: protocols("h2"), want: failures{timeout}},
		{name: "HTTPS: status 404", transport: overHTTPS, listen: page(404, "text/plain", 10), want: failures{badHTTP}, text: "status 404"},
		{name: "HTTPS: a redirect is not followed", transport: overGET, listen: page(302, dnsMessage, 10), want: failures{badHTTP}, text: "status 302"},
		{name: "HTTPS: a web page", transport: overHTTPS, listen: page(200, "text/html", 10), want: failures{badHTTP}, text: `content type "text/html"`},
		{name: "HTTPS: a body without end", transport: overHTTPS, listen: page(200, dnsMessage, 1<<20), want: failures{badHTTP}, text: "more than 65535 bytes"},
		{name: "HTTPS: noise in a good response", transport: overHTTPS, listen: doh(noise), want: failures{malformed}},
		{name: "HTTPS: silence after the request", transport: overHTTPS, listen: doh(silence), want: failures{timeout}},
		{name: "HTTPS: a closed port cannot be reached", transport: overHTTPS, listen: closed, want: failures{unreachable}},
		{name: "HTTPS: silence after the hello", transport: overHTTPS, listen: behaving(probetest.Accept), want: failures{badTLS}, text: "tls_timeout"},

		{name: "QUIC brings the answer", transport: overQUIC, listen: quicServer(zoneAnswer, "doq"), replied: true},
		{name: "QUIC: an expired certificate is a failure beside the answer", transport: overQUIC, leaf: expired, listen: quicServer(zoneAnswer, "doq"), want: failures{badTLS}, replied: true, text: "cert_expired"},
		{name: "QUIC: another protocol", transport: overQUIC, listen: quicServer(zoneAnswer, "h3"), want: failures{badQUIC}, text: "no application protocol"},
		{name: "QUIC: silence after the query", transport: overQUIC, listen: quicServer(silence, "doq"), want: failures{timeout}},
		{name: "QUIC: noise under the right ID", transport: overQUIC, listen: quicServer(noise, "doq"), want: failures{malformed}},
		{name: "QUIC: a closed port cannot be reached", transport: overQUIC, listen: closed, want: failures{unreachable}},
		{name: "QUIC: nobody says anything", transport: overQUIC, listen: datagrams(silence), want: failures{timeout}},
		{name: "QUIC: noise", transport: overQUIC, listen: datagrams(func(q []byte) []byte { return q[:min(len(q), 64)] }), want: failures{badQUIC}},
	}, func(t *testing.T, c transportCase) func(*testing.T) {
		if c.leaf.Names == nil {
			c.leaf.Names = names
		}
		if c.hostname == "" {
			c.hostname = "dns.example"
		}
		cert, roots := issue(t, probetest.CAOptions{}, c.leaf, true)
		server, err := c.listen(t, serverConfig(cert))
		if err != nil {
			t.Error(err)
			return nil
		}
		s, took := askOver(t, c, server, roots)
		return func(t *testing.T) { checkTransport(t, c, s, took) }
	})
}

// askOver asks a server as a case says.
func askOver(t *testing.T, c transportCase, server netip.AddrPort, roots []*x509.Certificate) (*pb.Step, time.Duration) {
	spec := dnsSpec("www.example", "A")
	spec.GetDns().Resolver = server.String()
	spec.GetDns().Transport = c.transport
	if _, err := netip.ParseAddr(c.hostname); err != nil { // An address is what the server is known by.
		spec.GetDns().TlsHostname = c.hostname
	}
	env := &Env{Egress: Egress{Allow: loopback}, Controls: []string{}, Resolvers: []netip.AddrPort{}, Roots: roots}
	began := time.Now()
	return one(t, run(t, env, spec), pb.StepKind_STEP_KIND_DNS_QUERY), time.Since(began)
}

func checkTransport(t *testing.T, c transportCase, s *pb.Step, took time.Duration) {
	t.Helper()
	if !slices.Equal(s.GetFailures(), c.want) {
		t.Errorf("failures %v, want %v: %s", s.GetFailures(), c.want, s.GetEvidence().GetText())
	}
	if !strings.Contains(s.GetEvidence().GetText(), c.text) {
		t.Errorf("text %q, want %q in it", s.GetEvidence().GetText(), c.text)
	}
	if limit := 2 * (handshakeTimeout + exchangeTimeout); took > limit {
		t.Errorf("took %v, more than %v", took, limit)
	}
	replies := s.GetEvidence().GetReplies()
	if (len(replies) > 0) != c.replied {
		t.Fatalf("replies: %v", replies)
	}
	if !c.replied {
		return
	}
	r := replies[0]
	if r.GetTransport() != transportName(c.transport) || r.GetSize() == 0 || r.GetRtt().AsDuration() <= 0 {
		t.Errorf("reply: %v", r)
	}
	if mismatched := slices.Contains(c.want, pb.Failure_FAILURE_DNS_ID_MISMATCH); r.GetMismatched() != mismatched {
		t.Errorf("mismatched: %v", r)
	} else if diff := cmp.Diff([]string{"127.0.0.2"}, s.GetEvidence().GetAddresses()); !mismatched && diff != "" {
		t.Error(diff)
	}
	if c.transport != overTCP {
		checkSecured(t, c, s.GetEvidence().GetTls())
	}
}

// checkSecured wants the handshake below a query in the evidence.
func checkSecured(t *testing.T, c transportCase, ev *pb.TLSEvidence) {
	t.Helper()
	if ev.GetVersion() != "TLS 1.3" || len(ev.GetChain()) != 2 || ev.GetJudgedTime() == nil {
		t.Errorf("TLS: %v", ev)
	}
	if want := sni(c.hostname); ev.GetServerName() != want {
		t.Errorf("server_name %q, want %q", ev.GetServerName(), want)
	}
}

func TestControlsTravelAsTheQueryDid(t *testing.T) {
	t.Parallel()
	cert, roots := issue(t, probetest.CAOptions{}, probetest.Leaf{Names: []string{"dns.example"}}, true)
	env := newEnv(t, nil) // Whose resolver is not asked: it only knows the zone.
	env.Roots = roots
	zone := must[*probetest.DNSServer](t)(probetest.ServeDNS(at("127.0.0.1"), probetest.Zone{
		"control.example": {Records: []string{"control.example. 60 IN A 127.0.0.9"}},
	}, true))
	server, _ := stream(zone.Answer)(t, serverConfig(cert))
	spec := dnsSpec("nowhere.example", "")
	spec.GetDns().Resolver, spec.GetDns().Transport, spec.GetDns().TlsHostname = server.String(), overTLS, "dns.example"
	r := run(t, env, spec)
	if s := one(t, r, pb.StepKind_STEP_KIND_DNS_QUERY); s.GetFailure() != pb.Failure_FAILURE_DNS_NXDOMAIN || s.GetAttempts() != 2 {
		t.Errorf("%v", s)
	}
	passed := false
	for _, s := range steps(r, pb.StepKind_STEP_KIND_DNS_QUERY, pb.Role_ROLE_CONTROL) {
		passed = passed || s.GetFailure() == pb.Failure_FAILURE_NONE
		if reply := s.GetEvidence().GetReplies()[0]; reply.GetTransport() != "tls" || s.GetAddress() != server.String() {
			t.Errorf("control: %v", s)
		}
	}
	if !passed {
		t.Errorf("no control passed: %v", r)
	}
}
