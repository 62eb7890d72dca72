package probe

import (
	"context"
	"crypto/x509"
	"encoding/asn1"
	"encoding/pem"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/elsewhere-net/elsewhere/pkg/probe/probetest"
	pb "github.com/elsewhere-net/elsewhere/proto/elsewhere/v1"
)

// issuerHost serves what it is told to, at an address that is not the target's.
type issuerHost struct {
	url string
	mu  sync.Mutex
	at  map[string]http.HandlerFunc
}

func newIssuerHost(t *testing.T) *issuerHost {
	t.Helper()
	h := &issuerHost{at: map[string]http.HandlerFunc{}}
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h.mu.Lock()
		serve := h.at[r.URL.Path]
		h.mu.Unlock()
		if serve == nil {
			http.NotFound(w, r)
			return
		}
		serve(w, r)
	}))
	var lc net.ListenConfig
	l, err := lc.Listen(t.Context(), "tcp", at("127.0.0.3").String())
	if err != nil {
		t.Fatal(err)
	}
	_ = server.Listener.Close()
	server.Listener = l
	server.Start()
	t.Cleanup(server.Close)
	h.url = server.URL
	return h
}

func (h *issuerHost) handle(path string, f http.HandlerFunc) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.at[path] = f
}

func answering(b []byte) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write(b) }
}

// cms makes a CMS message of certificates and nothing else (RFC 5652, 5.1), as DER.
func cms(t testing.TB, certs ...[]byte) []byte {
	t.Helper()
	explicit := func(content []byte) asn1.RawValue {
		return asn1.RawValue{Class: asn1.ClassContextSpecific, Tag: 0, IsCompound: true, Bytes: content}
	}
	type inner struct {
		Type asn1.ObjectIdentifier
	}
	data, err := asn1.Marshal(struct {
		Version      int
		Algorithms   []int `asn1:"set"`
		Content      inner
		Certificates asn1.RawValue
		Signers      []int `asn1:"set"`
	}{1, nil, inner{asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 7, 1}}, explicit(slices.Concat(certs...)), nil})
	if err != nil {
		t.Fatal(err)
	}
	out, err := asn1.Marshal(struct {
		Type    asn1.ObjectIdentifier
		Content asn1.RawValue
	}{oidSignedData, explicit(data)})
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// fetchCase is a chain that lacks something, and what fetching it brings.
type fetchCase struct {
	name     string
	serve    func(*pki, *issuerHost) entities
	want     []pb.Failure
	distrust pb.Distrust
	missing  int
	connects int
	says     string // In issuer_url.
}

// pointing makes a leaf that says that its issuer is at a URL.
func (p *pki) pointing(issuer *probetest.Entity, urls ...string) *probetest.Entity {
	return p.below(issuer, func(c *x509.Certificate) { c.IssuingCertificateURL = urls })
}

