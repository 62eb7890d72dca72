package probe

import (
	"context"
	"crypto/tls"
	"net"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/testing/protocmp"

	"github.com/elsewhere-net/elsewhere/pkg/probe/flight"
	"github.com/elsewhere-net/elsewhere/pkg/probe/probetest"
	pb "github.com/elsewhere-net/elsewhere/proto/elsewhere/v1"
)

// enumerated asks a server that need not complete a handshake for all that it accepts, within some time.
func enumerated(t *testing.T, addr netip.AddrPort, within time.Duration) *pb.Step {
	t.Helper()
	tr := newTrace(newEnv(t, nil), newJob(tlsSpec("127.0.0.2", addr.Port(), "www.example"), within))
	ctx, cancel := context.WithTimeout(t.Context(), within)
	defer cancel()
	tr.enumerate(ctx, greeting{addr: addr, name: "www.example", aim: toTarget})
	r := tr.result()
	checkTame(t, r)
	return one(t, r, pb.StepKind_STEP_KIND_TLS_ENUMERATION)
}

// TestEnumeration: versions, suites and their order, and groups, with one handshake for each and few more.
func TestEnumeration(t *testing.T) {
	t.Parallel()
	cert, _ := issue(t, probetest.CAOptions{}, probetest.Leaf{Names: []string{"www.example"}, RSABits: 2048}, false)
	unsupported := pb.Failure_FAILURE_TLS_VERSION_UNSUPPORTED
	none := func(names ...string) (out []*pb.VersionSupport) {
		for _, n := range names {
			out = append(out, &pb.VersionSupport{Version: n, Failure: unsupported, Handshakes: 1})
		}
		return out
	}
	type server struct {
		name   string
		server probetest.FlightServer
		want   []*pb.VersionSupport
	}
	all(t, func(tt server) string { return tt.name }, []server{
		{"the server's order", probetest.FlightServer{Suites: []uint16{0xc028, 0x002f, 0xc02f}, Groups: []uint16{24, 29}}, slices.Concat(none("TLS 1.3"), []*pb.VersionSupport{{
			Version: "TLS 1.2", Supported: true, ServerPreference: true, Groups: []string{"secp384r1", "x25519"}, Handshakes: 4 + 1 + 3,
			CipherSuites: []string{"TLS_ECDHE_RSA_WITH_AES_256_CBC_SHA384", "TLS_RSA_WITH_AES_128_CBC_SHA", "TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256"},
		}}, none("TLS 1.1", "TLS 1.0", "SSL 3.0"))},
		{"the client's order, every old version", probetest.FlightServer{
			Versions: []uint16{flight.TLS11, flight.TLS10, flight.SSL30}, Suites: []uint16{0x0004, 0x000a}, ClientOrder: true,
		}, slices.Concat(none("TLS 1.3", "TLS 1.2"), []*pb.VersionSupport{
			{Version: "TLS 1.1", Supported: true, Handshakes: 4, CipherSuites: []string{"TLS_RSA_WITH_RC4_128_MD5", "TLS_RSA_WITH_3DES_EDE_CBC_SHA"}},
			{Version: "TLS 1.0", Supported: true, Handshakes: 4, CipherSuites: []string{"TLS_RSA_WITH_RC4_128_MD5", "TLS_RSA_WITH_3DES_EDE_CBC_SHA"}},
			{Version: "SSL 3.0", Supported: true, Handshakes: 4, CipherSuites: []string{"TLS_RSA_WITH_RC4_128_MD5", "TLS_RSA_WITH_3DES_EDE_CBC_SHA"}},
		})},
		{"TLS 1.3, whose groups it names when asked", probetest.FlightServer{
			Versions: []uint16{flight.TLS13}, Suites: []uint16{0x1302, 0x1301}, Groups: []uint16{29, 4588, 23},
		}, slices.Concat([]*pb.VersionSupport{{
			Version: "TLS 1.3", Supported: true, ServerPreference: true, Handshakes: 3 + 1 + 4,
			CipherSuites: []string{"TLS_AES_256_GCM_SHA384", "TLS_AES_128_GCM_SHA256"}, Groups: []string{"x25519", "X25519MLKEM768", "secp256r1"},
		}}, none("TLS 1.2", "TLS 1.1", "TLS 1.0", "SSL 3.0"))},
	}, func(t *testing.T, tt server) func(*testing.T) {
		tt.server.Certificates = cert.Certificate
		host := must[*probetest.Host](t)(probetest.ListenFlight(at("127.0.0.2"), tt.server))
		s := enumerated(t, host.Addr(), 25*time.Second)
		return func(t *testing.T) {
			if s.GetFailure() != pb.Failure_FAILURE_NONE || s.GetRole() != pb.Role_ROLE_TARGET {
				t.Errorf("%v", s)
			}
			if diff := cmp.Diff(tt.want, s.GetEvidence().GetTls().GetVersions(), protocmp.Transform()); diff != "" {
				t.Errorf("versions (-want +got):\n%s", diff)
			}
		}
	})
}

