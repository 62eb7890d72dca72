package lab

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/miekg/dns"
	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"
)

// proof is something that must be seen with a tool that shares no code with Elsewhere, before
// Elsewhere is asked.
type proof struct {
	from string // agents, separated by spaces
	tool string // connect, dig, replies, openssl, curl, send or time
	at   string // the address, or the name that dig asks the agent's resolver for; see the tool
	sees string
}

// prove runs all proofs of a scenario at once.
func (w *world) prove(ctx context.Context, s scenario) error {
	var g errgroup.Group
	for _, p := range s.proofs {
		for from := range strings.FieldsSeq(p.from) {
			g.Go(func() error { return w.see(ctx, s, p, w.agent(from)) })
		}
	}
	return g.Wait()
}

// see runs one proof from one agent's namespace.
func (w *world) see(ctx context.Context, s scenario, p proof, from *vantage) error {
	var saw string
	var err error
	switch p.tool {
	case "connect":
		saw, err = from.connect(p.at)
	case "dig":
		saw, err = dig(ctx, from, p.at)
	case "replies":
		saw, err = from.replies(ctx, p.at)
	case "openssl":
		saw, err = w.openssl(ctx, from, p.at, s.name+"."+zone)
	case "curl":
		saw, err = w.curl(ctx, from, p.at, s.name+"."+zone)
	case "send":
		saw, err = from.send(ctx, p.at)
	case "time":
		saw, err = from.time(p.at)
	default:
		err = fmt.Errorf("no tool %q", p.tool)
	}
	if err == nil && saw != p.sees {
		err = fmt.Errorf("saw %q, want %q", saw, p.sees)
	}
	if err != nil {
		return fmt.Errorf("the fault is not there: %s %s from %s: %w", p.tool, p.at, from.id, err)
	}
	return nil
}

var (
	digStatus = regexp.MustCompile(`status: ([A-Z]+)`)
	digAnswer = regexp.MustCompile(`(?m)^[^;\s].*\sIN\s+(?:A|AAAA)\s+(\S+)$`)
	sslAlert  = regexp.MustCompile(`(?:ssl/tls|(?:ssl|tls)v\d+) (?:alert )?([a-z ]+):`)
	verify    = regexp.MustCompile(`(?m)^\s*Verify return code: \d+ \((.*)\)`)
)

// dig asks the agent's resolver for "NAME", or "NAME TYPE", or "@SERVER NAME", and returns the rcode and
// the addresses: "NOERROR 203.0.113.20".
func dig(ctx context.Context, from *vantage, question string) (string, error) {
	args := append([]string{"dig", "+tries=2", "+time=1"}, strings.Fields(question)...)
	if !strings.Contains(question, "@") {
		args = append(args, "@"+from.resolver)
	}
	out, err := from.space.Output(ctx, args...)
	if strings.Contains(out, "no servers could be reached") {
		return "no reply", nil
	}
	if err != nil {
		return "", err
	}
	status := digStatus.FindStringSubmatch(out)
	if status == nil {
		return "", fmt.Errorf("dig said: %s", out)
	}
	var addresses []string
	for _, m := range digAnswer.FindAllStringSubmatch(out, -1) {
		addresses = append(addresses, m[1])
	}
	slices.Sort(addresses)
	return strings.Join(append(status[1:], addresses...), " "), nil
}

// replies asks the agent's resolver for an address once, by UDP, and returns what the replies say in their order, at
// most two within two seconds: "203.0.113.20, 203.0.113.21".
func (v *vantage) replies(ctx context.Context, name string) (string, error) {
	var conn net.Conn
	err := v.space.Do(func() (err error) {
		conn, err = new(net.Dialer).DialContext(ctx, "udp", v.resolver+":53")
		return err
	})
	if err != nil {
		return "", err
	}
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(2 * time.Second)); err != nil {
		return "", err
	}
	both := &dns.Conn{Conn: conn}
	if err := both.WriteMsg(new(dns.Msg).SetQuestion(dns.Fqdn(name), dns.TypeA)); err != nil {
		return "", err
	}
	var all []string
	for len(all) < 2 {
		reply, err := both.ReadMsg()
		if errors.Is(err, os.ErrDeadlineExceeded) {
			break
		}
		if err != nil {
			return "", err
		}
		for _, rr := range reply.Answer {
			if a, ok := rr.(*dns.A); ok {
				all = append(all, a.A.String())
			}
		}
	}
	return strings.Join(all, ", "), nil
}

