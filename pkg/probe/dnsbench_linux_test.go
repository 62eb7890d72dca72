package probe

import (
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/miekg/dns"
	"golang.org/x/sys/unix"

	pb "github.com/elsewhere-net/elsewhere/proto/elsewhere/v1"
)

// TestServeDNS is no test but the server of the benchmarks, like TestServe: it answers every query with
// one address until its standard input ends.
func TestServeDNS(t *testing.T) {
	if os.Getenv("ELSEWHERE_SERVE") == "" {
		return
	}
	conn, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	raw, err := conn.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	// Whatever the system's limit: what is lost is asked for again a second later.
	_ = raw.Control(func(fd uintptr) { _ = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, 8<<20) })
	fmt.Printf("serving %s\n", conn.LocalAddr())
	go answerAll(conn)
	_, _ = io.Copy(io.Discard, os.Stdin)
	_ = conn.Close()
}

// answerAll answers queries without parsing more of them than where the question ends.
func answerAll(conn *net.UDPConn) {
	buf := make([]byte, 4096)
	for {
		n, from, err := conn.ReadFromUDPAddrPort(buf)
		if err != nil {
			return
		}
		end := 12 + strings.IndexByte(string(buf[12:n]), 0) + 5
		reply := append([]byte(nil), buf[:end]...)
		reply[2], reply[3] = 0x81, 0x80 // QR RD RA.
		copy(reply[6:], []byte{0, 1, 0, 0, 0, 1})
		reply = append(reply, 0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4, 127, 0, 0, 2)
		reply = append(reply, 0, 0, 41, 4, 208, 0, 0, 0, 0, 0, 0) // OPT.
		_, _ = conn.WriteToUDPAddrPort(reply, from)
	}
}

// benchmarkCPU does something b.N times from a number of goroutines, and reports what that costs.
func benchmarkCPU(b *testing.B, workers int, worker func() func() error) {
	b.Helper()
	b.ReportAllocs()
	work := make(chan struct{}, workers)
	var wg sync.WaitGroup
	began := cpuTime(b)
	b.ResetTimer()
	for range workers {
		wg.Go(func() {
			do := worker()
			for range work {
				if err := do(); err != nil {
					b.Error(err)
				}
			}
		})
	}
	for range b.N {
		work <- struct{}{}
	}
	close(work)
	wg.Wait()
	b.StopTimer()
	b.ReportMetric((cpuTime(b)-began).Seconds()/float64(b.N)*1e5, "cpu-s/100k")
}

// BenchmarkDNSCheck makes whole checks of one query each, Result included. Each of them stays for 250 ms
// after its reply, for a second one, so it takes thousands at once for as many queries in flight as a few
// dozen loops have.
func BenchmarkDNSCheck(b *testing.B) {
	// Without recursion there is nothing else to ask: neither who the resolver is nor whether it lies.
	benchmarkDNSCheck(b, must[*Sockets](b)(new(Sockets), nil), &pb.DNSSpec{Name: "www.example", NoRecursion: true})
}

// BenchmarkDNSCheckFresh makes the same with a fresh socket for each query.
func BenchmarkDNSCheckFresh(b *testing.B) {
	benchmarkDNSCheck(b, nil, &pb.DNSSpec{Name: "www.example", NoRecursion: true})
}

// BenchmarkDNSCheckOfResolver makes them with all that a check asks of a resolver: three queries each.
func BenchmarkDNSCheckOfResolver(b *testing.B) {
	benchmarkDNSCheck(b, must[*Sockets](b)(new(Sockets), nil), &pb.DNSSpec{Name: "www.example"})
}

func benchmarkDNSCheck(b *testing.B, sockets *Sockets, spec *pb.DNSSpec) {
	env := &Env{
		Resolvers: []netip.AddrPort{serveApart(b, "TestServeDNS")}, Sockets: sockets,
		Controls: []string{}, Hints: []netip.AddrPort{}, Egress: Egress{Allow: loopback},
	}
	job := newJob(&pb.Spec{Check: &pb.Spec_Dns{Dns: spec}}, 28*time.Second)
	benchmarkCPU(b, 4096, func() func() error {
		return func() error {
			r := Run(b.Context(), env, job)
			if f := r.GetSteps()[0].GetFailure(); f != pb.Failure_FAILURE_NONE {
				return fmt.Errorf("%s: %v", Short(f), r)
			}
			return nil
		}
	})
}

// BenchmarkDNSBare is what there is to compare it with: miekg/dns in a loop, each with a socket that it
// keeps.
func BenchmarkDNSBare(b *testing.B) {
	server := serveApart(b, "TestServeDNS").String()
	benchmarkCPU(b, 32, func() func() error {
		conn, err := dns.Dial("udp", server)
		if err != nil {
			b.Error(err)
		}
		b.Cleanup(func() { _ = conn.Close() })
		client := dns.Client{Timeout: 5 * time.Second}
		return func() error {
			m := new(dns.Msg).SetQuestion("www.example.", dns.TypeA)
			m.SetEdns0(1232, false)
			_, _, err := client.ExchangeWithConn(m, conn)
			return err
		}
	})
}
