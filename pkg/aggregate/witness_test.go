package aggregate

import (
	"testing"

	pb "github.com/elsewhere-net/elsewhere/proto/elsewhere/v1"
)

func TestNetworkOfAnAgent(t *testing.T) {
	for _, c := range []struct {
		sentence string
		vantage  *pb.Vantage
		want     string
	}{
		{"the ASN comes first", &pb.Vantage{Asn: 64500, ObservedAddress: "198.51.100.7", Provider: "Example"}, "AS64500"},
		{"else the /24", &pb.Vantage{ObservedAddress: "198.51.100.7", Provider: "Example"}, "198.51.100.0/24"},
		{"also with a port", &pb.Vantage{ObservedAddress: "198.51.100.7:4711"}, "198.51.100.0/24"},
		{"else the /48", &pb.Vantage{ObservedAddress: "2001:db8:1:2::3"}, "2001:db8:1::/48"},
		{"IPv4 in IPv6 is IPv4", &pb.Vantage{ObservedAddress: "::ffff:198.51.100.7"}, "198.51.100.0/24"},
		{"a zone is no network", &pb.Vantage{ObservedAddress: "fe80::1%eth0"}, "fe80::/48"},
		{"else the provider", &pb.Vantage{ObservedAddress: "unknown", Provider: "Example"}, "Example"},
		{"else it is not known", &pb.Vantage{}, ""},
	} {
		if got := network(c.vantage); got != c.want {
			t.Errorf("%s: got %q, want %q", c.sentence, got, c.want)
		}
	}
}

// Agents that share a network or a provider are one witness, and one witness makes nothing sure.
func TestWitnesses(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		sentence string
		one, two *pb.Vantage
		more     []*pb.Vantage // of other agents that are asked
		want     pb.Confidence
	}{
		{"two networks are two", &pb.Vantage{Asn: 64500}, &pb.Vantage{Asn: 64501}, nil, pb.Confidence_CONFIDENCE_HIGH},
		{"one network is one", &pb.Vantage{Asn: 64500}, &pb.Vantage{Asn: 64500}, nil, pb.Confidence_CONFIDENCE_MEDIUM},
		{
			"one provider is one, whatever its networks", &pb.Vantage{Asn: 64500, Provider: "Example"},
			&pb.Vantage{Asn: 64501, Provider: "example"}, nil, pb.Confidence_CONFIDENCE_MEDIUM,
		},
		{
			"one /24 is one, where the AS is known of one alone", &pb.Vantage{Asn: 64500, ObservedAddress: "198.51.100.7"},
			&pb.Vantage{ObservedAddress: "198.51.100.8"}, nil, pb.Confidence_CONFIDENCE_MEDIUM,
		},
		{
			"a private subnet is no network where the AS is known", &pb.Vantage{Asn: 64500, ObservedAddress: "10.0.0.7"},
			&pb.Vantage{Asn: 64501, ObservedAddress: "10.0.0.8"}, nil, pb.Confidence_CONFIDENCE_HIGH,
		},
		{
			"and one where it is not", &pb.Vantage{ObservedAddress: "10.0.0.7"}, &pb.Vantage{ObservedAddress: "10.0.0.8"},
			nil, pb.Confidence_CONFIDENCE_MEDIUM,
		},
		{"what is not known is not different", &pb.Vantage{Asn: 64500}, &pb.Vantage{}, nil, pb.Confidence_CONFIDENCE_MEDIUM},
		{
			"two that share something with a third are one", &pb.Vantage{Asn: 64500}, &pb.Vantage{Provider: "Example", Asn: 64501},
			[]*pb.Vantage{{Asn: 64500, Provider: "Example"}},
			pb.Confidence_CONFIDENCE_MEDIUM,
		},
	} {
		w := tcpWorld().in("ap/1", blocked(ip1, timeout)).in("ap/2", blocked(ip1, timeout)).in("eu", open(ip1))
		w.m.Asks[0].Vantage, w.m.Asks[1].Vantage = c.one, c.two
		c.one.Region, c.two.Region = "ap", "ap"
		for _, v := range c.more {
			w.gone("ap/3", pb.AskState_ASK_STATE_LOST, 0)
			v.Region = "ap"
			w.m.Asks[len(w.m.Asks)-1].Vantage = v
		}
		if got := w.judge().GetFindings()[0].GetConfidence(); got != c.want {
			t.Errorf("%s: %v, want %v", c.sentence, got, c.want)
		}
	}
}
