package probetest

import (
	"context"
	"crypto/tls"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"io"
	"log"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/miekg/dns"
	"github.com/quic-go/quic-go"
)

// Answer answers a query, given as it came, with a message as it goes, good or bad. Nil: silence.
type Answer func(query []byte) []byte

// Reply makes an Answer of a function on messages.
func Reply(f func(q *dns.Msg) *dns.Msg) Answer {
	return func(query []byte) []byte {
		var q dns.Msg
		if q.Unpack(query) != nil {
			return nil
		}
		reply := f(&q)
		if reply == nil {
			return nil
		}
		wire, _ := reply.Pack()
		return wire
	}
}

// Answer answers a query from the server's zone, over whatever it came.
func (s *DNSServer) Answer(query []byte) []byte {
	return Reply(func(q *dns.Msg) *dns.Msg {
		if len(q.Question) != 1 {
			return nil
		}
		n, known, _ := s.find(q.Question[0].Name)
		return s.answer(q, n, known)
	})(query)
}

// ListenDNSStream starts a server of DNS over TCP, or over TLS (RFC 7858) with a config.
func ListenDNSStream(at netip.AddrPort, config *tls.Config, answer Answer) (*Host, error) {
	return serve(at, func(c net.Conn) {
		if config != nil {
			secured := tls.Server(c, config)
			if secured.HandshakeContext(context.Background()) != nil {
				return
			}
			c = secured
		}
		for {
			query, err := readFrame(c)
			if err != nil {
				return
			}
			if reply := answer(query); reply != nil {
				_, _ = c.Write(frame(reply))
			}
		}
	})
}

// frame puts a message's length before it (RFC 1035, 4.2.2).
func frame(wire []byte) []byte {
	return append(binary.BigEndian.AppendUint16(nil, uint16(len(wire))), wire...)
}

// readFrame reads a message with its length before it.
func readFrame(r io.Reader) ([]byte, error) {
	var length [2]byte
	if _, err := io.ReadFull(r, length[:]); err != nil {
		return nil, err
	}
	wire := make([]byte, binary.BigEndian.Uint16(length[:]))
	_, err := io.ReadFull(r, wire)
	return wire, err
}

// ListenDatagrams starts a server over UDP that answers each query with some datagrams.
func ListenDatagrams(at netip.AddrPort, answers func(query []byte) [][]byte) (*Datagrams, error) {
	var lc net.ListenConfig
	conn, err := lc.ListenPacket(context.Background(), "udp", at.String())
	if err != nil {
		return nil, err
	}
	d := &Datagrams{conn: conn}
	d.stopped.Go(func() {
		buf := make([]byte, 1<<16)
		for {
			n, from, err := conn.ReadFrom(buf)
			if err != nil {
				return
			}
			for _, wire := range answers(slices.Clone(buf[:n])) {
				_, _ = conn.WriteTo(wire, from)
			}
		}
	})
	return d, nil
}

// Datagrams is a UDP server on loopback.
type Datagrams struct {
	conn    net.PacketConn
	stopped sync.WaitGroup
}

// Addr returns the server's address and port.
func (d *Datagrams) Addr() netip.AddrPort { return d.conn.LocalAddr().(*net.UDPAddr).AddrPort() }

// Close stops the server.
func (d *Datagrams) Close() error {
	err := d.conn.Close()
	d.stopped.Wait()
	return err
}

// HTTPSServer is an HTTP server over TLS on loopback.
type HTTPSServer struct {
	addr    netip.AddrPort
	server  *http.Server
	stopped sync.WaitGroup
}

// ListenHTTPS starts an HTTP server over TLS; the config's NextProtos say which versions it speaks.
func ListenHTTPS(at netip.AddrPort, config *tls.Config, handler http.Handler) (*HTTPSServer, error) {
	var lc net.ListenConfig
	l, err := lc.Listen(context.Background(), "tcp", at.String())
	if err != nil {
		return nil, err
	}
	protocols := new(http.Protocols)
	protocols.SetHTTP2(slices.Contains(config.NextProtos, "h2"))
	protocols.SetHTTP1(!protocols.HTTP2())
	s := &HTTPSServer{
		addr: l.Addr().(*net.TCPAddr).AddrPort(),
		// Handshakes fail as the tests want them to: nothing is to be logged.
		server: &http.Server{ReadHeaderTimeout: time.Minute, Handler: handler, TLSConfig: config, Protocols: protocols, ErrorLog: log.New(io.Discard, "", 0)},
	}
	s.stopped.Go(func() { _ = s.server.ServeTLS(l, "", "") })
	return s, nil
}

// Addr returns the server's address and port.
func (s *HTTPSServer) Addr() netip.AddrPort { return s.addr }

// Close stops the server and ends its connections.
func (s *HTTPSServer) Close() error {
	err := s.server.Close()
	s.stopped.Wait()
	return err
}

// DNSOverHTTPS serves DNS over HTTPS (RFC 8484), by POST and GET. Silence lasts as long as the request.
func DNSOverHTTPS(answer Answer) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		query, err := queryOf(r)
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		reply := answer(query)
		if reply == nil {
			<-r.Context().Done()
			return
		}
		w.Header().Set("Content-Type", "application/dns-message")
		_, _ = w.Write(reply)
	})
}

// queryOf returns the query in a request.
func queryOf(r *http.Request) ([]byte, error) {
	switch {
	case r.Method == http.MethodGet:
		return base64.RawURLEncoding.DecodeString(r.URL.Query().Get("dns"))
	case r.Method == http.MethodPost && r.Header.Get("Content-Type") == "application/dns-message":
		return io.ReadAll(io.LimitReader(r.Body, dns.MaxMsgSize))
	}
	return nil, errors.New("neither GET nor POST of a DNS message")
}

// QUICServer is a server of DNS over QUIC on loopback.
type QUICServer struct {
	listener *quic.Listener
	stopped  sync.WaitGroup
}

// ListenDNSOverQUIC starts a server of DNS over QUIC (RFC 9250).
func ListenDNSOverQUIC(at netip.AddrPort, config *tls.Config, answer Answer) (*QUICServer, error) {
	l, err := quic.ListenAddr(at.String(), config, nil)
	if err != nil {
		return nil, err
	}
	s := &QUICServer{listener: l}
	s.stopped.Go(func() {
		for {
			conn, err := l.Accept(context.Background())
			if err != nil {
				return
			}
			s.stopped.Go(func() { s.serve(conn, answer) })
		}
	})
	return s, nil
}

// serve answers the queries of a connection, one after the other.
func (s *QUICServer) serve(conn *quic.Conn, answer Answer) {
	for {
		stream, err := conn.AcceptStream(context.Background())
		if err != nil {
			return
		}
		query, err := readFrame(stream)
		if err != nil {
			continue
		}
		if reply := answer(query); reply != nil {
			_, _ = stream.Write(frame(reply))
			_ = stream.Close()
		}
	}
}

// Addr returns the server's address and port.
func (s *QUICServer) Addr() netip.AddrPort { return s.listener.Addr().(*net.UDPAddr).AddrPort() }

// Close stops the server; its connections end with it.
func (s *QUICServer) Close() error {
	err := s.listener.Close()
	s.stopped.Wait()
	return err
}
