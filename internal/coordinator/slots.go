package coordinator

import (
	"net"
	"sync"
)

const (
	// ownFiles is how many open files the coordinator keeps for itself: the log, the checkpoint, a backup.
	ownFiles = 512
	// maxConnections bounds the connections of gRPC, and those of NATS, where the system bounds them by less.
	maxConnections = 100_000
	// webConnections bounds those for metrics and health.
	webConnections = 64
)

// connections is how many connections of gRPC there may be, and as many of NATS, if the process may have so many open
// files: whoever connects must not take those that the log needs.
func connections(files uint64) int {
	files = min(files, 2*maxConnections+ownFiles)
	return int(files-min(ownFiles, files/2)) / 2
}

// slots is a listener of whose connections only so many are open at once. Others wait until one is closed. It is
// netutil.LimitListener, but that its connections are still sockets: the gate of handshakes looks into them.
type slots struct {
	*net.TCPListener
	taken  chan struct{} // has one for each connection that is open
	closed chan struct{}
	close  sync.Once
}

// listenSlots listens at a TCP address for at most n connections at once.
func listenSlots(addr string, n int) (net.Listener, error) {
	l, err := net.Listen("tcp", addr)
	if err != nil {
		return nil, err
	}
	return &slots{TCPListener: l.(*net.TCPListener), taken: make(chan struct{}, n), closed: make(chan struct{})}, nil
}

// Accept implements net.Listener.
func (s *slots) Accept() (net.Conn, error) {
	select {
	case s.taken <- struct{}{}:
	case <-s.closed:
		return nil, net.ErrClosed
	}
	conn, err := s.AcceptTCP()
	if err != nil {
		<-s.taken
		return nil, err
	}
	return &slot{conn, sync.OnceFunc(func() { <-s.taken })}, nil
}

// Close implements net.Listener.
func (s *slots) Close() error {
	s.close.Do(func() { close(s.closed) })
	return s.TCPListener.Close()
}

// slot is a connection, with all that one of TCP can do: a gate looks into its socket.
type slot struct {
	*net.TCPConn
	leave func()
}

// Close implements net.Conn.
func (s *slot) Close() error {
	defer s.leave()
	return s.TCPConn.Close()
}
