package flight

import (
	"math/bits"
	"slices"
)

// retryRandom is the random of a ServerHello that is a HelloRetryRequest: SHA-256 of "HelloRetryRequest"
// (RFC 8446, 4.1.3).
const retryRandom = "\xcf\x21\xad\x74\xe5\x9a\x61\x11\xbe\x1d\x8c\x02\x1e\x65\xb8\x91" +
	"\xc2\xa2\x11\x16\x7a\xbb\x8c\x5e\x07\x9e\x09\xe2\xc8\xa8\x33\x9c"

// hello reads a ServerHello (RFC 8446, 4.1.3; RFC 5246, 7.4.1.3).
func (f *Flight) hello(p *parser) {
	f.Version = p.u16()
	f.Retry = string(p.take(32)) == retryRandom
	f.SessionID = slices.Clone(p.list(1).in)
	f.Suite = p.u16()
	f.Compression = p.u8()
	if len(p.in) > 0 { // SSL 3.0 has no extensions.
		for ext := p.list(2); len(ext.in) > 0 && !ext.short; {
			f.extension(ext.u16(), ext.list(2))
			p.short = p.short || ext.short
		}
	}
	f.Hello = !p.short
	f.Done = f.Version >= TLS13 && f.Hello
}

// extension reads one extension of a ServerHello. One that makes no sense is as if it were not there.
func (f *Flight) extension(kind uint16, p *parser) {
	switch kind {
	case extServerName:
		f.ServerName = true
	case extMasterSecret:
		f.MasterSecret = true
	case extRenegotiation:
		f.Renegotiation = true
	case extALPN:
		f.ALPN = string(p.list(2).list(1).in)
	case extVersions:
		if v := p.u16(); !p.short {
			f.Version = v
		}
	case extKeyShare:
		if g := p.u16(); !p.short {
			f.Group = g
		}
	}
}

// certificate reads a Certificate (RFC 5246, 7.4.2).
func (f *Flight) certificate(p *parser) {
	for list := p.list(3); len(list.in) > 0 && !list.short; {
		der := list.list(3).in
		p.short = p.short || list.short
		if !list.short && len(f.Certificates) < maxCertificates {
			f.Certificates = append(f.Certificates, slices.Clone(der))
		}
	}
}

// status reads a CertificateStatus (RFC 6066, 8). Type 1 is OCSP.
func (f *Flight) status(p *parser) {
	if p.u8() == 1 {
		f.Staple = slices.Clone(p.list(3).in)
	}
}

// keyExchange reads a ServerKeyExchange as far as it says what was agreed on. Its form depends on the
// suite; that of an unknown one is not read.
func (f *Flight) keyExchange(p *parser) {
	name := SuiteName(f.Suite)
	psk := has(name, "PSK")
	if psk {
		p.list(2) // The hint of the identity (RFC 4279, 2).
	}
	switch {
	case has(name, "_ECDHE_", "_ECDH_anon_"):
		if p.u8() != 3 { // Not a named curve: explicit ones died out (RFC 8422, 5.4).
			return
		}
		f.Group = p.u16()
		p.list(1)
	case has(name, "_DHE_", "_DH_anon_"): // p, g, Ys (RFC 5246, 7.4.3).
		f.Bits = bitLen(p.list(2).in)
		p.list(2)
		p.list(2)
	case has(name, "_SRP_"): // N, g, s, B (RFC 5054, 2.5.3).
		f.Bits = bitLen(p.list(2).in)
		p.list(2)
		p.list(1)
		p.list(2)
	case has(name, "_RSA_EXPORT"): // Modulus, exponent (RFC 2246, 7.4.3).
		f.Bits = bitLen(p.list(2).in)
		p.list(2)
	default:
		return
	}
	if f.Version == TLS12 && !psk && !has(name, "_anon_") && len(p.in) > 0 {
		f.Scheme = p.u16()
	}
}

// bitLen is the size of a number in bits.
func bitLen(number []byte) int {
	for i, b := range number {
		if b != 0 {
			return 8*(len(number)-i-1) + bits.Len8(b)
		}
	}
	return 0
}

// request reads a CertificateRequest (RFC 5246, 7.4.4).
func (f *Flight) request(p *parser) {
	r := &Request{Types: slices.Clone(p.list(1).in)}
	if f.Version >= TLS12 {
		for list := p.list(2); len(list.in) > 0 && !list.short; {
			r.Schemes = append(r.Schemes, list.u16())
			p.short = p.short || list.short
		}
	}
	for list := p.list(2); len(list.in) > 0 && !list.short; r.Count++ {
		name := list.list(2).in
		p.short = p.short || list.short
		if len(r.Authorities) < maxAuthorities {
			r.Authorities = append(r.Authorities, slices.Clone(name))
		}
	}
	f.Request = r
}

// parser reads numbers and lists that begin with their length. What is missing makes it short, and all
// that it returns from then on is zero.
type parser struct {
	in    []byte
	short bool
}

func (p *parser) take(n int) []byte {
	if p.short || n > len(p.in) {
		p.in, p.short = nil, true
		return nil
	}
	out := p.in[:n]
	p.in = p.in[n:]
	return out
}

// number reads a number of size bytes.
func (p *parser) number(size int) (n int) {
	for _, b := range p.take(size) {
		n = n<<8 | int(b)
	}
	return n
}

func (p *parser) u8() uint8   { return uint8(p.number(1)) }
func (p *parser) u16() uint16 { return uint16(p.number(2)) }

// list returns a parser of what follows its length of size bytes.
func (p *parser) list(size int) *parser {
	inner := &parser{in: p.take(p.number(size))}
	inner.short = p.short
	return inner
}
