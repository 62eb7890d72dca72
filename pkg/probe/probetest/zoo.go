package probetest

import (
	"net/netip"

	pb "github.com/elsewhere-net/elsewhere/proto/elsewhere/v1"
)

// Animal is a target that means harm. A check of it must end in time, stay small, leave nothing behind
// and say what was wrong.
type Animal struct {
	// Name says what it does.
	Name string
	// Listen starts it; port 0 takes a free one.
	Listen func(at netip.AddrPort) (Server, error)
	// Spec is the check that meets it.
	Spec func(addr netip.AddrPort) *pb.Spec
	// Want is the failure of the step that meets it; FAILURE_NONE where it is a nuisance and no more.
	Want pb.Failure
}

// Server is what every part of the little internet is.
type Server interface {
	Addr() netip.AddrPort
	Close() error
}

// Zoo returns the animals, one of each kind.
func Zoo() []Animal {
	var all []Animal
	for _, house := range [][]Animal{dnsHouse(), tcpHouse(), tlsHouse(), httpHouse()} {
		all = append(all, house...)
	}
	return all
}

// asked checks the name of the zoo at a server.
func asked(qtype string) func(netip.AddrPort) *pb.Spec {
	return func(addr netip.AddrPort) *pb.Spec {
		return &pb.Spec{Check: &pb.Spec_Dns{Dns: &pb.DNSSpec{Name: "zoo.example", Type: qtype, Resolver: addr.String()}}}
	}
}

func connected(addr netip.AddrPort) *pb.Spec {
	return &pb.Spec{Check: &pb.Spec_Tcp{Tcp: &pb.TCPSpec{Host: addr.Addr().String(), Port: uint32(addr.Port())}}}
}

func shaken(addr netip.AddrPort) *pb.Spec {
	return &pb.Spec{Check: &pb.Spec_Tls{Tls: &pb.TLSSpec{Host: addr.Addr().String(), Port: uint32(addr.Port()), ServerName: "zoo.example"}}}
}

// fetched gets the front page, and follows redirects as far as one can ask for.
func fetched(addr netip.AddrPort) *pb.Spec {
	return &pb.Spec{Check: &pb.Spec_Http{Http: &pb.HTTPSpec{Url: "http://" + addr.String() + "/", MaxRedirects: 5}}}
}
