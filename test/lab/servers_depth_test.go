package lab

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"time"

	"github.com/miekg/dns"
	"golang.org/x/crypto/ocsp"

	"github.com/elsewhere-net/elsewhere/pkg/probe/flight"
	"github.com/elsewhere-net/elsewhere/pkg/probe/probetest"
)

// one is a listener of a single server on a port.
func one[S closer](port uint16, listen func(w *world, at netip.AddrPort) (S, error)) listener {
	return func(w *world, at netip.Addr) ([]closer, error) {
		s, err := listen(w, netip.AddrPortFrom(at, port))
		if err != nil {
			return nil, err
		}
		return []closer{s}, nil
	}
}

// tlsAs serves TLS by a config of its own.
func tlsAs(change func(w *world, c *tls.Config) error) listener {
	return one(443, func(w *world, at netip.AddrPort) (*probetest.Host, error) {
		c, err := w.goodConfig()
		if err == nil {
			err = change(w, c)
		}
		if err != nil {
			return nil, err
		}
		return probetest.ListenTLS(at, c)
	})
}

// goodConfig is a server's, with the good certificate for all names of the zone that such servers share.
func (w *world) goodConfig() (*tls.Config, error) {
	cert, err := w.wardrobe.wear(w, isPlain)
	return &tls.Config{Certificates: []tls.Certificate{cert}, MinVersion: tls.VersionTLS12}, err
}

// withLeaf serves a certificate of the authority that has an intermediate.
func withLeaf(leaf probetest.Leaf) listener {
	return tlsAs(func(w *world, c *tls.Config) error {
		cert, err := w.issuer.Issue(leaf)
		c.Certificates = []tls.Certificate{cert}
		return err
	})
}

// revoked staples the authority's word that the certificate is revoked.
func revoked(w *world, c *tls.Config) error {
	leaf, err := x509.ParseCertificate(c.Certificates[0].Certificate[0])
	if err != nil {
		return err
	}
	now := time.Now().Truncate(time.Minute)
	c.Certificates[0].OCSPStaple, err = ocsp.CreateResponse(w.authority.cert, w.authority.cert, ocsp.Response{
		Status: ocsp.Revoked, SerialNumber: leaf.SerialNumber, RevokedAt: now.Add(-time.Hour), RevocationReason: ocsp.KeyCompromise,
		ThisUpdate: now.Add(-time.Minute), NextUpdate: now.Add(time.Hour),
	}, w.authority.key)
	return err
}

// large serves a certificate for so many names that it takes several packets.
func large(w *world, c *tls.Config) error {
	cert, err := w.authority.issue(time.Now().AddDate(0, 2, 0), append(manyNames(), "*."+zone)...)
	c.Certificates = []tls.Certificate{cert}
	return err
}

// manyNames are names that take several packets.
func manyNames() []string {
	names := make([]string, 80)
	for i := range names {
		names[i] = fmt.Sprintf("a-name-that-takes-its-room-%02d.%s", i, zone)
	}
	return names
}

// middlebox hands connections on to a server, except those that ask for a name.
func middlebox(to, name string, do probetest.Behaviour) listener {
	return one(443, func(w *world, at netip.AddrPort) (*probetest.Host, error) {
		return probetest.ListenMiddlebox(at, probetest.Middlebox{
			To: netip.AddrPortFrom(netip.MustParseAddr(to), 443), Name: name, Do: do,
			Dial: func(to netip.AddrPort) (net.Conn, error) {
				return w.targets.Dial(context.Background(), to.String())
			},
		})
	})
}

// ancient speaks SSL 3.0 alone.
func ancient(w *world, at netip.AddrPort) (*probetest.Host, error) {
	c, err := w.goodConfig()
	if err != nil {
		return nil, err
	}
	return probetest.ListenFlight(at, probetest.FlightServer{
		Versions: []uint16{flight.SSL30}, Suites: []uint16{0x000A, 0x0005}, Certificates: c.Certificates[0].Certificate,
	})
}

