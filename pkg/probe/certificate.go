package probe

import (
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/asn1"
	"encoding/hex"
	"fmt"
	"time"

	"golang.org/x/crypto/cryptobyte"
	cbasn1 "golang.org/x/crypto/cryptobyte/asn1"
	"google.golang.org/protobuf/types/known/timestamppb"

	pb "github.com/elsewhere-net/elsewhere/proto/elsewhere/v1"
)

// Bounds of what is kept of a certificate.
const (
	maxNames     = 100
	maxNameBytes = 512
	maxUsages    = 16
	maxURLs      = 4
)

// certificate turns a certificate into evidence. Names come from whoever made the certificate, so they
// are cleaned and bounded; the DER is as it was served.
func certificate(c *x509.Certificate) *pb.Certificate {
	sum := sha256.Sum256(c.Raw)
	out := &pb.Certificate{
		Sha256:     hex.EncodeToString(sum[:]),
		Subject:    clean(c.Subject.String(), maxNameBytes),
		Issuer:     clean(c.Issuer.String(), maxNameBytes),
		CommonName: clean(c.Subject.CommonName, maxNameBytes),
		Serial:     clean(c.SerialNumber.Text(16), maxNameBytes),
		NotBefore:  timestamp(c.NotBefore),
		NotAfter:   timestamp(c.NotAfter),
		Key:        keyName(c),
		Signature:  signatureName(c),
		Authority:  c.BasicConstraintsValid && c.IsCA,
		MustStaple: mustStaple(c),
		Der:        c.Raw,
	}
	out.ExtendedKeyUsages = usages(c)
	for _, u := range c.IssuingCertificateURL[:min(len(c.IssuingCertificateURL), maxURLs)] {
		out.IssuerUrls = append(out.GetIssuerUrls(), clean(u, maxNameBytes))
	}
	for _, name := range c.DNSNames[:min(len(c.DNSNames), maxNames)] {
		out.DnsNames = append(out.GetDnsNames(), clean(name, maxNameBytes))
	}
	for _, ip := range c.IPAddresses[:min(len(c.IPAddresses), maxNames)] {
		out.IpAddresses = append(out.GetIpAddresses(), ip.String())
	}
	return out
}

// timestamp is unset for the time of a certificate that could not be read.
func timestamp(t time.Time) *timestamppb.Timestamp {
	if t.IsZero() {
		return nil
	}
	return timestamppb.New(t)
}

// usages returns what a certificate's key may be used for; none: anything.
func usages(c *x509.Certificate) []string {
	var out []string
	for _, u := range c.ExtKeyUsage {
		out = append(out, usageName(u))
	}
	for _, id := range c.UnknownExtKeyUsage {
		out = append(out, clean(id.String(), maxNameBytes))
	}
	return out[:min(len(out), maxUsages)]
}

// usageName returns the name of an extended key usage (RFC 5280, 4.2.1.12), or its identifier.
func usageName(u x509.ExtKeyUsage) string {
	switch u {
	case x509.ExtKeyUsageAny:
		return "anyExtendedKeyUsage"
	case x509.ExtKeyUsageServerAuth:
		return "serverAuth"
	case x509.ExtKeyUsageClientAuth:
		return "clientAuth"
	case x509.ExtKeyUsageCodeSigning:
		return "codeSigning"
	case x509.ExtKeyUsageEmailProtection:
		return "emailProtection"
	case x509.ExtKeyUsageTimeStamping:
		return "timeStamping"
	case x509.ExtKeyUsageOCSPSigning:
		return "OCSPSigning"
	default:
		return u.String()
	}
}

// keyName returns a public key's algorithm and size, such as "RSA 2048". crypto/x509 leaves a key that it does not know
// nil, and does not parse a certificate on an unknown curve at all. Both are facts about the agent's library and not
// about the server, so the name is then read from the DER.
func keyName(c *x509.Certificate) string {
	switch key := c.PublicKey.(type) {
	case *rsa.PublicKey:
		return fmt.Sprintf("RSA %d", key.N.BitLen())
	case *ecdsa.PublicKey:
		return "ECDSA " + key.Curve.Params().Name
	case ed25519.PublicKey:
		return "Ed25519"
	}
	algorithm, curve := keyOIDs(c.RawSubjectPublicKeyInfo)
	switch {
	case algorithm.Equal(oidPSSKey):
		return "RSASSA-PSS"
	case algorithm.Equal(oidEd448Key):
		return "Ed448"
	case algorithm.Equal(oidDSAKey):
		return "DSA"
	case algorithm.Equal(oidECKey) && curve != nil:
		return clean("ECDSA on curve "+curve.String(), maxNameBytes)
	case algorithm != nil:
		return clean(algorithm.String(), maxNameBytes)
	}
	return "unknown"
}

// signatureName returns a signature's algorithm, such as "SHA256-RSA", or its identifier.
func signatureName(c *x509.Certificate) string {
	if c.SignatureAlgorithm != x509.UnknownSignatureAlgorithm {
		return c.SignatureAlgorithm.String()
	}
	input := cryptobyte.String(c.Raw)
	var cert, algorithm cryptobyte.String
	var id asn1.ObjectIdentifier
	if input.ReadASN1(&cert, cbasn1.SEQUENCE) && cert.SkipASN1(cbasn1.SEQUENCE) &&
		cert.ReadASN1(&algorithm, cbasn1.SEQUENCE) && algorithm.ReadASN1ObjectIdentifier(&id) {
		return clean(id.String(), maxNameBytes)
	}
	return "unknown"
}
