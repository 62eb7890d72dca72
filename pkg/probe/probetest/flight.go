package probetest

import (
	"bytes"
	"cmp"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"net/netip"
	"slices"
	"strings"

	"github.com/elsewhere-net/elsewhere/pkg/probe/flight"
)

// FlightServer is a TLS server made by hand, as far as the end of its first flight. It negotiates like a
// real one and needs no cryptography, so it can be what no library is any more: SSL 3.0, RC4 with MD5,
// export suites. After its flight it reads until the other end closes.
type FlightServer struct {
	// Versions are the ones it speaks. Default: TLS 1.2.
	Versions []uint16
	// Suites are the ones it accepts, the best first; each only with versions that have it.
	Suites []uint16
	// ClientOrder makes it take the client's first suite that it accepts, rather than its own first.
	ClientOrder bool
	// Groups are the ones it accepts for ECDHE, the best first. Default: x25519, secp256r1.
	Groups []uint16
	// Certificates are what it serves, DER, in this order.
	Certificates [][]byte
	// Staple is a stapled OCSP response, served to clients that ask.
	Staple []byte
	// PrimeBits is the size of its Diffie-Hellman prime. Default: 1024.
	PrimeBits int
	// AskCertificate makes it ask for a certificate of the client.
	AskCertificate bool
	// Warning is a warning alert that it sends first, such as 112. 0: none.
	Warning uint8
	// RecordSize is how many bytes of handshake it puts into a record. Default: all of the flight.
	RecordSize int
	// MaxSuites makes it reset the connection of a client that offers more suites. 0: it bears all.
	MaxSuites int
	// Name is the server_name that it knows; others get the fatal alert 112. Default: it takes any.
	Name string
}

// ListenFlight starts a server.
func ListenFlight(at netip.AddrPort, s FlightServer) (*Host, error) {
	return serve(at, func(c net.Conn) {
		h, err := readHello(c)
		if err != nil {
			return
		}
		if s.MaxSuites > 0 && len(h.suites) > s.MaxSuites {
			reset(c)
			return
		}
		_, _ = c.Write(s.answer(h))
		drain(c)
	})
}

// Answer returns what the server says to a ClientHello; nothing if it is none.
func (s *FlightServer) Answer(hello []byte) []byte {
	h, err := readHello(bytes.NewReader(hello))
	if err != nil {
		return nil
	}
	return s.answer(h)
}

// answer is what the server says to a hello.
func (s *FlightServer) answer(h *clientHello) []byte {
	if s.Name != "" && h.serverName != s.Name {
		return alert(h.version, 2, 112)
	}
	version, ok := s.version(h)
	if !ok {
		return alert(h.version, 2, 70)
	}
	group := first(s.groups(), h.groups)
	suite, ok := s.suite(h, version, group)
	if !ok {
		return alert(version, 2, 40)
	}
	var out []byte
	if s.Warning != 0 {
		out = alert(version, 1, s.Warning)
	}
	messages := s.hello(h, version, suite, group)
	if version < flight.TLS13 {
		messages = append(messages, s.rest(h, version, suite, group)...)
	}
	for part := range slices.Chunk(messages, cmp.Or(s.RecordSize, 1<<14)) {
		out = append(out, record(22, min(version, flight.TLS12), part)...)
	}
	return out
}

func (s *FlightServer) groups() []uint16 {
	if s.Groups != nil {
		return s.Groups
	}
	return []uint16{29, 23}
}

// version chooses the highest version that both speak.
func (s *FlightServer) version(h *clientHello) (uint16, bool) {
	spoken := s.Versions
	if spoken == nil {
		spoken = []uint16{flight.TLS12}
	}
	best := uint16(0)
	for _, v := range spoken {
		offered := v <= h.version && v < flight.TLS13
		if h.versions != nil {
			offered = slices.Contains(h.versions, v)
		}
		if offered {
			best = max(best, v)
		}
	}
	return best, best != 0
}

// suite chooses a suite.
func (s *FlightServer) suite(h *clientHello, version, group uint16) (uint16, bool) {
	fit := slices.DeleteFunc(slices.Clone(s.Suites), func(id uint16) bool {
		needsGroup := version == flight.TLS13 || strings.Contains(flight.SuiteName(id), "_ECDHE_") && version > flight.SSL30
		return !slices.Contains(flight.Suites(version), id) || needsGroup && group == 0
	})
	if s.ClientOrder {
		id := first(h.suites, fit)
		return id, id != 0
	}
	id := first(fit, h.suites)
	return id, id != 0
}

// first returns the first of preferred that is in the other list, or 0.
func first(preferred, others []uint16) uint16 {
	for _, id := range preferred {
		if slices.Contains(others, id) {
			return id
		}
	}
	return 0
}

// hello is the ServerHello; in TLS 1.3 a HelloRetryRequest if the client has no share of the group.
func (s *FlightServer) hello(h *clientHello, version, suite, group uint16) []byte {
	random := make([]byte, 32)
	_, _ = rand.Read(random)
	var ext, session []byte
	if version >= flight.TLS13 {
		session = h.session // Echoed (RFC 8446, 4.1.3).
		share := u16(group)
		if slices.Contains(h.shares, group) {
			share = append(share, vector(2, make([]byte, 32))...)
		} else {
			random = retryRandom[:]
		}
		ext = slices.Concat(u16(43), vector(2, u16(version)), u16(51), vector(2, share))
	}
	body := slices.Concat(u16(min(version, flight.TLS12)), random, vector(1, session), u16(suite), []byte{0})
	if len(ext) > 0 {
		body = append(body, vector(2, ext)...)
	}
	return message(2, body)
}

