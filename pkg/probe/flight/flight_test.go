package flight_test

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"io"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/elsewhere-net/elsewhere/pkg/probe/flight"
	"github.com/elsewhere-net/elsewhere/pkg/probe/probetest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func issue(t testing.TB, leaf probetest.Leaf) tls.Certificate {
	t.Helper()
	ca, err := probetest.NewCA("Example", probetest.CAOptions{})
	if err != nil {
		t.Fatal(err)
	}
	leaf.Names = []string{"www.example"}
	cert, err := ca.Issue(leaf)
	if err != nil {
		t.Fatal(err)
	}
	return cert
}

// everything offers all that there is up to a version.
func everything(version uint16) flight.Hello {
	return flight.Hello{
		Version: version, Suites: flight.Suites(version), Groups: flight.Groups(), Schemes: flight.Schemes(),
		ServerName: "www.example", Staple: true,
	}
}

// greet sends a hello to a server and reads its flight.
func greet(t testing.TB, addr netip.AddrPort, h flight.Hello) (*flight.Flight, error) {
	t.Helper()
	conn, err := net.DialTimeout("tcp", addr.String(), 5*time.Second)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	if err := conn.SetDeadline(time.Now().Add(10 * time.Second)); err != nil {
		t.Fatal(err)
	}
	hello, err := h.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := conn.Write(hello); err != nil {
		t.Fatal(err)
	}
	return flight.Read(conn)
}

// host closes a part of the little internet with the test.
func host(t testing.TB) func(*probetest.Host, error) netip.AddrPort {
	return func(h *probetest.Host, err error) netip.AddrPort {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = h.Close() })
		return h.Addr()
	}
}

var anywhere = netip.MustParseAddrPort("127.0.0.1:0")

// TestHello lets crypto/tls read what is sent.
func TestHello(t *testing.T) {
	t.Parallel()
	seen := make(chan *tls.ClientHelloInfo, 1)
	cert := issue(t, probetest.Leaf{})
	addr := host(t)(probetest.ListenTLS(anywhere, &tls.Config{
		MinVersion: tls.VersionTLS10, Certificates: []tls.Certificate{cert}, NextProtos: []string{"http/1.1"},
		GetConfigForClient: func(i *tls.ClientHelloInfo) (*tls.Config, error) { seen <- i; return nil, nil },
	}))
	h := everything(flight.TLS12)
	h.ALPN = []string{"h2", "http/1.1"}
	h.Extensions = []flight.Extension{{Type: 18}}
	f, err := greet(t, addr, h)
	if err != nil {
		t.Fatal(err)
	}
	got := <-seen
	if !slices.Equal(got.CipherSuites, h.Suites) || got.ServerName != h.ServerName || !slices.Equal(got.SupportedProtos, h.ALPN) ||
		len(got.SupportedCurves) != len(h.Groups) || len(got.SignatureSchemes) != len(h.Schemes) || !slices.Contains(got.Extensions, 18) {
		t.Errorf("the server read %+v", got)
	}
	if f.ALPN != "http/1.1" || !f.Renegotiation || !f.MasterSecret {
		t.Errorf("the flight says %+v", f)
	}
}

// TestHelloSize: a path that drops full-sized packets must let a small hello through.
func TestHelloSize(t *testing.T) {
	t.Parallel()
	small := flight.Hello{
		Version: flight.TLS12, Suites: flight.Suites(flight.TLS12)[:40], Groups: flight.Groups()[:4],
		Schemes: flight.Schemes()[:12], ServerName: strings.Repeat("a", 60) + ".example", ALPN: []string{"h2", "http/1.1"},
	}
	if hello, err := small.Marshal(); err != nil || len(hello) >= 512 {
		t.Errorf("%d bytes, %v", len(hello), err)
	}
	for name, h := range map[string]flight.Hello{
		"no suites":            {Version: flight.TLS12},
		"too many suites":      {Version: flight.TLS12, Suites: make([]uint16, 1<<15)},
		"too long a name":      {Version: flight.TLS12, Suites: []uint16{4}, ServerName: strings.Repeat("a", 256)},
		"too long a protocol":  {Version: flight.TLS12, Suites: []uint16{4}, ALPN: []string{strings.Repeat("a", 256)}},
		"more than one record": {Version: flight.TLS12, Suites: make([]uint16, 9000)},
	} {
		if hello, err := h.Marshal(); err == nil {
			t.Errorf("%s: %d bytes and no error", name, len(hello))
		}
	}
}

