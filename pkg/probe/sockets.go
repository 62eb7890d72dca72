package probe

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/miekg/dns"

	pb "github.com/elsewhere-net/elsewhere/proto/elsewhere/v1"
)

// Bounds of the sockets that are kept.
const (
	socketsPerServer = 8
	queriesPerSocket = 64
	socketLifetime   = 10 * time.Second
	maxPools         = 64 // More are asked from fresh sockets.
	readsPerQuery    = 64 // A server that floods must not keep the probe busy.
)

// Sockets are UDP sockets to DNS servers, from which first queries are sent. A socket costs more than a
// query, so each one carries 64 of them, or lives for 10 seconds, and is then replaced. The zero value
// is ready; it may be shared by any number of Runs.
//
// A forged reply has to hit the port that its query was sent from, and the ID (RFC 5452, 9). The kernel
// picks each socket's port at random, each query picks one of eight sockets, and connected sockets get
// nothing from other addresses, so that a guess is no better than against a fresh socket. Only a port
// that somebody has found out stays worth something, until its socket is replaced. What is sent again is
// sent from fresh sockets, since the path that a port takes may be what is broken.
type Sockets struct {
	mu    sync.Mutex
	slots map[netip.AddrPort]*[socketsPerServer]*socket
}

// Close closes the sockets. Queries that wait for replies on them hear no more.
func (p *Sockets) Close() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	var err error
	for _, slots := range p.slots {
		for _, s := range slots {
			if s != nil {
				err = errors.Join(err, s.conn.Close())
			}
		}
	}
	p.slots = nil
	return err
}

// admit finds a socket for a datagram. Nil: it needs a fresh one.
func (p *Sockets) admit(ctx context.Context, l *datagram) *socket {
	server := l.asker.server
	p.mu.Lock()
	defer p.mu.Unlock()
	slots := p.slots[server]
	if slots == nil {
		if len(p.slots) >= maxPools {
			return nil
		}
		if p.slots == nil {
			p.slots = map[netip.AddrPort]*[socketsPerServer]*socket{}
		}
		slots = new([socketsPerServer]*socket)
		p.slots[server] = slots
	}
	slot := &slots[rand.IntN(socketsPerServer)]
	if *slot != nil && (*slot).admit(l) {
		return *slot
	}
	s, err := openSocket(ctx, server, queriesPerSocket)
	if err != nil {
		return nil // A fresh one will say so.
	}
	_ = s.conn.SetReadDeadline(time.Now().Add(socketLifetime))
	s.admit(l)
	*slot = s
	go func() {
		s.read(readSize)
		p.forget(server, s)
	}()
	return s
}

// forget makes room for a socket's successor.
func (p *Sockets) forget(server netip.AddrPort, s *socket) {
	p.mu.Lock()
	defer p.mu.Unlock()
	slots := p.slots[server]
	if slots == nil {
		return
	}
	empty := true
	for i := range slots {
		if slots[i] == s {
			slots[i] = nil
		}
		empty = empty && slots[i] == nil
	}
	if empty {
		delete(p.slots, server)
	}
}

// socket is a UDP socket that is connected to one server, and the datagrams whose senders listen on it. One goroutine
// reads it, however many they are.
type socket struct {
	conn   net.Conn
	local  string
	shared bool

	mu      sync.Mutex
	uses    int // The queries that it may still carry.
	reads   int // The messages that are still read.
	waiting map[uint16]*datagram
	past    []uint16 // IDs of those that have left. A late reply to one of them is nobody's guess.
}

// openSocket opens a socket with a random port for a number of queries.
func openSocket(ctx context.Context, server netip.AddrPort, uses int) (*socket, error) {
	conn, err := dialUDP(ctx, server)
	if err != nil {
		return nil, err
	}
	return &socket{
		conn: conn, local: conn.LocalAddr().String(), shared: uses > 1,
		uses: uses, reads: uses * readsPerQuery, waiting: map[uint16]*datagram{},
	}, nil
}