// openssl shakes hands and returns what openssl says of the certificate: "ok"; which alert came; or
// "silent" if that takes longer than 3 s, "reset", "not tls" or "unsupported protocol". It is told the address, and maybe another
// name than the scenario's and options of openssl's.
func (w *world) openssl(ctx context.Context, from *vantage, at, name string) (string, error) {
	words := strings.Fields(at)
	if len(words) > 1 && !strings.HasPrefix(words[1], "-") {
		name = words[1]
		words = slices.Delete(words, 1, 2)
	}
	args := []string{
		"timeout", "3", "openssl", "s_client", "-connect", words[0],
		"-servername", name, "-verify_hostname", name, "-CAfile", w.authority.file,
	}
	out, err := from.space.Output(ctx, append(args, words[1:]...)...)
	exit := (*exec.ExitError)(nil)
	switch alert, m := sslAlert.FindStringSubmatch(out), verify.FindStringSubmatch(out); {
	case alert != nil:
		return "alert " + alert[1], nil
	case strings.Contains(out, "errno=104"):
		return "reset", nil
	case strings.Contains(out, "wrong version number"):
		return "not tls", nil
	case strings.Contains(out, ":unsupported protocol:"): // openssl's own word on the version that the server chose
		return "unsupported protocol", nil
	case strings.Contains(out, "OCSP Response Status: successful") && strings.Contains(out, "Cert Status: revoked"):
		return "revoked", nil
	case m != nil && !strings.Contains(out, "Cipher is (NONE)"): // "ok" is said of no certificate, too
		return m[1], nil
	case errors.As(err, &exit) && exit.ExitCode() == 124:
		return "silent", nil
	}
	return "", errors.Join(err, fmt.Errorf("openssl said: %s", out))
}

// curl asks for a page and returns the status code, and where it redirects to; or "silent" if that takes
// longer than 3 s. It is told a URL, and maybe the address of the URL's host.
func (w *world) curl(ctx context.Context, from *vantage, at, name string) (string, error) {
	words := strings.Fields(strings.ReplaceAll(at, "NAME", name))
	args := []string{"curl", "-sS", "-o", "/dev/null", "--max-time", "3", "--cacert", w.authority.file, "-w", "%{http_code} %{redirect_url}", words[0]}
	if len(words) > 1 {
		args = append(args, "--resolve", "*:443:"+words[1], "--resolve", "*:80:"+words[1])
	}
	out, err := from.space.Output(ctx, args...)
	if exit := (*exec.ExitError)(nil); errors.As(err, &exit) && exit.ExitCode() == 28 {
		return "silent", nil
	}
	return strings.TrimSpace(out), err
}

// send connects, sends so many bytes and says whether anything comes back within 2.5 s: "answered" or
// "silent". It is told "IP:PORT BYTES".
func (v *vantage) send(ctx context.Context, at string) (string, error) {
	address, size, _ := strings.Cut(at, " ")
	n, err := strconv.Atoi(size)
	if err != nil {
		return "", err
	}
	conn, err := v.space.Dial(ctx, address)
	if err != nil {
		return "", err
	}
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(2500 * time.Millisecond)); err != nil {
		return "", err
	}
	if _, err := conn.Write(make([]byte, n)); err != nil {
		return "", err
	}
	_, err = conn.Read(make([]byte, 1))
	if errors.Is(err, os.ErrDeadlineExceeded) {
		return "silent", nil
	}
	return "answered", nil // by an alert, a FIN or a RST: none of them comes for what did not arrive
}

// time connects, and says how long that takes: "IP:PORT DURATION" is answered by "slow" if it is longer.
func (v *vantage) time(at string) (string, error) {
	address, limit, _ := strings.Cut(at, " ")
	least, err := time.ParseDuration(limit)
	if err != nil {
		return "", err
	}
	begin := time.Now()
	saw, err := v.connect(address)
	if took := time.Since(begin); err == nil && saw == "open" && took-lingering > least {
		return "slow", nil
	}
	return saw, err
}

