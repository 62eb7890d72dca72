// Package public knows the public resolvers that many people use, and who runs them. It is data: where
// each address is published stands beside it.
package public

import "net/netip"

// Resolver is a public resolver.
type Resolver struct {
	// IPv4 and IPv6 are its first addresses.
	IPv4, IPv6 netip.Addr
	// Operator is who runs it.
	Operator string
	// Source is the page on which the operator publishes the addresses.
	Source string
}

// Resolvers are the ones that are asked unless others are named.
func Resolvers() []Resolver {
	return []Resolver{
		{netip.MustParseAddr("1.1.1.1"), netip.MustParseAddr("2606:4700:4700::1111"), "Cloudflare", "https://developers.cloudflare.com/1.1.1.1/ip-addresses/"},
		{netip.MustParseAddr("8.8.8.8"), netip.MustParseAddr("2001:4860:4860::8888"), "Google", "https://developers.google.com/speed/public-dns/docs/using"},
		{netip.MustParseAddr("9.9.9.9"), netip.MustParseAddr("2620:fe::fe"), "Quad9", "https://quad9.net/service/service-addresses-and-features/"},
	}
}

// Operator is who runs the resolver at an address, "" if it is none of Resolvers.
func Operator(addr netip.Addr) string {
	for _, r := range Resolvers() {
		if addr == r.IPv4 || addr == r.IPv6 {
			return r.Operator
		}
	}
	return ""
}
