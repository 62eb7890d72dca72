package identity

import (
	"bytes"
	"crypto"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"os"

	"github.com/elsewhere-net/elsewhere/internal/file"
)

const (
	certificateBlock, keyBlock = "CERTIFICATE", "PRIVATE KEY"
	// maxFile bounds what is read, in bytes.
	maxFile = 256 << 10
	// maxCertificate bounds a certificate, in bytes: as many as there may be are less than maxFile in PEM, so that what
	// was written can be read again.
	maxCertificate = 8 << 10
)

// readBlocks reads the PEM blocks of one kind.
func readBlocks(path, kind string) (blocks [][]byte, err error) {
	data, err := file.Read(path, maxFile)
	if err != nil {
		return nil, err
	}
	for len(bytes.TrimSpace(data)) > 0 {
		block, rest := pem.Decode(data)
		if block == nil || block.Type != kind {
			return nil, fmt.Errorf("%s: holds something else than PEM of %s", path, kind)
		}
		blocks, data = append(blocks, block.Bytes), rest
	}
	if len(blocks) == 0 || len(blocks) > maxAuthorities {
		return nil, fmt.Errorf("%s: holds %d blocks of %s, not 1 to %d", path, len(blocks), kind, maxAuthorities)
	}
	return blocks, nil
}

func readCertificates(path string) ([]*x509.Certificate, error) {
	blocks, err := readBlocks(path, certificateBlock)
	if err != nil {
		return nil, err
	}
	certs, err := parseCertificates(blocks)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return certs, nil
}

// parseCertificates reads 1 to maxAuthorities certificates.
func parseCertificates(list [][]byte) (certs []*x509.Certificate, err error) {
	if len(list) == 0 || len(list) > maxAuthorities {
		return nil, fmt.Errorf("%d certificates, not 1 to %d", len(list), maxAuthorities)
	}
	for _, der := range list {
		if len(der) > maxCertificate {
			return nil, fmt.Errorf("a certificate of %d bytes; at most %d", len(der), maxCertificate)
		}
		cert, err := x509.ParseCertificate(der)
		if err != nil {
			return nil, fmt.Errorf("certificate: %w", err)
		}
		certs = append(certs, cert)
	}
	return certs, nil
}

func encodeCertificates(certs []*x509.Certificate) []byte {
	var out bytes.Buffer
	for _, cert := range certs {
		_ = pem.Encode(&out, &pem.Block{Type: certificateBlock, Bytes: cert.Raw}) // a Buffer takes everything
	}
	return out.Bytes()
}

// readKeys reads private keys and refuses those that others may read.
func readKeys(path string) (keys []crypto.Signer, err error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	if info.Mode().Perm()&0o077 != 0 {
		return nil, fmt.Errorf("%s: others may read it (mode %04o): if nobody has, chmod 600 it", path, info.Mode().Perm())
	}
	blocks, err := readBlocks(path, keyBlock)
	if err != nil {
		return nil, err
	}
	for _, der := range blocks {
		parsed, err := x509.ParsePKCS8PrivateKey(der)
		key, ok := parsed.(crypto.Signer)
		if err != nil || !ok {
			return nil, fmt.Errorf("%s: not a private key in PKCS #8", path)
		}
		keys = append(keys, key)
	}
	return keys, nil
}

func writeKeys(path string, keys []crypto.Signer) error {
	var out bytes.Buffer
	for _, key := range keys {
		der, err := x509.MarshalPKCS8PrivateKey(key)
		if err != nil {
			return fmt.Errorf("%s: %w", path, err)
		}
		_ = pem.Encode(&out, &pem.Block{Type: keyBlock, Bytes: der})
	}
	return file.Replace(path, out.Bytes())
}
