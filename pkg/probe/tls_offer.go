package probe

import (
	"crypto/tls"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/elsewhere-net/elsewhere/pkg/probe/flight"
	pb "github.com/elsewhere-net/elsewhere/proto/elsewhere/v1"
)

// offer is what a ClientHello offers in place of all that the agent can. Nil: all.
type offer struct {
	versions []uint16 // Sorted, never empty.
	suites   []uint16 // Empty: all of the highest version.
	groups   []uint16 // Empty: all that are not post-quantum.
	schemes  []uint16 // Empty: all.
	missing  []string // What the agent cannot offer.
}

// readOffer reads an offer. What is not known is missing.
func readOffer(spec *pb.TLSOffer) *offer {
	if spec == nil {
		return nil
	}
	o := &offer{}
	o.versions = o.numbers(spec.GetVersions(), flight.Version)
	o.suites = o.numbers(spec.GetCipherSuites(), flight.Suite)
	o.groups = o.numbers(spec.GetGroups(), flight.Group)
	o.schemes = o.numbers(spec.GetSignatureSchemes(), flight.Scheme)
	if len(o.versions) == 0 {
		o.versions = versionsOf(o.suites)
	}
	slices.Sort(o.versions)
	if !o.handmade() {
		o.compare()
	}
	return o
}

// numbers looks names up.
func (o *offer) numbers(names []string, find func(string) (uint16, bool)) (ids []uint16) {
	for _, name := range names {
		if id, ok := find(name); ok {
			ids = append(ids, id)
		} else {
			o.missing = append(o.missing, clean(name, 64))
		}
	}
	return ids
}

// versionsOf returns the versions that suites allow. A suite without a name may belong to any version
// whose handshake can be made by hand.
func versionsOf(suites []uint16) (out []uint16) {
	for v := flight.SSL30; v <= flight.TLS13; v++ {
		known := flight.Suites(v)
		if slices.ContainsFunc(suites, func(id uint16) bool { return slices.Contains(known, id) }) {
			out = append(out, v)
		}
	}
	switch {
	case len(out) > 0:
		return out
	case len(suites) > 0:
		return []uint16{flight.TLS10, flight.TLS11, flight.TLS12}
	}
	return []uint16{flight.TLS10, flight.TLS11, flight.TLS12, flight.TLS13}
}

// highest returns the highest version of the offer.
func (o *offer) highest() uint16 { return o.versions[len(o.versions)-1] }

// handmade says whether the offer is made by a hello built by hand: it stays below TLS 1.3.
func (o *offer) handmade() bool { return o != nil && o.highest() < flight.TLS13 }

// impossible returns why the agent cannot make the offer, or nil.
func (o *offer) impossible() error {
	if o == nil || len(o.missing) == 0 {
		return nil
	}
	with := ""
	if !o.handmade() {
		with = " together with TLS 1.3"
	}
	return fmt.Errorf("this agent cannot offer %s%s", strings.Join(o.missing, ", "), with)
}

// tls13Suites are what crypto/tls always offers with TLS 1.3, and all that it has there.
var tls13Suites = []uint16{tls.TLS_AES_128_GCM_SHA256, tls.TLS_AES_256_GCM_SHA384, tls.TLS_CHACHA20_POLY1305_SHA256}

// libraryGroups are the groups of crypto/tls.
var libraryGroups = []tls.CurveID{
	tls.X25519, tls.CurveP256, tls.CurveP384, tls.CurveP521,
	tls.X25519MLKEM768, tls.SecP256r1MLKEM768, tls.SecP384r1MLKEM1024,
}

// compare finds what crypto/tls cannot offer: it has a range of versions without gaps, its own suites and
// groups, and a fixed list of signature schemes.
func (o *offer) compare() {
	lack := func(lacking bool, what string) {
		if lacking {
			o.missing = append(o.missing, what)
		}
	}
	lack(o.versions[0] == flight.SSL30, "SSL 3.0")
	for v := max(o.versions[0], flight.TLS10); v <= o.highest(); v++ {
		lack(!slices.Contains(o.versions, v), "a range without "+flight.VersionName(v))
	}
	for _, id := range o.suites {
		lack(!slices.Contains(tls13Suites, id) && !slices.Contains(librarySuites(), id), flight.SuiteName(id))
	}
	for _, id := range tls13Suites {
		lack(len(o.suites) > 0 && !slices.Contains(o.suites, id), "suites without "+flight.SuiteName(id))
	}
	for _, id := range o.groups {
		lack(!slices.Contains(libraryGroups, tls.CurveID(id)), flight.GroupName(id))
	}
	lack(len(o.schemes) > 0, "chosen signature schemes")
}

// limit makes crypto/tls offer no more than this.
func (o *offer) limit(c *tls.Config) {
	if o == nil {
		return
	}
	c.MinVersion, c.MaxVersion = o.versions[0], o.highest()
	if len(o.suites) > 0 {
		c.CipherSuites = o.suites
	}
	for _, id := range o.groups {
		c.CurvePreferences = append(c.CurvePreferences, tls.CurveID(id))
	}
}

// hello is the offer as a ClientHello made by hand.
func (o *offer) hello(name string) *flight.Hello {
	h := &flight.Hello{
		Version: o.highest(), Suites: o.suites, Groups: o.groups, Schemes: o.schemes, ServerName: name, Staple: true,
	}
	if len(h.Suites) == 0 {
		h.Suites = flight.Suites(h.Version)
	}
	if len(h.Groups) == 0 {
		h.Groups = flight.Groups()
	}
	if len(h.Schemes) == 0 {
		h.Schemes = flight.Schemes()
	}
	return h
}

// errNotOffered: the server chose what it was not offered.
var errNotOffered = errors.New("the server chose what was not offered")

// chosen says whether the server chose from the offer.
func (o *offer) chosen(f *flight.Flight) error {
	if f.Hello && !slices.Contains(o.versions, f.Version) {
		return fmt.Errorf("%w: %s", errNotOffered, flight.VersionName(f.Version))
	}
	return nil
}
