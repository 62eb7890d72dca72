package identity

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"errors"
	"fmt"
	"net/url"
	"regexp"
	"strings"
	"time"
)

// The roles, as they stand in a certificate's URI.
const (
	agentRole       = "agent"
	coordinatorRole = "coordinator"
	trustDomain     = "elsewhere"
)

// maxRequest bounds a PKCS#10 request, in bytes.
const maxRequest = 4096

var name = regexp.MustCompile(`^[a-z0-9-]{1,63}$`)

// IsName says whether a text can be an agent's name, or a region's: 1 to 63 of a-z, 0-9 and "-", as the contract has it.
func IsName(text string) bool { return name.MatchString(text) }

// leaf is what certificates of agents and coordinators have in common. It is good a little before now, since
// clocks differ: by 1/24 of its life.
func leaf(role, name string, now time.Time, life time.Duration) *x509.Certificate {
	return &x509.Certificate{
		NotBefore:             now.Add(-life / 24),
		NotAfter:              now.Add(life),
		KeyUsage:              x509.KeyUsageDigitalSignature,
		BasicConstraintsValid: true,
		URIs:                  []*url.URL{{Scheme: "spiffe", Host: trustDomain, Path: "/" + role + "/" + name}},
	}
}

// nameIn is the name that a certificate gives its owner in a role: it has one URI, and that is the role's.
func nameIn(cert *x509.Certificate, role string) (string, error) {
	if len(cert.URIs) != 1 {
		return "", fmt.Errorf("the certificate has %d URIs, not one", len(cert.URIs))
	}
	uri := cert.URIs[0].String()
	name, ok := strings.CutPrefix(uri, "spiffe://"+trustDomain+"/"+role+"/")
	if !ok || !IsName(name) {
		return "", fmt.Errorf("the certificate is of %.200q, which is no %s", uri, role)
	}
	return name, nil
}

// verify checks that a certificate was signed by one of the roots for a usage, and is good at a time.
func verify(cert *x509.Certificate, roots []*x509.Certificate, usage x509.ExtKeyUsage, at time.Time) error {
	pool := x509.NewCertPool()
	for _, root := range roots {
		pool.AddCert(root)
	}
	_, err := cert.Verify(x509.VerifyOptions{Roots: pool, CurrentTime: at, KeyUsages: []x509.ExtKeyUsage{usage}})
	if err != nil {
		return fmt.Errorf("certificate: %w", err)
	}
	return nil
}

// renewAt is two thirds of a certificate's life.
func renewAt(cert *x509.Certificate) time.Time {
	return cert.NotBefore.Add(cert.NotAfter.Sub(cert.NotBefore) / 3 * 2)
}

// Fingerprint is SHA-256 of a certificate's SubjectPublicKeyInfo: the key as an Enrolment has it.
func Fingerprint(cert *x509.Certificate) []byte {
	sum := sha256.Sum256(cert.RawSubjectPublicKeyInfo)
	return sum[:]
}

func pinOf(cert *x509.Certificate) Pin { return sha256.Sum256(cert.RawSubjectPublicKeyInfo) }

// NewRequest makes a PKCS#10 request (RFC 2986) for a key.
func NewRequest(key crypto.Signer) ([]byte, error) {
	der, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{}, key)
	if err != nil {
		return nil, fmt.Errorf("certificate request: %w", err)
	}
	return der, nil
}

// CheckRequest returns the key of a PKCS#10 request and SHA-256 of its SubjectPublicKeyInfo. The key must have
// signed the request and be ECDSA on P-256 or P-384, or Ed25519: others are refused before anything is
// computed with them. Whatever else the request says is ignored.
func CheckRequest(der []byte) (public crypto.PublicKey, fingerprint []byte, err error) {
	if len(der) > maxRequest {
		return nil, nil, fmt.Errorf("certificate request: larger than %d bytes", maxRequest)
	}
	request, err := x509.ParseCertificateRequest(der)
	if err != nil {
		return nil, nil, fmt.Errorf("certificate request: %w", err)
	}
	switch key := request.PublicKey.(type) {
	case *ecdsa.PublicKey:
		if bits := key.Curve.Params().BitSize; bits != 256 && bits != 384 {
			return nil, nil, fmt.Errorf("certificate request: a key on P-%d; it must be on P-256 or P-384", bits)
		}
	case ed25519.PublicKey:
	default:
		return nil, nil, errors.New("certificate request: the key must be ECDSA or Ed25519")
	}
	if err := request.CheckSignature(); err != nil {
		return nil, nil, fmt.Errorf("certificate request: %w", err)
	}
	sum := sha256.Sum256(request.RawSubjectPublicKeyInfo)
	return request.PublicKey, sum[:], nil
}