// TestEnumerationOfRealServers: what crypto/tls was told to accept is what is found.
func TestEnumerationOfRealServers(t *testing.T) {
	t.Parallel()
	cert, _ := issue(t, probetest.CAOptions{}, probetest.Leaf{Names: []string{"www.example"}, RSABits: 2048}, false)
	config := serverConfig(cert)
	config.CipherSuites = []uint16{tls.TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384, tls.TLS_ECDHE_RSA_WITH_AES_128_CBC_SHA, tls.TLS_RSA_WITH_3DES_EDE_CBC_SHA}
	host := must[*probetest.Host](t)(probetest.ListenTLS(at("127.0.0.2"), config))
	got := map[string]string{}
	spec := tlsSpec("127.0.0.2", host.Addr().Port(), "www.example")
	spec.GetTls().Enumerate = true
	r := run(t, newEnv(t, nil), spec)
	for _, v := range one(t, r, pb.StepKind_STEP_KIND_TLS_ENUMERATION).GetEvidence().GetTls().GetVersions() {
		suites := slices.Sorted(slices.Values(v.GetCipherSuites()))
		got[v.GetVersion()] = strings.Join(suites, " ")
		if v.GetVersion() >= "TLS 1.2" && !slices.Contains(v.GetGroups(), "secp256r1") {
			t.Errorf("groups %v", v.GetGroups())
		}
	}
	old := "TLS_ECDHE_RSA_WITH_AES_128_CBC_SHA TLS_RSA_WITH_3DES_EDE_CBC_SHA"
	want := map[string]string{
		"TLS 1.3": "TLS_AES_128_GCM_SHA256 TLS_AES_256_GCM_SHA384 TLS_CHACHA20_POLY1305_SHA256",
		"TLS 1.2": "TLS_ECDHE_RSA_WITH_AES_128_CBC_SHA TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384 TLS_RSA_WITH_3DES_EDE_CBC_SHA",
		"TLS 1.1": old, "TLS 1.0": old, "SSL 3.0": "",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("suites (-want +got):\n%s", diff)
	}
}

// TestEnumerationOfAFrailServer: one that dies of long lists gets short ones, and its order is found all the same.
func TestEnumerationOfAFrailServer(t *testing.T) {
	t.Parallel()
	cert, _ := issue(t, probetest.CAOptions{}, probetest.Leaf{Names: []string{"www.example"}, RSABits: 2048}, false)
	host := must[*probetest.Host](t)(probetest.ListenFlight(at("127.0.0.2"), probetest.FlightServer{
		Suites: []uint16{0x0004, 0xc02f, 0x002f}, MaxSuites: 64, Certificates: cert.Certificate,
	}))
	for _, v := range enumerated(t, host.Addr(), 25*time.Second).GetEvidence().GetTls().GetVersions() {
		want := []string{"TLS_RSA_WITH_RC4_128_MD5", "TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256", "TLS_RSA_WITH_AES_128_CBC_SHA"}
		if v.GetVersion() == "TLS 1.2" && (!slices.Equal(v.GetCipherSuites(), want) || !v.GetServerPreference()) {
			t.Errorf("%v", v)
		}
	}
}

