package flight_test

import (
	"bytes"
	"crypto/tls"
	"io"
	"net"
	"net/netip"
	"os/exec"
	"reflect"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/elsewhere-net/elsewhere/pkg/probe/flight"
	"github.com/elsewhere-net/elsewhere/pkg/probe/probetest"
)

// FuzzFlight: whatever comes, the parser ends, keeps its bounds, and reads the same however the bytes of
// a handshake are cut into records.
func FuzzFlight(f *testing.F) {
	// Small seeds: the fuzzer spends its time on making large ones smaller.
	cert := issue(f, probetest.Leaf{Serve: probetest.LeafOnly})
	modern := host(f)(probetest.ListenTLS(anywhere, &tls.Config{Certificates: []tls.Certificate{cert}, ClientAuth: tls.RequestClientCert}))
	f.Add(capture(f, modern))
	if _, err := exec.LookPath("openssl"); err == nil {
		f.Add(capture(f, openssl(f, []string{"-cipher", "DHE-RSA-AES128-SHA@SECLEVEL=0", "-tls1"})))
	}
	f.Add(capture(f, host(f)(probetest.ListenFlight(anywhere, probetest.FlightServer{
		Versions: []uint16{flight.SSL30}, Suites: []uint16{4}, Certificates: cert.Certificate, Warning: 112, RecordSize: 100,
	}))))
	f.Add([]byte("HTTP/1.1 400 Bad Request\r\n"))
	f.Fuzz(func(t *testing.T, in []byte) {
		got, err := flight.Read(bytes.NewReader(in))
		if got.Done != (err == nil) || len(got.Certificates) > 500 || len(got.Alerts) > 16 || got.Records > 4097 {
			t.Fatalf("%v: %+v", err, got)
		}
		var payload []byte
		for rest := in; len(rest) > 5 && rest[0] == 22 && rest[1] == 3; {
			n := min(int(rest[3])<<8|int(rest[4]), len(rest)-5)
			payload, rest = append(payload, rest[5:5+n]...), rest[5+n:]
		}
		if len(payload) == 0 || len(payload) > 1000 {
			return
		}
		whole, err1 := flight.Read(bytes.NewReader([]byte(rec(string(payload)))))
		var parts []byte
		for _, b := range payload {
			parts = append(parts, rec(string([]byte{b}))...)
		}
		cut, err2 := flight.Read(bytes.NewReader(parts))
		cut.Records, cut.Bytes = whole.Records, whole.Bytes
		if !reflect.DeepEqual(whole, cut) || (err1 == nil) != (err2 == nil) {
			t.Fatalf("cut into single bytes it reads otherwise: %v, %v\n%s", err1, err2, cmp.Diff(whole, cut))
		}
	})
}

// capture returns the flight of a real server, byte by byte.
func capture(f *testing.F, addr netip.AddrPort) []byte {
	f.Helper()
	h := everything(flight.TLS12)
	hello, err := h.Marshal()
	if err != nil {
		f.Fatal(err)
	}
	conn, err := net.Dial("tcp", addr.String())
	if err != nil {
		f.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	if _, err := conn.Write(hello); err != nil {
		f.Fatal(err)
	}
	var seen bytes.Buffer
	if _, err := flight.Read(io.TeeReader(conn, &seen)); err != nil {
		f.Fatal(err)
	}
	return seen.Bytes()
}
