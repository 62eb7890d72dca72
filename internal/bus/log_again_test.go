package bus_test

import (
	"context"
	"net"
	"sync"
	"testing"

	"github.com/elsewhere-net/elsewhere/internal/bus"
	"github.com/elsewhere-net/elsewhere/internal/bus/embedded"
)

// starved is a server whose words do not arrive while it is held.
type starved struct {
	*embedded.Server
	held sync.RWMutex
}

// InProcessConn opens a connection inside the process.
func (s *starved) InProcessConn() (net.Conn, error) {
	conn, err := s.Server.InProcessConn()
	return starvedConn{conn, s}, err
}

type starvedConn struct {
	net.Conn
	s *starved
}

func (c starvedConn) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	c.s.held.RLock()
	defer c.s.held.RUnlock()
	return n, err
}

// TestTheFoldOutlastsAStarvedServer: nothing is answered for longer than a question about the log waits, and then all
// is. That says nothing about the log, and the fold goes on where it was.
func TestTheFoldOutlastsAStarvedServer(t *testing.T) {
	s := &starved{Server: startServer(t, t.TempDir(), "127.0.0.1:0")}
	reader, err := bus.OpenLog(t.Context(), s, 1<<30)
	if err != nil {
		t.Fatal(err)
	}
	defer reader.Close()
	writer := runLog(t, s.Server, 1<<30)
	seen := make(chan uint64, 16)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() {
		done <- reader.Fold(ctx, 0, func(m bus.Message) error { seen <- m.Position; return nil })
	}()
	appendOne := func() {
		t.Helper()
		if _, err := writer.Append(t.Context(), entry("a", 10)); err != nil {
			t.Fatal(err)
		}
	}
	next := func(want uint64) {
		t.Helper()
		select {
		case at := <-seen:
			if at != want {
				t.Errorf("position %d, want %d", at, want)
			}
		case err := <-done:
			t.Fatal(err)
		}
	}
	appendOne()
	next(1)
	s.held.Lock()
	appendOne()
	if _, err := reader.Bounds(t.Context()); err == nil { // it waits for 5 s
		t.Error("the server answers: it is not starved")
	}
	_, _ = reader.Bounds(t.Context()) // until the fold has asked too, and was not answered
	_, _ = reader.Bounds(t.Context())
	s.held.Unlock()
	next(2)
	appendOne()
	next(3)
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
}
