package probetest_test

import (
	"errors"
	"io"
	"net"
	"net/netip"
	"os"
	"syscall"
	"testing"
	"time"

	"github.com/miekg/dns"
	"go.uber.org/goleak"

	"github.com/elsewhere-net/elsewhere/pkg/probe/probetest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func at(ip string) netip.AddrPort { return netip.AddrPortFrom(netip.MustParseAddr(ip), 0) }

// knock connects and reads once, as anybody would, to see a host with other eyes than the probe's.
func knock(t *testing.T, h *probetest.Host, patience time.Duration) error {
	t.Helper()
	conn, err := (&net.Dialer{Timeout: patience}).DialContext(t.Context(), "tcp", h.Addr().String())
	var ne net.Error
	if errors.As(err, &ne) && ne.Timeout() {
		return os.ErrDeadlineExceeded
	}
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close() }()
	if err := conn.SetDeadline(time.Now().Add(patience)); err != nil {
		t.Fatal(err)
	}
	_, err = conn.Read(make([]byte, 64))
	return err
}

func TestHosts(t *testing.T) {
	t.Parallel()
	listen := func(b probetest.Behaviour) func(netip.AddrPort) (*probetest.Host, error) {
		return func(at netip.AddrPort) (*probetest.Host, error) { return probetest.Listen(at, b) }
	}
	ips := []string{"127.0.0.2", "::1"}
	if l, err := net.Listen("tcp6", "[::1]:0"); err != nil {
		ips = ips[:1] // A machine without IPv6.
	} else {
		_ = l.Close()
	}
	for _, tt := range []struct {
		name   string
		listen func(netip.AddrPort) (*probetest.Host, error)
		want   error
	}{
		{"a host that accepts says nothing", listen(probetest.Accept), os.ErrDeadlineExceeded},
		{"a host with a banner greets", listen(probetest.Banner), nil},
		{"a host that resets", listen(probetest.Reset), syscall.ECONNRESET},
		{"a host that closes at once", listen(probetest.CloseAtOnce), io.EOF},
		{"a closed port refuses", probetest.ListenClosed, syscall.ECONNREFUSED},
		{"a full accept queue is silent", probetest.ListenFull, os.ErrDeadlineExceeded},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			patience := time.Minute
			if errors.Is(tt.want, os.ErrDeadlineExceeded) {
				patience = 500 * time.Millisecond
			}
			for _, ip := range ips {
				h, err := tt.listen(at(ip))
				if err != nil {
					t.Fatal(err)
				}
				if err := knock(t, h, patience); !errors.Is(err, tt.want) {
					t.Errorf("at %s: %v, want %v", h.Addr(), err, tt.want)
				}
				if err := h.Close(); err != nil {
					t.Error(err)
				}
			}
		})
	}
}

func TestDNSServer(t *testing.T) {
	t.Parallel()
	s, err := probetest.ServeDNS(at("127.0.0.1"), probetest.Zone{
		"www.example":  {Records: []string{"www.example. 60 IN CNAME edge.example."}},
		"edge.example": {Records: []string{"edge.example. 60 IN A 127.0.0.2"}},
		"cut.example":  {Records: []string{"cut.example. 60 IN A 127.0.0.2"}, Fault: probetest.Truncated},
	}, true)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = s.Close() }()
	ask := func(network, name string) *dns.Msg {
		reply, _, err := (&dns.Client{Net: network}).ExchangeContext(t.Context(), new(dns.Msg).SetQuestion(name, dns.TypeA), s.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		return reply
	}
	if r := ask("udp", "WWW.example."); len(r.Answer) != 2 || r.Rcode != dns.RcodeSuccess {
		t.Errorf("want a CNAME and where it leads: %v", r)
	}
	if r := ask("udp", "nowhere.example."); r.Rcode != dns.RcodeNameError {
		t.Errorf("want NXDOMAIN: %v", r)
	}
	if r := ask("udp", "cut.example."); !r.Truncated || len(r.Answer) > 0 {
		t.Errorf("want TC=1: %v", r)
	}
	if r := ask("tcp", "cut.example."); r.Truncated || len(r.Answer) != 1 {
		t.Errorf("want it all over TCP: %v", r)
	}
	s.Set("nowhere.example", probetest.Name{Records: []string{"nowhere.example. 1 IN A 127.0.0.3"}})
	if r := ask("udp", "nowhere.example."); len(r.Answer) != 1 || s.Asked("nowhere.example") != 2 {
		t.Errorf("want the new answer: %v", r)
	}
}
