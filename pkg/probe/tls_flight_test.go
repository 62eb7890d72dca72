package probe

import (
	"crypto/tls"
	"net"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/elsewhere-net/elsewhere/pkg/probe/flight"
	"github.com/elsewhere-net/elsewhere/pkg/probe/probetest"
	pb "github.com/elsewhere-net/elsewhere/proto/elsewhere/v1"
)

// shaken is a server, what is asked of it, and what the handshake's step must be.
type shaken struct {
	name   string
	listen func(netip.AddrPort) (*probetest.Host, error)
	spec   *pb.TLSSpec
	want   []pb.Failure
	check  func(*pb.TLSEvidence) bool
	text   string
}

// shakeAll runs every case against a server of its own.
func shakeAll(t *testing.T, leaf probetest.Leaf, cases func(cert tls.Certificate) []shaken) {
	t.Helper()
	cert, roots := issue(t, probetest.CAOptions{}, leaf, true)
	all(t, func(tt shaken) string { return tt.name }, cases(cert), func(t *testing.T, tt shaken) func(*testing.T) {
		host := must[*probetest.Host](t)(tt.listen(at("127.0.0.2")))
		env := newEnv(t, nil)
		env.Roots, env.patience = roots, 3*time.Second
		spec := tlsSpec("127.0.0.2", host.Addr().Port(), "www.example")
		if tt.spec != nil {
			tt.spec.Host, tt.spec.Port = "127.0.0.2", uint32(host.Addr().Port())
			if tt.spec.ServerName == "" {
				tt.spec.ServerName = "www.example"
			}
			spec.Check = &pb.Spec_Tls{Tls: tt.spec}
		}
		r := run(t, env, spec)
		return func(t *testing.T) {
			s := one(t, r, pb.StepKind_STEP_KIND_TLS_HANDSHAKE)
			ev := s.GetEvidence().GetTls()
			if !slices.Equal(s.GetFailures(), tt.want) || !strings.Contains(s.GetEvidence().GetText(), tt.text) {
				t.Errorf("failures %v, want %v with %q: %v", s.GetFailures(), tt.want, tt.text, s.GetEvidence())
			}
			if tt.check != nil && !tt.check(ev) {
				t.Errorf("the evidence is %v", ev)
			}
		}
	})
}

// byHand is a server made by hand that serves a certificate's chain.
func byHand(s probetest.FlightServer, cert tls.Certificate) func(netip.AddrPort) (*probetest.Host, error) {
	s.Certificates = cert.Certificate
	return func(at netip.AddrPort) (*probetest.Host, error) { return probetest.ListenFlight(at, s) }
}

// agreed wants a version and a suite, and the whole chain.
func agreed(version, suite string, only bool) func(*pb.TLSEvidence) bool {
	return func(ev *pb.TLSEvidence) bool {
		return ev.GetVersion() == version && ev.GetCipherSuite() == suite && ev.GetNegotiationOnly() == only &&
			ev.GetServed() == 2 && len(ev.GetChain()) == 2
	}
}

// beginning wants what a ServerHello of TLS 1.3 shows before all is encrypted.
func beginning(version, suite, group string) func(*pb.TLSEvidence) bool {
	return func(ev *pb.TLSEvidence) bool {
		return ev.GetVersion() == version && ev.GetCipherSuite() == suite && ev.GetGroup() == group && ev.GetNegotiationOnly() && ev.GetServed() == 0
	}
}

// everySuite answers hellos of TLS 1.2 whatever they offer.
var everySuite = probetest.FlightServer{Suites: flight.Suites(flight.TLS12)}

// helloOf is a hello that offers one suite.
func helloOf(version, suite uint16) []byte {
	h := flight.Hello{Version: version, Suites: []uint16{suite}}
	out, _ := h.Marshal()
	return out
}

