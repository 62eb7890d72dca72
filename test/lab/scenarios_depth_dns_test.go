package lab

import (
	"fmt"
	"slices"
	"strings"

	pb "github.com/elsewhere-net/elsewhere/proto/elsewhere/v1"
)

// wrongName is a finding about a name.
func wrongName(code pb.FindingCode, failure pb.Failure, regions ...string) *pb.Finding {
	return &pb.Finding{
		Code: code, Regions: regions, Stage: pb.Stage_STAGE_DNS, Failure: failure, Failures: []pb.Failure{failure},
	}
}

// query is the one query about the target that a result has.
func query(r *pb.Result) *pb.Step {
	for _, s := range steps(r, pb.StepKind_STEP_KIND_DNS_QUERY, pb.Role_ROLE_TARGET) {
		return s
	}
	return nil
}

func brokenNames() []scenario {
	return []scenario{
		{
			name: "bogus", says: "the zone's signatures have expired, and one region's resolver validates",
			proofs: []proof{
				{"ap-1 ap-2", "dig", "www." + overdueZone, "SERVFAIL"},
				{"ap-1 ap-2", "dig", "+cd www." + overdueZone, "NOERROR 203.0.113.182"},
				{"us-1 eu-1 sa-1", "dig", "www." + overdueZone, "NOERROR 203.0.113.182"},
			},
			ask: "dns www." + overdueZone + " A",
			want: fails(wrongName(pb.FindingCode_FINDING_CODE_DNSSEC_BOGUS, pb.Failure_FAILURE_DNS_DNSSEC_BOGUS, validating)).
				mentioning("expired 2026-02-01T00:00:00Z").showing(each(validating, func(r *pb.Result) string {
				d := query(r).GetEvidence().GetDnssec()
				if d.GetReason() != pb.BogusReason_BOGUS_REASON_SIGNATURE_EXPIRED || !strings.Contains(d.GetDetail(), "2026-02-01") {
					return fmt.Sprintf("the reason is not there: %v", d)
				}
				return ""
			})),
		},
		{
			name: "cname-broken", says: "a CNAME leads to a name that does not exist",
			records: []string{"cname-broken CNAME cname-gone"},
			proofs:  []proof{{"us-1 ap-1", "dig", "cname-broken." + zone, "NXDOMAIN"}, {"us-1 ap-1", "dig", "cname-gone." + zone, "NXDOMAIN"}},
			ask:     "tcp NAME:443",
			want: fails(wrongName(pb.FindingCode_FINDING_CODE_CNAME_BROKEN, pb.Failure_FAILURE_DNS_CNAME_BROKEN, everywhere()...)).
				mentioning("cname-gone." + zone).showing(each("", func(r *pb.Result) string {
				chain := query(r).GetEvidence().GetCnameChain()
				if len(chain) != 1 || chain[0].GetFailure() != pb.Failure_FAILURE_DNS_NXDOMAIN || chain[0].GetZone() != zone {
					return fmt.Sprintf("the link is not shown: %v", chain)
				}
				return ""
			})),
		},
		{
			name: "cname-loop", says: "two CNAMEs lead to one another",
			records: []string{"cname-loop CNAME cname-pool", "cname-pool CNAME cname-loop"},
			proofs:  []proof{{"us-1 ap-1", "dig", "cname-loop." + zone, "SERVFAIL"}},
			ask:     "dns NAME A",
			want: fails(wrongName(pb.FindingCode_FINDING_CODE_CNAME_BROKEN, pb.Failure_FAILURE_DNS_CNAME_LOOP, everywhere()...)).
				mentioning("cname-loop." + zone + " → cname-pool." + zone + " → cname-loop." + zone).showing(consulted(authoritative+" dns_cname_loop", authoritative+" none")),
		},
		{
			name: "bogon", says: "the resolver of one region gives an address that cannot be public",
			hosts:          []host{at("203.0.113.140")},
			resolverFaults: []resolverFault{{"eu-west", "10.99.99.99"}},
			proofs: []proof{
				{"eu-1 eu-2", "dig", "bogon." + zone, "NOERROR 10.99.99.99"},
				{"us-1 ap-1 sa-1", "dig", "bogon." + zone, "NOERROR 203.0.113.140"},
			},
			ask: "tcp NAME:443",
			want: fails(wrongName(pb.FindingCode_FINDING_CODE_BOGON_ANSWER, pb.Failure_FAILURE_DNS_BOGON, "eu-west")).
				mentioning("10.99.99.99"),
		},
	}
}