func fetchCases() []fetchCase {
	type fs = []pb.Failure
	none, noPath, unknown := pb.Distrust_DISTRUST_UNSPECIFIED, pb.Distrust_DISTRUST_NO_PATH, pb.Distrust_DISTRUST_UNKNOWN_ROOT
	answer := func(f func(*pki, *issuerHost) http.HandlerFunc) func(*pki, *issuerHost) entities {
		return func(p *pki, h *issuerHost) entities {
			h.handle("/i", f(p, h))
			return entities{p.pointing(p.intermediate, h.url+"/i")}
		}
	}
	bytesOf := func(f func(*pki) []byte) func(*pki, *issuerHost) entities {
		return answer(func(p *pki, _ *issuerHost) http.HandlerFunc { return answering(f(p)) })
	}
	at := func(urls ...string) func(*pki, *issuerHost) entities {
		return func(p *pki, _ *issuerHost) entities { return entities{p.pointing(p.intermediate, urls...)} }
	}
	redirect := func(to func(*issuerHost) string) func(*pki, *issuerHost) entities {
		return answer(func(p *pki, h *issuerHost) http.HandlerFunc {
			h.handle("/there", answering(p.intermediate.DER))
			return func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, to(h), http.StatusFound) }
		})
	}
	return []fetchCase{
		{"DER", bytesOf(func(p *pki) []byte { return p.intermediate.DER }), fs{incomplete}, none, 1, 1, "/i"},
		{"PEM", bytesOf(func(p *pki) []byte {
			return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: p.intermediate.DER})
		}), fs{incomplete}, none, 1, 1, "/i"},
		{"a CMS message", bytesOf(func(p *pki) []byte { return cms(p, p.stranger.DER, p.intermediate.DER) }), fs{incomplete}, none, 1, 1, "/i"},
		{"a CMS message as PEM", bytesOf(func(p *pki) []byte {
			return pem.EncodeToMemory(&pem.Block{Type: "PKCS7", Bytes: cms(p, p.intermediate.DER)})
		}), fs{incomplete}, none, 1, 1, "/i"},
		{"the wrong intermediate is served", func(p *pki, h *issuerHost) entities {
			h.handle("/i", answering(p.intermediate.DER))
			return entities{p.pointing(p.intermediate, h.url+"/i"), p.authority("Other", p.root, nil)}
		}, fs{incomplete}, none, 1, 1, "/i"},
		{"two are missing, one after the other", func(p *pki, h *issuerHost) entities {
			lower := p.authority("Lower", p.intermediate, func(c *x509.Certificate) { c.IssuingCertificateURL = []string{h.url + "/upper"} })
			h.handle("/i", answering(lower.DER))
			h.handle("/upper", answering(p.intermediate.DER))
			return entities{p.pointing(lower, h.url+"/i")}
		}, fs{incomplete}, none, 2, 2, "/upper"},
		{"the second one of two URLs works", func(p *pki, h *issuerHost) entities {
			h.handle("/i", answering(p.intermediate.DER))
			return entities{p.pointing(p.intermediate, "ldap://127.0.0.3/cn=i", h.url+"/gone", h.url+"/i")}
		}, fs{incomplete}, none, 1, 2, "/i"},
		{"what is missing has expired too", func(p *pki, h *issuerHost) entities {
			old := p.authority("Old", p.root, func(c *x509.Certificate) { c.NotAfter = time.Now().Add(-time.Hour) })
			h.handle("/i", answering(old.DER))
			return entities{p.pointing(old, h.url+"/i")}
		}, fs{incomplete, oldParent}, none, 1, 1, "/i"},
		{"the root that nobody knows is at the URL", func(p *pki, h *issuerHost) entities {
			h.handle("/i", answering(p.stranger.DER))
			return entities{p.pointing(p.stranger, h.url+"/i")}
		}, fs{untrusted}, unknown, 0, 1, "/i"},
		{"an intermediate is missing and the root is unknown", func(p *pki, h *issuerHost) entities {
			lower := p.authority("Lower", p.stranger, func(c *x509.Certificate) { c.IssuingCertificateURL = []string{h.url + "/root"} })
			h.handle("/i", answering(lower.DER))
			h.handle("/root", answering(p.stranger.DER))
			return entities{p.pointing(lower, h.url+"/i")}
		}, fs{untrusted, incomplete}, unknown, 1, 2, "/root"},
		{"an intermediate is missing, and what is above it points nowhere", func(p *pki, h *issuerHost) entities {
			lower := p.authority("Lower", p.stranger, nil)
			h.handle("/i", answering(lower.DER))
			return entities{p.pointing(lower, h.url+"/i")}
		}, fs{incomplete}, noPath, 1, 1, "/i"},
		{"certificates that point at themselves", func(p *pki, h *issuerHost) entities {
			lower := p.authority("Lower", p.stranger, func(c *x509.Certificate) { c.IssuingCertificateURL = []string{h.url + "/i"} })
			h.handle("/i", answering(lower.DER))
			return entities{p.pointing(lower, h.url+"/i")}
		}, fs{incomplete}, noPath, 1, 1, "/i"},
		{"certificates without end", func(p *pki, h *issuerHost) entities {
			issuer := p.stranger
			for i := range 8 {
				issuer = p.authority(fmt.Sprint("Step ", i), issuer, func(c *x509.Certificate) {
					c.IssuingCertificateURL = []string{fmt.Sprintf("%s/%d", h.url, i-1)}
				})
				h.handle(fmt.Sprintf("/%d", i), answering(issuer.DER))
			}
			return entities{p.pointing(issuer, h.url+"/7")}
		}, fs{incomplete}, noPath, 3, 3, "/5"},
		{"somebody else's certificate", bytesOf(func(p *pki) []byte { return p.stranger.DER }), fs{incomplete}, noPath, 0, 1, "not the issuer's"},
		{"noise", bytesOf(func(*pki) []byte { return []byte("\x30\x82noise") }), fs{incomplete}, noPath, 0, 1, "no certificate"},
		{"nothing", bytesOf(func(*pki) []byte { return nil }), fs{incomplete}, noPath, 0, 1, "no certificate"},
		{"not there", func(p *pki, h *issuerHost) entities {
			return entities{p.pointing(p.intermediate, h.url+"/gone")}
		}, fs{incomplete}, noPath, 0, 1, "404"},
		{"a body without end", answer(func(*pki, *issuerHost) http.HandlerFunc {
			return func(w http.ResponseWriter, r *http.Request) {
				for r.Context().Err() == nil {
					if _, err := w.Write(make([]byte, 1<<14)); err != nil {
						return
					}
				}
			}
		}), fs{incomplete}, noPath, 0, 1, "over 65536 bytes"},
		{"a body that does not come", answer(func(*pki, *issuerHost) http.HandlerFunc {
			return func(w http.ResponseWriter, r *http.Request) {
				w.WriteHeader(http.StatusOK)
				_ = http.NewResponseController(w).Flush()
				<-r.Context().Done()
			}
		}), fs{incomplete}, noPath, 0, 1, "deadline"},
		{"a redirect", redirect(func(h *issuerHost) string { return h.url + "/there" }), fs{incomplete}, none, 1, 2, "/i"},
		{"a redirect that leads back to itself", redirect(func(h *issuerHost) string { return h.url + "/i" }), fs{incomplete}, noPath, 0, 2, "more than one redirect"},
		{"a redirect to a private address", redirect(func(*issuerHost) string { return "http://10.0.0.1/i" }), fs{incomplete}, noPath, 0, 1, "special-purpose"},
		{"a redirect to https", redirect(func(*issuerHost) string { return "https://127.0.0.3/i" }), fs{incomplete}, noPath, 0, 1, "is not http"},
		{"a private address", at("http://10.0.0.1/i"), fs{incomplete}, noPath, 0, 0, "special-purpose"},
		{"this very machine", at("http://localhost/i"), fs{incomplete}, noPath, 0, 0, "special-purpose"},
		{"a name that resolves to a private address", at("http://private.example/i"), fs{incomplete}, noPath, 0, 0, "special-purpose"},
		{"a name that does not resolve", at("http://nobody.example/i"), fs{incomplete}, noPath, 0, 0, "no address"},
		{"a name that nobody answers for", at("http://silent.example/i"), fs{incomplete}, noPath, 0, 0, "deadline"},
		{"a port of another service", at("http://127.0.0.3:22/i"), fs{incomplete}, noPath, 0, 0, "port 22"},
		{"a user", at("http://user@127.0.0.3/i"), fs{incomplete}, noPath, 0, 0, "more than a host"},
		{"LDAP", at("ldap://127.0.0.3/cn=i"), fs{incomplete}, noPath, 0, 0, "is not http"},
		{"no URL at all", at("\x7f://"), fs{incomplete}, noPath, 0, 0, "no URL"},
	}
}

