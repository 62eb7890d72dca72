package probe

import (
	"crypto/ecdh"
	"crypto/rand"
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
	suites   []uint16 // Empty: all of the versions.
	groups   []uint16 // Empty: all that are not post-quantum.
	schemes  []uint16 // Empty: all.
	unknown  []string // What nobody knows how to offer.
	byHand   bool     // It is made by a hello built by hand.
}

// readOffer reads an offer. One that stays below TLS 1.3 is made by hand, and so is one that crypto/tls
// cannot make.
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
	o.byHand = o.highest() < flight.TLS13 || !o.ordinary()
	return o
}

// numbers looks names up.
func (o *offer) numbers(names []string, find func(string) (uint16, bool)) (ids []uint16) {
	for _, name := range names {
		if id, ok := find(name); ok {
			ids = append(ids, id)
		} else {
			o.unknown = append(o.unknown, clean(name, 64))
		}
	}
	return ids
}

// versionsOf returns the versions that suites allow. One that nobody registered may belong to any version
// that shows its certificates.
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

// handmade says whether the offer is made by a hello built by hand.
func (o *offer) handmade() bool { return o != nil && o.byHand }

// impossible returns why the agent cannot make the offer, or nil.
func (o *offer) impossible() error {
	if o == nil || len(o.unknown) == 0 {
		return nil
	}
	return fmt.Errorf("this agent does not know %s", strings.Join(o.unknown, ", "))
}

// tls13Suites are what crypto/tls always offers with TLS 1.3, and all that it has there.
var tls13Suites = []uint16{tls.TLS_AES_128_GCM_SHA256, tls.TLS_AES_256_GCM_SHA384, tls.TLS_CHACHA20_POLY1305_SHA256}

// libraryGroups are the groups of crypto/tls.
var libraryGroups = []tls.CurveID{
	tls.X25519, tls.CurveP256, tls.CurveP384, tls.CurveP521,
	tls.X25519MLKEM768, tls.SecP256r1MLKEM768, tls.SecP384r1MLKEM1024,
}

// ordinary says whether crypto/tls can make the offer: it has a range of versions without gaps, its own
// suites, all of its own for TLS 1.3, its own groups, and a fixed list of signature schemes.
func (o *offer) ordinary() bool {
	for v := o.versions[0]; v <= o.highest(); v++ {
		if v == flight.SSL30 || !slices.Contains(o.versions, v) {
			return false
		}
	}
	lacks := func(id uint16) bool { return !slices.Contains(librarySuites(), id) }
	leavesOut := func(id uint16) bool { return len(o.suites) > 0 && !slices.Contains(o.suites, id) }
	foreign := func(id uint16) bool { return !slices.Contains(libraryGroups, tls.CurveID(id)) }
	return !slices.ContainsFunc(o.suites, lacks) && !slices.ContainsFunc(tls13Suites, leavesOut) &&
		!slices.ContainsFunc(o.groups, foreign) && len(o.schemes) == 0
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
		if h.Version == flight.TLS13 && o.versions[0] < flight.TLS13 {
			h.Suites = append(h.Suites, flight.Suites(flight.TLS12)...)
		}
	}
	if len(h.Groups) == 0 {
		h.Groups = flight.Groups()
	}
	if len(h.Schemes) == 0 {
		h.Schemes = flight.Schemes()
	}
	if h.Version == flight.TLS13 {
		h.Versions = slices.Clone(o.versions)
		slices.Reverse(h.Versions)
		h.KeyShares = keyShares(h.Groups[0])
	}
	return h
}

// keyShares is a share of a group, or none: then a server names the group that it wants.
func keyShares(group uint16) []flight.KeyShare {
	curves := map[tls.CurveID]ecdh.Curve{tls.X25519: ecdh.X25519(), tls.CurveP256: ecdh.P256(), tls.CurveP384: ecdh.P384(), tls.CurveP521: ecdh.P521()}
	curve := curves[tls.CurveID(group)]
	if curve == nil {
		return nil
	}
	key, err := curve.GenerateKey(rand.Reader)
	if err != nil {
		return nil
	}
	return []flight.KeyShare{{Group: group, Public: key.PublicKey().Bytes()}}
}

// errNotOffered: the server chose a version that it was not offered.
var errNotOffered = errors.New("the server chose what was not offered")

// chosen says whether the server chose from the offer.
func (o *offer) chosen(f *flight.Flight) error {
	switch {
	case !f.Hello:
	case !slices.Contains(o.versions, f.Version):
		return fmt.Errorf("%w: %s", errNotOffered, flight.VersionName(f.Version))
	case len(o.suites) > 0 && !slices.Contains(o.suites, f.Suite):
		return fmt.Errorf("%w: the server chose %s, which was not offered", flight.ErrMalformed, flight.SuiteName(f.Suite))
	}
	return nil
}