// dialUDP opens a UDP socket to a server. It is connected, so that the kernel drops what comes from other
// addresses and reports ICMP errors.
func dialUDP(ctx context.Context, server netip.AddrPort) (net.Conn, error) {
	dialer := net.Dialer{Control: askErrorQueue}
	conn, err := dialer.DialContext(ctx, "udp", server.String())
	if err != nil {
		return nil, localError{fmt.Errorf("open a socket to %s: %w", server, err)}
	}
	return conn, nil
}

// admit lets a datagram listen, under an ID that no other one has here, unless the socket was used enough.
func (s *socket) admit(l *datagram) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.uses == 0 {
		return false
	}
	for s.waiting[l.query.Id] != nil || slices.Contains(s.past, l.query.Id) { // At most 64 of 65,536 are.
		l.number(dns.Id())
	}
	s.uses--
	s.waiting[l.query.Id] = l
	l.socket, l.sent = s, time.Now()
	return true
}

// linger is how long a datagram goes on listening. A socket that nobody else uses is closed then.
func (s *socket) linger(until time.Time) {
	if !s.shared {
		_ = s.conn.SetReadDeadline(until)
	}
}

// leave ends a datagram's listening. The last one to leave a socket that was used enough closes it.
func (s *socket) leave(l *datagram) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.remove(l)
	s.closeIdle()
}

// remove ends a datagram's listening. The lock is held.
func (s *socket) remove(l *datagram) {
	if s.waiting[l.query.Id] == l {
		delete(s.waiting, l.query.Id)
		s.past = append(s.past, l.query.Id)
	}
}

// closeIdle closes a socket that nobody needs any more. The lock is held.
func (s *socket) closeIdle() (done bool) {
	if done = s.uses == 0 && len(s.waiting) == 0; done {
		_ = s.conn.Close()
	}
	return done
}

// read hands out what comes, until the socket is closed.
func (s *socket) read(size int) {
	defer func() { _ = s.conn.Close() }()
	buf := make([]byte, size)
	for range s.reads {
		n, err := s.conn.Read(buf)
		switch {
		case err == nil:
			s.heard(buf[:n], time.Now())
		case errors.Is(err, net.ErrClosed):
			return
		case isTimeout(err): // Its time is over. Those who wait may go on.
			if s.retire() {
				return
			}
		default:
			s.failed(err)
		}
	}
}

// retire takes no more queries. Done: nobody waits for a reply.
func (s *socket) retire() (done bool) {
	_ = s.conn.SetReadDeadline(time.Time{})
	s.mu.Lock()
	defer s.mu.Unlock()
	s.uses = 0
	now := time.Now()
	for _, l := range s.waiting {
		if l.late(now) {
			s.remove(l)
		}
	}
	return s.closeIdle()
}

// heard hands a message to the datagram that it is for: the one with its ID, or else those with its question,
// for whom it is a guess.
func (s *socket) heard(wire []byte, at time.Time) {
	s.mu.Lock()
	var id uint16
	if len(wire) >= 2 {
		id = uint16(wire[0])<<8 | uint16(wire[1])
	}
	if l := s.waiting[id]; l != nil {
		late := l.late(at)
		s.mu.Unlock()
		if !late {
			l.heard(wire, at)
		}
		return
	}
	var guessed []*datagram
	for _, l := range s.waiting {
		if !slices.Contains(s.past, id) && !l.late(at) && (len(s.waiting) == 1 || l.asks(wire)) {
			guessed = append(guessed, l)
		}
	}
	s.mu.Unlock()
	for _, l := range guessed {
		l.heard(wire, at)
	}
}

// failed tells those who wait for an answer of an ICMP error: what it says of the server holds for all.
func (s *socket) failed(err error) {
	ev := &pb.Evidence{Errno: errnoName(err)}
	drainErrorQueue(s.conn, ev)
	s.mu.Lock()
	var waiting []*datagram
	for _, l := range s.waiting {
		if l.until.IsZero() {
			waiting = append(waiting, l)
		}
	}
	s.uses = 0 // The next query shall not inherit an error.
	s.closeIdle()
	s.mu.Unlock()
	for _, l := range waiting {
		l.failed(err, ev)
	}
}
