package probetest

import (
	"context"
	"crypto/tls"
	"net"
	"net/netip"
	"strings"
	"time"

	pb "github.com/elsewhere-net/elsewhere/proto/elsewhere/v1"
)

// shaky is an animal that shakes hands as crypto/tls does, with something between it and the wire.
type shaky struct {
	name  string
	want  pb.Failure
	leaf  Leaf
	chain int                     // Certificates that are served.
	wire  func(net.Conn) net.Conn // Nil: nothing is between.
}

func (a shaky) animal() Animal {
	return Animal{Name: a.name, Spec: shaken, Want: a.want, Listen: a.listen}
}

func (a shaky) listen(at netip.AddrPort) (Server, error) {
	ca, err := NewCA("Zoo", CAOptions{})
	if err != nil {
		return nil, err
	}
	cert, err := ca.Issue(a.leaf)
	if err != nil {
		return nil, err
	}
	for len(cert.Certificate) < a.chain {
		cert.Certificate = append(cert.Certificate, ca.Intermediate.Raw)
	}
	config := &tls.Config{Certificates: []tls.Certificate{cert}, MinVersion: tls.VersionTLS12, MaxVersion: tls.VersionTLS12}
	return serve(at, func(c net.Conn) {
		if a.wire != nil {
			c = a.wire(c)
		}
		conn := tls.Server(c, config)
		if conn.HandshakeContext(context.Background()) == nil {
			drain(conn)
		}
	})
}

// slowConn writes a byte at a time, ten of them a second.
type slowConn struct{ net.Conn }

func (c slowConn) Write(p []byte) (int, error) {
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for i := range p {
		if i*100 > int(muchTime/time.Millisecond) {
			return i, net.ErrClosed
		}
		<-tick.C
		if _, err := c.Conn.Write(p[i : i+1]); err != nil {
			return i, err
		}
	}
	return len(p), nil
}

// splitConn puts each byte of the plaintext part of a handshake into a record of its own, which TLS 1.2
// allows (RFC 5246, 6.2.1).
type splitConn struct {
	net.Conn
	encrypted bool
}

func (c *splitConn) Write(p []byte) (int, error) {
	var out []byte
	for rest := p; len(rest) >= 5; {
		end := min(len(rest), 5+int(rest[3])<<8+int(rest[4]))
		record := rest[:end]
		rest = rest[end:]
		c.encrypted = c.encrypted || record[0] == 20 // ChangeCipherSpec.
		if c.encrypted || record[0] != 22 {
			out = append(out, record...)
			continue
		}
		for _, b := range record[5:] {
			out = append(out, 22, 3, 3, 0, 1, b)
		}
	}
	if _, err := c.Conn.Write(out); err != nil {
		return 0, err
	}
	return len(p), nil
}

// tlsHouse is what meets a ClientHello.
func tlsHouse() []Animal {
	malformed, untrusted := pb.Failure_FAILURE_TLS_MALFORMED, pb.Failure_FAILURE_CERT_UNTRUSTED_ROOT
	mismatch := pb.Failure_FAILURE_CERT_NAME_MISMATCH
	zoo := Leaf{Names: []string{"zoo.example"}}
	zeros := strings.Repeat("\x00", 1<<14)
	record := "\x16\x03\x03\x40\x00"
	var many []string
	for i := range 300 {
		many = append(many, strings.Repeat("n", 60)+"."+strings.Repeat("m", 50+i%10)+".example")
	}
	return []Animal{
		shaky{"TLS: a chain of five hundred certificates", untrusted, zoo, 500, nil}.animal(),
		shaky{"TLS: a flight of 16 KiB and more in records of one byte", untrusted, zoo, 40, func(c net.Conn) net.Conn { return &splitConn{Conn: c} }}.animal(),
		shaky{"TLS: a handshake a byte at a time", pb.Failure_FAILURE_TLS_TIMEOUT, zoo, 2, func(c net.Conn) net.Conn { return slowConn{c} }}.animal(),
		shaky{"TLS: names of escapes", mismatch, Leaf{Names: []string{"\x1b]0;owned\x07<b>.example"}}, 2, nil}.animal(),
		shaky{"TLS: three hundred long names", mismatch, Leaf{Names: many}, 2, nil}.animal(),
		hostile("TLS: warnings without end", shaken, malformed, after(repeating("", "\x15\x03\x03\x00\x02\x01\x70"))),
		hostile("TLS: a message of sixteen megabytes", shaken, malformed, after(repeating("\x16\x03\x03\x40\x00\x02\xff\xff\xff"+zeros[4:], record+zeros))),
		hostile("TLS: messages without end", shaken, malformed, after(repeating("", record+zeros))),
		hostile("TLS: empty records without end", shaken, malformed, after(repeating("", "\x16\x03\x03\x00\x00"))),
		hostile("TLS: a record that never ends", shaken, pb.Failure_FAILURE_TLS_TIMEOUT, after(saying(record))),
		hostile("TLS: noise after the header of a ServerHello", shaken, malformed, after(saying("\x16\x03\x03\x00\x30\x02\x00\x00\x2c\x03\x03"+strings.Repeat("\xff", 42)))),
		hostile("TLS: a reset after ClientHello", shaken, pb.Failure_FAILURE_TLS_RESET, after(reset)),
		hostile("TLS: an end after ClientHello", shaken, pb.Failure_FAILURE_TLS_CLOSED, after(func(net.Conn) {})),
		hostile("TLS: a reset in the middle of the flight", shaken, pb.Failure_FAILURE_TLS_RESET, after(resetting("\x16\x03\x03\x40\x00\x02\x00"))),
		hostile("TLS: something else, of escapes", shaken, pb.Failure_FAILURE_TLS_NOT_TLS, after(saying("\x1b]0;owned\x07 HTTP/1.1 400 \xff\xfe\r\n\r\n"))),
	}
}
