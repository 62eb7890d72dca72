package probe

import (
	"fmt"
	"io"
	"net/netip"
	"os"
	"syscall"
	"testing"

	"github.com/miekg/dns"

	pb "github.com/elsewhere-net/elsewhere/proto/elsewhere/v1"
)

func TestConnectFailures(t *testing.T) {
	t.Parallel()
	icmp := func(typ, code int32, sender string) *pb.Evidence {
		return &pb.Evidence{LocalAddress: "10.0.0.1:40000", Icmp: &pb.ICMP{Type: typ, Code: code, Sender: sender}}
	}
	for _, tt := range []struct {
		why  string
		ev   *pb.Evidence
		err  error
		want pb.Failure
	}{
		{"the kernel's firewall forbids to send", nil, localError{syscall.EPERM}, pb.Failure_FAILURE_AGENT_NO_EGRESS},
		{"a prohibited route", nil, localError{syscall.EACCES}, pb.Failure_FAILURE_AGENT_NO_EGRESS},
		{"no route", nil, localError{syscall.ENETUNREACH}, pb.Failure_FAILURE_AGENT_NO_EGRESS},
		{"no descriptors", nil, localError{syscall.EMFILE}, pb.Failure_FAILURE_AGENT_OVERLOADED},
		{"no ports", nil, localError{syscall.EADDRNOTAVAIL}, pb.Failure_FAILURE_AGENT_OVERLOADED},
		{"what nobody has seen", nil, localError{syscall.EDOM}, pb.Failure_FAILURE_AGENT_INTERNAL},
		{"an RST", nil, syscall.ECONNREFUSED, pb.Failure_FAILURE_TCP_REFUSED},
		{"silence", nil, os.ErrDeadlineExceeded, pb.Failure_FAILURE_TCP_TIMEOUT},
		{"silence, by the kernel's patience", nil, syscall.ETIMEDOUT, pb.Failure_FAILURE_TCP_TIMEOUT},
		{"errno alone: net unreachable", nil, syscall.ENETUNREACH, pb.Failure_FAILURE_TCP_NET_UNREACHABLE},
		{"errno alone: host unreachable", nil, syscall.EHOSTUNREACH, pb.Failure_FAILURE_TCP_HOST_UNREACHABLE},
		{"ICMP decides, whatever errno says", icmp(3, 13, "192.0.2.1"), icmpError{syscall.EHOSTUNREACH}, pb.Failure_FAILURE_TCP_ADMIN_PROHIBITED},
		{"ICMP from the target", icmp(3, 3, "192.0.2.9"), icmpError{syscall.ECONNREFUSED}, pb.Failure_FAILURE_TCP_PORT_UNREACHABLE},
		{"ICMP: a loop", icmp(11, 0, "192.0.2.1"), icmpError{syscall.EHOSTUNREACH}, pb.Failure_FAILURE_TCP_HOST_UNREACHABLE},
		{"ICMP from the agent's own firewall", icmp(3, 13, "10.0.0.1"), icmpError{syscall.EHOSTUNREACH}, pb.Failure_FAILURE_AGENT_NO_EGRESS},
		{"ICMP from the agent itself: the next hop is dead", icmp(3, 1, "10.0.0.1"), icmpError{syscall.EHOSTUNREACH}, pb.Failure_FAILURE_TCP_HOST_UNREACHABLE},
		{"an RST after an ICMP error that changed nothing", icmp(3, 1, "192.0.2.1"), syscall.ECONNREFUSED, pb.Failure_FAILURE_TCP_REFUSED},
	} {
		addr := netip.MustParseAddrPort("192.0.2.9:443")
		if got := connectFailure(t.Context(), addr, tt.ev, fmt.Errorf("connect: %w", tt.err)); got != tt.want {
			t.Errorf("%s: %s, want %s", tt.why, Short(got), Short(tt.want))
		}
	}
}

func TestClosedConnections(t *testing.T) {
	t.Parallel()
	for err, want := range map[error]pb.Failure{
		io.EOF: pb.Failure_FAILURE_TLS_CLOSED, io.ErrUnexpectedEOF: pb.Failure_FAILURE_TLS_CLOSED,
		syscall.ECONNRESET: pb.Failure_FAILURE_TLS_RESET, syscall.EPIPE: pb.Failure_FAILURE_TLS_RESET,
	} {
		if got, _ := handshakeFailure(t.Context(), fmt.Errorf("read: %w", err), said{}); got != want {
			t.Errorf("%v: %s, want %s", err, Short(got), Short(want))
		}
	}
}

// TestWordsOfTheLibrary: the words of crypto/tls in Go 1.26 that no real server here can provoke;
// TestHandshakes provokes the others.
func TestWordsOfTheLibrary(t *testing.T) {
	t.Parallel()
	for words, want := range map[string]pb.Failure{
		"tls: failed to parse certificate from server: x509: malformed":                           pb.Failure_FAILURE_CERT_MALFORMED,
		"tls: server sent certificate containing RSA key larger than 8192 bits":                   pb.Failure_FAILURE_CERT_KEY_UNSUPPORTED,
		"tls: server's certificate contains an unsupported type of public key: *dsa.PublicKey":    pb.Failure_FAILURE_CERT_KEY_UNSUPPORTED,
		"tls: invalid signature by the server certificate: crypto/rsa: 512-bit keys are insecure": pb.Failure_FAILURE_CERT_WEAK_KEY,
		"tls: server selected unsupported protocol version 300":                                   pb.Failure_FAILURE_TLS_VERSION_UNSUPPORTED,
		"tls: server's Finished message was incorrect":                                            pb.Failure_FAILURE_TLS_MALFORMED,
	} {
		if got := handshakeText(words); got != want {
			t.Errorf("%s: %s, want %s", words, Short(got), Short(want))
		}
	}
}

// TestAuthorities: a server that has its zone, and fails at one name of it, is not lame.
func TestAuthorities(t *testing.T) {
	t.Parallel()
	record := func(text string) dns.RR { return parsed(t, text) }
	for _, tt := range []struct {
		why           string
		rcode         int
		authoritative bool
		answer        []dns.RR
		want          pb.Failure
	}{
		{"it refuses", dns.RcodeRefused, false, nil, pb.Failure_FAILURE_DNS_LAME},
		{"it fails, and claims nothing", dns.RcodeServerFailure, false, nil, pb.Failure_FAILURE_DNS_LAME},
		{"it fails at the name", dns.RcodeServerFailure, true, nil, pb.Failure_FAILURE_DNS_SERVFAIL},
		{"it answers from elsewhere", dns.RcodeSuccess, false, []dns.RR{record("www.example. 60 IN A 192.0.2.1")}, pb.Failure_FAILURE_DNS_LAME},
		{"its CNAMEs go round, which BIND calls a failure", dns.RcodeServerFailure, true, []dns.RR{
			record("www.example. 60 IN CNAME one.example."), record("one.example. 60 IN CNAME www.example."),
		}, pb.Failure_FAILURE_DNS_CNAME_LOOP},
	} {
		m := new(dns.Msg).SetQuestion("www.example.", dns.TypeA)
		m.Response, m.Rcode, m.Authoritative, m.Answer = true, tt.rcode, tt.authoritative, tt.answer
		if got := authorityFailure(m, dns.TypeA); got != tt.want {
			t.Errorf("%s: %s, want %s", tt.why, Short(got), Short(tt.want))
		}
	}
}