// TestNegotiation shakes hands with crypto/tls, which picks from what it has.
func TestNegotiation(t *testing.T) {
	t.Parallel()
	ecdsa, rsa := issue(t, probetest.Leaf{}), issue(t, probetest.Leaf{RSABits: 2048})
	for _, tt := range []struct {
		name    string
		config  *tls.Config
		hello   flight.Hello
		version uint16
		suite   string
		group   string
		scheme  string
	}{
		{"TLS 1.2 names suite, curve and scheme", &tls.Config{Certificates: []tls.Certificate{ecdsa}}, everything(flight.TLS12), flight.TLS12, "TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256", "x25519", "ecdsa_secp256r1_sha256"},
		{"TLS 1.0 has no scheme", &tls.Config{Certificates: []tls.Certificate{ecdsa}, MaxVersion: tls.VersionTLS10}, everything(flight.TLS12), flight.TLS10, "TLS_ECDHE_ECDSA_WITH_AES_128_CBC_SHA", "x25519", ""},
		{"TLS 1.1 by the client's wish", &tls.Config{Certificates: []tls.Certificate{rsa}}, everything(flight.TLS11), flight.TLS11, "TLS_ECDHE_RSA_WITH_AES_128_CBC_SHA", "x25519", ""},
		{"static RSA has no curve", &tls.Config{Certificates: []tls.Certificate{rsa}, CipherSuites: []uint16{tls.TLS_RSA_WITH_3DES_EDE_CBC_SHA}}, everything(flight.TLS12), flight.TLS12, "TLS_RSA_WITH_3DES_EDE_CBC_SHA", "", ""},
		{"the client's groups are the server's choice", &tls.Config{Certificates: []tls.Certificate{rsa}}, flight.Hello{
			Version: flight.TLS12, Suites: flight.Suites(flight.TLS12), Groups: []uint16{24}, Schemes: []uint16{0x0501},
		}, flight.TLS12, "TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256", "secp384r1", "rsa_pkcs1_sha384"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			config := tt.config.Clone()
			config.MinVersion = tls.VersionTLS10
			config.ClientAuth = tls.RequestClientCert
			f, err := greet(t, host(t)(probetest.ListenTLS(anywhere, config)), tt.hello)
			if err != nil {
				t.Fatal(err)
			}
			group, scheme := "", ""
			if f.Group != 0 {
				group = flight.GroupName(f.Group)
			}
			if f.Scheme != 0 {
				scheme = flight.SchemeName(f.Scheme)
			}
			if f.Version != tt.version || flight.SuiteName(f.Suite) != tt.suite || group != tt.group || scheme != tt.scheme || !f.Done {
				t.Errorf("%s %s %q %q, want %s %s %q %q", flight.VersionName(f.Version), flight.SuiteName(f.Suite), group, scheme,
					flight.VersionName(tt.version), tt.suite, tt.group, tt.scheme)
			}
			if !slices.EqualFunc(f.Certificates, config.Certificates[0].Certificate, bytes.Equal) {
				t.Errorf("%d certificates, not those that were served", len(f.Certificates))
			}
			if f.Request == nil || len(f.Request.Types) == 0 {
				t.Errorf("the request for a certificate is %v", f.Request)
			}
		})
	}
}

