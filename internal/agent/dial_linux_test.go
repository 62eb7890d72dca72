package agent

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"syscall"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"

	"github.com/elsewhere-net/elsewhere/pkg/probe/probetest/space"
	pb "github.com/elsewhere-net/elsewhere/proto/elsewhere/v1"
)

// TestWhereNothingAnswers: an address that swallows every SYN is given up long before a coordinator that is slow, and is not
// taken for one.
func TestWhereNothingAnswers(t *testing.T) {
	t.Parallel()
	addr := blackHole(t)
	cc, err := dial(addr, insecure.NewCredentials())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = cc.Close() }()
	ctx, cancel := context.WithTimeout(t.Context(), registerTimeout/2)
	defer cancel()
	_, err = pb.NewRegistrationServiceClient(cc).Register(ctx, &pb.RegisterRequest{})
	if status.Code(err) != codes.Unavailable || ctx.Err() != nil {
		t.Errorf("%v", err)
	}
}

// TestWhoIsNotThereAnyMore: what an agent sends into a black hole ends its connection in seconds, while one of the system's
// own kind still hopes.
func TestWhoIsNotThereAnyMore(t *testing.T) {
	if !space.Own(t) {
		return
	}
	space.Build(t, "ip link set lo up\n")
	l, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:7700")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	var conns []net.Conn
	for _, d := range []*net.Dialer{dialer(), {}} {
		conn, err := d.DialContext(t.Context(), "tcp", l.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		conns = append(conns, conn)
	}
	space.Build(t, "nft add table ip hole\nnft add chain ip hole in '{ type filter hook input priority 0; }'\nnft add rule ip hole in tcp dport 7700 counter drop\n")
	began := time.Now()
	for _, conn := range conns {
		if _, err := conn.Write([]byte("are you there?")); err != nil {
			t.Fatal(err)
		}
		_ = conn.SetReadDeadline(began.Add(4 * silence))
	}
	if _, err := conns[0].Read(make([]byte, 1)); !errors.Is(err, syscall.ETIMEDOUT) || time.Since(began) < silence/2 {
		t.Errorf("an agent's connection: %v, after %v", err, time.Since(began))
	}
	_ = conns[1].SetReadDeadline(time.Now().Add(time.Second))
	if _, err := conns[1].Read(make([]byte, 1)); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("without a bound: %v", err)
	}
}

// blackHole is an address of loopback whose backlog is full: Linux drops the SYN of whoever comes then.
func blackHole(t *testing.T) string {
	t.Helper()
	fd, err := syscall.Socket(syscall.AF_INET, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = syscall.Close(fd) })
	if err := syscall.Bind(fd, &syscall.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Listen(fd, 0); err != nil {
		t.Fatal(err)
	}
	name, err := syscall.Getsockname(fd)
	if err != nil {
		t.Fatal(err)
	}
	addr := fmt.Sprintf("127.0.0.1:%d", name.(*syscall.SockaddrInet4).Port)
	dialer := net.Dialer{Timeout: dialTimeout / 10}
	for range 8 {
		conn, err := dialer.DialContext(t.Context(), "tcp", addr)
		if err != nil {
			return addr
		}
		t.Cleanup(func() { _ = conn.Close() })
	}
	t.Fatal("its backlog is never full")
	return ""
}
