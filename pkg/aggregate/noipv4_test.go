package aggregate

import (
	"slices"
	"testing"

	pb "github.com/elsewhere-net/elsewhere/proto/elsewhere/v1"
)

// fourOnly is a target that is judged for a client that comes over IPv4 alone.
func fourOnly() *world {
	w := tlsWorld()
	w.m.Spec.GetTls().Profile = &pb.Profile{Name: "cdn", Title: "Example CDN", Ipv4Only: true}
	return w
}

func TestNoIPv4(t *testing.T) {
	six := func(n int) []*pb.Step {
		return slices.Concat(typed("AAAA", query(n, none, "2001:db8::10")), typed("A", unnamed(n, nodata)), tls(v61, "c1"))
	}
	uncontrolled := func(n int) []*pb.Step {
		return slices.Concat(typed("AAAA", query(n, none, "2001:db8::10")), typed("A", query(n, nodata)), tls(v61, "c1"))
	}
	both := func(n int) []*pb.Step {
		return slices.Concat(typed("AAAA", query(n, none, "2001:db8::10")), typed("A", query(n, none, "203.0.113.10")), tls(v61, "c1"), tls(ip1, "c1"))
	}
	runCases(t, []verdictCase{
		{
			"no A record anywhere, where IPv4 is all that the client has",
			fourOnly().in("ap", six(1)).in("eu", six(2)),
			[]string{"fail", "ERROR no_ipv4 [ap eu] dns_nodata blame=zone high"},
		},
		{
			"the same without such a client is nobody's trouble",
			tlsWorld().in("ap", six(1)).in("eu", six(2)),
			[]string{"ok"},
		},
		{
			"both families",
			fourOnly().in("ap", both(1)).in("eu", both(2)),
			[]string{"ok"},
		},
		{
			"one of an agent's resolvers has an A record",
			fourOnly().in("ap", six(1), typed("A", query(3, none, "203.0.113.10"))),
			[]string{"ok"},
		},
		{
			"no control beside the denial, and the zone's own servers say so too",
			fourOnly().in("ap", uncontrolled(1), zoneDenies(nodata)),
			[]string{"fail", "ERROR no_ipv4 [ap] dns_nodata blame=zone medium"},
		},
		{
			"no control beside the denial, and nobody else says so",
			fourOnly().in("ap", uncontrolled(1)),
			[]string{"ok"},
		},
		{
			"the zone's own servers have an A record, which the resolver does not yet",
			fourOnly().in("ap", six(1), zoneSays("203.0.113.10")),
			[]string{"ok"},
		},
		{
			"the name does not exist at all: that is another cause",
			fourOnly().in("ap", unnamed(1, nxdomain)).in("eu", unnamed(2, nxdomain)),
			[]string{"fail", "ERROR unresolvable [ap eu] dns_nxdomain blame=zone high"},
		},
	})
}
