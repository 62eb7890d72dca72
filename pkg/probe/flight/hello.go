// Package flight builds ClientHellos by hand and reads what a server answers before anything is
// encrypted. Up to TLS 1.2 that is all of its first flight: version, suite, curve, certificates in the
// order of the wire, whether it asks for a certificate of the client. It needs no cryptography, so it
// can offer what no library completes, SSL 3.0 and RC4 with MD5 included. It opens no sockets and
// judges nothing.
package flight

import (
	"crypto/rand"
	"errors"
	"fmt"
	"slices"
)

// Extensions that the package writes or reads (IANA, "TLS ExtensionType Values").
const (
	extServerName    uint16 = 0     // RFC 6066, 3
	extStatusRequest uint16 = 5     // RFC 6066, 8
	extGroups        uint16 = 10    // RFC 8422, 5.1.1
	extPointFormats  uint16 = 11    // RFC 8422, 5.1.2
	extSchemes       uint16 = 13    // RFC 5246, 7.4.1.4.1
	extALPN          uint16 = 16    // RFC 7301
	extMasterSecret  uint16 = 23    // RFC 7627
	extVersions      uint16 = 43    // RFC 8446, 4.2.1
	extKeyShare      uint16 = 51    // RFC 8446, 4.2.8
	extRenegotiation uint16 = 65281 // RFC 5746
)

// Types of records (RFC 8446, 5.1).
const (
	recordAlert     byte = 21
	recordHandshake byte = 22
)

const (
	typeClientHello byte = 1 // RFC 8446, 4
	maxSuites            = (1<<16 - 2) / 2
	maxServerName        = 255
)

var errHello = errors.New("a ClientHello cannot say that")

// Hello is a ClientHello that is to be built (RFC 8446, 4.1.2).
type Hello struct {
	// Version is the highest one that is offered. SSL30 has no extensions (RFC 6101, 5.6.1.2).
	Version uint16
	// RecordVersion stands in the record's header. Default: TLS 1.0, or SSL 3.0 for SSL 3.0, which every
	// server bears (RFC 5246, E.1).
	RecordVersion uint16
	// Versions are what supported_versions lists with TLS 1.3, the best first. Default: Version alone.
	Versions []uint16
	// Suites are offered in this order.
	Suites []uint16
	// Groups are the ones for (EC)DHE, the best first. Default: the extension is not sent.
	Groups []uint16
	// Schemes are the signature schemes, the best first; sent with TLS 1.2 and above. Default: the
	// extension is not sent.
	Schemes []uint16
	// ServerName is the server_name. Default: none is sent.
	ServerName string
	// ALPN are the application protocols. Default: none is offered.
	ALPN []string
	// Staple asks for a stapled OCSP response.
	Staple bool
	// KeyShares are those of TLS 1.3, whose public keys the caller makes. Empty with TLS 1.3: the server
	// names the group that it wants in a HelloRetryRequest.
	KeyShares []KeyShare
	// Extensions are sent besides, as they are.
	Extensions []Extension
}

// KeyShare is a public key of one group (RFC 8446, 4.2.8).
type KeyShare struct {
	Group  uint16
	Public []byte
}

// Extension is one extension as the wire has it.
type Extension struct {
	Type uint16
	Data []byte
}

// Marshal returns the ClientHello in its record, with a fresh random. The error says what the wire has
// no room for.
func (h *Hello) Marshal() ([]byte, error) {
	if len(h.Suites) == 0 || len(h.Suites) > maxSuites || len(h.ServerName) > maxServerName {
		return nil, fmt.Errorf("%w: %d suites, a server_name of %d bytes", errHello, len(h.Suites), len(h.ServerName))
	}
	var body builder
	body.u16(min(h.Version, TLS12))
	random := make([]byte, 32)
	_, _ = rand.Read(random) // It never fails (crypto/rand).
	body.bytes(random)
	session := []byte(nil)
	if h.Version >= TLS13 { // Middleboxes expect one (RFC 8446, D.4).
		session = make([]byte, 32)
		_, _ = rand.Read(session)
	}
	body.list(1, func(b *builder) { b.bytes(session) })
	body.list(2, func(b *builder) { b.u16(h.Suites...) })
	body.bytes([]byte{1, 0}) // No compression.
	if h.Version > SSL30 {
		body.list(2, h.extensions)
	}
	var message builder
	message.bytes([]byte{typeClientHello})
	message.list(3, func(b *builder) { b.bytes(body.out) })
	var record builder
	record.bytes([]byte{recordHandshake})
	record.u16(h.recordVersion())
	record.list(2, func(b *builder) { b.bytes(message.out) })
	if body.tooLong || message.tooLong || record.tooLong || len(message.out) > maxPlaintext {
		return nil, fmt.Errorf("%w: %d bytes", errHello, len(message.out))
	}
	return record.out, nil
}

