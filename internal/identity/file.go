package identity

import (
	"bytes"
	"crypto"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"

	"github.com/elsewhere-net/elsewhere/internal/file"
)

const (
	certificateBlock, keyBlock = "CERTIFICATE", "PRIVATE KEY"
	// maxFile bounds what is read, in bytes.
	maxFile = 256 << 10
	// maxKeys bounds the keys in a file: while one list makes way for another it has those of both.
	maxKeys = 2 * maxAuthorities
	// maxCertificate bounds a certificate, in bytes: as many as there may be are less than maxFile in PEM, so that what
	// was written can be read again.
	maxCertificate = 8 << 10
)

// blocksIn are the PEM blocks of some data, which are of some kinds, by kind; at most so many of each.
func blocksIn(data []byte, most map[string]int) (map[string][][]byte, error) {
	blocks := map[string][][]byte{}
	for len(bytes.TrimSpace(data)) > 0 {
		block, rest := pem.Decode(data)
		if block == nil || most[block.Type] == 0 {
			return nil, errors.New("holds something else than PEM of " + strings.Join(slices.Sorted(maps.Keys(most)), " and "))
		}
		if blocks[block.Type], data = append(blocks[block.Type], block.Bytes), rest; len(blocks[block.Type]) > most[block.Type] {
			return nil, fmt.Errorf("holds more than %d blocks of %s", most[block.Type], block.Type)
		}
	}
	return blocks, nil
}

// readBlocks reads the PEM blocks of one kind, at least one and at most so many.
func readBlocks(path, kind string, most int) ([][]byte, error) {
	data, err := file.Read(path, maxFile)
	if err != nil {
		return nil, err
	}
	blocks, err := blocksIn(data, map[string]int{kind: most})
	if err == nil && len(blocks[kind]) == 0 {
		err = fmt.Errorf("holds no %s", kind)
	}
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return blocks[kind], nil
}

func readCertificates(path string) ([]*x509.Certificate, error) {
	blocks, err := readBlocks(path, certificateBlock, maxAuthorities)
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
	blocks, err := readBlocks(path, keyBlock, maxKeys)
	if err != nil {
		return nil, err
	}
	if keys, err = parseKeys(blocks); err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return keys, nil
}

func parseKeys(list [][]byte) (keys []crypto.Signer, err error) {
	for _, der := range list {
		parsed, err := x509.ParsePKCS8PrivateKey(der)
		key, ok := parsed.(crypto.Signer)
		if err != nil || !ok {
			return nil, errors.New("not a private key in PKCS #8")
		}
		keys = append(keys, key)
	}
	return keys, nil
}

func writeKeys(path string, keys []crypto.Signer) error {
	data, err := encodeKeys(keys)
	if err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	return file.Replace(path, data)
}

func encodeKeys(keys []crypto.Signer) ([]byte, error) {
	var out bytes.Buffer
	for _, key := range keys {
		der, err := x509.MarshalPKCS8PrivateKey(key)
		if err != nil {
			return nil, err
		}
		_ = pem.Encode(&out, &pem.Block{Type: keyBlock, Bytes: der})
	}
	return out.Bytes(), nil
}