// TestHandmadeServers: what no library speaks any more.
func TestHandmadeServers(t *testing.T) {
	t.Parallel()
	cert := issue(t, probetest.Leaf{RSABits: 2048}).Certificate
	for _, tt := range []struct {
		name   string
		server probetest.FlightServer
		hello  flight.Hello
		check  func(*flight.Flight) bool
	}{
		{"SSL 3.0 without extensions", probetest.FlightServer{Versions: []uint16{flight.SSL30}, Suites: []uint16{0x0005, 0x0004}}, everything(flight.SSL30), func(f *flight.Flight) bool {
			return f.Version == flight.SSL30 && f.Suite == 0x0005
		}},
		{"a server of SSL 3.0 answers a hello of TLS 1.2", probetest.FlightServer{Versions: []uint16{flight.SSL30}, Suites: []uint16{0x000a}}, everything(flight.TLS12), func(f *flight.Flight) bool {
			return f.Version == flight.SSL30 && f.Suite == 0x000a
		}},
		{"RC4 with MD5", probetest.FlightServer{Suites: []uint16{0x0004}}, everything(flight.TLS12), func(f *flight.Flight) bool { return f.Suite == 0x0004 && f.Version == flight.TLS12 }},
		{"DHE says how long its prime is", probetest.FlightServer{Suites: []uint16{0x0033}, PrimeBits: 512}, everything(flight.TLS12), func(f *flight.Flight) bool { return f.Bits == 512 && f.Scheme == 0x0401 }},
		{"an anonymous suite has no certificate", probetest.FlightServer{Suites: []uint16{0x0034}}, everything(flight.TLS12), func(f *flight.Flight) bool { return len(f.Certificates) == 0 && f.Done }},
		{"a stapled response", probetest.FlightServer{Suites: []uint16{0x002f}, Staple: []byte("staple")}, everything(flight.TLS12), func(f *flight.Flight) bool { return string(f.Staple) == "staple" }},
		{"a request for a certificate", probetest.FlightServer{Suites: []uint16{0x002f}, AskCertificate: true}, everything(flight.TLS12), func(f *flight.Flight) bool {
			return slices.Equal(f.Request.Schemes, []uint16{0x0401, 0x0403}) && f.Request.Count == 0
		}},
		{"a warning is kept, and the flight goes on", probetest.FlightServer{Suites: []uint16{0x002f}, Warning: 112}, everything(flight.TLS12), func(f *flight.Flight) bool {
			return slices.Equal(f.Alerts, []flight.AlertError{{Code: 112}})
		}},
		{"records of one byte", probetest.FlightServer{Suites: []uint16{0xc02f}, RecordSize: 1}, everything(flight.TLS12), func(f *flight.Flight) bool { return f.Records > 1000 && len(f.Certificates) == 2 }},
		{"TLS 1.3 ends with the ServerHello", probetest.FlightServer{Versions: []uint16{flight.TLS13}, Suites: []uint16{0x1302}}, flight.Hello{
			Version: flight.TLS13, Suites: flight.Suites(flight.TLS13), Groups: []uint16{29}, Schemes: flight.Schemes(), KeyShares: []flight.KeyShare{{Group: 29, Public: make([]byte, 32)}},
		}, func(f *flight.Flight) bool {
			return f.Version == flight.TLS13 && f.Suite == 0x1302 && !f.Retry && f.Group == 29
		}},
		{"TLS 1.3 asks for another group", probetest.FlightServer{Versions: []uint16{flight.TLS13}, Suites: []uint16{0x1301}, Groups: []uint16{24}}, flight.Hello{
			Version: flight.TLS13, Suites: flight.Suites(flight.TLS13), Groups: []uint16{29, 24}, Schemes: flight.Schemes(),
		}, func(f *flight.Flight) bool { return f.Retry && f.Group == 24 }},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			tt.server.Certificates = cert
			f, err := greet(t, host(t)(probetest.ListenFlight(anywhere, tt.server)), tt.hello)
			if err != nil || !f.Done || !tt.check(f) {
				t.Errorf("%v: %+v", err, f)
			}
			if f.Version < flight.TLS13 && len(f.Certificates) > 0 && !slices.EqualFunc(f.Certificates, cert, bytes.Equal) {
				t.Error("not the certificates that were served")
			}
		})
	}
}

