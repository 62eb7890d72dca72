package probetest

import (
	"encoding/binary"
	"errors"
	"io"
	"net"
	"net/netip"
	"sync"
)

// RawDNS is a server that answers DNS queries with any bytes, over UDP and TCP on one port. Which bytes
// is for its answer function to say, which gets the query and whether it came over TCP; over UDP each of
// the messages is a datagram, over TCP they are written as they are, length fields included.
type RawDNS struct {
	packets net.PacketConn
	stream  *Host
	stopped sync.WaitGroup
}

// ServeRawDNS starts a server on an address; port 0 takes a free one.
func ServeRawDNS(at netip.AddrPort, answer func(query []byte, tcp bool) [][]byte) (*RawDNS, error) {
	packets, listener, err := listenBoth(at)
	if err != nil {
		return nil, err
	}
	s := &RawDNS{packets: packets}
	s.stream = serveOn(listener, func(c net.Conn) {
		var length [2]byte
		if _, err := io.ReadFull(c, length[:]); err != nil {
			return
		}
		query := make([]byte, binary.BigEndian.Uint16(length[:]))
		if _, err := io.ReadFull(c, query); err != nil {
			return
		}
		for _, m := range answer(query, true) {
			if _, err := c.Write(m); err != nil {
				return
			}
		}
		drain(c)
	})
	s.stopped.Go(func() { s.serveUDP(answer) })
	return s, nil
}

func (s *RawDNS) serveUDP(answer func([]byte, bool) [][]byte) {
	buf := make([]byte, 4096)
	for {
		n, from, err := s.packets.ReadFrom(buf)
		if err != nil {
			return
		}
		for _, m := range answer(append([]byte(nil), buf[:n]...), false) {
			_, _ = s.packets.WriteTo(m, from)
		}
	}
}

// Addr returns the server's address and port.
func (s *RawDNS) Addr() netip.AddrPort { return s.stream.Addr() }

// Close stops the server.
func (s *RawDNS) Close() error {
	err := errors.Join(s.packets.Close(), s.stream.Close())
	s.stopped.Wait()
	return err
}

// Framed is a message with its length in front, as DNS over TCP has it (RFC 1035, 4.2.2).
func Framed(m []byte) []byte {
	return append(binary.BigEndian.AppendUint16(nil, uint16(len(m))), m...)
}