// picky serves TLS 1.2 with two suites, and TLS 1.3.
func picky(_ *world, c *tls.Config) error {
	c.CipherSuites = []uint16{tls.TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256, tls.TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384}
	return nil
}

// web serves pages over TLS, the region of the one who asks being known.
func web(page func(rw http.ResponseWriter, r *http.Request, region string)) listener {
	return one(443, func(w *world, at netip.AddrPort) (*probetest.Host, error) {
		c, err := w.goodConfig()
		if err != nil {
			return nil, err
		}
		return probetest.ListenHTTP(at, c, w.pages(page))
	})
}

// plainWeb serves pages in clear.
func plainWeb(port uint16, page func(rw http.ResponseWriter, r *http.Request, region string)) listener {
	return one(port, func(w *world, at netip.AddrPort) (*probetest.Host, error) {
		return probetest.ListenHTTP(at, nil, w.pages(page))
	})
}

func (w *world) pages(page func(rw http.ResponseWriter, r *http.Request, region string)) http.Handler {
	return http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		region := "" // not an agent's
		for _, a := range w.agents {
			if strings.HasPrefix(r.RemoteAddr, a.net+".") {
				region = a.region
			}
		}
		page(rw, r, region)
	})
}

// greet says hello.
func greet(rw http.ResponseWriter, _ *http.Request, _ string) {
	_, _ = rw.Write([]byte("hello\n")) // The client may be gone.
}

// issuers serves the certificate of the intermediate, as certificates say where theirs is.
var issuers = plainWebOf(80, func(w *world) []byte { return w.issuer.Intermediate.Raw })

func plainWebOf(port uint16, body func(w *world) []byte) listener {
	return one(port, func(w *world, at netip.AddrPort) (*probetest.Host, error) {
		return probetest.ListenHTTP(at, nil, http.HandlerFunc(func(rw http.ResponseWriter, _ *http.Request) {
			rw.Header().Set("Content-Type", "application/pkix-cert")
			_, _ = rw.Write(body(w)) // The client may be gone.
		}))
	})
}

// secureDNS answers over TLS, HTTPS and QUIC, each on its own port, with a certificate that ends then.
func secureDNS(notAfter func() time.Time, names ...string) listener {
	return func(w *world, at netip.Addr) ([]closer, error) {
		cert, err := w.issuer.Issue(probetest.Leaf{Names: names, NotBefore: notAfter().AddDate(0, -1, 0), NotAfter: notAfter()})
		if err != nil {
			return nil, err
		}
		config := func(alpn ...string) *tls.Config {
			return &tls.Config{Certificates: []tls.Certificate{cert}, NextProtos: alpn, MinVersion: tls.VersionTLS12}
		}
		overTLS, err := probetest.ListenDNSStream(netip.AddrPortFrom(at, 853), config("dot"), probetest.Reply(answerAll))
		overHTTPS, err2 := probetest.ListenHTTPS(netip.AddrPortFrom(at, 443), config("h2"), probetest.DNSOverHTTPS(probetest.Reply(answerAll)))
		overQUIC, err3 := probetest.ListenDNSOverQUIC(netip.AddrPortFrom(at, 853), config("doq"), probetest.Reply(answerAll))
		if err := errors.Join(err, err2, err3); err != nil {
			return nil, err
		}
		return []closer{overTLS, overHTTPS, overQUIC}, nil
	}
}

// answerAll answers every question for an A record with one address.
func answerAll(q *dns.Msg) *dns.Msg {
	reply := new(dns.Msg).SetReply(q)
	reply.RecursionAvailable = true
	if q.Question[0].Qtype == dns.TypeA {
		rr := &dns.A{Hdr: dns.RR_Header{Name: q.Question[0].Name, Rrtype: dns.TypeA, Class: dns.ClassINET, Ttl: 60}, A: net.IPv4(203, 0, 113, 13)}
		reply.Answer = []dns.RR{rr}
	}
	return reply
}

// later and earlier are when certificates end.
func later() time.Time   { return time.Now().AddDate(0, 1, 0) }
func earlier() time.Time { return time.Now().AddDate(0, 0, -1) }