// TestOpenSSL asks a server that is not ours for suites that crypto/tls lacks.
func TestOpenSSL(t *testing.T) {
	t.Parallel()
	if _, err := exec.LookPath("openssl"); err != nil {
		t.Skipf("needs openssl: %v", err)
	}
	for _, tt := range []struct {
		name    string
		args    []string
		version uint16
		suite   string
		group   string
		bits    int
	}{
		{"ECDHE with AES-256 and SHA-384 in CBC", []string{"-cipher", "ECDHE-RSA-AES256-SHA384", "-curves", "P-384"}, flight.TLS12, "TLS_ECDHE_RSA_WITH_AES_256_CBC_SHA384", "secp384r1", 0},
		{"DHE with its own prime", []string{"-cipher", "DHE-RSA-AES128-SHA@SECLEVEL=0", "-tls1"}, flight.TLS10, "TLS_DHE_RSA_WITH_AES_128_CBC_SHA", "", 2048},
		{"NULL, which encrypts nothing", []string{"-cipher", "NULL-SHA@SECLEVEL=0", "-tls1_1"}, flight.TLS11, "TLS_RSA_WITH_NULL_SHA", "", 0},
		{"Camellia", []string{"-cipher", "CAMELLIA256-SHA256", "-tls1_2"}, flight.TLS12, "TLS_RSA_WITH_CAMELLIA_256_CBC_SHA256", "", 0},
		{"an anonymous suite", []string{"-cipher", "AECDH-AES128-SHA@SECLEVEL=0", "-tls1_2"}, flight.TLS12, "TLS_ECDH_anon_WITH_AES_128_CBC_SHA", "x25519", 0},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			f, err := greet(t, openssl(t, tt.args), everything(flight.TLS12))
			if err != nil {
				t.Fatal(err)
			}
			if f.Version != tt.version || flight.SuiteName(f.Suite) != tt.suite || tt.group != "" && flight.GroupName(f.Group) != tt.group || f.Bits != tt.bits {
				t.Errorf("%s %s %s, %d bits, want %+v", flight.VersionName(f.Version), flight.SuiteName(f.Suite), flight.GroupName(f.Group), f.Bits, tt)
			}
			if f.Request == nil && !strings.Contains(tt.suite, "anon") {
				t.Error("the request for a certificate was not seen")
			}
		})
	}
}

// openssl runs a server that asks for a certificate of the client, and returns where.
func openssl(t testing.TB, args []string) netip.AddrPort {
	t.Helper()
	cert := issue(t, probetest.Leaf{RSABits: 2048})
	file := filepath.Join(t.TempDir(), "pem")
	key, err := x509.MarshalPKCS8PrivateKey(cert.PrivateKey)
	if err != nil {
		t.Fatal(err)
	}
	pair := append(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: cert.Certificate[0]}), pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: key})...)
	if err := os.WriteFile(file, pair, 0o600); err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	at := l.Addr().(*net.TCPAddr).AddrPort()
	_ = l.Close()
	cmd := exec.Command("openssl", append([]string{"s_server", "-accept", at.String(), "-cert", file, "-key", file, "-verify", "1"}, args...)...)
	in, err := cmd.StdinPipe() // Its end would end the server.
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = in.Close(); _ = cmd.Process.Kill(); _ = cmd.Wait() })
	said := make([]byte, 0, 4096)
	for !bytes.Contains(said, []byte("ACCEPT")) {
		n, err := out.Read(said[len(said):cap(said)])
		if err != nil {
			t.Fatalf("openssl: %v: %s", err, said)
		}
		said = said[:len(said)+n]
	}
	return at
}