// TestLimitsOfTheLibrary: what crypto/tls cannot do is not the target's failure, and what it hides is seen.
func TestLimitsOfTheLibrary(t *testing.T) {
	t.Parallel()
	shakeAll(t, probetest.Leaf{Names: []string{"www.example"}, RSABits: 2048}, func(cert tls.Certificate) []shaken {
		noise := serverConfig(cert)
		noise.MaxVersion = tls.VersionTLS12
		noise.Certificates = []tls.Certificate{{PrivateKey: cert.PrivateKey, Certificate: append(slices.Clone(cert.Certificate), []byte("noise"))}}
		warn := func(c net.Conn) {
			_, _ = c.Write([]byte("\x15\x03\x03\x00\x02\x01\x70"))
			conn := tls.Server(c, serverConfig(cert))
			_, _ = conn.Read(make([]byte, 1))
		}
		return []shaken{
			{
				"a suite that the library lacks", byHand(probetest.FlightServer{Suites: []uint16{0xc028}}, cert), nil, nil,
				agreed("TLS 1.2", "TLS_ECDHE_RSA_WITH_AES_256_CBC_SHA384", true), "cannot complete",
			},
			{
				"RC4 with MD5", byHand(probetest.FlightServer{Suites: []uint16{0x0004}}, cert), nil, nil,
				agreed("TLS 1.2", "TLS_RSA_WITH_RC4_128_MD5", true), "TLS_RSA_WITH_RC4_128_MD5",
			},
			{
				"DHE alone, in TLS 1.0", byHand(probetest.FlightServer{Versions: []uint16{flight.TLS10}, Suites: []uint16{0x0033}, PrimeBits: 512}, cert), nil, nil,
				agreed("TLS 1.0", "TLS_DHE_RSA_WITH_AES_128_CBC_SHA", true), "512 bits",
			},
			{
				"the certificates are judged all the same", byHand(probetest.FlightServer{Suites: []uint16{0xc028}}, cert),
				&pb.TLSSpec{ServerName: "other.example"},
				[]pb.Failure{pb.Failure_FAILURE_CERT_NAME_MISMATCH},
				agreed("TLS 1.2", "TLS_ECDHE_RSA_WITH_AES_256_CBC_SHA384", true), "",
			},
			{
				"a group of TLS 1.3 that the library lacks", byHand(probetest.FlightServer{Versions: []uint16{flight.TLS13}, Suites: []uint16{0x1301}, Groups: []uint16{30}}, cert),
				nil,
				[]pb.Failure{pb.Failure_FAILURE_AGENT_CAPABILITY_MISSING},
				beginning("TLS 1.3", "TLS_AES_128_GCM_SHA256", "x448"), "cannot complete",
			},
			{
				"a suite of TLS 1.3 that the library lacks", byHand(probetest.FlightServer{Versions: []uint16{flight.TLS13}, Suites: []uint16{0x1304}}, cert),
				nil,
				[]pb.Failure{pb.Failure_FAILURE_AGENT_CAPABILITY_MISSING},
				beginning("TLS 1.3", "TLS_AES_128_CCM_SHA256", "x25519"), "cannot complete",
			},
			{
				"no encryption is nothing to share", byHand(probetest.FlightServer{Suites: []uint16{0x003b}}, cert), nil,
				[]pb.Failure{pb.Failure_FAILURE_TLS_NO_SHARED_CIPHER},
				agreed("TLS 1.2", "TLS_RSA_WITH_NULL_SHA256", true), "without encryption",
			},
			{
				"no certificate is nothing to share either", byHand(probetest.FlightServer{Suites: []uint16{0x0034}}, cert), nil,
				[]pb.Failure{pb.Failure_FAILURE_TLS_NO_SHARED_CIPHER},
				func(ev *pb.TLSEvidence) bool { return ev.GetCipherSuite() == "TLS_DH_anon_WITH_AES_128_CBC_SHA" }, "without a certificate",
			},
			{
				"SSL 3.0 alone is no version that anybody should speak", byHand(probetest.FlightServer{Versions: []uint16{flight.SSL30}, Suites: []uint16{0x0005}}, cert),
				nil,
				[]pb.Failure{pb.Failure_FAILURE_TLS_VERSION_UNSUPPORTED},
				agreed("SSL 3.0", "TLS_RSA_WITH_RC4_128_SHA", true), "SSL 3.0",
			},
			{"a server of SSL 3.0 that dies of other hellos", func(at netip.AddrPort) (*probetest.Host, error) {
				return probetest.ListenFunc(at, oldServer(cert))
			}, nil, []pb.Failure{pb.Failure_FAILURE_TLS_VERSION_UNSUPPORTED}, agreed("SSL 3.0", "TLS_RSA_WITH_3DES_EDE_CBC_SHA", true), "SSL 3.0"},
			{
				"a certificate that cannot be parsed hides neither version nor chain", func(at netip.AddrPort) (*probetest.Host, error) { return probetest.ListenTLS(at, noise) },
				nil,
				[]pb.Failure{pb.Failure_FAILURE_CERT_MALFORMED},
				func(ev *pb.TLSEvidence) bool {
					return ev.GetVersion() == "TLS 1.2" && ev.GetServed() == 3 && ev.GetNegotiationOnly()
				}, "",
			},
			{
				"a warning is seen, and fails nothing", func(at netip.AddrPort) (*probetest.Host, error) { return probetest.ListenFunc(at, warn) },
				nil, nil, func(ev *pb.TLSEvidence) bool { return ev.GetAlert().GetCode() == 112 && !ev.GetNegotiationOnly() }, "",
			},
			{"a warning before the end says why", func(at netip.AddrPort) (*probetest.Host, error) {
				return probetest.ListenFunc(at, func(c net.Conn) {
					_, _ = c.Read(make([]byte, 8192))
					_, _ = c.Write([]byte("\x15\x03\x03\x00\x02\x01\x70"))
				})
			}, nil, []pb.Failure{pb.Failure_FAILURE_TLS_UNRECOGNIZED_NAME}, func(ev *pb.TLSEvidence) bool { return ev.GetAlert().GetName() == "unrecognized_name" }, ""},
			{"plain HTTP shows what it says", func(at netip.AddrPort) (*probetest.Host, error) {
				return probetest.ListenSaying(at, []byte("HTTP/1.1 400 Bad Request\r\n\r\n"))
			}, nil, []pb.Failure{pb.Failure_FAILURE_TLS_NOT_TLS}, nil, `"HTTP/1.1 400 Bad Request\r\n\r\n"`},
			{"three bytes and silence are not TLS", func(at netip.AddrPort) (*probetest.Host, error) {
				return probetest.ListenSaying(at, []byte("OK\n"))
			}, nil, []pb.Failure{pb.Failure_FAILURE_TLS_NOT_TLS}, nil, `"OK\n"`},
		}
	})
}

