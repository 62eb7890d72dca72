package probe

import (
	"crypto/tls"
	"fmt"
	"net/netip"
	"testing"
	"time"

	"github.com/elsewhere-net/elsewhere/pkg/probe/flight"
	"github.com/elsewhere-net/elsewhere/pkg/probe/probetest"
	pb "github.com/elsewhere-net/elsewhere/proto/elsewhere/v1"
)

// someCDN is a profile like that of a CDN with old tastes: no TLS 1.3, no ChaCha20, and SSL 3.0 alone once that
// is asked for.
func someCDN() *pb.Profile {
	return &pb.Profile{
		Name:     "cdn",
		Versions: []string{"SSL 3.0", "TLS 1.0", "TLS 1.1", "TLS 1.2"}, DefaultVersions: []string{"TLS 1.0", "TLS 1.1", "TLS 1.2"},
		Ssl3ExcludesOthers: true,
		CipherSuites: []string{
			"TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384", "0xC024", "TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256",
			"TLS_ECDHE_RSA_WITH_AES_256_CBC_SHA384", "TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256", "TLS_RSA_WITH_AES_128_CBC_SHA",
			"TLS_RSA_WITH_3DES_EDE_CBC_SHA", "TLS_RSA_WITH_RC4_128_MD5",
		},
		Groups:           []string{"secp256r1", "secp384r1", "x25519"},
		SignatureSchemes: []string{"rsa_pkcs1_sha256", "ecdsa_secp256r1_sha256"},
		Names:            []pb.NameSource{pb.NameSource_NAME_SOURCE_ORIGIN, pb.NameSource_NAME_SOURCE_HOST},
		ServerName:       pb.NameSource_NAME_SOURCE_HOST,
		UserAgent:        "A CDN",
	}
}

func originSpec(o *pb.OriginSpec) *pb.Spec {
	if o.GetProfile() == nil {
		o.Profile = someCDN()
	}
	return &pb.Spec{Check: &pb.Spec_Origin{Origin: o}}
}

// met are the handshakes beside the target's, by variant.
func met(t testing.TB, r *pb.Result) map[pb.Variant]*pb.Step {
	t.Helper()
	out := map[pb.Variant]*pb.Step{}
	for _, s := range steps(r, pb.StepKind_STEP_KIND_TLS_HANDSHAKE, pb.Role_ROLE_VARIANT) {
		if out[s.GetVariant()] != nil {
			t.Errorf("%v twice", s.GetVariant())
		}
		out[s.GetVariant()] = s
		if beside := r.GetSteps()[s.GetBeside()]; s.Beside == nil || beside.GetRole() != pb.Role_ROLE_TARGET || beside.GetKind() != s.GetKind() || beside.GetAddress() != s.GetAddress() {
			t.Errorf("%v stands beside %v", s.GetVariant(), beside)
		}
	}
	return out
}