// TestHostile: what is not a flight.
func TestHostile(t *testing.T) {
	t.Parallel()
	hello := "\x02\x00\x00\x26\x03\x03" + strings.Repeat("r", 32) + "\x00\x00\x2f\x00"
	var notTLS *flight.NotTLSError
	var alert *flight.AlertError
	for _, tt := range []struct {
		name, in string
		want     func(error) bool
	}{
		{"plain HTTP", "HTTP/1.1 400 Bad Request\r\n", func(err error) bool {
			return errors.As(err, &notTLS) && string(notTLS.First) == "HTTP/1.1 400 Bad Request\r\n"
		}},
		{"one byte that is not TLS", "S", func(err error) bool { return errors.As(err, &notTLS) }},
		{"nothing", "", is(io.EOF)},
		{"half a header", "\x16\x03", is(io.ErrUnexpectedEOF)},
		{"half a record", "\x16\x03\x03\x00\x10abc", is(io.ErrUnexpectedEOF)},
		{"half a message", rec(hello[:10]), is(io.ErrUnexpectedEOF)},
		{"half a flight", rec(hello), is(io.EOF)},
		{"a fatal alert", "\x15\x03\x03\x00\x02\x02\x28", func(err error) bool { return errors.As(err, &alert) && alert.Code == 40 && alert.Fatal }},
		{"a fatal alert behind a warning", "\x15\x03\x03\x00\x04\x01\x70\x02\x46", func(err error) bool { return errors.As(err, &alert) && alert.Code == 70 }},
		{"a close in order", "\x15\x03\x03\x00\x02\x01\x00", func(err error) bool { return errors.As(err, &alert) && alert.Code == 0 }},
		{"half an alert", "\x15\x03\x03\x00\x01\x02", is(flight.ErrMalformed)},
		{"warnings without end", strings.Repeat("\x15\x03\x03\x00\x02\x01\x70", 5000), is(flight.ErrTooMuch)},
		{"empty records without end", strings.Repeat("\x16\x03\x03\x00\x00", 5000), is(flight.ErrTooMuch)},
		{"a record that is too large", "\x16\x03\x03\xff\xff", is(flight.ErrMalformed)},
		{"a message of sixteen megabytes", rec("\x02\xff\xff\xff"), is(flight.ErrTooMuch)},
		{"certificates before the hello", rec("\x0b\x00\x00\x03\x00\x00\x00"), is(flight.ErrMalformed)},
		{"two hellos", rec(hello + hello), is(flight.ErrMalformed)},
		{"a hello of noise", rec("\x02\x00\x00\x02zz"), is(flight.ErrMalformed)},
		{"a certificate that claims too much", rec(hello + "\x0b\x00\x00\x06\x00\x00\x03\x00\x00\xff"), is(flight.ErrMalformed)},
		{"a client's message", rec(hello + "\x10\x00\x00\x00"), is(flight.ErrMalformed)},
		{"data", "\x17\x03\x03\x00\x01x", is(flight.ErrMalformed)},
		{"what is not TLS behind a record", rec(hello) + "HTTP/1.1", is(flight.ErrMalformed)},
	} {
		f, err := flight.Read(strings.NewReader(tt.in))
		if f == nil || f.Done || !tt.want(err) {
			t.Errorf("%s: %v, %+v", tt.name, err, f)
		}
	}
	many := rec(hello) // 4,000 certificates of one byte in a message of 16 KiB.
	list := strings.Repeat("\x00\x00\x01c", 4000)
	many += rec("\x0b"+u24(len(list)+3)+u24(len(list))+list[:16000-7]) + rec(list[16000-7:]) + rec("\x0e\x00\x00\x00")
	if f, err := flight.Read(strings.NewReader(many)); err != nil || len(f.Certificates) != 500 {
		t.Errorf("%v, %d certificates", err, len(f.Certificates))
	}
}

func is(want error) func(error) bool { return func(err error) bool { return errors.Is(err, want) } }

func rec(payload string) string {
	return "\x16\x03\x03" + string([]byte{byte(len(payload) >> 8), byte(len(payload))}) + payload
}

func u24(n int) string { return string([]byte{byte(n >> 16), byte(n >> 8), byte(n)}) }
