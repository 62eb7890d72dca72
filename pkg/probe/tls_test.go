package probe

import (
	"crypto/tls"
	"crypto/x509"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/elsewhere-net/elsewhere/pkg/probe/probetest"
	pb "github.com/elsewhere-net/elsewhere/proto/elsewhere/v1"
)

func serverConfig(cert tls.Certificate) *tls.Config {
	return &tls.Config{Certificates: []tls.Certificate{cert}, MinVersion: tls.VersionTLS10} // Old servers are what it plays.
}

// issue makes a certificate and the roots that it is to be judged by.
func issue(t testing.TB, opts probetest.CAOptions, leaf probetest.Leaf, trusted bool) (tls.Certificate, []*x509.Certificate) {
	t.Helper()
	ca, err := probetest.NewCA("Example", opts)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := ca.Issue(leaf)
	if err != nil {
		t.Fatal(err)
	}
	if trusted {
		return cert, []*x509.Certificate{ca.Root}
	}
	return cert, nil
}

func TestCertificates(t *testing.T) {
	t.Parallel()
	names := []string{"www.example", "127.0.0.2"}
	ago, soon := time.Now().Add(-time.Hour), time.Now().Add(time.Hour)
	type failures = []pb.Failure
	for _, tt := range []struct {
		name    string
		opts    probetest.CAOptions
		leaf    probetest.Leaf
		trusted bool
		ask     string
		want    failures
	}{
		{"a good chain has no failures", probetest.CAOptions{}, probetest.Leaf{Names: names}, true, "www.example", nil},
		{"an address is compared with the iPAddresses", probetest.CAOptions{}, probetest.Leaf{Names: names}, true, "", nil},
		{"another address is a mismatch", probetest.CAOptions{}, probetest.Leaf{Names: names[:1]}, true, "", failures{pb.Failure_FAILURE_CERT_NAME_MISMATCH}},
		{"a wildcard covers one label", probetest.CAOptions{}, probetest.Leaf{Names: []string{"*.example"}}, true, "www.example", nil},
		{"a wildcard does not cover two", probetest.CAOptions{}, probetest.Leaf{Names: []string{"*.example"}}, true, "a.www.example", failures{pb.Failure_FAILURE_CERT_NAME_MISMATCH}},
		{"expired", probetest.CAOptions{}, probetest.Leaf{Names: names, NotAfter: ago}, true, "www.example", failures{pb.Failure_FAILURE_CERT_EXPIRED}},
		{"not yet valid", probetest.CAOptions{}, probetest.Leaf{Names: names, NotBefore: soon}, true, "www.example", failures{pb.Failure_FAILURE_CERT_NOT_YET_VALID}},
		{"self-signed", probetest.CAOptions{}, probetest.Leaf{Names: names, SelfSigned: true}, true, "www.example", failures{pb.Failure_FAILURE_CERT_SELF_SIGNED}},
		{"an unknown root, served", probetest.CAOptions{}, probetest.Leaf{Names: names, Serve: probetest.WithRoot}, false, "www.example", failures{pb.Failure_FAILURE_CERT_UNTRUSTED_ROOT}},
		{"an unknown root, not served", probetest.CAOptions{}, probetest.Leaf{Names: names}, false, "www.example", failures{pb.Failure_FAILURE_CERT_UNTRUSTED_ROOT}},
		{"a missing intermediate that the leaf points at", probetest.CAOptions{}, probetest.Leaf{Names: names, Serve: probetest.LeafOnly, AIA: "http://ca.example/i.der"}, true, "www.example", failures{pb.Failure_FAILURE_CERT_CHAIN_INCOMPLETE}},
		{"a missing intermediate that nothing points at cannot be told from an unknown root", probetest.CAOptions{}, probetest.Leaf{Names: names, Serve: probetest.LeafOnly}, true, "www.example", failures{pb.Failure_FAILURE_CERT_UNTRUSTED_ROOT}},
		{"the root before the intermediate is disorder", probetest.CAOptions{}, probetest.Leaf{Names: names, Serve: probetest.Reversed}, true, "www.example", failures{pb.Failure_FAILURE_CERT_CHAIN_ORDER}},
		{"the root at the end is harmless", probetest.CAOptions{}, probetest.Leaf{Names: names, Serve: probetest.WithRoot}, true, "www.example", nil},
		{"the leaf twice is harmless", probetest.CAOptions{}, probetest.Leaf{Names: names, Serve: probetest.TwiceLeaf}, true, "www.example", nil},
		{"an intermediate that is over", probetest.CAOptions{IntermediateNotAfter: ago}, probetest.Leaf{Names: names}, true, "www.example", failures{pb.Failure_FAILURE_CERT_INTERMEDIATE_EXPIRED}},
		{"a short key", probetest.CAOptions{}, probetest.Leaf{Names: names, RSABits: 1024}, true, "www.example", failures{pb.Failure_FAILURE_CERT_WEAK_KEY}},
		{"a weak signature is named, and not taken for an unknown root", probetest.CAOptions{Signature: x509.SHA1WithRSA}, probetest.Leaf{Names: names}, true, "www.example", failures{pb.Failure_FAILURE_CERT_WEAK_SIGNATURE}},
		{
			"all that is wrong is said at once",
			probetest.CAOptions{IntermediateNotAfter: ago},
			probetest.Leaf{Names: names, NotAfter: ago, RSABits: 1024},
			false, "other.example",
			failures{
				pb.Failure_FAILURE_CERT_EXPIRED, pb.Failure_FAILURE_CERT_NAME_MISMATCH, pb.Failure_FAILURE_CERT_UNTRUSTED_ROOT,
				pb.Failure_FAILURE_CERT_INTERMEDIATE_EXPIRED, pb.Failure_FAILURE_CERT_WEAK_KEY,
			},
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			cert, roots := issue(t, tt.opts, tt.leaf, tt.trusted)
			host := must[*probetest.Host](t)(probetest.ListenTLS(at("127.0.0.2"), serverConfig(cert)))
			env := newEnv(t, nil)
			env.Roots = roots
			r := run(t, env, tlsSpec("127.0.0.2", host.Addr().Port(), tt.ask))
			s := one(t, r, pb.StepKind_STEP_KIND_TLS_HANDSHAKE)
			if !slices.Equal(s.GetFailures(), tt.want) {
				t.Errorf("failures %v, want %v: %s", s.GetFailures(), tt.want, s.GetEvidence().GetText())
			}
			if s.GetAttempts() != 1 || s.GetName() != tt.ask || s.GetEvidence().GetTls().GetServerName() != tt.ask {
				t.Errorf("%d attempts, name %q: %v", s.GetAttempts(), s.GetName(), s.GetEvidence())
			}
			if got := len(s.GetEvidence().GetTls().GetChain()); got != len(cert.Certificate) {
				t.Errorf("%d certificates, want the %d served", got, len(cert.Certificate))
			}
		})
	}
}

