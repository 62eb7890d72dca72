package render

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	pb "github.com/elsewhere-net/elsewhere/proto/elsewhere/v1"
)

// TestZones: what the two sides of a delegation say of a server, and how it can be asked.
func TestZones(t *testing.T) {
	t.Parallel()
	server := func(at string, about *pb.AuthorityEvidence) *pb.Step {
		s := as(pb.Role_ROLE_AUTHORITY, asking(at, "www.example.com", "A", &pb.DNSReply{Authoritative: true}, "A 203.0.113.10"))
		about.Zone, about.Server, s.Evidence.Authority = "example.com", "ns.example.com", about
		return s
	}
	moved := func() *pb.AuthorityEvidence {
		return &pb.AuthorityEvidence{InParent: true, InChild: true, Glue: []string{"192.0.2.1"}, Addresses: []string{"192.0.2.2"}}
	}
	unasked := server("192.0.2.1:53", &pb.AuthorityEvidence{InParent: true})
	unasked.Evidence.Authority.Server = ""
	overTCP := server("192.0.2.1:53", &pb.AuthorityEvidence{})
	overTCP.Evidence.Replies[0].Transport = "tcp"
	for name, tc := range map[string]struct {
		steps []*pb.Step
		want  []string
	}{
		"glue that is out of date": {
			[]*pb.Step{server("192.0.2.1:53", moved()), server("192.0.2.2:53", moved())},
			[]string{"ns.example.com  192.0.2.1:53    by glue only     ✓ 203.0.113.10", "ns.example.com  192.0.2.2:53    not in the glue  ✓ 203.0.113.10"},
		},
		"nobody asked the server's own zone": {
			[]*pb.Step{server("192.0.2.1:53", &pb.AuthorityEvidence{InParent: true, InChild: true, Glue: []string{"192.0.2.1"}})},
			[]string{"ns.example.com  192.0.2.1:53      ✓ 203.0.113.10"},
		},
		"the zone alone was heard": {
			[]*pb.Step{server("192.0.2.1:53", &pb.AuthorityEvidence{InChild: true})},
			[]string{"ns.example.com  192.0.2.1:53      ✓ 203.0.113.10"},
		},
		"the two sides differ": {
			[]*pb.Step{server("192.0.2.1:53", &pb.AuthorityEvidence{InChild: true}), server("192.0.2.2:53", &pb.AuthorityEvidence{InParent: true})},
			[]string{"ns.example.com  192.0.2.1:53    at the zone only    ✓ 203.0.113.10", "ns.example.com  192.0.2.2:53    at the parent only  ✓ 203.0.113.10"},
		},
		"a server of a zone above answered for the zone, so that no referral was seen": {
			[]*pb.Step{unasked, server("192.0.2.2:53", &pb.AuthorityEvidence{InChild: true})},
			[]string{"-               192.0.2.1:53      ✓ 203.0.113.10", "ns.example.com  192.0.2.2:53      ✓ 203.0.113.10"},
		},
		"no word over UDP": {
			[]*pb.Step{overTCP}, []string{"ns.example.com  192.0.2.1:53      ✓ 203.0.113.10 over TCP alone"},
		},
	} {
		got := zones(&pb.Result{Steps: tc.steps}, false)
		if diff := cmp.Diff(tc.want, got[0].lines); diff != "" {
			t.Errorf("%s: %s", name, diff)
		}
	}
}

// TestCounted: of two replies to one query anybody would have believed the first.
func TestCounted(t *testing.T) {
	t.Parallel()
	s := asking("192.0.2.53:53", "www.example.com", "A", &pb.DNSReply{}, "A 198.51.100.66")
	own := asking("192.0.2.53:53", "www.example.com", "A", &pb.DNSReply{}, "A 203.0.113.10")
	s.Evidence.Replies = append(s.GetEvidence().GetReplies(), own.GetEvidence().GetReplies()...)
	if got := answersOf(s, "A"); len(got) != 1 || got[0] != "198.51.100.66" {
		t.Error(got)
	}
	s.Evidence.Replies[0] = &pb.DNSReply{Rcode: "SERVFAIL"} // Which was asked for once more.
	if got := answersOf(s, "A"); len(got) != 1 || got[0] != "203.0.113.10" {
		t.Error(got)
	}
	s.Evidence.Replies[1].Mismatched = true
	if got := counted(s); got.GetRcode() != "SERVFAIL" {
		t.Error(got)
	}
	s.Attempts = 2
	if got := moreReplies(s); len(got) != 1 || got[0] != "2 replies to 2 attempts: SERVFAIL, then 203.0.113.10 (not a reply to this query)" {
		t.Error(got)
	}
}

// TestAWayThatEnds: who asked for the zone's own servers is told why there are none.
func TestAWayThatEnds(t *testing.T) {
	t.Parallel()
	root := failing(referred("198.41.0.4:53", "www.example.com", ""), pb.Failure_FAILURE_DNS_TIMEOUT, "")
	root.Evidence = &pb.Evidence{Authority: &pb.AuthorityEvidence{Zone: "."}}
	own := asking("192.0.2.53:53", "www.example.com", "A", &pb.DNSReply{}, "A 203.0.113.10")
	spec := &pb.Spec{Check: &pb.Spec_Dns{Dns: &pb.DNSSpec{Name: "www.example.com", Authoritative: true}}}
	got := sections(&pb.Measurement{Spec: spec}, &pb.Result{Steps: []*pb.Step{own, root}}, false)
	want := []section{{"the zone's own servers were not found; from the root down", []string{".  198.41.0.4:53  ✗ dns_timeout"}}}
	if diff := cmp.Diff(want, got, cmp.AllowUnexported(section{})); diff != "" {
		t.Error(diff)
	}
}

// TestWhyAQueryFailed: what carries a query fails in words; what is wrong with a certificate is shown by itself.
func TestWhyAQueryFailed(t *testing.T) {
	t.Parallel()
	s := failing(asking("192.0.2.53:853", "www.example.com", "A", &pb.DNSReply{}), pb.Failure_FAILURE_DNS_TRANSPORT_TLS, "tls_not_tls: it speaks HTTP")
	if got := remarkable(s, false); len(got) != 1 || got[0] != "tls_not_tls: it speaks HTTP" {
		t.Errorf("%q", got)
	}
	s.Evidence.Tls = &pb.TLSEvidence{Chain: []*pb.Certificate{{CommonName: "www.example.com"}}}
	if got := remarkable(s, false); len(got) != 0 {
		t.Errorf("%q", got)
	}
	bogus := &pb.DNSSECEvidence{Reason: pb.BogusReason_BOGUS_REASON_UNKNOWN}
	if got := whyBogus(bogus); got != "validation fails, and keys and dates do not show why" {
		t.Error(got)
	}
}

// TestTypesByNumber: the spec has most types by number, the query and its records by name.
func TestTypesByNumber(t *testing.T) {
	t.Parallel()
	s := asking("192.0.2.53:53", "example.com", "LOC", &pb.DNSReply{}, "LOC 52 22 23.000 N")
	if got := answers(&pb.DNSSpec{Name: "example.com", Type: "TYPE29"}, s); len(got) != 1 {
		t.Error(got)
	}
}
