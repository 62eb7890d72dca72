package lab

import (
	"bytes"
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/crypto/ocsp"
)

// pair is a certificate and its key.
type pair struct {
	cert *x509.Certificate
	key  crypto.Signer
}

// pki are the authorities by name. Only "root" is trusted.
type pki struct {
	dir  string
	all  map[string]pair
	keys map[string]crypto.Signer // RSA keys take long to make, and are shared.
}

// siteCert says what a site's certificate is like. Its zero value is good.
type siteCert struct {
	names      []string      // default: the site's own
	nameless   bool          // without subjectAltName
	subject    string        // default: the first name; "-" for none at all
	begins     time.Duration // from now; default: a day ago
	ends       time.Duration // from now; default: in 30 days
	key        string        // default: "p256"
	issuer     string        // default: "inter"; "self" for its own
	along      []string      // what is served after it; default: the issuer; "leaf" for itself again
	behind     bool          // the certificates along are served before it, with the key of the first
	staple     string        // "good" or "revoked": an OCSP response is stapled
	mustStaple bool
	change     func(*x509.Certificate)
}

const day = 24 * time.Hour

// newPKI makes the authorities.
func newPKI(dir string) (*pki, error) {
	p := &pki{dir: dir, all: map[string]pair{}, keys: map[string]crypto.Signer{}}
	expires := func(c *x509.Certificate) { c.NotAfter = time.Now().Add(-day) }
	for _, a := range []struct {
		name, issuer, key string
		change            func(*x509.Certificate)
	}{
		{"root", "self", "rsa2048", nil},
		{"inter", "root", "p256", nil},
		{"expired-inter", "root", "p256", expires},
		{"sha1-inter", "root", "p256", func(c *x509.Certificate) { c.SignatureAlgorithm = x509.SHA1WithRSA }},
		{"rsa-inter", "root", "rsa2048", nil},
		{"narrow-inter", "root", "p256", func(c *x509.Certificate) {
			c.PermittedDNSDomains, c.PermittedDNSDomainsCritical = []string{"other.example"}, true
		}},
		{"no-inter", "root", "p256", func(c *x509.Certificate) { c.IsCA, c.KeyUsage = false, x509.KeyUsageDigitalSignature }},
		{"low-inter", "root", "p256", func(c *x509.Certificate) { c.MaxPathLen, c.MaxPathLenZero = 0, true }},
		{"too-deep", "low-inter", "p256", nil},
		{"strange-root", "self", "p256", nil},
		{"strange-inter", "strange-root", "p256", nil},
	} {
		template := &x509.Certificate{
			Subject:   pkix.Name{CommonName: "Lab " + a.name, Organization: []string{"Elsewhere's Lab"}},
			NotBefore: time.Now().Add(-365 * day), NotAfter: time.Now().Add(365 * day),
			IsCA: true, BasicConstraintsValid: true,
			KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageCRLSign | x509.KeyUsageDigitalSignature,
		}
		if a.change != nil {
			a.change(template)
		}
		if err := p.make(a.name, a.issuer, a.key, template); err != nil {
			return nil, err
		}
	}
	return p, errors.Join(p.save("root", "root"), p.save("inter", "inter"))
}

// make makes a certificate of a template, and keeps it by its name.
func (p *pki) make(name, issuer, key string, template *x509.Certificate) error {
	signer, err := p.newKey(key)
	if err != nil {
		return err
	}
	if template.SerialNumber, err = rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 100)); err != nil {
		return err
	}
	by := pair{template, signer}
	if issuer != "self" {
		by = p.all[issuer]
	}
	der, err := x509.CreateCertificate(rand.Reader, template, by.cert, signer.Public(), by.key)
	if err != nil {
		return fmt.Errorf("certificate %s: %w", name, err)
	}
	cert, err := x509.ParseCertificate(der)
	p.all[name] = pair{cert, signer}
	return err
}

// newKey makes a key of a kind. RSA keys are made once for each size.
func (p *pki) newKey(kind string) (key crypto.Signer, err error) {
	if key := p.keys[kind]; key != nil {
		return key, nil
	}
	var bits int
	switch _, err := fmt.Sscanf(kind, "rsa%d", &bits); {
	case err == nil:
		key, err = rsa.GenerateKey(rand.Reader, bits)
		p.keys[kind] = key
		return key, err
	case kind == "ed25519":
		_, private, err := ed25519.GenerateKey(rand.Reader)
		return private, err
	}
	curve := map[string]elliptic.Curve{"p256": elliptic.P256(), "p384": elliptic.P384(), "p521": elliptic.P521()}[kind]
	return ecdsa.GenerateKey(curve, rand.Reader)
}