// oldServer speaks SSL 3.0 and resets who says a word of anything newer.
func oldServer(cert tls.Certificate) func(net.Conn) {
	answer := probetest.FlightServer{Versions: []uint16{flight.SSL30}, Suites: []uint16{0x000a}, Certificates: cert.Certificate}
	return func(c net.Conn) {
		hello := make([]byte, 8192)
		n, _ := c.Read(hello)
		if n < 11 || hello[10] != 0 { // The minor version of the hello.
			_, _ = c.Write([]byte("\x15\x03\x00\x00\x02\x02\x28"))
			return
		}
		_, _ = c.Write(answer.Answer(hello[:n]))
		_, _ = c.Read(hello)
	}
}

// TestOffers: what is offered is what was asked for.
func TestOffers(t *testing.T) {
	t.Parallel()
	offer := func(o *pb.TLSOffer) *pb.TLSSpec { return &pb.TLSSpec{Offer: o} }
	shakeAll(t, probetest.Leaf{Names: []string{"www.example"}, RSABits: 2048}, func(cert tls.Certificate) []shaken {
		library := func(change func(*tls.Config)) func(netip.AddrPort) (*probetest.Host, error) {
			c := serverConfig(cert)
			change(c)
			return func(at netip.AddrPort) (*probetest.Host, error) { return probetest.ListenTLS(at, c) }
		}
		missing := []pb.Failure{pb.Failure_FAILURE_AGENT_CAPABILITY_MISSING}
		return []shaken{
			{
				"TLS 1.2 is offered by hand", library(func(*tls.Config) {}), offer(&pb.TLSOffer{Versions: []string{"TLS 1.2"}, CipherSuites: []string{"ECDHE-RSA-AES256-GCM-SHA384"}, Groups: []string{"secp384r1"}, SignatureSchemes: []string{"rsa_pkcs1_sha384"}}),
				nil, func(ev *pb.TLSEvidence) bool {
					return agreed("TLS 1.2", "TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384", true)(ev) && ev.GetGroup() == "secp384r1" && ev.GetSignatureScheme() == "rsa_pkcs1_sha384"
				}, "",
			},
			{
				"the order is ours", byHand(probetest.FlightServer{Suites: []uint16{0x0035, 0xc028}, ClientOrder: true}, cert), offer(&pb.TLSOffer{CipherSuites: []string{"0xC028", "AES256-SHA"}}),
				nil, agreed("TLS 1.2", "TLS_ECDHE_RSA_WITH_AES_256_CBC_SHA384", true), "",
			},
			{
				"SSL 3.0 can be asked for", byHand(probetest.FlightServer{Versions: []uint16{flight.SSL30, flight.TLS10}, Suites: []uint16{0x0005}}, cert), offer(&pb.TLSOffer{Versions: []string{"SSL 3.0"}}),
				nil, agreed("SSL 3.0", "TLS_RSA_WITH_RC4_128_SHA", true), "",
			},
			{
				"a server of TLS 1.3 alone has no TLS 1.2", library(func(c *tls.Config) { c.MinVersion = tls.VersionTLS13 }), offer(&pb.TLSOffer{Versions: []string{"TLS 1.2"}}),
				[]pb.Failure{pb.Failure_FAILURE_TLS_VERSION_UNSUPPORTED},
				func(ev *pb.TLSEvidence) bool { return ev.GetAlert().GetCode() == 70 }, "",
			},
			{
				"no application protocol in common is no failure by hand either", library(func(c *tls.Config) { c.NextProtos = []string{"dot"} }), offer(&pb.TLSOffer{Versions: []string{"TLS 1.2"}}),
				nil, func(ev *pb.TLSEvidence) bool { return ev.GetNegotiationOnly() && ev.GetAlpn() == "" }, "",
			},
			{
				"a suite that the server lacks", library(func(*tls.Config) {}), offer(&pb.TLSOffer{CipherSuites: []string{"TLS_DHE_RSA_WITH_AES_128_CBC_SHA"}}),
				[]pb.Failure{pb.Failure_FAILURE_TLS_NO_SHARED_CIPHER},
				nil, "",
			},
			{
				"a version between those offered was not offered", byHand(probetest.FlightServer{Versions: []uint16{flight.TLS11}, Suites: []uint16{0x002f}}, cert), offer(&pb.TLSOffer{Versions: []string{"TLS 1.0", "TLS 1.2"}}),
				[]pb.Failure{pb.Failure_FAILURE_TLS_VERSION_UNSUPPORTED},
				nil, "TLS 1.1",
			},
			{
				"a certificate that is asked for is seen, and fails nothing", library(func(c *tls.Config) { c.ClientAuth = tls.RequireAnyClientCert }), offer(&pb.TLSOffer{Versions: []string{"TLS 1.2"}}),
				nil, func(ev *pb.TLSEvidence) bool { return ev.GetClientCertificateRequested() }, "",
			},
			{
				"TLS 1.3 with a group is the library's", library(func(*tls.Config) {}), offer(&pb.TLSOffer{Versions: []string{"TLS 1.3"}, Groups: []string{"secp521r1"}}),
				nil, func(ev *pb.TLSEvidence) bool {
					return ev.GetVersion() == "TLS 1.3" && ev.GetGroup() == "secp521r1" && !ev.GetNegotiationOnly()
				}, "",
			},
			{
				"a range that the library has", library(func(c *tls.Config) { c.MaxVersion = tls.VersionTLS12 }), offer(&pb.TLSOffer{Versions: []string{"TLS 1.3", "TLS 1.2"}}),
				nil, agreed("TLS 1.2", "TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256", false), "",
			},
			{
				"signature schemes beside TLS 1.3 are offered by hand", library(func(*tls.Config) {}), offer(&pb.TLSOffer{SignatureSchemes: []string{"rsa_pss_rsae_sha512"}}),
				nil, beginning("TLS 1.3", "TLS_AES_128_GCM_SHA256", "x25519"), "",
			},
			{
				"one that the server's key cannot make", library(func(*tls.Config) {}), offer(&pb.TLSOffer{SignatureSchemes: []string{"ed25519"}}),
				[]pb.Failure{pb.Failure_FAILURE_TLS_NO_SHARED_CIPHER},
				nil, "",
			},
			{
				"and so are its suites", library(func(*tls.Config) {}), offer(&pb.TLSOffer{CipherSuites: []string{"TLS_CHACHA20_POLY1305_SHA256"}}),
				nil, beginning("TLS 1.3", "TLS_CHACHA20_POLY1305_SHA256", "x25519"), "",
			},
			{
				"one that the server lacks", library(func(*tls.Config) {}), offer(&pb.TLSOffer{CipherSuites: []string{"TLS_AES_128_CCM_SHA256"}}),
				[]pb.Failure{pb.Failure_FAILURE_TLS_NO_SHARED_CIPHER},
				nil, "",
			},
			{
				"a group that the library lacks", byHand(probetest.FlightServer{Versions: []uint16{flight.TLS13}, Suites: []uint16{0x1301}, Groups: []uint16{30}}, cert),
				offer(&pb.TLSOffer{Versions: []string{"TLS 1.3"}, Groups: []string{"x448", "secp256r1"}}), nil, beginning("TLS 1.3", "TLS_AES_128_GCM_SHA256", "x448"), "",
			},
			{
				"versions with a gap, of which the server has the lower one", library(func(c *tls.Config) { c.MaxVersion = tls.VersionTLS11 }), offer(&pb.TLSOffer{Versions: []string{"SSL 3.0", "TLS 1.1", "TLS 1.3"}}),
				nil, agreed("TLS 1.1", "TLS_ECDHE_RSA_WITH_AES_128_CBC_SHA", true), "",
			},
			{"a server that chooses the suite that was not offered", func(at netip.AddrPort) (*probetest.Host, error) {
				return probetest.ListenFunc(at, func(c net.Conn) {
					_, _ = c.Read(make([]byte, 8192))
					_, _ = c.Write(everySuite.Answer(helloOf(flight.TLS12, 0x002f)))
				})
			}, offer(&pb.TLSOffer{CipherSuites: []string{"0xC028"}}), []pb.Failure{pb.Failure_FAILURE_TLS_MALFORMED}, nil, "TLS_RSA_WITH_AES_128_CBC_SHA"},
			{"a name that nobody knows", library(func(*tls.Config) {}), offer(&pb.TLSOffer{CipherSuites: []string{"TLS_MADE_UP"}}), missing, nil, "TLS_MADE_UP"},
		}
	})
}