// rest is what follows the ServerHello before TLS 1.3.
func (s *FlightServer) rest(h *clientHello, version, suite, group uint16) []byte {
	name := flight.SuiteName(suite)
	var list, out []byte
	for _, der := range s.Certificates {
		list = append(list, vector(3, der)...)
	}
	if !strings.Contains(name, "_anon_") {
		out = message(11, vector(3, list))
	}
	if s.Staple != nil && h.staple {
		out = append(out, message(22, append([]byte{1}, vector(3, s.Staple)...))...)
	}
	var signature []byte
	if version >= flight.TLS12 {
		signature = u16(0x0401)
	}
	signature = append(signature, vector(2, make([]byte, 256))...)
	switch {
	case strings.Contains(name, "_ECDHE_"):
		out = append(out, message(12, slices.Concat([]byte{3}, u16(group), vector(1, make([]byte, 65)), signature))...)
	case strings.Contains(name, "_DHE_"):
		prime := bytes.Repeat([]byte{0xff}, cmp.Or(s.PrimeBits, 1024)/8)
		out = append(out, message(12, slices.Concat(vector(2, prime), vector(2, []byte{2}), vector(2, prime), signature))...)
	}
	if s.AskCertificate {
		ask := vector(1, []byte{1, 64})
		if version >= flight.TLS12 {
			ask = append(ask, vector(2, u16(0x0401, 0x0403))...)
		}
		out = append(out, message(13, append(ask, vector(2, nil)...))...)
	}
	return append(out, message(14, nil)...)
}

// clientHello is what a FlightServer looks at.
type clientHello struct {
	version                          uint16
	session                          []byte
	suites, versions, groups, shares []uint16
	serverName                       string
	staple                           bool
}

var errNoHello = errors.New("no ClientHello")

// readHello reads a ClientHello that fills one record. The reader may keep what was read.
func readHello(c io.Reader) (*clientHello, error) {
	header := make([]byte, 5)
	if _, err := io.ReadFull(c, header); err != nil {
		return nil, err
	}
	body := make([]byte, binary.BigEndian.Uint16(header[3:]))
	if _, err := io.ReadFull(c, body); err != nil {
		return nil, err
	}
	if header[0] != 22 || len(body) < 4+2+32 || body[0] != 1 {
		return nil, errNoHello
	}
	h := &clientHello{version: binary.BigEndian.Uint16(body[4:])}
	rest := body[4+2+32:]
	h.session, rest = cut(1, rest)
	suites, rest := cut(2, rest)
	h.suites = numbers(suites)
	_, rest = cut(1, rest)
	extensions, _ := cut(2, rest)
	for len(extensions) >= 4 {
		kind := binary.BigEndian.Uint16(extensions)
		var data []byte
		data, extensions = cut(2, extensions[2:])
		h.extension(kind, data)
	}
	return h, nil
}

func (h *clientHello) extension(kind uint16, data []byte) {
	switch kind {
	case 0:
		if list, _ := cut(2, data); len(list) > 3 {
			name, _ := cut(2, list[1:])
			h.serverName = string(name)
		}
	case 5:
		h.staple = true
	case 10:
		list, _ := cut(2, data)
		h.groups = numbers(list)
	case 43:
		list, _ := cut(1, data)
		h.versions = numbers(list)
	case 51:
		list, _ := cut(2, data)
		for len(list) >= 4 {
			h.shares = append(h.shares, binary.BigEndian.Uint16(list))
			_, list = cut(2, list[2:])
		}
	}
}

// cut takes what follows its length of size bytes; what is too short is empty.
func cut(size int, in []byte) (taken, rest []byte) {
	if len(in) < size {
		return nil, nil
	}
	n := 0
	for _, b := range in[:size] {
		n = n<<8 | int(b)
	}
	in = in[size:]
	n = min(n, len(in))
	return in[:n], in[n:]
}

func numbers(in []byte) (out []uint16) {
	for ; len(in) >= 2; in = in[2:] {
		out = append(out, binary.BigEndian.Uint16(in))
	}
	return out
}

func u16(numbers ...uint16) (out []byte) {
	for _, n := range numbers {
		out = binary.BigEndian.AppendUint16(out, n)
	}
	return out
}

// vector is what the wire calls a vector: its length in size bytes, and then itself.
func vector(size int, body []byte) []byte {
	length := binary.BigEndian.AppendUint32(nil, uint32(len(body)))
	return append(length[4-size:], body...)
}

func message(kind byte, body []byte) []byte { return append([]byte{kind}, vector(3, body)...) }

func record(kind byte, version uint16, body []byte) []byte {
	return slices.Concat([]byte{kind}, u16(version), vector(2, body))
}

func alert(version uint16, level, code byte) []byte {
	return record(21, min(version, flight.TLS12), []byte{level, code})
}

// retryRandom is the random of a HelloRetryRequest (RFC 8446, 4.1.3).
var retryRandom = [32]byte{
	0xcf, 0x21, 0xad, 0x74, 0xe5, 0x9a, 0x61, 0x11, 0xbe, 0x1d, 0x8c, 0x02, 0x1e, 0x65, 0xb8, 0x91,
	0xc2, 0xa2, 0x11, 0x16, 0x7a, 0xbb, 0x8c, 0x5e, 0x07, 0x9e, 0x09, 0xe2, 0xc8, 0xa8, 0x33, 0x9c,
}
