package lab

import (
	"encoding/binary"
	"net"
	"slices"
	"strings"

	"github.com/miekg/dns"
	"golang.org/x/sys/unix"
)

// forgery is an address that somebody gives for a name, maybe with the claim to be the zone's own server (AA); or
// nothing.
type forgery struct {
	name, address string
	claims        bool
}

// The lengths of an IPv4 header without options and of UDP's.
const (
	ipLength  = 20
	udpLength = 8
)

// forge is the packet that answers a query by UDP over IPv4, or nil if the packet is none that is answered.
func (f forgery) forge(packet []byte) []byte {
	const head = ipLength + udpLength
	if f.name == "" || len(packet) < head || packet[0] != 0x45 || packet[9] != unix.IPPROTO_UDP ||
		binary.BigEndian.Uint16(packet[ipLength+2:]) != 53 {
		return nil
	}
	query := new(dns.Msg)
	if query.Unpack(packet[head:]) != nil || len(query.Question) != 1 {
		return nil
	}
	q := query.Question[0]
	if q.Qtype != dns.TypeA || !strings.EqualFold(q.Name, dns.Fqdn(f.name)) {
		return nil
	}
	reply := new(dns.Msg).SetReply(query)
	reply.RecursionAvailable, reply.Authoritative = true, f.claims
	reply.Answer = []dns.RR{&dns.A{Hdr: dns.RR_Header{Name: q.Name, Rrtype: q.Qtype, Class: q.Qclass, Ttl: 300}, A: net.ParseIP(f.address)}}
	text, err := reply.Pack()
	if err != nil {
		return nil
	}
	return append(back(packet[:head], len(text)), text...)
}

// back are the headers of a packet in the other direction, with a payload of this length (RFC 791, RFC 768).
func back(headers []byte, length int) []byte {
	b := slices.Clone(headers)
	copy(b[12:], headers[16:20]) // source and destination
	copy(b[16:], headers[12:16])
	binary.BigEndian.PutUint16(b[2:], uint16(len(b)+length))
	binary.BigEndian.PutUint16(b[10:], 0)
	binary.BigEndian.PutUint16(b[10:], checksum(b[:ipLength]))
	udp := b[ipLength:]
	copy(udp, headers[ipLength+2:ipLength+4]) // their ports
	copy(udp[2:], headers[ipLength:ipLength+2])
	binary.BigEndian.PutUint16(udp[4:], uint16(udpLength+length))
	binary.BigEndian.PutUint16(udp[6:], 0) // without a checksum
	return b
}

// checksum is the internet's (RFC 1071) of a header, whose length is even.
func checksum(header []byte) uint16 {
	var sum uint32
	for i := 0; i < len(header); i += 2 {
		sum += uint32(binary.BigEndian.Uint16(header[i:]))
	}
	for sum>>16 != 0 {
		sum = sum&0xffff + sum>>16
	}
	return ^uint16(sum)
}
