package probetest

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"strings"
	"sync"
	"time"

	"github.com/miekg/dns"
)

// Zone is what a DNS server knows: names in lower case without their last dot, "." for the root. A name
// that it lacks does not exist.
type Zone map[string]Name

// Name is what a DNS server answers about a name.
type Name struct {
	// Records in presentation format, "www.example. 60 IN A 127.0.0.2". Those of the type asked for
	// are answered, and CNAMEs with what they lead to; RRSIG records go with what they cover, to who asks
	// with DO. A SOA record goes with negative answers about the names below.
	Records []string
	// Rcode is the response code (miekg/dns's numbers). Default: NOERROR.
	Rcode int
	// EDE is an extended error (RFC 8914) to send along. Default: none.
	EDE *dns.EDNS0_EDE
	// Fault is what the server does wrong. Default: nothing.
	Fault Fault
}

// Fault is a way for a DNS server to misbehave.
type Fault int

// The ways to misbehave.
const (
	None       Fault = iota
	Silent           // No answer, over UDP and TCP.
	SilentUDP        // No answer over UDP.
	Truncated        // TC=1 over UDP; TCP has it all.
	TwoReplies       // A forged reply comes before the true one.
	WrongID          // The reply has another ID.
	WrongName        // The reply is about another name.
	Garbage          // The reply is the query's ID and noise.
	Flaky            // The first query goes unanswered.
	Bogus            // The server validates, and fails: SERVFAIL unless asked with CD.
	Unchained        // The server gives up on a CNAME: SERVFAIL unless asked for the CNAME itself.
)

// Forged is the address of the forged reply of TwoReplies.
const Forged = "127.66.66.66"

// DNSServer is a DNS server on loopback, over UDP and TCP on one port.
type DNSServer struct {
	addr    netip.AddrPort
	servers []*dns.Server
	shut    *Host // Its TCP port, if nobody listens there.
	stopped sync.WaitGroup

	mu    sync.Mutex
	zone  Zone
	asked map[string]int
}

// ServeDNS starts a DNS server on an address; port 0 takes a free one. Without TCP its TCP port is closed, and
// stays so until Close.
func ServeDNS(at netip.AddrPort, zone Zone, tcp bool) (*DNSServer, error) {
	s := &DNSServer{zone: zone, asked: map[string]int{}}
	if tcp {
		packets, stream, err := listenBoth(at)
		if err != nil {
			return nil, err
		}
		s.addr = stream.Addr().(*net.TCPAddr).AddrPort()
		s.start(&dns.Server{PacketConn: packets, Handler: s})
		s.start(&dns.Server{Listener: stream, Handler: s})
		return s, nil
	}
	packets, shut, err := withUDP(func() (*Host, string, error) {
		h, err := ListenClosed(at)
		if err != nil {
			return nil, "", err
		}
		return h, h.Addr().String(), nil
	})
	if err != nil {
		return nil, err
	}
	s.addr, s.shut = shut.Addr(), shut
	s.start(&dns.Server{PacketConn: packets, Handler: s})
	return s, nil
}

// listenBoth opens a UDP and a TCP socket on one port.
func listenBoth(at netip.AddrPort) (net.PacketConn, net.Listener, error) {
	return withUDP(func() (net.Listener, string, error) {
		var lc net.ListenConfig
		l, err := lc.Listen(context.Background(), "tcp", at.String())
		if err != nil {
			return nil, "", err
		}
		return l, l.Addr().String(), nil
	})
}

// withUDP opens a UDP socket on the port of what open takes for TCP.
func withUDP[T io.Closer](open func() (stream T, addr string, err error)) (packets net.PacketConn, stream T, err error) {
	var lc net.ListenConfig
	var last error
	for range 20 { // A port that is free for TCP may be taken for UDP.
		s, addr, err := open()
		if err != nil {
			return nil, stream, err
		}
		packets, err := lc.ListenPacket(context.Background(), "udp", addr)
		if err == nil {
			return packets, s, nil
		}
		last = errors.Join(err, s.Close())
	}
	return nil, stream, fmt.Errorf("no port free for both UDP and TCP: %w", last)
}

// start runs one of the two servers, and returns when it listens.
func (s *DNSServer) start(srv *dns.Server) {
	ready := make(chan struct{})
	srv.NotifyStartedFunc = func() { close(ready) }
	s.servers = append(s.servers, srv)
	s.stopped.Go(func() { _ = srv.ActivateAndServe() })
	<-ready
}

// Addr returns the server's address and port.
func (s *DNSServer) Addr() netip.AddrPort { return s.addr }

// Set changes what the server answers about a name.
func (s *DNSServer) Set(name string, n Name) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.zone[name] = n
}

// Asked returns how often the server was asked about a name.
func (s *DNSServer) Asked(name string) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.asked[name]
}

// Close stops the server.
func (s *DNSServer) Close() error {
	var err error
	for _, srv := range s.servers {
		err = errors.Join(err, srv.Shutdown())
	}
	s.stopped.Wait()
	if s.shut != nil {
		err = errors.Join(err, s.shut.Close())
	}
	return err
}

