package probe

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"sync"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/elsewhere-net/elsewhere/pkg/probe/probetest/space"
	pb "github.com/elsewhere-net/elsewhere/proto/elsewhere/v1"
)

// icmpWorld has a link to a router, which is this test: it answers a SYN to 198.18.T.C or 2001:db8:1::T:C
// with an ICMP error of that type and code.
const icmpWorld = `
sysctl -qw net.ipv4.conf.all.accept_redirects=0
ip link set lo up
ip addr add 192.0.2.1/24 dev icmp0
ip addr add 2001:db8::1/64 dev icmp0 nodad
ip link set icmp0 up
ip route add 198.18.0.0/15 dev icmp0
ip route add 2001:db8:1::/48 dev icmp0
`

// The router's addresses.
var router4, router6 = netip.MustParseAddr("192.0.2.99"), netip.MustParseAddr("2001:db8::99")

// message is an ICMP error and what becomes of a connect that it is sent to. Hidden: the kernel keeps it to
// itself, since it ends nothing; the connect goes on, and meets silence.
type message struct {
	v6        bool
	typ, code int
	want      pb.Failure
	hidden    bool
}

func (m message) String() string {
	if m.v6 {
		return fmt.Sprintf("ICMPv6 %d/%d", m.typ, m.code)
	}
	return fmt.Sprintf("ICMP %d/%d", m.typ, m.code)
}

// addr is the address that is answered so.
func (m message) addr() netip.Addr {
	if m.v6 {
		return netip.AddrFrom16([16]byte{0x20, 1, 0x0d, 0xb8, 0, 1, 13: byte(m.typ), 15: byte(m.code)})
	}
	return netip.AddrFrom4([4]byte{198, 18, byte(m.typ), byte(m.code)})
}

// messages are all types and codes of errors that there are (RFC 792, RFC 1122, RFC 1812, RFC 4443), and the
// redirects.
func messages() []message {
	const (
		network    = pb.Failure_FAILURE_TCP_NET_UNREACHABLE
		host       = pb.Failure_FAILURE_TCP_HOST_UNREACHABLE
		port       = pb.Failure_FAILURE_TCP_PORT_UNREACHABLE
		prohibited = pb.Failure_FAILURE_TCP_ADMIN_PROHIBITED
		silence    = pb.Failure_FAILURE_TCP_TIMEOUT
	)
	var all []message
	add := func(v6 bool, typ int, wants ...pb.Failure) {
		for code, want := range wants {
			all = append(all, message{v6, typ, code, want, want == silence})
		}
	}
	add(false, 3, network, host, host, port, silence, host, network, host, host, prohibited, prohibited, network, host,
		prohibited, prohibited, prohibited)
	add(false, 4, silence)                            // Source quench (deprecated by RFC 6633).
	add(false, 5, silence, silence, silence, silence) // Redirects.
	add(false, 11, host, silence)                     // Time exceeded in transit; in reassembly, which is of no use to TCP.
	add(false, 12, host, host, host)                  // A problem with a parameter.
	add(true, 1, network, prohibited, host, host, port, prohibited, prohibited, host)
	add(true, 2, silence) // Packet too big: a SYN is not.
	add(true, 3, host, host)
	add(true, 4, host, host, host)
	return all
}

// TestEveryICMP: every ICMP error is told apart, with the address that sent it, by a process without
// privileges.
func TestEveryICMP(t *testing.T) {
	switch {
	case os.Getenv("ELSEWHERE_UNPRIVILEGED") != "":
		toldApart(t)
		return
	case !space.Own(t):
		return
	}
	router := tun(t)
	space.Build(t, icmpWorld)
	// The binary may be where others may not look: the link in /proc leads there all the same.
	cmd := exec.CommandContext(t.Context(), "/proc/self/exe", "-test.run=^TestEveryICMP$", "-test.v")
	cmd.Env = append(os.Environ(), "ELSEWHERE_UNPRIVILEGED=1")
	cmd.Dir = "/"
	if os.Getuid() == 0 && os.Getenv("ELSEWHERE_NAMESPACE") == "uid 0" {
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
	}
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Errorf("without privileges: %v\n%s", err, out)
	}
	for _, m := range messages() {
		if router.answered(m.addr()) == 0 {
			t.Errorf("%s was never sent", m)
		}
	}
}

// toldApart connects to every address of the router's.
func toldApart(t *testing.T) {
	if uid := os.Getuid(); uid == 0 && os.Getenv("ELSEWHERE_NAMESPACE") == "uid 0" {
		t.Fatal("this is root")
	}
	betweenLooks(t)
	all(t, message.String, messages(), func(t *testing.T, m message) func(*testing.T) {
		s := one(t, run(t, anywhere(), tcpSpec(m.addr().String(), 443)), pb.StepKind_STEP_KIND_TCP_CONNECT)
		return func(t *testing.T) {
			want := fmt.Sprintf("%d/%d", m.typ, m.code)
			sender := router4.String()
			if m.v6 {
				sender = router6.String()
			}
			if m.hidden {
				want, sender = "", ""
			}
			ev := s.GetEvidence()
			if s.GetFailure() != m.want || icmpText(ev.GetIcmp()) != want || ev.GetIcmp().GetSender() != sender || !ev.GetErrorQueue() {
				t.Errorf("want %s with %q from %q: %v", Short(m.want), want, sender, s)
			}
		}
	})
}

