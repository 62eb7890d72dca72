//go:build linux

package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"runtime/pprof"
	"strconv"
	"sync"
	"time"

	"github.com/miekg/dns"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/elsewhere-net/elsewhere/pkg/probe"
	pb "github.com/elsewhere-net/elsewhere/proto/elsewhere/v1"
)

// patience is a client's for one operation.
const patience = 5 * time.Second

// races are the comparisons.
func races() []race {
	return []race{
		{name: "dns", n: 100_000, per: 100_000, serve: serveDNS, contenders: []contender{
			{name: "elsewhere", run: checkDNS},
			{name: "miekg/dns loop", base: true, run: loopDNS},
			{name: "dnsperf", prepare: queryFile, command: dnsperf},
		}},
		{name: "tcp", n: 16_384, per: 100_000, serve: serveTCP, contenders: []contender{
			{name: "elsewhere", run: checkTCP},
			{name: "net.Dialer loop", run: loopTCP},
			{name: "nmap -sT", base: true, command: nmap},
		}},
		{name: "tls", n: 5_000, per: 10_000, serve: serveTLS, contenders: []contender{
			{name: "elsewhere", run: checkTLS},
			{name: "crypto/tls loop", base: true, run: loopTLS},
		}},
	}
}

// client is the process of a contender that is ours to run.
func client(args []string) error {
	if len(args) != 5 {
		return errors.New("client RACE CONTENDER ADDR N PROFILE")
	}
	n, err := strconv.Atoi(args[3])
	if err != nil {
		return err
	}
	for _, r := range races() {
		for _, c := range r.contenders {
			if r.name == args[0] && c.name == args[1] && c.run != nil {
				return profiled(args[4], func() error { return c.run(args[2], n) })
			}
		}
	}
	return errors.New("no such contender")
}

// profiled runs f and writes its CPU profile to a file, if one is named.
func profiled(file string, f func() error) error {
	if file == "" {
		return f()
	}
	out, err := os.Create(file)
	if err != nil {
		return err
	}
	if err := pprof.StartCPUProfile(out); err != nil {
		return errors.Join(err, out.Close())
	}
	err = f()
	pprof.StopCPUProfile()
	return errors.Join(err, out.Close())
}

// loop does something n times, so many at once, and returns the first error.
func loop(n, workers int, worker func() (do func(i int) error, err error)) error {
	turns := make(chan int, workers)
	errs := make(chan error, workers)
	var wg sync.WaitGroup
	for range workers {
		wg.Go(func() {
			do, err := worker()
			for i := range turns {
				if err == nil {
					err = do(i)
				}
			}
			if err != nil {
				errs <- err
			}
		})
	}
	for i := range n {
		turns <- i
	}
	close(turns)
	wg.Wait()
	close(errs)
	return <-errs
}

// check makes n checks, all of one kind, with the Result of each.
func check(env *probe.Env, n, atOnce int, spec func(i int) *pb.Spec) error {
	env.Egress.Allow = []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}
	env.Controls, env.Hints = []string{}, []netip.AddrPort{}
	if env.Resolvers == nil {
		env.Resolvers = []netip.AddrPort{}
	}
	return loop(n, atOnce, func() (func(int) error, error) {
		return func(i int) error {
			r := probe.Run(context.Background(), env, &pb.Job{
				MeasurementId: "m", Agent: "a", Spec: spec(i),
				CoordinatorTime: timestamppb.Now(), Remaining: durationpb.New(28 * time.Second),
			})
			for _, s := range r.GetSteps() {
				if s.GetRole() == pb.Role_ROLE_TARGET && s.GetFailure() != pb.Failure_FAILURE_NONE {
					return fmt.Errorf("%s: %s", probe.Short(s.GetFailure()), s.GetEvidence().GetText())
				}
			}
			return nil
		}, nil
	})
}

// checkDNS makes whole checks. Each of them stays for 250 ms after its reply, for a second one, so it takes
// thousands at once for as many queries in flight as a few dozen loops have (README.md, "How many at once").
func checkDNS(addr string, n int) error {
	server, err := netip.ParseAddrPort(addr)
	if err != nil {
		return err
	}
	env := &probe.Env{Resolvers: []netip.AddrPort{server}, Sockets: &probe.Sockets{}}
	spec := &pb.Spec{Check: &pb.Spec_Dns{Dns: &pb.DNSSpec{Name: name, Type: "A"}}}
	return errors.Join(check(env, n, 4096, func(int) *pb.Spec { return spec }), env.Sockets.Close())
}