// TestAHealthyOrigin: the agent comes as the CDN does, and says it in few handshakes.
func TestAHealthyOrigin(t *testing.T) {
	t.Parallel()
	cert, roots := issue(t, probetest.CAOptions{}, probetest.Leaf{Names: []string{"www.example", "origin.example"}, RSABits: 2048}, true)
	host := must[*probetest.Host](t)(probetest.ListenHTTP(at("127.0.0.2"), serverConfig(cert), ordinary))
	env := newEnv(t, probetest.Zone{"origin.example": {Records: []string{"origin.example. 60 IN A 127.0.0.2"}}})
	env.Roots, env.patience = roots, 3*time.Second
	url := fmt.Sprintf("https://origin.example:%d/echo", host.Addr().Port())
	for _, tt := range []struct {
		name     string
		spec     *pb.OriginSpec
		sent     string
		decides  string
		others   map[pb.Variant]string // The server_name of each.
		expected string
	}{
		{
			"the origin's own name", &pb.OriginSpec{Url: url}, "origin.example", "origin.example",
			map[pb.Variant]string{pb.Variant_VARIANT_PROFILE_OFFER: "origin.example", pb.Variant_VARIANT_NO_NAME: ""},
			fmt.Sprintf("GET /echo origin.example:%d User-Agent: A CDN ", host.Addr().Port()),
		},
		{
			"the Host that is forwarded", &pb.OriginSpec{Url: url, HostHeader: "www.example"}, "www.example", "origin.example",
			map[pb.Variant]string{pb.Variant_VARIANT_PROFILE_OFFER: "www.example", pb.Variant_VARIANT_NO_NAME: "", pb.Variant_VARIANT_ORIGIN_NAME: "origin.example"},
			"GET /echo www.example User-Agent: A CDN ",
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			r := run(t, env, originSpec(tt.spec))
			s := one(t, r, pb.StepKind_STEP_KIND_TLS_HANDSHAKE)
			ev := s.GetEvidence().GetTls()
			if s.GetFailure() != pb.Failure_FAILURE_NONE || ev.GetServerName() != tt.sent || ev.GetNames()[0].GetName() != tt.decides {
				t.Errorf("the handshake: %v", s)
			}
			x := one(t, r, pb.StepKind_STEP_KIND_HTTP_EXCHANGE)
			if h := x.GetEvidence().GetHttp(); x.GetFailure() != pb.Failure_FAILURE_NONE || h.GetVersion() != "HTTP/1.1" || len(h.GetBodyExcerpt()) < len(tt.expected) || h.GetBodyExcerpt()[:len(tt.expected)] != tt.expected {
				t.Errorf("the exchange: %v", x)
			}
			variants := met(t, r)
			for v, name := range tt.others {
				got := variants[v]
				if got.GetFailure() != pb.Failure_FAILURE_NONE || got.GetName() != name || got.GetEvidence().GetTls().GetServerName() != name {
					t.Errorf("%v: %v", v, got)
				}
			}
			offer := variants[pb.Variant_VARIANT_PROFILE_OFFER].GetEvidence().GetTls()
			if len(ev.GetChain()) != 2 || len(offer.GetChain()) != 1 || offer.GetServed() != 2 || offer.GetChain()[0].GetSha256() != ev.GetChain()[0].GetSha256() {
				t.Errorf("the same chain need not be shown twice: %v", offer)
			}
			if offer.GetVersion() != "TLS 1.2" || offer.GetCipherSuite() != "TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256" || offer.GetSignatureScheme() != "rsa_pkcs1_sha256" {
				t.Errorf("the CDN's offer: %v", offer)
			}
			if n := len(tt.others); len(variants) != n || len(r.GetSteps()) != n+5 {
				t.Errorf("%d variants, want %d, in %d steps: %v", len(variants), n, len(r.GetSteps()), r)
			}
		})
	}
}

// limited is a web server that speaks TLS as the config says.
func limited(cert tls.Certificate, limit func(*tls.Config)) func(netip.AddrPort) (*probetest.Host, error) {
	config := serverConfig(cert)
	config.NextProtos = []string{"http/1.1"}
	limit(config)
	return func(at netip.AddrPort) (*probetest.Host, error) { return probetest.ListenHTTP(at, config, ordinary) }
}

