package probetest

import (
	"crypto"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"fmt"
	"time"
)

// Entity is a certificate, its key, and so an issuer of others.
type Entity struct {
	DER         []byte
	Certificate *x509.Certificate // Nil if the library refuses it, which an edit may be for.
	Key         crypto.Signer
}

// Draft says what a certificate is like: one like any other, but for what the fields say.
type Draft struct {
	// Leaf is what a server's certificate is like; Serve, AIA and SelfSigned aside. An authority has only
	// its validity, by default two years around now, and the first of its names as its common name.
	Leaf Leaf
	// Authority makes it an authority.
	Authority bool
	// Issuer signs it. Nil: itself.
	Issuer *Entity
	// Key is its key. Default: a new one.
	Key crypto.Signer
	// Public takes the place of the key's public half, for keys that nobody has.
	Public crypto.PublicKey
	// Change changes what is signed.
	Change func(*x509.Certificate)
	// Edit changes the bytes that are signed, but not their number, for what the library does not make.
	Edit func(tbs []byte) []byte
	// Hash is what an edited certificate is signed with. Default: SHA-256.
	Hash crypto.Hash
}

// Make makes the certificate.
func (d Draft) Make() (*Entity, error) {
	e := &Entity{Key: d.Key}
	if e.Key == nil {
		var err error
		if e.Key, err = newKey(d.Leaf.RSABits); err != nil {
			return nil, err
		}
	}
	template := d.template()
	issuer, signer := template, e.Key
	if d.Issuer != nil {
		issuer, signer = d.Issuer.Certificate, d.Issuer.Key
	}
	public := d.Public
	if public == nil {
		public = e.Key.Public()
	}
	var err error
	if e.Certificate, err = sign(template, issuer, public, signer); err != nil {
		return nil, err
	}
	e.DER = e.Certificate.Raw
	if d.Edit != nil {
		return e, e.edit(d, signer)
	}
	return e, nil
}

func (d Draft) template() *x509.Certificate {
	t := d.Leaf.template()
	if d.Authority {
		t = authority(d.Leaf.Names[0], time.Now().AddDate(-1, 0, 0), time.Now().AddDate(1, 0, 0))
		if !d.Leaf.NotBefore.IsZero() {
			t.NotBefore = d.Leaf.NotBefore
		}
		if !d.Leaf.NotAfter.IsZero() {
			t.NotAfter = d.Leaf.NotAfter
		}
	}
	if d.Leaf.AIA != "" {
		t.IssuingCertificateURL = []string{d.Leaf.AIA}
	}
	if d.Change != nil {
		d.Change(t)
	}
	return t
}

// edit signs the certificate again after its bytes were changed.
func (e *Entity) edit(d Draft, signer crypto.Signer) error {
	var parts struct {
		TBS       asn1.RawValue
		Algorithm asn1.RawValue
		Signature asn1.BitString
	}
	if _, err := asn1.Unmarshal(e.DER, &parts); err != nil {
		return err
	}
	edited := d.Edit(append([]byte(nil), parts.TBS.FullBytes...))
	hash := d.Hash
	if hash == 0 {
		hash = crypto.SHA256
	}
	h := hash.New()
	_, _ = h.Write(edited)
	signature, err := signer.Sign(rand.Reader, h.Sum(nil), hash)
	if err != nil {
		return err
	}
	// The algorithm is named inside, too: the outer one follows an edit of the inner one.
	algorithm, err := innerAlgorithm(edited)
	if err != nil {
		return err
	}
	e.DER, err = asn1.Marshal(struct {
		TBS       asn1.RawValue
		Algorithm pkix.AlgorithmIdentifier
		Signature asn1.BitString
	}{asn1.RawValue{FullBytes: edited}, algorithm, asn1.BitString{Bytes: signature, BitLength: 8 * len(signature)}})
	if err != nil {
		return err
	}
	e.Certificate, _ = x509.ParseCertificate(e.DER) // That it may refuse is why there are edits.
	return nil
}

// innerAlgorithm reads the signature's algorithm in the bytes that are signed.
func innerAlgorithm(tbs []byte) (pkix.AlgorithmIdentifier, error) {
	var fields struct {
		Version   int `asn1:"explicit,tag:0"`
		Serial    asn1.RawValue
		Algorithm pkix.AlgorithmIdentifier
	}
	var all asn1.RawValue
	if _, err := asn1.Unmarshal(tbs, &all); err != nil {
		return fields.Algorithm, err
	}
	rest := all.Bytes
	for _, field := range []struct {
		into   any
		params string
	}{{&fields.Version, "explicit,tag:0"}, {&fields.Serial, ""}, {&fields.Algorithm, ""}} {
		var err error
		if rest, err = asn1.UnmarshalWithParams(rest, field.into, field.params); err != nil {
			return fields.Algorithm, fmt.Errorf("the edit broke the certificate: %w", err)
		}
	}
	return fields.Algorithm, nil
}

// Served returns what a server with the first entity's certificate needs, which sends the others along.
func Served(leaf *Entity, along ...*Entity) tls.Certificate {
	out := tls.Certificate{PrivateKey: leaf.Key, Certificate: [][]byte{leaf.DER}}
	for _, e := range along {
		out.Certificate = append(out.Certificate, e.DER)
	}
	return out
}