// lingering is how long connect looks what comes after a connection was accepted.
const lingering = 300 * time.Millisecond

// connect tries once, for 2.5 s, which is three SYNs, and says what the kernel says: "open",
// "refused", "silent", "icmp 3/13 from 10.4.1.1", "reset after connect".
func (v *vantage) connect(at string) (saw string, err error) {
	addr, err := netip.ParseAddrPort(at)
	if err != nil {
		return "", err
	}
	err = v.space.Do(func() error {
		saw, err = connect(addr)
		return err
	})
	return saw, err
}

func connect(addr netip.AddrPort) (string, error) {
	fd, sockaddr, err := openSocket(addr)
	if err != nil {
		return "", err
	}
	defer unix.Close(fd)
	if err := unix.Connect(fd, sockaddr); err != nil && !errors.Is(err, unix.EINPROGRESS) {
		return "", err
	}
	if n, err := wait(fd, unix.POLLOUT, 2500*time.Millisecond); err != nil || n == 0 {
		return "silent", err
	}
	if saw := queuedICMP(fd); saw != "" {
		return saw, nil
	}
	errno, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_ERROR)
	switch {
	case err != nil:
		return "", err
	case errno == int(unix.ECONNREFUSED):
		return "refused", nil
	case errno == int(unix.ECONNRESET): // it stood, and the RST was faster than this program
		return "reset after connect", nil
	case errno != 0:
		return "", unix.Errno(errno)
	}
	return linger(fd)
}

// openSocket makes a socket that keeps ICMP errors in its error queue (ip(7), IP_RECVERR).
func openSocket(addr netip.AddrPort) (int, unix.Sockaddr, error) {
	if addr.Addr().Is4() {
		fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			return 0, nil, err
		}
		err = unix.SetsockoptInt(fd, unix.IPPROTO_IP, unix.IP_RECVERR, 1)
		return fd, &unix.SockaddrInet4{Port: int(addr.Port()), Addr: addr.Addr().As4()}, err
	}
	fd, err := unix.Socket(unix.AF_INET6, unix.SOCK_STREAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return 0, nil, err
	}
	err = unix.SetsockoptInt(fd, unix.IPPROTO_IPV6, unix.IPV6_RECVERR, 1)
	return fd, &unix.SockaddrInet6{Port: int(addr.Port()), Addr: addr.Addr().As16()}, err
}

// wait polls one socket. 0 means that the time is over.
func wait(fd int, events int16, timeout time.Duration) (int, error) {
	deadline := time.Now().Add(timeout)
	for {
		left := max(0, time.Until(deadline))
		n, err := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: events}}, int(left.Milliseconds()))
		if !errors.Is(err, unix.EINTR) {
			return n, err
		}
	}
}

// queuedICMP reads the error queue: struct sock_extended_err, then the sender's address.
func queuedICMP(fd int) string {
	oob := make([]byte, 512)
	_, n, _, _, err := unix.Recvmsg(fd, nil, oob, unix.MSG_ERRQUEUE)
	if err != nil {
		return ""
	}
	messages, err := unix.ParseSocketControlMessage(oob[:n])
	if err != nil || len(messages) == 0 || len(messages[0].Data) < 24 {
		return ""
	}
	// sock_extended_err is 16 bytes: errno (4), origin, type, code, …; then struct sockaddr_in.
	data := messages[0].Data
	sender := netip.AddrFrom4([4]byte(data[20:24]))
	if binary.NativeEndian.Uint16(data[16:]) == unix.AF_INET6 && len(data) >= 40 {
		sender = netip.AddrFrom16([16]byte(data[24:40]))
	}
	return fmt.Sprintf("icmp %d/%d from %s", data[5], data[6], sender)
}

// linger looks for a RST or a FIN right after the connection was accepted.
func linger(fd int) (string, error) {
	if n, err := wait(fd, unix.POLLIN, lingering); err != nil || n == 0 {
		return "open", err
	}
	n, err := unix.Read(fd, make([]byte, 1))
	switch {
	case errors.Is(err, unix.ECONNRESET):
		return "reset after connect", nil
	case err == nil && n == 0:
		return "closed after connect", nil
	}
	return "open", err
}