// find returns what is known of a name, and how often it was asked for.
func (s *DNSServer) find(name string) (Name, bool, int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	name = key(name)
	s.asked[name]++
	n, ok := s.zone[name]
	return n, ok, s.asked[name]
}

// ServeDNS answers a query; it is what the server calls.
func (s *DNSServer) ServeDNS(w dns.ResponseWriter, q *dns.Msg) {
	if len(q.Question) != 1 {
		return
	}
	n, known, asked := s.find(q.Question[0].Name)
	_, udp := w.RemoteAddr().(*net.UDPAddr)
	reply := s.answer(q, n, known)
	switch n.Fault {
	case None, Bogus, Unchained:
	case Silent:
		return
	case SilentUDP:
		if udp {
			return
		}
	case Flaky:
		if asked == 1 {
			return
		}
	case Truncated:
		if udp {
			reply.Truncated, reply.Answer = true, nil
		}
	case TwoReplies:
		_ = w.WriteMsg(forge(q))
	case WrongID:
		reply.Id++
	case WrongName:
		reply.Question[0].Name = "other.example."
	case Garbage:
		_, _ = w.Write([]byte{byte(q.Id >> 8), byte(q.Id), 0x81, 0x80, 0, 1, 0, 9, 0, 0, 0, 0, 0xc0})
		return
	}
	_ = w.WriteMsg(reply)
}

// answer is the true reply.
func (s *DNSServer) answer(q *dns.Msg, n Name, known bool) *dns.Msg {
	reply := new(dns.Msg).SetReply(q)
	reply.RecursionAvailable = true
	if !known {
		n.Rcode = dns.RcodeNameError
	}
	if n.Fault == Bogus && !q.CheckingDisabled || n.Fault == Unchained && q.Question[0].Qtype != dns.TypeCNAME {
		n.Rcode, n.Records = dns.RcodeServerFailure, nil
	}
	reply.Rcode = n.Rcode
	o := q.IsEdns0()
	reply.Answer = s.chase(q.Question[0], n, 8, o != nil && o.Do())
	s.conclude(reply)
	if o != nil {
		reply.SetEdns0(1232, o.Do())
		if n.EDE != nil {
			reply.IsEdns0().Option = []dns.EDNS0{n.EDE}
		}
	}
	return reply
}

// conclude ends a reply that has no record of the type asked for as a resolver does: the response code is
// that of the name that the chain leads to (RFC 6604), and the SOA record is that of its zone.
func (s *DNSServer) conclude(reply *dns.Msg) {
	s.mu.Lock()
	defer s.mu.Unlock()
	q := reply.Question[0]
	name := key(q.Name)
	for _, rr := range reply.Answer {
		if rr.Header().Rrtype == q.Qtype {
			return
		}
		if cname, ok := rr.(*dns.CNAME); ok {
			name = key(cname.Target)
		}
	}
	end, known := s.zone[name]
	switch {
	case len(reply.Answer) == 0:
	case !known:
		reply.Rcode = dns.RcodeNameError
	case end.Rcode != dns.RcodeSuccess:
		reply.Rcode, reply.Answer = end.Rcode, nil
	}
	if reply.Rcode == dns.RcodeSuccess || reply.Rcode == dns.RcodeNameError {
		reply.Ns = s.soa(name)
	}
}

// soa returns the SOA record of the closest zone above a name.
func (s *DNSServer) soa(name string) []dns.RR {
	for _, label := range dns.Split(name) {
		for _, text := range s.zone[name[label:]].Records {
			if rr, err := dns.NewRR(text); err == nil && rr != nil && rr.Header().Rrtype == dns.TypeSOA {
				return []dns.RR{rr}
			}
		}
	}
	return nil
}

// key is a name as a Zone has it.
func key(name string) string {
	if name == "." {
		return name
	}
	return strings.TrimSuffix(strings.ToLower(name), ".")
}

// chase returns the records that answer a question, following CNAMEs.
func (s *DNSServer) chase(q dns.Question, n Name, links int, do bool) []dns.RR {
	var out []dns.RR
	for _, text := range n.Records {
		rr, err := dns.NewRR(text)
		if err != nil || rr == nil {
			continue
		}
		sig, isSig := rr.(*dns.RRSIG)
		if rr.Header().Rrtype == q.Qtype || isSig && do && sig.TypeCovered == q.Qtype {
			out = append(out, rr)
			continue
		}
		if cname, ok := rr.(*dns.CNAME); ok {
			out = append(out, rr)
			s.mu.Lock()
			next := s.zone[key(cname.Target)]
			s.mu.Unlock()
			if links > 0 {
				out = append(out, s.chase(q, next, links-1, do)...)
			}
		}
	}
	return out
}

// forge is what someone on the way would answer.
func forge(q *dns.Msg) *dns.Msg {
	reply := new(dns.Msg).SetReply(q)
	reply.Answer = []dns.RR{&dns.A{
		Hdr: dns.RR_Header{Name: q.Question[0].Name, Rrtype: dns.TypeA, Class: dns.ClassINET, Ttl: uint32(time.Hour / time.Second)},
		A:   net.ParseIP(Forged).To4(),
	}}
	return reply
}
