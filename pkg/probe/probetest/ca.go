package probetest

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"math/big"
	"net/netip"
	"strings"
	"time"
)

// CA is a certificate authority: a root and an intermediate that issues.
type CA struct {
	Root         *x509.Certificate
	Intermediate *x509.Certificate
	key          crypto.Signer
}

// Serve says which certificates a server sends.
type Serve int

// The chains to send.
const (
	Full      Serve = iota // Leaf, intermediate.
	LeafOnly               // The intermediate is missing.
	Reversed               // Leaf, root, intermediate.
	WithRoot               // Leaf, intermediate, root.
	TwiceLeaf              // Leaf, leaf, intermediate.
)

// Leaf says what a server's certificate is like. Its zero value is valid for nothing, for a day around now.
type Leaf struct {
	// Names are domain names and addresses.
	Names []string
	// NotBefore and NotAfter are the validity. Default: 12 hours ago to 12 hours from now.
	NotBefore, NotAfter time.Time
	// RSABits is the size of an RSA key. Default: an ECDSA P-256 key.
	RSABits int
	// SelfSigned makes it its own issuer.
	SelfSigned bool
	// AIA is a URL where the intermediate is said to be. Default: none.
	AIA string
	// Serve is what is sent along.
	Serve Serve
}

// CAOptions change an authority.
type CAOptions struct {
	// IntermediateNotAfter ends the intermediate's validity. Default: in a year.
	IntermediateNotAfter time.Time
	// Signature is how the intermediate is signed, for an RSA root. Default: ECDSA with SHA-256.
	Signature x509.SignatureAlgorithm
}

// NewCA makes an authority.
func NewCA(name string, opts CAOptions) (*CA, error) {
	rootKey, err := newKey(rsaBits(opts.Signature))
	if err != nil {
		return nil, err
	}
	key, err := newKey(0)
	if err != nil {
		return nil, err
	}
	begin, end := time.Now().Add(-24*365*time.Hour), time.Now().Add(24*365*time.Hour)
	root := authority(name+" Root", begin, end)
	if root, err = sign(root, root, rootKey.Public(), rootKey); err != nil {
		return nil, err
	}
	if !opts.IntermediateNotAfter.IsZero() {
		end = opts.IntermediateNotAfter
	}
	intermediate := authority(name+" Intermediate", begin, end)
	intermediate.SignatureAlgorithm = opts.Signature
	if intermediate, err = sign(intermediate, root, key.Public(), rootKey); err != nil {
		return nil, err
	}
	return &CA{Root: root, Intermediate: intermediate, key: key}, nil
}

// rsaBits is the size of the RSA key that a signature algorithm needs.
func rsaBits(alg x509.SignatureAlgorithm) int {
	if alg == x509.UnknownSignatureAlgorithm {
		return 0
	}
	return 2048
}

// Issue makes a certificate and what a server needs to serve it.
func (ca *CA) Issue(l Leaf) (tls.Certificate, error) {
	key, err := newKey(l.RSABits)
	if err != nil {
		return tls.Certificate{}, err
	}
	template := l.template()
	parent, signer := ca.Intermediate, ca.key
	if l.SelfSigned {
		parent, signer = template, key
	}
	leaf, err := sign(template, parent, key.Public(), signer)
	if err != nil {
		return tls.Certificate{}, err
	}
	out := tls.Certificate{PrivateKey: key, Leaf: leaf, Certificate: [][]byte{leaf.Raw}}
	for _, c := range ca.along(l, leaf) {
		out.Certificate = append(out.Certificate, c.Raw)
	}
	return out, nil
}

// along returns what is sent after the leaf.
func (ca *CA) along(l Leaf, leaf *x509.Certificate) []*x509.Certificate {
	switch {
	case l.SelfSigned, l.Serve == LeafOnly:
		return nil
	case l.Serve == Reversed:
		return []*x509.Certificate{ca.Root, ca.Intermediate}
	case l.Serve == WithRoot:
		return []*x509.Certificate{ca.Intermediate, ca.Root}
	case l.Serve == TwiceLeaf:
		return []*x509.Certificate{leaf, ca.Intermediate}
	}
	return []*x509.Certificate{ca.Intermediate}
}

func (l Leaf) template() *x509.Certificate {
	t := &x509.Certificate{
		Subject:               pkix.Name{CommonName: strings.Join(l.Names[:min(len(l.Names), 1)], "")},
		NotBefore:             l.NotBefore,
		NotAfter:              l.NotAfter,
		KeyUsage:              x509.KeyUsageDigitalSignature,
		ExtKeyUsage:           []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
		BasicConstraintsValid: true,
	}
	if t.NotBefore.IsZero() {
		t.NotBefore = time.Now().Add(-12 * time.Hour)
	}
	if t.NotAfter.IsZero() {
		t.NotAfter = time.Now().Add(12 * time.Hour)
	}
	for _, name := range l.Names {
		if ip, err := netip.ParseAddr(name); err == nil {
			t.IPAddresses = append(t.IPAddresses, ip.AsSlice())
		} else {
			t.DNSNames = append(t.DNSNames, name)
		}
	}
	if l.AIA != "" {
		t.IssuingCertificateURL = []string{l.AIA}
	}
	return t
}

func authority(name string, begin, end time.Time) *x509.Certificate {
	return &x509.Certificate{
		Subject: pkix.Name{CommonName: name}, NotBefore: begin, NotAfter: end,
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
}

func newKey(bits int) (crypto.Signer, error) {
	if bits > 0 {
		return rsa.GenerateKey(rand.Reader, bits)
	}
	return ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
}

// sign makes a certificate of a template.
func sign(template, parent *x509.Certificate, public crypto.PublicKey, signer crypto.Signer) (*x509.Certificate, error) {
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 100))
	if err != nil {
		return nil, err
	}
	template.SerialNumber = serial
	der, err := x509.CreateCertificate(rand.Reader, template, parent, public, signer)
	if err != nil {
		return nil, err
	}
	return x509.ParseCertificate(der)
}
