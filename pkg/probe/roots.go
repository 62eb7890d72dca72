package probe

import (
	"crypto/x509"
	"runtime/debug"
	"sync"

	"golang.org/x/crypto/x509roots/fallback/bundle"
)

// anchors are the roots that trust is judged by.
type anchors struct {
	pool     *x509.CertPool
	subjects map[string]bool // Raw subjects, for chains whose signatures cannot be checked.
}

// mozilla parses the bundle when the first chain is judged, so that idle agents stay small.
var mozilla = sync.OnceValue(func() anchors {
	a := anchors{pool: x509.NewCertPool(), subjects: map[string]bool{}}
	for root := range bundle.Roots() {
		c, err := x509.ParseCertificate(root.Certificate)
		if err != nil {
			continue
		}
		a.subjects[string(c.RawSubject)] = true
		// Some roots are trusted for what they issued before a date only, which X.509 cannot say.
		if root.Constraint != nil {
			a.pool.AddCertWithConstraint(c, root.Constraint)
		} else {
			a.pool.AddCert(c)
		}
	}
	return a
})

// newAnchors returns the Mozilla roots and the operator's.
func newAnchors(extra []*x509.Certificate) anchors {
	base := mozilla()
	if len(extra) == 0 {
		return base
	}
	// The bundle is shared by all Envs of the process: it is copied, never added to.
	a := anchors{pool: base.pool.Clone(), subjects: make(map[string]bool, len(base.subjects)+len(extra))}
	for s := range base.subjects {
		a.subjects[s] = true
	}
	for _, c := range extra {
		a.pool.AddCert(c)
		a.subjects[string(c.RawSubject)] = true
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
