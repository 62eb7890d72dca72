// Package identity is who speaks: the network's own certificate authority, the certificates of agents and
// coordinators, the tokens that let agents and clients in, and what an agent keeps of it on disk.
//
// An agent is the URI "spiffe://elsewhere/agent/NAME" in a certificate for clients, a coordinator is
// "spiffe://elsewhere/coordinator/NAME" in one for servers, both signed by an authority of the bundle
// (the form of SPIFFE-ID, section 2). No other field of a certificate says anything. TLS is 1.3, without
// resumption, so that every connection shows its certificate.
package identity

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"sync"
	"time"

	"github.com/elsewhere-net/elsewhere/internal/file"
	pb "github.com/elsewhere-net/elsewhere/proto/elsewhere/v1"
)

const (
	bundleFile, keyFile = "ca.pem", "ca.key"
	// maxAuthorities bounds a bundle.
	maxAuthorities = 16
	// AgentLife is how long an agent's certificate is good unless somebody says otherwise.
	AgentLife = 24 * time.Hour
	// authorityLife is how long an authority is good.
	authorityLife = 10 * 365 * 24 * time.Hour
	// coordinatorLife is how long a coordinator's certificate is good; it has a new one at two thirds. It is long since
	// agents check it by clocks that may be wrong.
	coordinatorLife = 7 * 24 * time.Hour
)

// Grace is how long after its end an agent's certificate is good to renew it.
const Grace = 7 * 24 * time.Hour

// Options is how long things are good. The zero value is the real world.
type Options struct {
	// Now is the clock that decides. Default: the system's.
	Now func() time.Time
	// AgentLife is how long an agent's certificate is good. Default: 24 h.
	AgentLife time.Duration
}

func (o Options) orDefault() Options {
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.AgentLife <= 0 {
		o.AgentLife = AgentLife
	}
	return o
}

// authority is one certificate authority; without a key it is trusted only.
type authority struct {
	cert *x509.Certificate
	key  crypto.Signer
}

// Authorities are the certificate authorities of a network, with the keys to sign for them. It is safe for
// concurrent use.
type Authorities struct {
	opts Options
	dir  string

	mu   sync.RWMutex
	list []authority // the one that signs is the first
}

// Open reads the authorities in a directory, "ca.pem" and "ca.key", or makes the first one there. Keys that
// others may read are refused.
func Open(dir string, opts Options) (*Authorities, error) {
	a := &Authorities{opts: opts.orDefault(), dir: dir}
	keys, err := readKeys(filepath.Join(dir, keyFile))
	missing := errors.Is(err, fs.ErrNotExist)
	if err != nil && !missing {
		return nil, err
	}
	certs, err := readCertificates(filepath.Join(dir, bundleFile))
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return a, a.create(keys)
	case err != nil:
		return nil, err
	case missing:
		return nil, fmt.Errorf("%s is there and %s is not: restore it from a backup; without it no agent can be let in",
			filepath.Join(dir, bundleFile), keyFile)
	}
	for _, cert := range certs {
		a.list = append(a.list, authority{cert, keyOf(cert, keys)})
	}
	if a.list[0].key == nil {
		return nil, fmt.Errorf("%s has no key for the first certificate of %s", filepath.Join(dir, keyFile), bundleFile)
	}
	return a, nil
}

// keyOf is the key of a certificate, if it is there.
func keyOf(cert *x509.Certificate, keys []crypto.Signer) crypto.Signer {
	for _, key := range keys {
		public, ok := key.Public().(interface{ Equal(crypto.PublicKey) bool })
		if ok && public.Equal(cert.PublicKey) {
			return key
		}
	}
	return nil
}

// create makes the first authority. The key is written first: one without a certificate is what a crash here
// leaves, and is used then.
func (a *Authorities) create(keys []crypto.Signer) error {
	if len(keys) == 0 {
		key, err := newKey()
		if err != nil {
			return err
		}
		keys = []crypto.Signer{key}
		if err := writeKeys(filepath.Join(a.dir, keyFile), keys); err != nil {
			return err
		}
	}
	first, err := a.newAuthority(keys[0])
	if err != nil {
		return err
	}
	a.list = []authority{first}
	return file.Replace(filepath.Join(a.dir, bundleFile), a.PEM())
}

