package probetest

import (
	"bytes"
	"io"
	"net"
	"net/netip"
	"sync"
)

// Middlebox stands before a server and looks into ClientHellos, as some firewalls do.
type Middlebox struct {
	// To is the server.
	To netip.AddrPort
	// Dial connects to it. Default: net.DialTCP.
	Dial func(to netip.AddrPort) (net.Conn, error)
	// Name is the server_name that it does not like.
	Name string
	// Do is what it does then: Accept (say nothing), HangUp or Abort.
	Do Behaviour
}

// ListenMiddlebox starts a middlebox: what it does not mind goes to the server and back.
func ListenMiddlebox(at netip.AddrPort, m Middlebox) (*Host, error) {
	return serve(at, func(c net.Conn) {
		var seen bytes.Buffer
		h, err := readHello(io.TeeReader(c, &seen))
		switch {
		case err != nil:
			return
		case h.serverName == m.Name && m.Do == Accept:
			drain(c)
		case h.serverName == m.Name && m.Do == Abort:
			reset(c)
		case h.serverName != m.Name:
			m.relay(c, seen.Bytes())
		}
	})
}

// relay passes bytes on, those that were read already first, until both ends have closed.
func (m Middlebox) relay(c net.Conn, seen []byte) {
	dial := m.Dial
	if dial == nil {
		dial = func(to netip.AddrPort) (net.Conn, error) { return net.DialTCP("tcp", nil, net.TCPAddrFromAddrPort(to)) }
	}
	server, err := dial(m.To)
	if err != nil {
		return
	}
	defer func() { _ = server.Close() }()
	if _, err := server.Write(seen); err != nil {
		return
	}
	var back sync.WaitGroup
	back.Go(func() {
		_, _ = io.Copy(c, server)
		_ = c.Close()
	})
	_, _ = io.Copy(server, c)
	_ = server.Close()
	back.Wait()
}
