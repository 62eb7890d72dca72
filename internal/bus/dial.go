package bus

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/netip"
	"strconv"
	"sync/atomic"
	"syscall"
	"time"
)

const (
	// helloTimeout bounds what comes after the connect until the server has let the agent in: where thousands come at once
	// that takes long, and what was computed for one that gives up is lost.
	helloTimeout = 30 * time.Second
	// minPause and maxPause bound the pause before an attempt, and latePause that after one that the server was too slow
	// for.
	minPause, maxPause, latePause = 100 * time.Millisecond, 3200 * time.Millisecond, 32 * time.Second
	// maxServers is how many servers an agent connects to, at most, of those that it is told of.
	maxServers = 8
	// maxLine bounds a line of the protocol that an agent reads, in bytes. What a server says of itself is the longest.
	maxLine = 32 << 10
	// maxMessage bounds a message that an agent reads, in bytes. A job has up to 256 KiB of spec.
	maxMessage = 1 << 20
	// maxPending and maxPendingBytes bound the messages of one subject that wait to be handled. Those beyond are lost, and
	// the coordinator asks again.
	maxPending, maxPendingBytes = 4096, 8 << 20
)

// dialer connects an agent. A server is not trusted: the client library would connect wherever it is told, and make room
// for as long a message as it is told of.
type dialer struct {
	dialer net.Dialer
	may    func(netip.AddrPort) error
	tls    *tls.Config
	// late is how many handshakes in a row the server was too slow for.
	late atomic.Int32
}

// Dial connects to an address that the agent may connect to.
func (d *dialer) Dial(network, address string) (net.Conn, error) {
	addr, err := netip.ParseAddrPort(address)
	if err != nil {
		return nil, fmt.Errorf("bus: NATS at %s: its name has no address", address)
	}
	addr = netip.AddrPortFrom(addr.Addr().Unmap(), addr.Port())
	if d.may != nil {
		if err := d.may(addr); err != nil {
			return nil, fmt.Errorf("bus: NATS at %s: %w", addr, err)
		}
	}
	conn, err := d.dialer.Dial(network, addr.String())
	if err != nil {
		return nil, err
	}
	if d.tls != nil {
		if conn, err = d.secure(conn); err != nil {
			return nil, fmt.Errorf("bus: NATS at %s: %w", addr, err)
		}
	}
	return &boundedConn{Conn: conn}, nil
}

// secure shakes hands, and notes whether the server was in time.
func (d *dialer) secure(conn net.Conn) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(context.Background(), helloTimeout)
	defer cancel()
	secure := tls.Client(conn, d.tls)
	err := secure.HandshakeContext(ctx)
	if err == nil {
		d.late.Store(0)
		return secure, nil
	}
	_ = conn.Close()
	// One that closed in the middle of it was too slow as well, by its own clock.
	if ctx.Err() != nil || errors.Is(err, io.EOF) || errors.Is(err, syscall.ECONNRESET) {
		d.late.Add(1)
	}
	return nil, err
}

// delay is the pause before the n-th attempt: 100 ms doubling to 3.2 s, and 2 s doubling to 32 s where the server is too
// slow; half of it jitter.
func (d *dialer) delay(attempts int) time.Duration {
	pause := min(minPause<<min(attempts, 10), maxPause)
	if late := d.late.Load(); late > 0 {
		pause = min(time.Second<<min(late, 10), latePause)
	}
	return pause/2 + rand.N(pause/2)
}

// SkipTLSHandshake tells the client library that there is nothing left to shake hands about.
func (d *dialer) SkipTLSHandshake() bool { return d.tls != nil }

// errTooLarge is what a connection ends with whose server says too much at once.
var errTooLarge = errors.New("bus: the server sent a line or a message that is too long, or none of the protocol's")

// boundedConn is a connection to a NATS server that ends before a message is too long. It follows the protocol as far as
// it has to: lines, and the bytes that follow those of MSG and HMSG.
// https://docs.nats.io/reference/reference-protocols/nats-protocol
type boundedConn struct {
	net.Conn

	line []byte // Of the line that has begun. What follows its message's size is never needed.
	skip int    // Bytes that are left of a message.
}

// Read reads, and follows what it reads.
func (c *boundedConn) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b)
	if !c.follow(b[:n]) {
		return 0, errTooLarge
	}
	return n, err
}

// follow goes on with what comes, and says whether it keeps the bounds.
func (c *boundedConn) follow(b []byte) bool {
	for len(b) > 0 {
		if c.skip > 0 {
			n := min(c.skip, len(b))
			c.skip, b = c.skip-n, b[n:]
			continue
		}
		end := bytes.IndexByte(b, '\n') + 1
		if end == 0 {
			end = len(b)
		}
		if len(c.line)+end > maxLine {
			return false
		}
		c.line, b = append(c.line, b[:end]...), b[end:]
		if c.line[len(c.line)-1] != '\n' {
			return true
		}
		size, ok := messageSize(c.line)
		if !ok {
			return false
		}
		c.skip, c.line = size, c.line[:0]
	}
	return true
}

// messageSize is the number of bytes that follow a line, with the line break after them; 0 for most lines.
func messageSize(line []byte) (int, bool) {
	words := bytes.Fields(line)
	if len(words) == 0 || !bytes.EqualFold(words[0], []byte("MSG")) && !bytes.EqualFold(words[0], []byte("HMSG")) {
		return 0, true
	}
	size, err := strconv.ParseUint(string(words[len(words)-1]), 10, 31)
	if err != nil || size > maxMessage {
		return 0, false
	}
	if len(words[0]) == 4 { // The headers are a part of it, and their size stands before the whole's.
		headers, err := strconv.ParseUint(string(words[len(words)-2]), 10, 31)
		if err != nil || headers > size {
			return 0, false
		}
	}
	return int(size) + len("\r\n"), true
}