func TestFetchingWhatIsMissing(t *testing.T) {
	t.Parallel()
	p := newPKI(t)
	for _, tt := range fetchCases() {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			q := *p
			q.TB = t
			connects := &dialled{}
			env := newEnv(t, probetest.Zone{
				"private.example": {Records: []string{"private.example. 60 IN A 10.0.0.1"}}, "silent.example": {Fault: probetest.Silent},
			})
			env.Roots, env.Connect = []*x509.Certificate{p.root.Certificate}, connects.connect
			connects.resolver = env.Resolvers[0]
			env.Egress.Allow = []netip.Prefix{netip.MustParsePrefix("127.0.0.3/32")} // And the resolver, which is the agent's own.
			tr := newTrace(env, newJob(tlsSpec("www.example", 443, ""), 20*time.Second))
			c := chainOf(tt.serve(&q, newIssuerHost(t)))
			began := time.Now()
			x := tr.certificates(t.Context(), c)
			took := time.Since(began)
			for _, s := range tr.steps {
				if s.pb.GetFailure() == pb.Failure_FAILURE_UNSPECIFIED {
					t.Errorf("still under way: %v", s.pb)
				}
			}
			tr.running.Wait()
			if !slices.Equal(x.failures, tt.want) || x.analysis.GetDistrust() != tt.distrust || len(x.analysis.GetMissing()) != tt.missing {
				t.Errorf("failures %v, %v, %d missing, want %v, %v, %d: %s",
					x.failures, x.analysis.GetDistrust(), len(x.analysis.GetMissing()), tt.want, tt.distrust, tt.missing, x.text)
			}
			if !strings.Contains(x.analysis.GetIssuerUrl(), tt.says) {
				t.Errorf("issuer_url %q, want %q in it", x.analysis.GetIssuerUrl(), tt.says)
			}
			if connects.n != tt.connects || took > fetchTimeout+slack {
				t.Errorf("%d connects, want %d; it took %v", connects.n, tt.connects, took)
			}
			for _, m := range x.analysis.GetMissing() {
				if len(m.GetDer()) == 0 {
					t.Errorf("%s is missing, and not there to be shown", m.GetSubject())
				}
			}
		})
	}
}

