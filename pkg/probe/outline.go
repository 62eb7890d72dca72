package probe

import (
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"math/big"
	"slices"
	"time"

	"golang.org/x/crypto/cryptobyte"
	cbasn1 "golang.org/x/crypto/cryptobyte/asn1"
)

// Object identifiers.
var (
	oidSubjectAltName = asn1.ObjectIdentifier{2, 5, 29, 17}
	oidTLSFeature     = asn1.ObjectIdentifier{1, 3, 6, 1, 5, 5, 7, 1, 24}
	oidECKey          = asn1.ObjectIdentifier{1, 2, 840, 10045, 2, 1}
	oidPSSKey         = asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 1, 10}
	oidEd448Key       = asn1.ObjectIdentifier{1, 3, 101, 113}
	oidDSAKey         = asn1.ObjectIdentifier{1, 2, 840, 10040, 4, 1}
)

// supportedCurves are those that x509.ParseCertificate knows: P-224, P-256, P-384 and P-521.
var supportedCurves = []string{"1.3.132.0.33", "1.2.840.10045.3.1.7", "1.3.132.0.34", "1.3.132.0.35"}

// outline reads what it can of a certificate that x509.ParseCertificate refuses, be it for a negative
// serial number, a name in the wrong alphabet or a curve that it does not know: names, validity, and the
// names in it. What cannot be read stays empty. It also says whether an unknown curve is what it has.
func outline(der []byte) (c *x509.Certificate, keyUnknown bool) {
	c = &x509.Certificate{Raw: der, SerialNumber: new(big.Int)}
	input := cryptobyte.String(der)
	var cert, tbs cryptobyte.String
	if !input.ReadASN1(&cert, cbasn1.SEQUENCE) || !cert.ReadASN1(&tbs, cbasn1.SEQUENCE) {
		return c, false
	}
	// TBSCertificate (RFC 5280, 4.1).
	var issuer, validity, subject, key cryptobyte.String
	ok := tbs.SkipOptionalASN1(cbasn1.Tag(0).ContextSpecific().Constructed()) &&
		tbs.ReadASN1Integer(c.SerialNumber) && tbs.SkipASN1(cbasn1.SEQUENCE) &&
		tbs.ReadASN1Element(&issuer, cbasn1.SEQUENCE) && tbs.ReadASN1(&validity, cbasn1.SEQUENCE) &&
		tbs.ReadASN1Element(&subject, cbasn1.SEQUENCE) && tbs.ReadASN1Element(&key, cbasn1.SEQUENCE)
	if !ok {
		return c, false
	}
	c.RawIssuer, c.RawSubject, c.RawSubjectPublicKeyInfo = issuer, subject, key
	c.Issuer, c.Subject = distinguished(issuer), distinguished(subject)
	c.NotBefore, c.NotAfter = readTime(&validity), readTime(&validity)
	c.DNSNames = alternativeNames(tbs)
	algorithm, curve := keyOIDs(key)
	return c, algorithm.Equal(oidECKey) && curve != nil && !slices.Contains(supportedCurves, curve.String())
}

// distinguished reads a name; it is empty if it cannot be.
func distinguished(der []byte) (name pkix.Name) {
	var rdn pkix.RDNSequence
	if rest, err := asn1.Unmarshal(der, &rdn); err == nil && len(rest) == 0 {
		name.FillFromRDNSequence(&rdn)
	}
	return name
}

// readTime reads a Time (RFC 5280, 4.1.2.5); it is zero if it cannot be.
func readTime(s *cryptobyte.String) (t time.Time) {
	if s.PeekASN1Tag(cbasn1.UTCTime) {
		_ = s.ReadASN1UTCTime(&t)
	} else {
		_ = s.ReadASN1GeneralizedTime(&t)
	}
	return t
}

// alternativeNames reads the dNSNames from what follows the key, whatever their alphabet.
func alternativeNames(tbs cryptobyte.String) (names []string) {
	var extensions, list cryptobyte.String
	_ = tbs.SkipOptionalASN1(cbasn1.Tag(1).ContextSpecific()) && tbs.SkipOptionalASN1(cbasn1.Tag(2).ContextSpecific())
	if !tbs.ReadASN1(&extensions, cbasn1.Tag(3).ContextSpecific().Constructed()) || !extensions.ReadASN1(&list, cbasn1.SEQUENCE) {
		return nil
	}
	var extension, value, general cryptobyte.String
	for list.ReadASN1(&extension, cbasn1.SEQUENCE) {
		var id asn1.ObjectIdentifier
		if !extension.ReadASN1ObjectIdentifier(&id) || !id.Equal(oidSubjectAltName) || !extension.SkipOptionalASN1(cbasn1.BOOLEAN) ||
			!extension.ReadASN1(&value, cbasn1.OCTET_STRING) || !value.ReadASN1(&general, cbasn1.SEQUENCE) {
			continue
		}
		var name cryptobyte.String
		var tag cbasn1.Tag
		for general.ReadAnyASN1(&name, &tag) {
			if tag == cbasn1.Tag(2).ContextSpecific() {
				names = append(names, string(name))
			}
		}
	}
	return names
}

// keyOIDs returns a SubjectPublicKeyInfo's algorithm and, if its parameters are one, the curve.
func keyOIDs(spki []byte) (algorithm, curve asn1.ObjectIdentifier) {
	input := cryptobyte.String(spki)
	var info, id cryptobyte.String
	if !input.ReadASN1(&info, cbasn1.SEQUENCE) || !info.ReadASN1(&id, cbasn1.SEQUENCE) || !id.ReadASN1ObjectIdentifier(&algorithm) {
		return nil, nil
	}
	if id.PeekASN1Tag(cbasn1.OBJECT_IDENTIFIER) {
		_ = id.ReadASN1ObjectIdentifier(&curve)
	}
	return algorithm, curve
}

// mustStaple says whether a certificate has the TLS feature status_request (RFC 7633, 4.1).
func mustStaple(c *x509.Certificate) bool {
	for _, e := range c.Extensions {
		var features []int
		if e.Id.Equal(oidTLSFeature) {
			_, err := asn1.Unmarshal(e.Value, &features)
			return err == nil && slices.Contains(features, 5)
		}
	}
	return false
}
