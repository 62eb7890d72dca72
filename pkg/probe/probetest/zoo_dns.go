package probetest

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"strings"

	"github.com/miekg/dns"

	pb "github.com/elsewhere-net/elsewhere/proto/elsewhere/v1"
)

// raw is an animal that answers with bytes.
func raw(name, qtype string, want pb.Failure, answer func(query []byte, tcp bool) [][]byte) Animal {
	return Animal{
		Name: name, Spec: asked(qtype), Want: want,
		Listen: func(at netip.AddrPort) (Server, error) { return ServeRawDNS(at, answer) },
	}
}

// reply is a header that answers a query, with its question and these counts of records.
func reply(query []byte, answers uint16) []byte {
	end := min(len(query), 12+len("\x03zoo\x07example\x00")+4)
	m := append([]byte(nil), query[:end]...)
	m[2], m[3] = 0x81, 0x80 // QR, RD, RA.
	binary.BigEndian.PutUint16(m[6:], answers)
	copy(m[8:12], []byte{0, 0, 0, 0})
	return m
}

// full is a whole reply of records in presentation format, compressed, over TCP in its frame; over UDP it
// is cut, so that TCP is asked.
func full(records ...string) func([]byte, bool) [][]byte {
	return func(query []byte, tcp bool) [][]byte {
		var q dns.Msg
		if q.Unpack(query) != nil {
			return nil
		}
		m := new(dns.Msg).SetReply(&q)
		m.RecursionAvailable, m.Compress, m.Truncated = true, true, !tcp
		for _, text := range records {
			if rr, err := dns.NewRR(text); err == nil && tcp {
				m.Answer = append(m.Answer, rr)
			}
		}
		wire, err := m.Pack()
		if err != nil {
			return nil
		}
		if tcp {
			wire = Framed(wire)
		}
		return [][]byte{wire}
	}
}

// always sends one message, whatever the transport.
func always(message func(query []byte) []byte) func([]byte, bool) [][]byte {
	return func(query []byte, tcp bool) [][]byte {
		m := message(query)
		if tcp {
			m = Framed(m)
		}
		return [][]byte{m}
	}
}

// flood sends a datagram many times and says nothing over TCP.
func flood(n int, message func(query []byte) []byte) func([]byte, bool) [][]byte {
	return func(query []byte, tcp bool) [][]byte {
		if tcp {
			return nil
		}
		all := make([][]byte, n)
		for i := range all {
			all[i] = message(query)
		}
		return all
	}
}

// lines makes records of a format that takes a number.
func lines(n int, format string) []string {
	all := make([]string, n)
	for i := range all {
		all[i] = fmt.Sprintf(format, i, i+1)
	}
	return all
}

// a is an A record of the question's name, as wire.
const a = "\xc0\x0c\x00\x01\x00\x01\x00\x00\x00\x3c\x00\x04\x7f\x00\x71\x0a"

// dnsHouse is the DNS servers.
func dnsHouse() []Animal {
	malformed := pb.Failure_FAILURE_DNS_MALFORMED
	return []Animal{
		raw("DNS: a name that points to itself", "A", malformed, always(func(q []byte) []byte {
			m := reply(q, 1)
			return append(m, append(binary.BigEndian.AppendUint16(nil, 0xc000|uint16(len(m))), a[2:]...)...)
		})),
		raw("DNS: a name that points ahead", "A", malformed, always(func(q []byte) []byte {
			return append(reply(q, 1), "\xff\xff"+a[2:]...)
		})),
		raw("DNS: 65,535 records announced, none there", "A", malformed, always(func(q []byte) []byte { return reply(q, 65535) })),
		raw("DNS: a record longer than the message", "A", malformed, always(func(q []byte) []byte {
			return append(reply(q, 1), strings.Replace(a, "\x00\x04\x7f", "\xff\xff\x7f", 1)...)
		})),
		raw("DNS: an empty datagram", "A", malformed, flood(1, func([]byte) []byte { return nil })),
		raw("DNS: ten thousand replies with other IDs", "A", pb.Failure_FAILURE_DNS_ID_MISMATCH, flood(10_000, func(q []byte) []byte {
			m := append(reply(q, 1), a...)
			m[0]++
			return m
		})),
		raw("DNS: ten thousand right replies", "A", pb.Failure_FAILURE_NONE, flood(10_000, func(q []byte) []byte {
			return append(reply(q, 1), a...)
		})),
		raw("DNS: always cut, and TCP is silent", "A", pb.Failure_FAILURE_DNS_TRUNCATED_NO_TCP, flood(1, func(q []byte) []byte {
			m := reply(q, 0)
			m[2] |= 0x02 // TC.
			return m
		})),
		raw("DNS: cut, and TCP ends in the middle", "A", pb.Failure_FAILURE_DNS_TRUNCATED_NO_TCP, func(q []byte, tcp bool) [][]byte {
			m := append(reply(q, 1), a...)
			if tcp {
				return [][]byte{Framed(m)[:20]}
			}
			m[2] |= 0x02
			return [][]byte{m}
		}),
		raw("DNS: 60 KiB of TXT", "TXT", pb.Failure_FAILURE_NONE,
			full(lines(230, `zoo.example. 1 IN TXT "%d `+strings.Repeat("x", 240)+`%d"`)...)),
		raw("DNS: four thousand addresses", "A", pb.Failure_FAILURE_NONE, func(q []byte, tcp bool) [][]byte {
			m := reply(q, 4000)
			if !tcp {
				m = reply(q, 0)
				m[2] |= 0x02
				return [][]byte{m}
			}
			for i := range 4000 {
				m = append(append(m, a[:13]...), byte(i>>8), byte(i), 1)
			}
			return [][]byte{Framed(m)}
		}),
		raw("DNS: escapes and bytes that are no UTF-8", "TXT", pb.Failure_FAILURE_NONE,
			full(`zoo.example. 1 IN TXT "\027]0;owned\007\000\255\254<script>\226\128\174"`)),
		raw("DNS: a chain of five hundred names", "A", pb.Failure_FAILURE_DNS_NODATA,
			full(append([]string{"zoo.example. 1 IN CNAME n0.example."}, lines(500, "n%d.example. 1 IN CNAME n%d.example.")...)...)),
		raw("DNS: a chain that comes back", "A", pb.Failure_FAILURE_DNS_CNAME_LOOP,
			full("zoo.example. 1 IN CNAME b.example.", "b.example. 1 IN CNAME zoo.example.")),
	}
}