// consulted says which of the zone's own servers each agent has asked, and how they did: "IP failure".
func consulted(want ...string) func(*pb.Measurement) []string {
	return each("", func(r *pb.Result) string {
		var got []string
		for _, s := range steps(r, pb.StepKind_STEP_KIND_DNS_QUERY, pb.Role_ROLE_AUTHORITY) {
			ip, _, _ := strings.Cut(s.GetAddress(), ":")
			got = append(got, ip+" "+strings.ToLower(strings.TrimPrefix(s.GetFailure().String(), "FAILURE_")))
		}
		slices.Sort(got)
		if got = slices.Compact(got); !slices.Equal(got, want) {
			return fmt.Sprintf("the zone's own servers: %q, want %q", got, want)
		}
		return ""
	})
}

func delegations() []scenario {
	return []scenario{
		{
			name: "lame", says: "one of the zone's two servers does not serve it",
			proofs: []proof{{"us-1 ap-1", "dig", "@" + refuser + " www." + lameZone, "REFUSED"}, {"us-1 ap-1", "dig", "@" + authoritative + " www." + lameZone, "NOERROR 203.0.113.180"}},
			ask:    "dns www." + lameZone + " A --authoritative",
			want: fails(wrongName(pb.FindingCode_FINDING_CODE_LAME_DELEGATION, pb.Failure_FAILURE_DNS_LAME, everywhere()...)).
				mentioning(refuser).showing(consulted(authoritative+" none", refuser+" dns_lame")),
		},
		{
			name: "traced", says: "the way down from the root is walked and shown",
			hosts:  []host{at("203.0.113.141")},
			proofs: []proof{{"us-1 ap-1", "dig", "@" + rootServer + " +norec traced." + zone, "NOERROR " + topServer}, {"us-1 ap-1", "dig", "@" + authoritative + " traced." + zone, "NOERROR 203.0.113.141"}},
			ask:    "dns NAME A +trace",
			want: fine().showing(each("", func(r *pb.Result) string {
				var zones []string
				for _, s := range steps(r, pb.StepKind_STEP_KIND_DNS_QUERY, pb.Role_ROLE_REFERRAL) {
					zones = append(zones, s.GetEvidence().GetAuthority().GetZone()+" "+s.GetAddress())
				}
				if !slices.Equal(zones, []string{". " + rootServer + ":53", "example " + topServer + ":53"}) {
					return fmt.Sprintf("the way down is %q", zones)
				}
				return ""
			})),
		},
	}
}

// encrypted ask servers over TLS, HTTPS and QUIC, by name and by address.
func encrypted() []scenario {
	const good, bad = "203.0.113.150", "203.0.113.151"
	question := "dns healthy-dns." + zone + " A @"
	var table []scenario
	for _, c := range []struct{ name, says, ask string }{
		{"dot", "over TLS, by name", "@dot." + zone + " +tls"},
		{"dot-address", "over TLS, by address", "@" + good + " +tls"},
		{"doh", "over HTTPS, by name", "@dot." + zone + " +https"},
		{"doh-get", "over HTTPS by GET, by address, for another name", "@" + good + " +https-get +tls-hostname=dot." + zone},
		{"doq", "over QUIC, by name", "@dot." + zone + " +quic"},
	} {
		table = append(table, scenario{
			name: c.name, says: "a server is asked " + c.says,
			proofs: []proof{{"us-1 ap-1", "openssl", good + ":853 dot." + zone, "ok"}},
			ask:    strings.TrimSuffix(question, "@") + c.ask,
			want:   fine().showing(each("", answered(good))),
		})
	}
	table[0].hosts = []host{own(good, secureDNS(later, "dot."+zone, good))}
	for _, c := range []struct {
		name, option string
		failure      pb.Failure
	}{
		{"dot-expired", "+tls", pb.Failure_FAILURE_DNS_TRANSPORT_TLS},
		{"doh-expired", "+https", pb.Failure_FAILURE_DNS_TRANSPORT_TLS},
		{"doq-expired", "+quic", pb.Failure_FAILURE_DNS_TRANSPORT_TLS},
	} {
		table = append(table, scenario{
			name: c.name, says: "a server is asked whose certificate is over",
			proofs: []proof{{"us-1 ap-1", "openssl", bad + ":853 dot-expired." + zone, "certificate has expired"}},
			ask:    question + "dot-expired." + zone + " " + c.option,
			want:   fails(wrongName(pb.FindingCode_FINDING_CODE_UNRESOLVABLE, c.failure, everywhere()...)).mentioning("expired"),
		})
	}
	table[5].hosts = []host{own(bad, secureDNS(earlier, "dot-expired."+zone))}
	return table
}

// answered says whether a server at an address answered over what it was asked over.
func answered(addr string) func(*pb.Result) string {
	return func(r *pb.Result) string {
		s := query(r)
		if !strings.HasPrefix(s.GetAddress(), addr+":") || !slices.Equal(s.GetEvidence().GetAddresses(), []string{"203.0.113.13"}) {
			return fmt.Sprintf("no answer: %v", s)
		}
		return ""
	}
}