// TestWhatAHandshakeShows: the evidence of a handshake that the library completes.
func TestWhatAHandshakeShows(t *testing.T) {
	t.Parallel()
	shakeAll(t, probetest.Leaf{Names: []string{"www.example"}}, func(cert tls.Certificate) []shaken {
		serve := func(change func(*tls.Config)) func(netip.AddrPort) (*probetest.Host, error) {
			c := serverConfig(cert)
			change(c)
			return func(at netip.AddrPort) (*probetest.Host, error) { return probetest.ListenTLS(at, c) }
		}
		mute := func(c *tls.Config) {
			c.GetConfigForClient = func(i *tls.ClientHelloInfo) (*tls.Config, error) {
				if i.ServerName != "" {
					return nil, net.ErrClosed // An alert.
				}
				return nil, nil
			}
		}
		return []shaken{
			{"TLS 1.3", serve(func(*tls.Config) {}), nil, nil, func(ev *pb.TLSEvidence) bool {
				return ev.GetGroup() == "X25519MLKEM768" && ev.GetSignatureScheme() == "ecdsa_secp256r1_sha256" && ev.GetHelloSize() > 1200 &&
					ev.GetServed() == 2 && !ev.GetClientCertificateRequested() && !ev.GetNegotiationOnly()
			}, ""},
			{"TLS 1.2", serve(func(c *tls.Config) { c.MaxVersion, c.ClientAuth = tls.VersionTLS12, tls.RequestClientCert }), nil, nil, func(ev *pb.TLSEvidence) bool {
				return ev.GetGroup() == "x25519" && ev.GetSignatureScheme() == "ecdsa_secp256r1_sha256" && ev.GetClientCertificateRequested()
			}, ""},
			{"no server_name, and the certificate is compared all the same", serve(mute), &pb.TLSSpec{NoServerName: true}, nil, func(ev *pb.TLSEvidence) bool {
				return ev.GetServerName() == "" && ev.GetVersion() == "TLS 1.3"
			}, ""},
			{"protocols that the spec names", serve(func(c *tls.Config) { c.NextProtos = []string{"dot"} }), &pb.TLSSpec{Alpn: []string{"doq", "dot"}}, nil, func(ev *pb.TLSEvidence) bool { return ev.GetAlpn() == "dot" }, ""},
			{
				"protocols that the spec names and the server lacks", serve(func(c *tls.Config) { c.NextProtos = []string{"h2"} }), &pb.TLSSpec{Alpn: []string{"dot"}},
				[]pb.Failure{pb.Failure_FAILURE_TLS_ALERT},
				func(ev *pb.TLSEvidence) bool { return ev.GetAlert().GetName() == "no_application_protocol" }, "",
			},
		}
	})
}