// newAuthority signs a certificate of an authority with its own key.
func (a *Authorities) newAuthority(key crypto.Signer) (authority, error) {
	spki, err := x509.MarshalPKIXPublicKey(key.Public())
	if err != nil {
		return authority{}, fmt.Errorf("authority: %w", err)
	}
	now := a.opts.Now()
	template := &x509.Certificate{
		// Its name is for people; nothing goes by it.
		Subject:               pkix.Name{CommonName: "Elsewhere authority " + Pin(sha256.Sum256(spki)).String()[:8]},
		NotBefore:             now.Add(-24 * time.Hour),
		NotAfter:              now.Add(authorityLife),
		KeyUsage:              x509.KeyUsageCertSign,
		BasicConstraintsValid: true,
		IsCA:                  true,
		MaxPathLenZero:        true,
	}
	cert, err := sign(template, template, key.Public(), key)
	return authority{cert, key}, err
}

// sign makes a certificate.
func sign(template, parent *x509.Certificate, public crypto.PublicKey, key crypto.Signer) (*x509.Certificate, error) {
	der, err := x509.CreateCertificate(rand.Reader, template, parent, public, key)
	if err != nil {
		return nil, fmt.Errorf("certificate: %w", err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, fmt.Errorf("certificate: %w", err)
	}
	return cert, nil
}

func newKey() (crypto.Signer, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("key: %w", err)
	}
	return key, nil
}

// signer is the authority that signs.
func (a *Authorities) signer() authority {
	a.mu.RLock()
	defer a.mu.RUnlock()
	return a.list[0]
}

// certificates are the bundle, the one in use first.
func (a *Authorities) certificates() []*x509.Certificate {
	a.mu.RLock()
	defer a.mu.RUnlock()
	return certificatesOf(a.list)
}

// Pin is the pin of the authority in use: what a join token carries.
func (a *Authorities) Pin() Pin { return pinOf(a.signer().cert) }

// PEM is the bundle for clients: what is in ca.pem.
func (a *Authorities) PEM() []byte { return encodeCertificates(a.certificates()) }

// DER is the bundle for agents.
func (a *Authorities) DER() [][]byte {
	var bundle [][]byte
	for _, cert := range a.certificates() {
		bundle = append(bundle, cert.Raw)
	}
	return bundle
}

// Digest tells one list of authorities from another: a Beat's authorities.
func (a *Authorities) Digest() []byte { return digest(a.certificates()) }

func digest(certs []*x509.Certificate) []byte {
	all := sha256.New()
	for _, cert := range certs {
		one := sha256.Sum256(cert.Raw)
		all.Write(one[:])
	}
	return all.Sum(nil)
}

// Issued is a certificate that was made for an agent.
type Issued struct {
	// Certificate is what the agent is sent.
	Certificate *pb.AgentCertificate
	// Key is SHA-256 of its SubjectPublicKeyInfo.
	Key []byte
	// Expires is when it ends.
	Expires time.Time
	// Authority is SHA-256 of the SubjectPublicKeyInfo of the authority that signed it.
	Authority []byte
}

// IssueAgent certifies the key of a PKCS#10 request as an agent's; CheckRequest says which are refused.
func (a *Authorities) IssueAgent(name string, request []byte) (*Issued, error) {
	public, key, err := CheckRequest(request)
	if err != nil {
		return nil, err
	}
	by, now := a.signer(), a.opts.Now()
	template := leaf(agentRole, name, now, a.opts.AgentLife)
	template.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}
	cert, err := a.issue(template, by, public)
	if err != nil {
		return nil, err
	}
	return &Issued{
		Certificate: &pb.AgentCertificate{Chain: [][]byte{cert.Raw}, Authorities: a.DER()},
		Key:         key,
		Expires:     cert.NotAfter,
		Authority:   Fingerprint(by.cert),
	}, nil
}

// issue signs a certificate that does not outlive its authority.
func (a *Authorities) issue(template *x509.Certificate, by authority, public crypto.PublicKey) (*x509.Certificate, error) {
	if !a.opts.Now().Before(by.cert.NotAfter) {
		return nil, fmt.Errorf("the authority in use ended at %s: put another one to use, and check the clock", by.cert.NotAfter)
	}
	if template.NotAfter.After(by.cert.NotAfter) {
		template.NotAfter = by.cert.NotAfter
	}
	return sign(template, by.cert, public, by.key)
}
