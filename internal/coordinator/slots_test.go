package coordinator

import (
	"errors"
	"net"
	"syscall"
	"testing"
	"time"
)

func TestConnectionsLeaveFilesForTheLog(t *testing.T) {
	for files, want := range map[uint64]int{
		0: 0, 256: 64, 1024: 256, 20_000: 9744, 1 << 62: maxConnections, ^uint64(0): maxConnections,
	} {
		if got := connections(files); got != want {
			t.Errorf("of %d files: %d connections, want %d", files, got, want)
		}
	}
}

// TestSlots: one connection at a time; the next is taken when it is closed, however often that is, and a listener that is
// closed waits for nobody.
func TestSlots(t *testing.T) {
	l, err := listenSlots("127.0.0.1:0", 1)
	if err != nil {
		t.Fatal(err)
	}
	taken := make(chan net.Conn)
	ended := make(chan error, 1)
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				ended <- err
				return
			}
			taken <- conn
		}
	}()
	for range 2 {
		conn, err := new(net.Dialer).DialContext(t.Context(), "tcp", l.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
	}
	first := <-taken
	if _, ok := first.(syscall.Conn); !ok {
		t.Error("nobody can look into its socket")
	}
	select {
	case <-taken:
		t.Fatal("a second connection was taken beside the first")
	case <-time.After(50 * time.Millisecond):
	}
	_ = first.Close()
	_ = first.Close()
	second := <-taken
	defer second.Close()
	if n := len(l.(*slots).taken); n != 1 {
		t.Errorf("%d slots are taken", n)
	}
	_ = l.Close()
	if err := <-ended; !errors.Is(err, net.ErrClosed) {
		t.Errorf("after Close: %v", err)
	}
}
