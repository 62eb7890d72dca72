//go:build unix

package probe

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	pb "github.com/elsewhere-net/elsewhere/proto/elsewhere/v1"
)

// inFlight is how many checks run at once: a check waits for most of its time, and that costs nothing.
const inFlight = 1000

// TestServe is no test but the server of the benchmarks, in a process of its own, so that its CPU time is
// not counted as the client's. It accepts, waits for the other end to close, and ends with its stdin.
func TestServe(t *testing.T) {
	if os.Getenv("ELSEWHERE_SERVE") == "" {
		return
	}
	l, err := net.Listen("tcp", "127.0.0.2:0")
	if err != nil {
		t.Fatal(err)
	}
	fmt.Printf("serving %s\n", l.Addr())
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				_, _ = io.Copy(io.Discard, c)
				_ = c.Close()
			}()
		}
	}()
	_, _ = io.Copy(io.Discard, os.Stdin)
	_ = l.Close()
}

// serveElsewhere starts the server and returns where it is.
func serveElsewhere(b *testing.B) netip.AddrPort { return serveApart(b, "TestServe") }

// serveApart runs a test of this binary that is a server, in a process of its own.
func serveApart(b *testing.B, test string) netip.AddrPort {
	b.Helper()
	cmd := exec.CommandContext(b.Context(), os.Args[0], "-test.run=^"+test+"$")
	cmd.Env = append(os.Environ(), "ELSEWHERE_SERVE=1")
	stdin, err := cmd.StdinPipe()
	if err != nil {
		b.Fatal(err)
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		b.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() {
		_ = stdin.Close()
		_ = cmd.Wait()
	})
	line, err := bufio.NewReader(stdout).ReadString('\n')
	if err != nil {
		b.Fatal(err)
	}
	return netip.MustParseAddrPort(strings.TrimSpace(strings.TrimPrefix(line, "serving ")))
}

// cpu runs op b.N times, many at once, and reports the CPU seconds of this process for 100,000 of them:
// the figure that a busy machine does not spoil.
func cpu(b *testing.B, op func()) {
	b.Helper()
	var wg sync.WaitGroup
	turns := make(chan struct{})
	for range inFlight {
		wg.Go(func() {
			for range turns {
				op()
			}
		})
	}
	before := cpuTime(b)
	for b.Loop() {
		turns <- struct{}{}
	}
	close(turns)
	wg.Wait()
	b.ReportMetric((cpuTime(b)-before).Seconds()/float64(b.N)*100_000, "cpu-s/100k")
}

func cpuTime(b *testing.B) time.Duration {
	b.Helper()
	var u unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// BenchmarkTCPCheck is a whole tcp check of an open port, with the Result.
func BenchmarkTCPCheck(b *testing.B) {
	addr := serveElsewhere(b)
	env := &Env{Egress: Egress{Allow: loopback}, Controls: []string{}, Resolvers: []netip.AddrPort{}}
	job := newJob(tcpSpec(addr.Addr().String(), addr.Port()), 28*time.Second)
	cpu(b, func() {
		if f := Run(context.Background(), env, job).GetSteps()[0].GetFailure(); f != pb.Failure_FAILURE_NONE {
			b.Error(Short(f))
		}
	})
}

// BenchmarkConnectAndClose is Connect alone, beside BenchmarkDialer.
func BenchmarkConnectAndClose(b *testing.B) {
	addr := serveElsewhere(b)
	cpu(b, func() {
		conn, _, err := Connect(context.Background(), addr, ConnectOptions{})
		if err != nil {
			b.Error(err)
			return
		}
		_ = conn.Close()
	})
}

// BenchmarkDialer is what the standard library needs for a connect, without any evidence.
func BenchmarkDialer(b *testing.B) {
	addr := serveElsewhere(b)
	dialer := net.Dialer{Timeout: connectTimeout}
	cpu(b, func() {
		conn, err := dialer.DialContext(context.Background(), "tcp", addr.String())
		if err != nil {
			b.Error(err)
			return
		}
		_ = conn.Close()
	})
}