func TestValidityIsJudgedByTheCoordinatorsTime(t *testing.T) {
	t.Parallel()
	cert, roots := issue(t, probetest.CAOptions{}, probetest.Leaf{Names: []string{"www.example"}}, true)
	host := must[*probetest.Host](t)(probetest.ListenTLS(at("127.0.0.2"), serverConfig(cert)))
	env := newEnv(t, nil)
	env.Roots = roots
	job := newJob(tlsSpec("127.0.0.2", host.Addr().Port(), "www.example"), 20*time.Second)
	later := time.Now().Add(48 * time.Hour)
	job.CoordinatorTime = timestamppb.New(later)
	s := one(t, Run(t.Context(), env, job), pb.StepKind_STEP_KIND_TLS_HANDSHAKE)
	if s.GetFailure() != pb.Failure_FAILURE_CERT_EXPIRED {
		t.Errorf("failures %v, want cert_expired by the coordinator's clock", s.GetFailures())
	}
	if judged := s.GetEvidence().GetTls().GetJudgedTime().AsTime(); judged.Before(later) || judged.After(later.Add(time.Minute)) {
		t.Errorf("judged at %v, want about %v", judged, later)
	}
}

func TestHandshakes(t *testing.T) {
	t.Parallel()
	cert, roots := issue(t, probetest.CAOptions{}, probetest.Leaf{Names: []string{"www.example"}}, true)
	old, oldRoots := issue(t, probetest.CAOptions{}, probetest.Leaf{Names: []string{"www.example"}, RSABits: 2048}, true)
	config := func(change func(*tls.Config)) func(netip.AddrPort) (*probetest.Host, error) {
		return func(at netip.AddrPort) (*probetest.Host, error) {
			c := serverConfig(cert)
			change(c)
			return probetest.ListenTLS(at, c)
		}
	}
	behave := func(b probetest.Behaviour) func(netip.AddrPort) (*probetest.Host, error) {
		return func(at netip.AddrPort) (*probetest.Host, error) { return probetest.Listen(at, b) }
	}
	say := func(answer string) func(netip.AddrPort) (*probetest.Host, error) {
		return func(at netip.AddrPort) (*probetest.Host, error) { return probetest.ListenSaying(at, []byte(answer)) }
	}
	all(t, func(tt handshakeCase) string { return tt.name }, []handshakeCase{
		{"TLS 1.0 is enough to shake hands", config(func(c *tls.Config) { c.MaxVersion = tls.VersionTLS10 }), pb.Failure_FAILURE_NONE, 0},
		{"so is a suite that nobody should use", config(func(c *tls.Config) {
			c.MaxVersion, c.Certificates = tls.VersionTLS12, []tls.Certificate{old}
			c.CipherSuites = []uint16{tls.TLS_RSA_WITH_RC4_128_SHA}
		}), pb.Failure_FAILURE_NONE, 0},
		{"a server that only listens times out", behave(probetest.Accept), pb.Failure_FAILURE_TLS_TIMEOUT, 0},
		{"a server that speaks SSH", behave(probetest.Banner), pb.Failure_FAILURE_TLS_NOT_TLS, 0},
		{"a server that speaks HTTP", say("HTTP/1.1 400 Bad Request\r\n\r\n"), pb.Failure_FAILURE_TLS_NOT_TLS, 0},
		{"an RST after the ClientHello", behave(probetest.Abort), pb.Failure_FAILURE_TLS_RESET, 0},
		{"a FIN after the ClientHello", behave(probetest.HangUp), pb.Failure_FAILURE_TLS_CLOSED, 0},
		{"no suite in common", config(func(c *tls.Config) {
			c.MaxVersion, c.CipherSuites = tls.VersionTLS12, []uint16{tls.TLS_RSA_WITH_AES_128_CBC_SHA} // Its key is ECDSA.
		}), pb.Failure_FAILURE_TLS_NO_SHARED_CIPHER, 40},
		{"no version in common", say("\x15\x03\x03\x00\x02\x02\x46"), pb.Failure_FAILURE_TLS_VERSION_UNSUPPORTED, 70},
		{"a version that nobody offered", say("\x16\x03\x00\x00\x2a\x02\x00\x00\x26\x03\x00" + strings.Repeat("r", 32) + "\x00\x00\x2f\x00"), pb.Failure_FAILURE_TLS_VERSION_UNSUPPORTED, 0},
		{"a name the server does not know", say("\x15\x03\x03\x00\x02\x02\x70"), pb.Failure_FAILURE_TLS_UNRECOGNIZED_NAME, 112},
		{"an alert that nobody has heard of", say("\x15\x03\x03\x00\x02\x02\xfe"), pb.Failure_FAILURE_TLS_ALERT, 254},
		{"a certificate that cannot be parsed", config(func(c *tls.Config) {
			c.Certificates[0].Certificate = append(slices.Clone(cert.Certificate), []byte("noise"))
		}), pb.Failure_FAILURE_CERT_MALFORMED, 0},
		{"a ServerHello of noise", say("\x16\x03\x03\x00\x06\x02\x00\x00\x02zz"), pb.Failure_FAILURE_TLS_MALFORMED, 0},
		{"no application protocol in common is no failure of TLS", config(func(c *tls.Config) { c.NextProtos = []string{"dot"} }), pb.Failure_FAILURE_NONE, 0},
		{"a client certificate is wanted, TLS 1.3", config(func(c *tls.Config) { c.ClientAuth = tls.RequireAnyClientCert }), pb.Failure_FAILURE_TLS_CLIENT_CERT_REQUIRED, 116},
		{"a client certificate is wanted, TLS 1.2", config(func(c *tls.Config) {
			c.ClientAuth, c.MaxVersion = tls.RequireAnyClientCert, tls.VersionTLS12
		}), pb.Failure_FAILURE_TLS_CLIENT_CERT_REQUIRED, 40},
		{"a client certificate is only welcome", config(func(c *tls.Config) { c.ClientAuth = tls.RequestClientCert }), pb.Failure_FAILURE_NONE, 0},
	}, func(t *testing.T, tt handshakeCase) func(*testing.T) {
		host := must[*probetest.Host](t)(tt.listen(at("127.0.0.2")))
		env := newEnv(t, nil)
		env.Roots, env.patience = slices.Concat(roots, oldRoots), 3*time.Second
		r := run(t, env, tlsSpec("127.0.0.2", host.Addr().Port(), "www.example"))
		return func(t *testing.T) {
			s := one(t, r, pb.StepKind_STEP_KIND_TLS_HANDSHAKE)
			if s.GetFailure() != tt.want || s.GetEvidence().GetTls().GetAlert().GetCode() != tt.alert {
				t.Errorf("failure %s, want %s: %v", Short(s.GetFailure()), Short(tt.want), s.GetEvidence())
			}
			want := int32(2)
			switch {
			case tt.want == pb.Failure_FAILURE_NONE:
				want = s.GetAttempts()
			case tt.want == pb.Failure_FAILURE_CERT_MALFORMED: // The second one by hand.
			case tt.name == "a version that nobody offered":
				want = 3 // One more by hand, which offers all.
			case canLook(tt.want):
				want = 5 // And one each with TLS 1.3 and SSL 3.0.
			}
			if s.GetAttempts() != want {
				t.Errorf("%d attempts, want %d", s.GetAttempts(), want)
			}
			if s.GetAttempts() >= 2 && !isCertificate(tt.want) {
				checkControls(t, r, pb.Failure_FAILURE_TLS_ALERT)
			} else {
				checkControls(t, r, pb.Failure_FAILURE_NONE)
			}
		}
	})
}

// handshakeCase is a server and how a handshake with it ends.
type handshakeCase struct {
	name   string
	listen func(netip.AddrPort) (*probetest.Host, error)
	want   pb.Failure
	alert  uint32
}

func TestNoServerNameForAnAddress(t *testing.T) {
	t.Parallel()
	cert, roots := issue(t, probetest.CAOptions{}, probetest.Leaf{Names: []string{"127.0.0.2"}}, true)
	got := make(chan string, 2)
	config := serverConfig(cert)
	config.GetConfigForClient = func(hello *tls.ClientHelloInfo) (*tls.Config, error) {
		got <- hello.ServerName
		return nil, nil
	}
	host := must[*probetest.Host](t)(probetest.ListenTLS(at("127.0.0.2"), config))
	env := newEnv(t, nil)
	env.Roots = roots
	r := run(t, env, tlsSpec("127.0.0.2", host.Addr().Port(), ""))
	if name := <-got; name != "" {
		t.Errorf("server_name %q was sent for an address", name)
	}
	if s := one(t, r, pb.StepKind_STEP_KIND_TLS_HANDSHAKE); s.GetFailure() != pb.Failure_FAILURE_NONE {
		t.Errorf("handshake: %v", s)
	}
}
