package aggregate

import (
	"fmt"
	"strings"
	"testing"

	pb "github.com/elsewhere-net/elsewhere/proto/elsewhere/v1"
)

func TestAddresses(t *testing.T) {
	const both, four, six = pb.Family_FAMILY_UNSPECIFIED, pb.Family_FAMILY_IPV4, pb.Family_FAMILY_IPV6
	for _, c := range []struct {
		sentence, observed, declared string
		family                       pb.Family
		want                         string
	}{
		{"what the coordinator sees", "198.51.100.7", "", both, "198.51.100.7"},
		{"a mapped address is the IPv4 one", "::ffff:198.51.100.7", "", both, "198.51.100.7"},
		{"declared ones beside it, each once, sorted", "198.51.100.7", "2001:db8::7 198.51.100.7 198.51.100.6", both, "198.51.100.6 198.51.100.7 2001:db8::7"},
		{"of one family", "198.51.100.7", "2001:db8::7", six, "2001:db8::7"},
		{"of the other one", "198.51.100.7", "2001:db8::7", four, "198.51.100.7"},
		{"a private one is all that is known", "10.0.0.7", "2001:db8::7", both, "10.0.0.7 2001:db8::7"},
		{"a private one gives way to a declared one of its family", "10.0.0.7", "198.51.100.7", both, "198.51.100.7"},
		{"so does one behind carrier-grade NAT", "100.64.0.7", "198.51.100.7", both, "198.51.100.7"},
		{"nothing is known", "", "", both, ""},
		{"what is no address is left out", "here", "there", both, ""},
	} {
		v := &pb.Vantage{ObservedAddress: c.observed, Addresses: strings.Fields(c.declared)}
		if got := strings.Trim(fmt.Sprint(Addresses(v, c.family)), "[]"); got != c.want {
			t.Errorf("%s: %q, want %q", c.sentence, got, c.want)
		}
	}
}
