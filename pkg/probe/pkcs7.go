package probe

import (
	"bytes"
	"crypto/x509"
	"encoding/asn1"
	"encoding/pem"
	"errors"

	"golang.org/x/crypto/cryptobyte"
	cbasn1 "golang.org/x/crypto/cryptobyte/asn1"
)

// maxFetchedCerts bounds the certificates of one body.
const maxFetchedCerts = 16

// oidSignedData is the type of a CMS message that may bring nothing but certificates (RFC 5652, 5.1).
var oidSignedData = asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 7, 2}

var errNoCertificates = errors.New("the answer holds no certificate")

// readCertificates reads a body that holds certificates: one as DER, a CMS message of them (RFC 5280,
// 4.2.2.1), or either as PEM, which is what some servers have. Those that cannot be parsed are left out.
func readCertificates(body []byte) ([]*x509.Certificate, error) {
	var certs []*x509.Certificate
	for _, der := range unwrapPEM(body) {
		list, err := certificatesOfCMS(der)
		if err != nil {
			list = [][]byte{der}
		}
		for _, c := range list {
			if parsed, err := x509.ParseCertificate(c); err == nil && len(certs) < maxFetchedCerts {
				certs = append(certs, parsed)
			}
		}
	}
	if len(certs) == 0 {
		return nil, errNoCertificates
	}
	return certs, nil
}

// unwrapPEM returns what is in the PEM blocks of a body, or the body if there are none.
func unwrapPEM(body []byte) [][]byte {
	var blocks [][]byte
	rest := bytes.TrimSpace(body)
	for len(blocks) < maxFetchedCerts && bytes.Contains(rest, []byte("-----BEGIN ")) {
		var block *pem.Block
		if block, rest = pem.Decode(rest); block == nil {
			break
		}
		blocks = append(blocks, block.Bytes)
	}
	if blocks == nil {
		return [][]byte{body}
	}
	return blocks
}

// certificatesOfCMS returns the certificates of a SignedData, as DER, without looking at signatures:
//
//	ContentInfo ::= SEQUENCE { contentType OBJECT IDENTIFIER, content [0] EXPLICIT SignedData }
//	SignedData ::= SEQUENCE { version INTEGER, digestAlgorithms SET, encapContentInfo SEQUENCE,
//	                          certificates [0] IMPLICIT SET OF Certificate OPTIONAL, … }
func certificatesOfCMS(der []byte) ([][]byte, error) {
	input := cryptobyte.String(der)
	var info, content, data, certs cryptobyte.String
	var id asn1.ObjectIdentifier
	explicit := cbasn1.Tag(0).ContextSpecific().Constructed()
	if !input.ReadASN1(&info, cbasn1.SEQUENCE) || !info.ReadASN1ObjectIdentifier(&id) || !id.Equal(oidSignedData) ||
		!info.ReadASN1(&content, explicit) || !content.ReadASN1(&data, cbasn1.SEQUENCE) ||
		!data.SkipASN1(cbasn1.INTEGER) || !data.SkipASN1(cbasn1.SET) || !data.SkipASN1(cbasn1.SEQUENCE) ||
		!data.ReadASN1(&certs, explicit) {
		return nil, errNoCertificates
	}
	var out [][]byte
	for len(out) < maxFetchedCerts && !certs.Empty() {
		var cert cryptobyte.String
		if !certs.ReadASN1Element(&cert, cbasn1.SEQUENCE) {
			break // Attribute certificates and the like come after those that are of use.
		}
		out = append(out, cert)
	}
	return out, nil
}