// TestAPageBehindWhatTheLibraryLacks: the agent cannot fetch it, and does not say that the target is at fault.
func TestAPageBehindWhatTheLibraryLacks(t *testing.T) {
	t.Parallel()
	cert, roots := issue(t, probetest.CAOptions{}, probetest.Leaf{Names: []string{"127.0.0.2"}, RSABits: 2048}, true)
	host := must[*probetest.Host](t)(byHand(probetest.FlightServer{Suites: []uint16{0xc028}}, cert)(at("127.0.0.2")))
	env := newEnv(t, nil)
	env.Roots = roots
	r := run(t, env, httpSpec(&pb.HTTPSpec{Url: "https://" + host.Addr().String() + "/"}))
	if s := one(t, r, pb.StepKind_STEP_KIND_TLS_HANDSHAKE); s.GetFailure() != pb.Failure_FAILURE_NONE || !s.GetEvidence().GetTls().GetNegotiationOnly() {
		t.Errorf("the handshake: %v", s)
	}
	if s := one(t, r, pb.StepKind_STEP_KIND_HTTP_EXCHANGE); s.GetFailure() != pb.Failure_FAILURE_AGENT_CAPABILITY_MISSING || s.GetAttempts() != 0 {
		t.Errorf("the exchange: %v", s)
	}
}