// issue makes a site's certificate, and returns what it serves.
func (p *pki) issue(s *site) (tls.Certificate, error) {
	l := s.leaf
	if l.issuer == "" {
		l.issuer = "inter"
	}
	if l.key == "" {
		l.key = "p256"
	}
	if l.along == nil && l.issuer != "self" {
		l.along = []string{l.issuer}
	}
	if err := p.make(s.name, l.issuer, l.key, l.template(s.host())); err != nil {
		return tls.Certificate{}, err
	}
	chain := []string{s.name}
	for _, name := range l.along {
		if name == "leaf" {
			name = s.name
		}
		chain = append(chain, name)
	}
	if l.behind {
		chain = append(chain[1:], chain[0])
	}
	served := tls.Certificate{PrivateKey: p.all[chain[0]].key}
	for _, name := range chain {
		served.Certificate = append(served.Certificate, p.all[name].cert.Raw)
	}
	var err error
	if l.staple != "" {
		served.OCSPStaple, err = p.respond(s.name, l)
	}
	return served, errors.Join(err, p.save(s.name, chain...))
}

// template is the certificate to be signed.
func (l siteCert) template(host string) *x509.Certificate {
	c := &x509.Certificate{
		DNSNames: l.names, NotBefore: time.Now().Add(-day), NotAfter: time.Now().Add(30 * day),
		KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageKeyEncipherment, BasicConstraintsValid: true,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	if c.DNSNames == nil && !l.nameless {
		c.DNSNames = []string{host}
	}
	switch {
	case l.subject == "":
		c.Subject.CommonName = host
	case l.subject != "-":
		c.Subject.CommonName = l.subject
	}
	if l.begins != 0 {
		c.NotBefore = time.Now().Add(l.begins)
	}
	if l.ends != 0 {
		c.NotAfter = time.Now().Add(l.ends)
	}
	if l.mustStaple { // id-pe-tlsfeature with status_request (RFC 7633).
		c.ExtraExtensions = []pkix.Extension{{Id: []int{1, 3, 6, 1, 5, 5, 7, 1, 24}, Value: []byte{0x30, 3, 2, 1, 5}}}
	}
	if l.change != nil {
		l.change(c)
	}
	return c
}

// respond makes an OCSP response for a certificate.
func (p *pki) respond(name string, l siteCert) ([]byte, error) {
	template := ocsp.Response{
		Status: ocsp.Good, SerialNumber: p.all[name].cert.SerialNumber,
		ThisUpdate: time.Now().Add(-time.Hour), NextUpdate: time.Now().Add(day),
	}
	if l.staple == "revoked" {
		template.Status, template.RevokedAt = ocsp.Revoked, time.Now().Add(-2*time.Hour)
	}
	by := p.all["inter"]
	return ocsp.CreateResponse(by.cert, by.cert, template, by.key)
}

// file is where a site's or an authority's PEM is: NAME, NAME.key or NAME.chain.
func (p *pki) file(name string) string { return filepath.Join(p.dir, name+".pem") }

// save writes the first certificate of a chain, its key, and the chain.
func (p *pki) save(name string, chain ...string) error {
	var all bytes.Buffer
	for _, link := range chain {
		_ = pem.Encode(&all, &pem.Block{Type: "CERTIFICATE", Bytes: p.all[link].cert.Raw}) // a buffer takes all
	}
	first := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: p.all[chain[0]].cert.Raw})
	der, err := x509.MarshalPKCS8PrivateKey(p.all[chain[0]].key)
	if err != nil {
		return err
	}
	key := pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})
	return errors.Join(os.WriteFile(p.file(name), first, 0o644), os.WriteFile(p.file(name+".key"), key, 0o644),
		os.WriteFile(p.file(name+".chain"), all.Bytes(), 0o644))
}

// makeCertificates makes the authorities and the certificates of all sites.
func (w *peerWorld) makeCertificates(context.Context) error {
	var err error
	if w.pki, err = newPKI(w.dir); err != nil {
		return err
	}
	for _, s := range w.sites {
		if s.cert, err = w.pki.issue(s); err != nil {
			return err
		}
	}
	return nil
}
