package bus_test

import (
	"bytes"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/elsewhere-net/elsewhere/internal/bus"
	"github.com/elsewhere-net/elsewhere/internal/bus/embedded"
	"github.com/elsewhere-net/elsewhere/internal/identity"
	pb "github.com/elsewhere-net/elsewhere/proto/elsewhere/v1"
)

// registry says which agents are let in.
type registry struct {
	authorities *identity.Authorities

	mu      sync.Mutex
	revoked map[string]bool
}

func (r *registry) admit(s tls.ConnectionState) (string, time.Time, error) {
	peer, err := r.authorities.Peer(s)
	if err != nil {
		return "", time.Time{}, err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.revoked[peer.Agent] {
		return "", time.Time{}, errors.New("revoked")
	}
	return peer.Agent, peer.Expires, nil
}

func (r *registry) revoke(agent string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.revoked[agent] = true
}

// startSecure starts a server that knows agents by their certificates, of a given life.
func startSecure(t *testing.T, life time.Duration) (*embedded.Server, *registry) {
	t.Helper()
	dir := t.TempDir()
	authorities, err := identity.Open(dir, identity.Options{AgentLife: life})
	if err != nil {
		t.Fatal(err)
	}
	r := &registry{authorities: authorities, revoked: map[string]bool{}}
	s, err := embedded.Start(embedded.Options{
		Dir: dir, Addr: "127.0.0.1:0", TLS: authorities.AgentsTLS("main", nil), Admit: r.admit,
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Shutdown)
	listen(t, s)
	return s, r
}

// listen lets agents in.
func listen(t *testing.T, s *embedded.Server) {
	t.Helper()
	if err := s.Listen(); err != nil {
		t.Fatal(err)
	}
}

// openFleet opens the coordinator's end of the agents' account.
func openFleet(t *testing.T, s *embedded.Server, beat func(from string, b *pb.Beat)) *bus.Fleet {
	t.Helper()
	f, err := bus.OpenFleet(s)
	if err == nil {
		err = f.Hear(beat)
	}
	if err != nil {
		t.Fatal(err)
	}
	return f
}

// enrol makes an agent's identity.
func enrol(t *testing.T, a *identity.Authorities, name string) *identity.Keep {
	t.Helper()
	k, err := identity.OpenKeep(t.TempDir(), nil)
	if err != nil {
		t.Fatal(err)
	}
	request, err := k.Request()
	if err != nil {
		t.Fatal(err)
	}
	issued, err := a.IssueAgent(name, request)
	if err == nil {
		err = k.Store(issued.Certificate)
	}
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func secureOptions(at net.Addr, k *identity.Keep) bus.AgentOptions {
	return bus.AgentOptions{
		Agent: k.Name(), TLS: k.ClientTLS(), Addresses: []string{at.String()},
		Job: func(j *pb.Job) *pb.JobReply {
			return &pb.JobReply{Failure: pb.Failure_FAILURE_NONE, Detail: j.GetMeasurementId()}
		},
		Cancel:    func(*pb.Cancel) {},
		Connected: func() {},
	}
}

func TestCertificates(t *testing.T) {
	s, r := startSecure(t, time.Hour)
	l := runLog(t, s, 1<<20) // a connection inside the process needs no TLS
	f := openFleet(t, s, func(string, *pb.Beat) {})
	k := enrol(t, r.authorities, "a")
	c, err := bus.ConnectAgent(t.Context(), secureOptions(s.Addr(), k))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if reply, err := f.Ask(t.Context(), &pb.Job{MeasurementId: "m", Agent: "a"}); err != nil || reply.GetDetail() != "m" {
		t.Errorf("%v, %v", reply, err)
	}

	denied := make(chan error, 10)
	nc, err := nats.Connect(s.Addr().String(), nats.Secure(k.ClientTLS()), nats.TLSHandshakeFirst(),
		nats.UserInfo(bus.LogUser, "whatever"), // what it says does not count
		nats.ErrorHandler(func(_ *nats.Conn, _ *nats.Subscription, err error) { denied <- err }))
	if err != nil {
		t.Fatal(err)
	}
	defer nc.Close()
	deniedBeyondItsOwn(t, nc, denied)
	if bounds, err := l.Bounds(t.Context()); err != nil || bounds.Last != 0 {
		t.Errorf("an agent wrote into the log: %+v, %v", bounds, err)
	}
}

func TestWhoIsNotLetIn(t *testing.T) {
	s, r := startSecure(t, time.Hour)
	_, other := startSecure(t, time.Hour)
	k := enrol(t, r.authorities, "a")
	nobody := k.ClientTLS()
	nobody.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return &tls.Certificate{}, nil }
	stranger := k.ClientTLS()
	stranger.GetClientCertificate = enrol(t, other.authorities, "a").ClientTLS().GetClientCertificate
	old := k.ClientTLS()
	old.MinVersion, old.MaxVersion = tls.VersionTLS12, tls.VersionTLS12
	r.revoke("revoked")
	for _, c := range []struct {
		what string
		tls  *tls.Config
	}{
		{"without a certificate", nobody},
		{"with a certificate of another network", stranger},
		{"with TLS 1.2", old},
		{"that was revoked", enrol(t, r.authorities, "revoked").ClientTLS()},
	} {
		opts := secureOptions(s.Addr(), k)
		opts.TLS = c.tls
		if conn, err := bus.ConnectAgent(t.Context(), opts); err == nil {
			conn.Close()
			t.Errorf("an agent %s connects", c.what)
		}
	}
	if nc, err := nats.Connect("nats://"+s.Addr().String(), nats.UserInfo(bus.LogUser, s.Password())); err == nil {
		nc.Close()
		t.Error("the coordinator's own user connects in clear, from outside")
	}
	nc, err := nats.Connect(s.Addr().String(), nats.Secure(k.ClientTLS()), nats.TLSHandshakeFirst(), nats.UserInfo(bus.LogUser, s.Password()))
	if err != nil {
		t.Fatal(err)
	}
	defer nc.Close()
	if _, err := nc.JetStream(); err == nil {
		if _, err := nc.Request("$JS.API.INFO", nil, time.Second); err == nil {
			t.Error("with an agent's certificate the coordinator's password opens JetStream")
		}
	}
}

// The listener waits for TLS before it says anything: what it says first in clear could be changed on the way.
func TestTheListenerBeginsWithTLS(t *testing.T) {
	s, _ := startSecure(t, time.Hour)
	c, err := net.Dial("tcp", s.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = c.Close() }()
	if _, err := io.WriteString(c, "PING\r\n"); err != nil {
		t.Fatal(err)
	}
	if err := c.SetDeadline(time.Now().Add(30 * time.Second)); err != nil {
		t.Fatal(err)
	}
	said, err := io.ReadAll(c) // until the server hangs up
	if errors.Is(err, os.ErrDeadlineExceeded) || bytes.Contains(said, []byte("INFO")) {
		t.Errorf("it says %q (%v)", said, err)
	}
}

// A server that begins in clear and offers TLS later is not spoken to: whoever is in between could take the offer away.
func TestNoDowngrade(t *testing.T) {
	_, r := startSecure(t, time.Hour)
	k := enrol(t, r.authorities, "a")
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	said := make(chan string, 1)
	go func() {
		conn, err := l.Accept()
		if err != nil {
			return
		}
		defer func() { _ = conn.Close() }()
		_, _ = conn.Write([]byte("INFO {\"server_id\":\"x\",\"version\":\"2.15.2\",\"proto\":1,\"max_payload\":1024}\r\n"))
		buf := make([]byte, 4096)
		n, _ := conn.Read(buf)
		said <- string(buf[:n])
	}()
	opts := secureOptions(l.Addr(), k)
	if conn, err := bus.ConnectAgent(t.Context(), opts); err == nil {
		conn.Close()
		t.Error("it connects in clear")
	}
	if heard := <-said; strings.Contains(heard, "CONNECT") || heard == "" || heard[0] != 0x16 {
		t.Errorf("it said %q, not a handshake", heard)
	}
}

// connection is an agent's, with word of its ends.
func connection(t *testing.T, s *embedded.Server, k *identity.Keep) (ended <-chan error) {
	t.Helper()
	end := make(chan error, 10)
	nc, err := nats.Connect(s.Addr().String(), nats.Secure(k.ClientTLS()), nats.TLSHandshakeFirst(), nats.NoReconnect(),
		nats.ClosedHandler(func(nc *nats.Conn) { end <- nc.LastError() }))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(nc.Close)
	return end
}

func within(t *testing.T, what string, ended <-chan error) {
	t.Helper()
	select {
	case err := <-ended:
		t.Logf("%s: %v", what, err)
	case <-time.After(30 * time.Second):
		t.Errorf("%s: the connection still stands", what)
	}
}

func TestConnectionsEnd(t *testing.T) {
	s, r := startSecure(t, 5*time.Second)
	revoked, expires := enrol(t, r.authorities, "a"), enrol(t, r.authorities, "b")
	a, b := connection(t, s, revoked), connection(t, s, expires)
	s.Recheck("a") // nothing is wrong with it
	r.revoke("a")
	select {
	case err := <-a:
		t.Fatalf("it ended before it was looked at again: %v", err)
	default:
	}
	s.Recheck("a")
	within(t, "revoked", a)
	within(t, "after its certificate's end", b)
}

func TestConnectionsOfOneAgentAreBounded(t *testing.T) {
	s, r := startSecure(t, time.Hour)
	k := enrol(t, r.authorities, "a")
	first := connection(t, s, k)
	for range 4 {
		connection(t, s, k)
	}
	within(t, "the oldest of 5", first)
}