// dialled counts the connections that are opened.
type dialled struct {
	resolver netip.AddrPort // Those that go there do not count.
	mu       sync.Mutex
	n        int
}

func (c *dialled) connect(ctx context.Context, addr netip.AddrPort, opts ConnectOptions) (net.Conn, *pb.Evidence, error) {
	c.mu.Lock()
	if addr != c.resolver {
		c.n++
	}
	c.mu.Unlock()
	if !addr.Addr().IsLoopback() { // Whatever is broken, nothing leaves this machine.
		return nil, nil, errors.New("the test has no way there")
	}
	return Connect(ctx, addr, opts)
}

// TestOneFetchForAllAddresses serves one incomplete chain at several addresses of a name.
func TestOneFetchForAllAddresses(t *testing.T) {
	t.Parallel()
	p := newPKI(t)
	h := newIssuerHost(t)
	h.handle("/i", answering(p.intermediate.DER))
	connects := &dialled{}
	env := newEnv(t, nil)
	env.Roots, env.Connect = []*x509.Certificate{p.root.Certificate}, connects.connect
	tr := newTrace(env, newJob(tlsSpec("www.example", 443, ""), 20*time.Second))
	c := chainOf(entities{p.pointing(p.intermediate, h.url+"/i")})
	for range 4 {
		tr.spawn(func() {
			if x := tr.certificates(t.Context(), c); len(x.analysis.GetMissing()) != 1 {
				t.Errorf("%v", x.analysis)
			}
		})
	}
	tr.running.Wait()
	if connects.n != 1 {
		t.Errorf("%d connects", connects.n)
	}
}

// FuzzIssuerBody: what a URL answers is read without a crash, and bounded.
func FuzzIssuerBody(f *testing.F) {
	p := newPKI(f)
	f.Add(p.intermediate.DER)
	f.Add(cms(f, p.intermediate.DER, p.stranger.DER))
	f.Add(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: p.intermediate.DER}))
	f.Fuzz(func(t *testing.T, b []byte) {
		certs, err := readCertificates(b)
		if (err == nil) != (len(certs) > 0) || len(certs) > maxFetchedCerts {
			t.Errorf("%d certificates, %v", len(certs), err)
		}
		c, _ := outline(b)
		certificate(c)
	})
}