// betweenLooks: an ICMP error that comes after the queue was read and before the connection is seen to have
// ended is told apart too.
func betweenLooks(t *testing.T) {
	for _, m := range []message{{typ: 3, code: 3}, {typ: 3, code: 13}, {v6: true, typ: 4, code: 2}} {
		fd, err := start(netip.AddrPortFrom(m.addr(), 443), ConnectOptions{})
		if err != nil {
			t.Fatal(err)
		}
		if n, err := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLOUT}}, 5000); n != 1 || err != nil {
			t.Fatalf("%s: %d, %v", m, n, err)
		}
		w := waiter{ev: &pb.Evidence{}}
		outcome := w.end(fd, 0) // The first look saw nothing.
		var icmp icmpError
		if !errors.As(outcome, &icmp) || icmpText(w.ev.GetIcmp()) != fmt.Sprintf("%d/%d", m.typ, m.code) {
			t.Errorf("%s: %v, with %v", m, outcome, w.ev)
		}
		_ = unix.Close(fd)
	}
}

// injector is the router: it reads what is sent to a TUN device and answers it.
type injector struct {
	fd   *os.File
	done chan struct{}

	mu   sync.Mutex
	sent map[netip.Addr]int
}

// tun makes the device icmp0 and starts its router.
func tun(t *testing.T) *injector {
	t.Helper()
	fd, err := unix.Open("/dev/net/tun", unix.O_RDWR|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
	if err != nil {
		t.Skipf("needs a TUN device: %v", err)
	}
	ifr, err := unix.NewIfreq("icmp0")
	if err != nil {
		t.Fatal(err)
	}
	ifr.SetUint16(unix.IFF_TUN | unix.IFF_NO_PI)
	if err := unix.IoctlIfreq(fd, unix.TUNSETIFF, ifr); err != nil {
		_ = unix.Close(fd)
		t.Skipf("needs a TUN device: %v", err)
	}
	i := &injector{fd: os.NewFile(uintptr(fd), "tun"), done: make(chan struct{}), sent: map[netip.Addr]int{}}
	go func() {
		defer close(i.done)
		buf := make([]byte, 2048)
		for {
			n, err := i.fd.Read(buf)
			if err != nil {
				return
			}
			i.answer(buf[:n])
		}
	}()
	t.Cleanup(func() {
		_ = i.fd.Close()
		<-i.done
	})
	return i
}

// answered is how often a SYN to an address was answered.
func (i *injector) answered(ip netip.Addr) int {
	i.mu.Lock()
	defer i.mu.Unlock()
	return i.sent[ip]
}

// answer answers a TCP packet with an ICMP error that its destination names.
func (i *injector) answer(packet []byte) {
	var reply []byte
	var dst netip.Addr
	switch {
	case len(packet) >= 40 && packet[0]>>4 == 4 && packet[9] == unix.IPPROTO_TCP && packet[16] == 198:
		dst = netip.AddrFrom4([4]byte(packet[16:20]))
		reply = icmp4(packet)
	case len(packet) >= 60 && packet[0]>>4 == 6 && packet[6] == unix.IPPROTO_TCP:
		dst = netip.AddrFrom16([16]byte(packet[24:40]))
		reply = icmp6(packet)
	default:
		return
	}
	if _, err := i.fd.Write(reply); err == nil {
		i.mu.Lock()
		defer i.mu.Unlock()
		i.sent[dst]++
	}
}

// icmp4 is an IPv4 packet from the router with an ICMP error about a packet: its header and eight bytes.
func icmp4(packet []byte) []byte {
	size := int(packet[0]&15) * 4
	body := append([]byte{packet[18], packet[19], 0, 0, 0, 0, 5, 0}, packet[:size+8]...)
	binary.BigEndian.PutUint16(body[2:], checksum(body))
	header := append([]byte{0x45, 0, 0, 0, 0, 0, 0, 0, 64, unix.IPPROTO_ICMP, 0, 0}, append(router4.AsSlice(), packet[12:16]...)...)
	binary.BigEndian.PutUint16(header[2:], uint16(len(header)+len(body)))
	binary.BigEndian.PutUint16(header[10:], checksum(header))
	return append(header, body...)
}

// icmp6 is the same over IPv6, with the whole packet.
func icmp6(packet []byte) []byte {
	body := append([]byte{packet[37], packet[39], 0, 0, 0, 0, 5, 0}, packet...)
	pseudo := append(router6.AsSlice(), packet[8:24]...)
	pseudo = append(pseudo, 0, 0, byte(len(body)>>8), byte(len(body)), 0, 0, 0, unix.IPPROTO_ICMPV6)
	binary.BigEndian.PutUint16(body[2:], checksum(append(pseudo, body...)))
	header := append([]byte{0x60, 0, 0, 0, byte(len(body) >> 8), byte(len(body)), unix.IPPROTO_ICMPV6, 64}, append(router6.AsSlice(), packet[8:24]...)...)
	return append(header, body...)
}

// checksum is the Internet checksum (RFC 1071).
func checksum(b []byte) uint16 {
	var sum uint32
	for i := 0; i < len(b); i += 2 {
		sum += uint32(b[i]) << 8
		if i+1 < len(b) {
			sum += uint32(b[i+1])
		}
	}
	for sum > 0xffff {
		sum = sum>>16 + sum&0xffff
	}
	return ^uint16(sum)
}
