package identity

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"slices"
	"sync"
	"time"
)

// maxHosts bounds the addresses in a coordinator's certificate.
const maxHosts = 200

// ErrNoCertificate says that the other end of a connection showed no certificate.
var ErrNoCertificate = errors.New("no client certificate")

// ServerTLS is how a coordinator serves clients and agents: TLS 1.3 with a certificate that is made now, in memory,
// and again at two thirds of its life. It is good for the hosts (names or IP addresses; "" and unspecified addresses
// are left out), localhost, the machine's name and its own addresses. Clients may show a certificate; one that is
// shown must be an agent's, and one that ended within the grace is let through: Peer tells.
func (a *Authorities) ServerTLS(name string, hosts []string) *tls.Config {
	own := &coordinatorLeaf{authorities: a, name: name, hosts: hosts}
	return &tls.Config{
		MinVersion:             tls.VersionTLS13,
		SessionTicketsDisabled: true,
		ClientAuth:             tls.RequestClientCert, // and VerifyConnection verifies
		GetCertificate:         func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return own.current() },
		VerifyConnection: func(s tls.ConnectionState) error {
			_, err := a.Peer(s)
			if errors.Is(err, ErrNoCertificate) {
				return nil
			}
			return err
		},
	}
}

// AgentsTLS is ServerTLS for agents alone: they must show a certificate that has not ended.
func (a *Authorities) AgentsTLS(name string, hosts []string) *tls.Config {
	config := a.ServerTLS(name, hosts)
	config.ClientAuth = tls.RequireAnyClientCert
	config.VerifyConnection = func(s tls.ConnectionState) error {
		peer, err := a.Peer(s)
		if err == nil && peer.Expired {
			err = fmt.Errorf("the certificate of agent %s ended at %s", peer.Agent, peer.Expires)
		}
		return err
	}
	return config
}

// CoordinatorsTLS is how coordinators connect to each other, both ways: each shows a certificate as ServerTLS's, and takes
// only a coordinator's.
func (a *Authorities) CoordinatorsTLS(name string, hosts []string) *tls.Config {
	own := &coordinatorLeaf{authorities: a, name: name, hosts: hosts}
	return &tls.Config{
		MinVersion:             tls.VersionTLS13,
		SessionTicketsDisabled: true,
		ClientAuth:             tls.RequireAnyClientCert,
		InsecureSkipVerify:     true, // VerifyConnection, which is called at both ends, takes its place
		GetCertificate:         func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return own.current() },
		GetClientCertificate:   func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return own.current() },
		VerifyConnection: func(s tls.ConnectionState) error {
			if len(s.PeerCertificates) == 0 {
				return ErrNoCertificate
			}
			return verifyCoordinator(s.PeerCertificates[0], a.certificates(), a.opts.Now())
		},
	}
}

// Peer is an agent at the other end of a connection.
type Peer struct {
	// Agent is its name by its certificate.
	Agent string
	// Key is SHA-256 of its SubjectPublicKeyInfo.
	Key []byte
	// Expires is when its certificate ends.
	Expires time.Time
	// Expired says that it has ended, less than the grace ago: it is good to be renewed, and for nothing else.
	Expired bool
}

// Peer says which agent is at the other end, by its certificate; ErrNoCertificate if it showed none. It verifies
// anew, so that it may be asked long after the handshake. Whether the key is enrolled is for the caller to say.
func (a *Authorities) Peer(s tls.ConnectionState) (Peer, error) {
	if len(s.PeerCertificates) == 0 {
		return Peer{}, ErrNoCertificate
	}
	cert, now := s.PeerCertificates[0], a.opts.Now()
	name, err := nameIn(cert, agentRole)
	if err != nil {
		return Peer{}, err
	}
	peer := Peer{Agent: name, Key: Fingerprint(cert), Expires: cert.NotAfter, Expired: now.After(cert.NotAfter)}
	if peer.Expired && now.Before(cert.NotAfter.Add(Grace)) {
		now = cert.NotAfter
	}
	if err := verify(cert, a.certificates(), x509.ExtKeyUsageClientAuth, now); err != nil {
		return Peer{}, err
	}
	return peer, nil
}

// coordinatorLeaf is a coordinator's certificate, kept new.
type coordinatorLeaf struct {
	authorities *Authorities
	name        string
	hosts       []string

	mu   sync.Mutex
	cert *tls.Certificate
	by   *x509.Certificate
}

// current is the certificate, made anew if it is time or if another authority signs now.
func (l *coordinatorLeaf) current() (*tls.Certificate, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	by, now := l.authorities.signer(), l.authorities.opts.Now()
	if l.cert != nil && l.by.Equal(by.cert) && now.Before(renewAt(l.cert.Leaf)) {
		return l.cert, nil
	}
	key, err := newKey()
	if err != nil {
		return nil, err
	}
	template := leaf(coordinatorRole, l.name, now, coordinatorLife)
	template.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth} // to other coordinators it is a client
	template.IPAddresses, template.DNSNames = hostsOf(l.hosts)
	cert, err := l.authorities.issue(template, by, key.Public())
	if err != nil {
		return nil, err
	}
	// The authority goes along: an agent that enrols knows it by its pin alone.
	l.cert = &tls.Certificate{Certificate: [][]byte{cert.Raw, by.cert.Raw}, PrivateKey: key, Leaf: cert}
	l.by = by.cert
	return l.cert, nil
}

// hostsOf are the addresses and names that clients may know a coordinator by.
func hostsOf(given []string) (ips []net.IP, names []string) {
	all := append(slices.Clone(given), "localhost", "127.0.0.1", "::1")
	if host, err := os.Hostname(); err == nil {
		all = append(all, host)
	}
	addrs, _ := net.InterfaceAddrs() // without them the given ones are left
	for _, addr := range addrs {
		if prefix, ok := addr.(*net.IPNet); ok {
			all = append(all, prefix.IP.String())
		}
	}
	slices.Sort(all[len(given):]) // the given ones first: the rest may be cut
	for _, host := range all[:min(len(all), maxHosts)] {
		ip, err := netip.ParseAddr(host)
		switch {
		case err == nil && !ip.IsUnspecified():
			ips = append(ips, ip.Unmap().WithZone("").AsSlice())
		case err != nil && host != "" && isASCII(host):
			names = append(names, host)
		}
	}
	return ips, names
}

// isASCII says whether a name can stand in a certificate.
func isASCII(s string) bool {
	return !slices.ContainsFunc([]byte(s), func(b byte) bool { return b <= ' ' || b > '~' })
}