// TestOffersOfTheClient: what the agent's library cannot do and the CDN can is seen all the same; and what the
// CDN cannot do is told with what the server has.
func TestOffersOfTheClient(t *testing.T) {
	t.Parallel()
	const (
		fine     = pb.Failure_FAILURE_NONE
		version  = pb.Failure_FAILURE_TLS_VERSION_UNSUPPORTED
		cipher   = pb.Failure_FAILURE_TLS_NO_SHARED_CIPHER
		wanted   = pb.Failure_FAILURE_TLS_CLIENT_CERT_REQUIRED
		missing  = pb.Failure_FAILURE_AGENT_CAPABILITY_MISSING
		nowhere  = pb.Failure_FAILURE_UNSPECIFIED // There is no such step.
		rc4      = "TLS_RSA_WITH_RC4_128_MD5"
		tripled  = "TLS_RSA_WITH_3DES_EDE_CBC_SHA"
		ordinary = "TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256"
	)
	type offered struct {
		name     string
		listen   func(netip.AddrPort) (*probetest.Host, error)
		versions []string
		want     pb.Failure // Of the CDN's offer.
		suite    string     // That it agrees on.
		own      pb.Failure // Of the agent's handshake.
		exchange pb.Failure
		has      string // The only version that the enumeration finds; empty: there is none.
	}
	cert, roots := issue(t, probetest.CAOptions{}, probetest.Leaf{Names: []string{"origin.example"}, RSABits: 2048}, true)
	curved, more := issue(t, probetest.CAOptions{}, probetest.Leaf{Names: []string{"origin.example"}}, true)
	roots = append(roots, more...)
	ssl3 := probetest.FlightServer{Versions: []uint16{flight.SSL30}, Suites: []uint16{0x000a}}
	suite := func(id uint16) func(*tls.Config) {
		return func(c *tls.Config) { c.MaxVersion, c.CipherSuites = tls.VersionTLS12, []uint16{id} }
	}
	all(t, func(tt offered) string { return tt.name }, []offered{
		{"SSL 3.0 alone, which is asked for", byHand(ssl3, cert), []string{"SSL 3.0"}, fine, tripled, version, missing, ""},
		{"SSL 3.0 alone, which is not asked for", byHand(ssl3, cert), nil, version, "", version, nowhere, "SSL 3.0"},
		{"with SSL 3.0 nothing else is offered", limited(cert, suite(0xc02f)), []string{"SSL 3.0", "TLS 1.2"}, version, "", fine, fine, "TLS 1.2"},
		{"RC4 with MD5, which no library has", byHand(probetest.FlightServer{Suites: []uint16{0x0004}}, cert), nil, fine, rc4, fine, missing, ""},
		{"3DES", limited(cert, suite(0x000a)), nil, fine, tripled, fine, fine, ""},
		{
			"0xC028, which the agent's library lacks", byHand(probetest.FlightServer{Suites: []uint16{0xc028}}, cert), nil,
			fine, "TLS_ECDHE_RSA_WITH_AES_256_CBC_SHA384", fine, missing, "",
		},
		{
			"0xC024, which it lacks too", byHand(probetest.FlightServer{Suites: []uint16{0xc024}}, curved), nil,
			fine, "TLS_ECDHE_ECDSA_WITH_AES_256_CBC_SHA384", fine, missing, "",
		},
		{"ChaCha20 alone", limited(cert, suite(0xcca8)), nil, cipher, "", fine, fine, "TLS 1.2"},
		{"TLS 1.3 alone", limited(cert, func(c *tls.Config) { c.MinVersion = tls.VersionTLS13 }), nil, version, "", fine, fine, "TLS 1.3"},
		{"a certificate is asked for", limited(cert, func(c *tls.Config) {
			suite(0xc02f)(c)
			c.ClientAuth = tls.RequestClientCert
		}), nil, fine, ordinary, fine, fine, ""},
		{"a certificate is needed", limited(cert, func(c *tls.Config) {
			suite(0xc02f)(c)
			c.ClientAuth = tls.RequireAnyClientCert
		}), nil, fine, ordinary, wanted, nowhere, ""},
	}, func(t *testing.T, tt offered) func(*testing.T) {
		host := must[*probetest.Host](t)(tt.listen(at("127.0.0.2")))
		env := newEnv(t, probetest.Zone{"origin.example": {Records: []string{"origin.example. 60 IN A 127.0.0.2"}}})
		env.Roots, env.patience = roots, 3*time.Second
		r := run(t, env, originSpec(&pb.OriginSpec{Url: fmt.Sprintf("https://origin.example:%d/", host.Addr().Port()), Versions: tt.versions}))
		return func(t *testing.T) {
			s := met(t, r)[pb.Variant_VARIANT_PROFILE_OFFER]
			ev := s.GetEvidence().GetTls()
			if s.GetFailure() != tt.want || tt.want == fine && ev.GetCipherSuite() != tt.suite {
				t.Errorf("the CDN's offer: %v", s)
			}
			asks := tt.suite == ordinary // Of the servers that are like that, these two.
			if tt.want == fine && (len(ev.GetChain()) == 0 || !ev.GetNames()[0].GetSan() || ev.GetClientCertificateRequested() != asks) {
				t.Errorf("what it shows of the server: %v", ev)
			}
			own := one(t, r, pb.StepKind_STEP_KIND_TLS_HANDSHAKE)
			if own.GetFailure() != tt.own || tt.own == fine && len(own.GetEvidence().GetTls().GetChain()) != 2 {
				t.Errorf("the agent's handshake: %v", own)
			}
			exchange := nowhere
			for _, x := range steps(r, pb.StepKind_STEP_KIND_HTTP_EXCHANGE, pb.Role_ROLE_TARGET) {
				exchange = x.GetFailure()
			}
			if exchange != tt.exchange {
				t.Errorf("the exchange ends as %s, want %s", Short(exchange), Short(tt.exchange))
			}
			found := steps(r, pb.StepKind_STEP_KIND_TLS_ENUMERATION, pb.Role_ROLE_VARIANT)
			if len(found) > 1 || (tt.has != "") != (len(found) == 1) {
				t.Fatalf("enumerations: %v", found)
			}
			for _, e := range found {
				for _, v := range e.GetEvidence().GetTls().GetVersions() {
					if v.GetSupported() != (v.GetVersion() == tt.has) {
						t.Errorf("%v", v)
					}
				}
			}
		}
	})
}
