package probe

import (
	"bytes"
	"crypto/x509"
	"encoding/pem"
	"runtime/debug"
	"sync"

	"golang.org/x/crypto/x509roots/fallback/bundle"
)

// anchor is a root that is trusted.
type anchor struct {
	*x509.Certificate
	// constraint says why the root is not trusted for a path, given without the root: some are trusted for
	// what they issued before a date only, which X.509 cannot say. Nil: it always is.
	constraint func([]*x509.Certificate) error
}

// anchors are the roots that trust is judged by, by raw subject.
type anchors struct {
	bundled, added map[string][]anchor
}

// named returns the roots with a subject.
func (a anchors) named(subject []byte) []anchor {
	added, bundled := a.added[string(subject)], a.bundled[string(subject)]
	if len(added) == 0 {
		return bundled
	}
	return append(added[:len(added):len(added)], bundled...)
}

// find returns a certificate's root, if the certificate is one.
func (a anchors) find(c *x509.Certificate) (anchor, bool) {
	for _, root := range a.named(c.RawSubject) {
		if bytes.Equal(root.Raw, c.Raw) {
			return root, true
		}
	}
	return anchor{}, false
}

// mozilla parses the bundle when the first chain is judged, so that idle agents stay small.
var mozilla = sync.OnceValue(func() map[string][]anchor {
	roots := map[string][]anchor{}
	for root := range bundle.Roots() {
		if c, err := x509.ParseCertificate(root.Certificate); err == nil {
			roots[string(c.RawSubject)] = append(roots[string(c.RawSubject)], anchor{c, root.Constraint})
		}
	}
	return roots
})

// certificatesOf returns the certificates of a text in PEM. What is no certificate is passed over.
func certificatesOf(text string) (certs []*x509.Certificate) {
	for block, rest := pem.Decode([]byte(text)); block != nil; block, rest = pem.Decode(rest) {
		if c, err := x509.ParseCertificate(block.Bytes); err == nil {
			certs = append(certs, c)
		}
	}
	return certs
}

// newAnchors returns the Mozilla roots and some more: the operator's, and a profile's.
func newAnchors(extra []*x509.Certificate) anchors {
	a := anchors{bundled: mozilla(), added: map[string][]anchor{}}
	for _, c := range extra {
		a.added[string(c.RawSubject)] = append(a.added[string(c.RawSubject)], anchor{Certificate: c})
	}
	return a
}

// bundleName is the bundle's name and version, as far as the program knows it.
var bundleName = sync.OnceValue(func() string {
	const path = "golang.org/x/crypto/x509roots/fallback"
	if info, ok := debug.ReadBuildInfo(); ok {
		for _, m := range info.Deps {
			if m.Path == path {
				return "Mozilla " + m.Version
			}
		}
	}
	return "Mozilla"
})