// TestAlertsAboutACertificate: what servers say to a client that has none, of the programs that were seen to.
func TestAlertsAboutACertificate(t *testing.T) {
	t.Parallel()
	for who, code := range map[string]uint8{"OpenSSL": 40, "NSS and crypto/tls": 42, "GnuTLS": 50} {
		err := &flight.AlertError{Fatal: true, Code: code}
		if f, _ := handshakeFailure(t.Context(), err, said{certAsked: true}); f != pb.Failure_FAILURE_TLS_CLIENT_CERT_REQUIRED {
			t.Errorf("%s, with alert %d: %s", who, code, Short(f))
		}
		if f, _ := handshakeFailure(t.Context(), err, said{}); f == pb.Failure_FAILURE_TLS_CLIENT_CERT_REQUIRED {
			t.Errorf("alert %d of a server that asked for none: %s", code, Short(f))
		}
	}
}

// TestEveryAlert: each alert is named and numbered, whoever reads it, and most have no failure of their own.
func TestEveryAlert(t *testing.T) {
	t.Parallel()
	own := map[uint8]pb.Failure{
		0:   pb.Failure_FAILURE_TLS_CLOSED,
		40:  pb.Failure_FAILURE_TLS_NO_SHARED_CIPHER,
		70:  pb.Failure_FAILURE_TLS_VERSION_UNSUPPORTED,
		71:  pb.Failure_FAILURE_TLS_NO_SHARED_CIPHER,
		112: pb.Failure_FAILURE_TLS_UNRECOGNIZED_NAME,
		116: pb.Failure_FAILURE_TLS_CLIENT_CERT_REQUIRED,
	}
	for code := range 256 {
		want := pb.Failure_FAILURE_TLS_ALERT
		if f, ok := own[uint8(code)]; ok {
			want = f
		}
		record := "\x15\x03\x03\x00\x02\x02" + string([]byte{byte(code)})
		_, byHand := flight.Read(strings.NewReader(record))
		client, server := net.Pipe()
		go func() {
			_, _ = server.Read(make([]byte, 8192))
			_, _ = server.Write([]byte(record))
		}()
		byLibrary := tls.Client(client, &tls.Config{ServerName: "www.example"}).HandshakeContext(t.Context())
		_, _ = client.Close(), server.Close()
		for who, err := range map[string]error{"by hand": byHand, "crypto/tls": byLibrary} {
			f, alert := handshakeFailure(t.Context(), err, said{first: []byte(record)})
			named := alert.GetCode() == uint32(code) && alert.GetName() == flight.AlertName(uint8(code))
			if f != want || !named && code != 0 { // crypto/tls takes a fatal close_notify for an end.
				t.Errorf("alert %d, %s: %s with %v, want %s: %v", code, who, Short(f), alert, Short(want), err)
			}
		}
	}
}