// TestEnumerationHasBounds: a server that accepts everything, one that stops answering, and little time.
func TestEnumerationHasBounds(t *testing.T) {
	t.Parallel()
	cert, _ := issue(t, probetest.CAOptions{}, probetest.Leaf{Names: []string{"www.example"}}, false)
	everything := probetest.FlightServer{
		Versions: []uint16{flight.TLS12, flight.TLS11}, Suites: flight.Suites(flight.TLS12), Certificates: cert.Certificate,
	}
	host := must[*probetest.Host](t)(probetest.ListenFlight(at("127.0.0.2"), everything))
	began := time.Now()
	s := enumerated(t, host.Addr(), 4*time.Second)
	total := int32(0)
	for _, v := range s.GetEvidence().GetTls().GetVersions() {
		total += v.GetHandshakes()
	}
	took := time.Since(began)
	if took > 4*time.Second+slack || s.GetFailure() != pb.Failure_FAILURE_NONE || !strings.Contains(s.GetEvidence().GetText(), "not all") {
		t.Errorf("after %v: %s, %q", took, Short(s.GetFailure()), s.GetEvidence().GetText())
	}
	if most := handshakesPerSecond*int32(took/time.Second+1) + 2; total == 0 || total > most {
		t.Errorf("%d handshakes in %v, want some and at most %d", total, took, most)
	}
}

// TestNoEnumeration: where nobody speaks TLS there is nothing to find out.
func TestNoEnumeration(t *testing.T) {
	t.Parallel()
	host := must[*probetest.Host](t)(probetest.ListenFunc(at("127.0.0.2"), func(c net.Conn) { _, _ = c.Write([]byte("220 hello\r\n")) }))
	spec := tlsSpec("127.0.0.2", host.Addr().Port(), "www.example")
	spec.GetTls().Enumerate = true
	r := run(t, newEnv(t, nil), spec)
	if got := steps(r, pb.StepKind_STEP_KIND_TLS_ENUMERATION, pb.Role_ROLE_TARGET); len(got) != 0 {
		t.Errorf("%v", got)
	}
}

// TestEnumerationThatIsShutOut: a server that lets nobody in any more is not one that accepts nothing.
func TestEnumerationThatIsShutOut(t *testing.T) {
	t.Parallel()
	s := enumerated(t, must[*probetest.Host](t)(probetest.ListenClosed(at("127.0.0.2"))).Addr(), 10*time.Second)
	if s.GetFailure() != pb.Failure_FAILURE_TCP_REFUSED || len(s.GetEvidence().GetTls().GetVersions()) != 0 {
		t.Errorf("%v", s)
	}
}

// TestGroupsBesideAKey: a server with an ECDSA key needs the key's curve among the client's groups, and has
// others all the same.
func TestGroupsBesideAKey(t *testing.T) {
	t.Parallel()
	cert, _ := issue(t, probetest.CAOptions{}, probetest.Leaf{Names: []string{"www.example"}}, false)
	config := serverConfig(cert)
	config.MaxVersion = tls.VersionTLS12
	config.CurvePreferences = []tls.CurveID{tls.X25519, tls.CurveP256, tls.CurveP384}
	host := must[*probetest.Host](t)(probetest.ListenTLS(at("127.0.0.2"), config))
	for _, v := range enumerated(t, host.Addr(), 25*time.Second).GetEvidence().GetTls().GetVersions() {
		if want := []string{"x25519", "secp256r1", "secp384r1"}; v.GetVersion() == "TLS 1.2" && !slices.Equal(v.GetGroups(), want) {
			t.Errorf("groups %v, want %v", v.GetGroups(), want)
		}
	}
}
