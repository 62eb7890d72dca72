package probe

import (
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"fmt"

	"google.golang.org/protobuf/types/known/timestamppb"

	pb "github.com/elsewhere-net/elsewhere/proto/elsewhere/v1"
)

// Bounds of what is kept of a certificate.
const (
	maxNames     = 100
	maxNameBytes = 512
)

// certificate turns a certificate into evidence. Names come from whoever made the certificate, so they
// are cleaned and bounded; the DER is as it was served.
func certificate(c *x509.Certificate) *pb.Certificate {
	sum := sha256.Sum256(c.Raw)
	out := &pb.Certificate{
		Sha256:    hex.EncodeToString(sum[:]),
		Subject:   clean(c.Subject.String(), maxNameBytes),
		Issuer:    clean(c.Issuer.String(), maxNameBytes),
		Serial:    clean(c.SerialNumber.Text(16), maxNameBytes),
		NotBefore: timestamppb.New(c.NotBefore),
		NotAfter:  timestamppb.New(c.NotAfter),
		Key:       keyName(c),
		Signature: c.SignatureAlgorithm.String(),
		Der:       c.Raw,
	}
	for _, name := range c.DNSNames[:min(len(c.DNSNames), maxNames)] {
		out.DnsNames = append(out.GetDnsNames(), clean(name, maxNameBytes))
	}
	for _, ip := range c.IPAddresses[:min(len(c.IPAddresses), maxNames)] {
		out.IpAddresses = append(out.GetIpAddresses(), ip.String())
	}
	return out
}

// keyName returns a public key's algorithm and size, such as "RSA 2048".
func keyName(c *x509.Certificate) string {
	switch key := c.PublicKey.(type) {
	case *rsa.PublicKey:
		return fmt.Sprintf("RSA %d", key.N.BitLen())
	case *ecdsa.PublicKey:
		return "ECDSA " + key.Curve.Params().Name
	case ed25519.PublicKey:
		return "Ed25519"
	}
	return c.PublicKeyAlgorithm.String()
}