func (h *Hello) recordVersion() uint16 {
	if h.RecordVersion != 0 {
		return h.RecordVersion
	}
	return min(h.Version, TLS10)
}

// extensions writes the extensions that the fields ask for.
func (h *Hello) extensions(b *builder) {
	if h.ServerName != "" {
		b.extension(extServerName, func(b *builder) {
			b.list(2, func(b *builder) { // One name, of the type host_name.
				b.bytes([]byte{0})
				b.list(2, func(b *builder) { b.bytes([]byte(h.ServerName)) })
			})
		})
	}
	if h.Staple {
		b.extension(extStatusRequest, func(b *builder) { b.bytes([]byte{1, 0, 0, 0, 0}) })
	}
	if len(h.Groups) > 0 {
		b.extension(extGroups, func(b *builder) { b.list(2, func(b *builder) { b.u16(h.Groups...) }) })
		b.extension(extPointFormats, func(b *builder) { b.bytes([]byte{1, 0}) })
	}
	if len(h.Schemes) > 0 && h.Version >= TLS12 {
		b.extension(extSchemes, func(b *builder) { b.list(2, func(b *builder) { b.u16(h.Schemes...) }) })
	}
	if len(h.ALPN) > 0 {
		b.extension(extALPN, func(b *builder) { b.list(2, h.protocols) })
	}
	if h.Version < TLS13 {
		b.extension(extRenegotiation, func(b *builder) { b.bytes([]byte{0}) })
	} else {
		h.extensions13(b)
	}
	b.extension(extMasterSecret, func(*builder) {})
	for _, e := range h.Extensions {
		b.extension(e.Type, func(b *builder) { b.bytes(e.Data) })
	}
}

// extensions13 writes what TLS 1.3 needs.
func (h *Hello) extensions13(b *builder) {
	versions := h.Versions
	if len(versions) == 0 {
		versions = []uint16{h.Version}
	}
	b.extension(extVersions, func(b *builder) { b.list(1, func(b *builder) { b.u16(versions...) }) })
	b.extension(extKeyShare, func(b *builder) {
		b.list(2, func(b *builder) {
			for _, share := range h.KeyShares {
				b.u16(share.Group)
				b.list(2, func(b *builder) { b.bytes(share.Public) })
			}
		})
	})
}

func (h *Hello) protocols(b *builder) {
	for _, p := range h.ALPN {
		b.list(1, func(b *builder) { b.bytes([]byte(p)) })
	}
}

// builder writes numbers and lists that begin with their length.
type builder struct {
	out     []byte
	tooLong bool
}

func (b *builder) bytes(p []byte) { b.out = append(b.out, p...) }

func (b *builder) u16(numbers ...uint16) {
	for _, n := range numbers {
		b.out = append(b.out, byte(n>>8), byte(n))
	}
}

// list writes what f writes, after its length in size bytes.
func (b *builder) list(size int, f func(*builder)) {
	var inner builder
	f(&inner)
	n := len(inner.out)
	b.tooLong = b.tooLong || inner.tooLong || n >= 1<<(8*size)
	for i := size - 1; i >= 0; i-- {
		b.out = append(b.out, byte(n>>(8*i)))
	}
	b.out = slices.Concat(b.out, inner.out)
}

func (b *builder) extension(kind uint16, f func(*builder)) {
	b.u16(kind)
	b.list(2, f)
}