// loopDNS is miekg/dns in loops that each keep a socket.
func loopDNS(addr string, n int) error {
	return loop(n, 32, func() (func(int) error, error) {
		conn, err := dns.Dial("udp", addr)
		if err != nil {
			return nil, err
		}
		c := dns.Client{Timeout: patience}
		return func(int) error {
			m := new(dns.Msg).SetQuestion(dns.Fqdn(name), dns.TypeA)
			m.SetEdns0(1232, false)
			_, _, err := c.ExchangeWithConn(m, conn)
			return err
		}, nil
	})
}

// queryFile is dnsperf's input.
func queryFile(string, int) (undo func(), err error) {
	err = os.WriteFile(queries(), []byte(name+" A\n"), 0o600)
	return func() { _ = os.Remove(queries()) }, err
}

func queries() string { return fmt.Sprintf("%s/elsewhere-peers-%d", os.TempDir(), os.Getpid()) }

func dnsperf(addr string, n int) []string {
	host, port, _ := net.SplitHostPort(addr)
	return []string{"dnsperf", "-s", host, "-p", port, "-d", queries(), "-n", strconv.Itoa(n), "-c", "32", "-q", "256", "-e"}
}

// at is the i-th address after addr, on its port.
func at(addr string, i int) (netip.AddrPort, error) {
	first, err := netip.ParseAddrPort(addr)
	if err != nil {
		return first, err
	}
	ip := first.Addr().As4()
	binary.BigEndian.PutUint32(ip[:], binary.BigEndian.Uint32(ip[:])+uint32(i))
	return netip.AddrPortFrom(netip.AddrFrom4(ip), first.Port()), nil
}

func checkTCP(addr string, n int) error {
	if _, err := at(addr, 0); err != nil {
		return err
	}
	return check(&probe.Env{}, n, 1000, func(i int) *pb.Spec {
		to, _ := at(addr, i)
		return &pb.Spec{Check: &pb.Spec_Tcp{Tcp: &pb.TCPSpec{Host: to.Addr().String(), Port: uint32(to.Port())}}}
	})
}

func loopTCP(addr string, n int) error {
	return loop(n, 32, func() (func(int) error, error) {
		dialer := net.Dialer{Timeout: patience}
		return func(i int) error {
			to, err := at(addr, i)
			if err != nil {
				return err
			}
			conn, err := dialer.DialContext(context.Background(), "tcp", to.String())
			if err != nil {
				return err
			}
			return conn.Close()
		}, nil
	})
}

// nmap scans one port of so many addresses; their number is a power of two.
func nmap(addr string, n int) []string {
	host, port, _ := net.SplitHostPort(addr)
	bits := 32
	for ; n > 1; n /= 2 {
		bits--
	}
	return []string{"nmap", "-sT", "-n", "-Pn", "-T5", "--max-retries", "0", "-oG", "/dev/null", "-p", port, host + "/" + strconv.Itoa(bits)}
}

func checkTLS(said string, n int) error {
	addr, root, err := addrAndRoot(said)
	if err != nil {
		return err
	}
	env := &probe.Env{Roots: []*x509.Certificate{root}, Chains: &probe.Chains{}}
	spec := &pb.Spec{Check: &pb.Spec_Tls{Tls: &pb.TLSSpec{Host: addr.Addr().String(), Port: uint32(addr.Port()), ServerName: name}}}
	return check(env, n, 32, func(int) *pb.Spec { return spec })
}

// loopTLS is crypto/tls with verification, and nothing else.
func loopTLS(said string, n int) error {
	addr, root, err := addrAndRoot(said)
	if err != nil {
		return err
	}
	pool := x509.NewCertPool()
	pool.AddCert(root)
	config := &tls.Config{ServerName: name, RootCAs: pool, NextProtos: []string{"h2", "http/1.1"}, MinVersion: tls.VersionTLS12}
	return loop(n, 32, func() (func(int) error, error) {
		return func(int) error {
			raw, err := net.DialTimeout("tcp", addr.String(), patience)
			if err != nil {
				return err
			}
			conn := tls.Client(raw, config)
			defer func() { _ = conn.Close() }()
			return conn.HandshakeContext(context.Background())
		}, nil
	})
}
