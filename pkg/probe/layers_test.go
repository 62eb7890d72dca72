package probe

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/miekg/dns"
	"google.golang.org/protobuf/testing/protocmp"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/elsewhere-net/elsewhere/pkg/probe/probetest"
	pb "github.com/elsewhere-net/elsewhere/proto/elsewhere/v1"
)

const soa = "zone.example. 60 IN SOA ns.zone.example. root.zone.example. 1 600 600 600 60"

func TestCNAMEChains(t *testing.T) {
	t.Parallel()
	zone := probetest.Zone{
		"zone.example":   {Records: []string{soa}},
		"good.example":   {Records: []string{"good.example. 60 IN CNAME Middle.example."}},
		"middle.example": {Records: []string{"middle.example. 30 IN CNAME end.zone.example."}},
		"end.zone.example": {Records: []string{
			"end.zone.example. 30 IN A 127.0.0.2",
		}},
		"gone.example":       {Records: []string{"gone.example. 60 IN CNAME nowhere.zone.example."}},
		"bare.example":       {Records: []string{"bare.example. 60 IN CNAME empty.zone.example."}},
		"empty.zone.example": {Records: []string{`empty.zone.example. 60 IN TXT "nothing else"`}},
		"failing.example":    {Records: []string{"failing.example. 60 IN CNAME broken.example."}, Fault: probetest.Unchained},
		"broken.example":     {Rcode: dns.RcodeServerFailure},
		"round.example":      {Records: []string{"round.example. 60 IN CNAME about.example."}, Fault: probetest.Unchained},
		"about.example":      {Records: []string{"about.example. 60 IN CNAME round.example."}, Fault: probetest.Unchained},
		"tired.example":      {Rcode: dns.RcodeServerFailure},
	}
	type chain struct {
		name, host, qtype string
		want              pb.Failure
		links             []*pb.CNAMELink
	}
	link := func(name, target string, ttl uint32) *pb.CNAMELink {
		return &pb.CNAMELink{Name: name, Target: target, Ttl: ttl}
	}
	broken := func(l *pb.CNAMELink, f pb.Failure, zone string) *pb.CNAMELink {
		l.Failure, l.Zone = f, zone
		return l
	}
	all(t, func(c chain) string { return c.name }, []chain{
		{"a chain is shown link by link", "good.example", "A", pb.Failure_FAILURE_NONE, []*pb.CNAMELink{
			link("good.example", "middle.example", 60), link("middle.example", "end.zone.example", 30),
		}},
		{"an end with the other family alone is no broken chain", "good.example", "AAAA", pb.Failure_FAILURE_DNS_NODATA, []*pb.CNAMELink{
			link("good.example", "middle.example", 60), link("middle.example", "end.zone.example", 30),
		}},
		{"an end that does not exist breaks the chain", "gone.example", "A", pb.Failure_FAILURE_DNS_CNAME_BROKEN, []*pb.CNAMELink{
			broken(link("gone.example", "nowhere.zone.example", 60), pb.Failure_FAILURE_DNS_NXDOMAIN, "zone.example"),
		}},
		{"an end without any address breaks it", "bare.example", "A", pb.Failure_FAILURE_DNS_CNAME_BROKEN, []*pb.CNAMELink{
			broken(link("bare.example", "empty.zone.example", 60), pb.Failure_FAILURE_DNS_NODATA, "zone.example"),
		}},
		{"where the resolver gives up, the link that fails is found", "failing.example", "A", pb.Failure_FAILURE_DNS_CNAME_BROKEN, []*pb.CNAMELink{
			broken(link("failing.example", "broken.example", 60), pb.Failure_FAILURE_DNS_SERVFAIL, ""),
		}},
		{"and so is a loop", "round.example", "A", pb.Failure_FAILURE_DNS_CNAME_LOOP, []*pb.CNAMELink{
			link("round.example", "about.example", 60), link("about.example", "round.example", 60),
		}},
		{"a failure without a chain stays what it is", "tired.example", "A", pb.Failure_FAILURE_DNS_SERVFAIL, nil},
	}, func(t *testing.T, c chain) func(*testing.T) {
		env := newEnv(t, zoneCopy(zone))
		s := one(t, run(t, env, dnsSpec(c.host, c.qtype)), pb.StepKind_STEP_KIND_DNS_QUERY)
		return func(t *testing.T) {
			if s.GetFailure() != c.want || len(s.GetFailures()) > 1 {
				t.Errorf("%s, want %s: %v", Short(s.GetFailure()), Short(c.want), s)
			}
			if diff := cmp.Diff(c.links, s.GetEvidence().GetCnameChain(), protocmp.Transform()); diff != "" {
				t.Error(diff)
			}
		}
	})
}

func zoneCopy(z probetest.Zone) probetest.Zone {
	out := probetest.Zone{}
	for name, n := range z {
		out[name] = n
	}
	return out
}

func TestWhyValidationFails(t *testing.T) {
	t.Parallel()
	key := &dns.DNSKEY{
		Hdr: dns.RR_Header{Name: "zone.example.", Rrtype: dns.TypeDNSKEY, Class: dns.ClassINET, Ttl: 60}, Flags: 257, Protocol: 3, Algorithm: dns.ECDSAP256SHA256,
	}
	if _, err := key.Generate(256); err != nil {
		t.Fatal(err)
	}
	ds := key.ToDS(dns.SHA256).String()
	other := fmt.Sprintf("zone.example. 60 IN DS %d 13 2 %s", key.KeyTag()+1, strings.Repeat("ab", 32))
	sig := func(from, until time.Duration, tag uint16) string {
		now := time.Now().UTC()
		stamp := func(d time.Duration) string { return now.Add(d).Format("20060102150405") }
		return fmt.Sprintf("www.zone.example. 60 IN RRSIG A 13 3 60 %s %s %d zone.example. c2lnbmF0dXJl", stamp(until), stamp(from), tag)
	}
	const a = "www.zone.example. 60 IN A 127.0.0.2"
	day := 24 * time.Hour
	type bogus struct {
		name   string
		www    []string
		apex   []string
		ede    *dns.EDNS0_EDE
		reason pb.BogusReason
		detail string
	}
	all(t, func(b bogus) string { return b.name }, []bogus{
		{"the resolver says why", []string{a}, nil, &dns.EDNS0_EDE{InfoCode: 7, ExtraText: "since Monday"}, pb.BogusReason_BOGUS_REASON_SIGNATURE_EXPIRED, "since Monday"},
		{"a signature has expired", []string{a, sig(-9*day, -2*day, key.KeyTag())}, []string{ds, key.String()}, nil, pb.BogusReason_BOGUS_REASON_SIGNATURE_EXPIRED, "www.zone.example A by zone.example expired 20"},
		{"a signature is not valid yet", []string{a, sig(2*day, 9*day, key.KeyTag())}, []string{ds, key.String()}, &dns.EDNS0_EDE{InfoCode: 6}, pb.BogusReason_BOGUS_REASON_SIGNATURE_NOT_YET_VALID, "is valid from 20"},
		{"one of two signatures holds, and the key is gone", []string{a, sig(-9*day, -2*day, 1), sig(-day, day, key.KeyTag())}, []string{ds}, nil, pb.BogusReason_BOGUS_REASON_DNSKEY_MISSING, "has no DNSKEY"},
		{"the DS is that of another key", []string{a, sig(-day, day, key.KeyTag())}, []string{other, key.String()}, nil, pb.BogusReason_BOGUS_REASON_DNSKEY_MISSING, "is the one that its parent's DS names"},
		{"signed with a key that is not there", []string{a, sig(-day, day, key.KeyTag()+1)}, []string{ds, key.String()}, nil, pb.BogusReason_BOGUS_REASON_DNSKEY_MISSING, "is signed with key tag"},
		{"not signed at all", []string{a}, []string{soa, ds, key.String()}, nil, pb.BogusReason_BOGUS_REASON_SIGNATURE_MISSING, "has no signature"},
		{"that there is no such record is not signed", nil, []string{soa, ds, key.String()}, nil, pb.BogusReason_BOGUS_REASON_SIGNATURE_MISSING, "has no signature"},
		{"nothing says why", []string{a, sig(-day, day, key.KeyTag())}, []string{ds, key.String()}, nil, pb.BogusReason_BOGUS_REASON_UNKNOWN, ""},
	}, func(t *testing.T, b bogus) func(*testing.T) {
		env := newEnv(t, probetest.Zone{
			"www.zone.example": {Records: b.www, Fault: probetest.Bogus, EDE: b.ede},
			"zone.example":     {Records: b.apex},
		})
		env.patience = 3 * time.Second
		r := run(t, env, dnsSpec("www.zone.example", "A"))
		return func(t *testing.T) {
			s := one(t, r, pb.StepKind_STEP_KIND_DNS_QUERY)
			ev := s.GetEvidence().GetDnssec()
			if s.GetFailure() != pb.Failure_FAILURE_DNS_DNSSEC_BOGUS || ev.GetReason() != b.reason || !strings.Contains(ev.GetDetail(), b.detail) {
				t.Errorf("%s, %v %q, want %v %q", Short(s.GetFailure()), ev.GetReason(), ev.GetDetail(), b.reason, b.detail)
			}
			if len(ofVariant(r, pb.Variant_VARIANT_CHECKING_DISABLED)) != 1 {
				t.Errorf("want one query without checking beside it: %v", r)
			}
		}
	})
}

// TestADenialProvesNothing: a resolver that fails, and without validation knows of no record, may have failed for
// any reason, unless the zone is a signed one.
func TestADenialProvesNothing(t *testing.T) {
	t.Parallel()
	env := newEnv(t, probetest.Zone{"www.zone.example": {Fault: probetest.Bogus}, "zone.example": {Records: []string{soa}}})
	r := run(t, env, dnsSpec("www.zone.example", "A"))
	if s := one(t, r, pb.StepKind_STEP_KIND_DNS_QUERY); s.GetFailure() != pb.Failure_FAILURE_DNS_SERVFAIL || s.GetEvidence().GetDnssec() != nil {
		t.Errorf("%v", s)
	}
}

// ofVariant returns the steps of a variant.
func ofVariant(r *pb.Result, v pb.Variant) (out []*pb.Step) {
	for _, s := range r.GetSteps() {
		if s.GetVariant() == v {
			out = append(out, s)
		}
	}
	return out
}

func TestBogons(t *testing.T) {
	t.Parallel()
	env := newEnv(t, probetest.Zone{
		"private.example": {Records: []string{"private.example. 60 IN A 10.1.2.3"}},
		"mixed.example":   {Records: []string{"mixed.example. 60 IN A 93.184.215.14", "mixed.example. 60 IN A 127.0.0.2", "mixed.example. 60 IN A 192.168.0.1"}},
		"nat64.example":   {Records: []string{"nat64.example. 60 IN AAAA 64:ff9b::a00:1"}},
		"public.example":  {Records: []string{"public.example. 60 IN A 93.184.215.14"}},
		"here.example":    {Records: []string{"here.example. 60 IN A 127.0.0.2"}},
	})
	type answer struct {
		name, host, qtype string
		want              pb.Failure
		text              string
	}
	const bogon, inside = pb.Failure_FAILURE_DNS_BOGON, "is special-purpose: private use"
	all(t, func(a answer) string { return a.name }, []answer{
		{"a private address", "private.example", "A", bogon, "10.1.2.3 " + inside},
		{"one among public ones is named", "mixed.example", "A", bogon, "192.168.0.1 " + inside},
		{"one inside an IPv6 address", "nat64.example", "AAAA", bogon, "64:ff9b::a00:1 leads to IPv4: 10.0.0.1 " + inside},
		{"a public one is none", "public.example", "A", pb.Failure_FAILURE_NONE, ""},
		{"nor is one that the operator allowed", "here.example", "A", pb.Failure_FAILURE_NONE, ""},
	}, func(t *testing.T, a answer) func(*testing.T) {
		s := one(t, run(t, env, dnsSpec(a.host, a.qtype)), pb.StepKind_STEP_KIND_DNS_QUERY)
		return func(t *testing.T) {
			if s.GetFailure() != a.want || len(s.GetEvidence().GetAddresses()) == 0 || s.GetEvidence().GetText() != a.text {
				t.Errorf("%s, want %s with its addresses: %v", Short(s.GetFailure()), Short(a.want), s)
			}
		}
	})
}

func TestABogonIsNotConnectedTo(t *testing.T) {
	t.Parallel()
	env := newEnv(t, probetest.Zone{"private.example": {Records: []string{"private.example. 60 IN A 10.1.2.3"}}})
	spec := tcpSpec("private.example", 80)
	spec.Family = pb.Family_FAMILY_IPV4
	r := run(t, env, spec)
	if s := one(t, r, pb.StepKind_STEP_KIND_DNS_QUERY); s.GetFailure() != pb.Failure_FAILURE_DNS_BOGON {
		t.Errorf("query: %v", s)
	}
	if s := one(t, r, pb.StepKind_STEP_KIND_TCP_CONNECT); s.GetFailure() != pb.Failure_FAILURE_AGENT_POLICY_DENIED || s.GetAttempts() != 0 {
		t.Errorf("connect: %v", s)
	}
}

// TestWhoAnswers: a lookup that looks deep finds out who the resolver is, and whether it makes up names.
func TestWhoAnswers(t *testing.T) {
	t.Parallel()
	env := newEnv(t, probetest.Zone{
		"www.example":  {Records: []string{"www.example. 60 IN A 127.0.0.2"}},
		"version.bind": {Records: []string{`version.bind. 0 CH TXT "nine"`}},
	})
	env.patience = 3 * time.Second
	deep := dnsSpec("www.example", "A")
	deep.GetDns().Nsid = true
	r := run(t, env, deep)
	labels, identities := ofVariant(r, pb.Variant_VARIANT_RANDOM_LABEL), ofVariant(r, pb.Variant_VARIANT_IDENTITY)
	if len(labels) != 1 || labels[0].GetFailure() != pb.Failure_FAILURE_DNS_NXDOMAIN || len(labels[0].GetName()) != randomLabel+len(".example") {
		t.Errorf("random label: %v", labels)
	}
	if len(identities) != 2 || identities[0].GetName() != "id.server" || identities[1].GetEvidence().GetReplies()[0].GetAnswers()[0].GetData() != `"nine"` {
		t.Errorf("identity: %v", identities)
	}
	if target := one(t, r, pb.StepKind_STEP_KIND_DNS_QUERY); labels[0].GetBeside() != 0 || r.GetSteps()[0].GetName() != target.GetName() {
		t.Errorf("they stand beside the query: %v", r)
	}
	for _, plain := range []*pb.Spec{tcpSpec("www.example", 1), dnsSpec("www.example", "A")} {
		if r := run(t, env, plain); len(ofVariant(r, pb.Variant_VARIANT_IDENTITY)) > 0 {
			t.Errorf("nobody asked for an identity: %v", r)
		}
	}
}

func TestARandomLabelIsAlwaysAnother(t *testing.T) {
	t.Parallel()
	if a, b := unlikely("www.zone.tld"), unlikely("www.zone.tld"); a == b || !strings.HasSuffix(a, ".tld") || dns.CountLabel(a) != 2 {
		t.Errorf("%s and %s", a, b)
	}
	if got := unlikely("."); len(got) != randomLabel {
		t.Errorf("of the root: %q", got)
	}
}

func TestAServerByItsName(t *testing.T) {
	t.Parallel()
	env := newEnv(t, probetest.Zone{"ns.example": {Records: []string{"ns.example. 60 IN A 127.0.3.1", "ns.example. 60 IN A 127.0.3.2"}}})
	tree := must[*probetest.Tree](t)(probetest.ServeTree(map[string]probetest.Nameserver{
		"127.0.3.1": {Zones: map[string][]string{"zone.example": {"www.zone.example. 60 IN A 127.0.0.2"}}},
		"127.0.3.2": {Zones: map[string][]string{"zone.example": {"www.zone.example. 60 IN A 127.0.0.3"}}},
	}))
	env.patience = 3 * time.Second
	port := tree.At("127.0.3.1").Port()
	spec := dnsSpec("www.zone.example", "A")
	spec.GetDns().Resolver = fmt.Sprintf("ns.example:%d", port)
	spec.GetDns().PublicResolvers = []string{tree.At("127.0.3.2").String()}
	spec.Family = pb.Family_FAMILY_IPV4
	r := run(t, env, spec)
	want := []string{"A www.zone.example 127.0.3.1 none", "A www.zone.example 127.0.3.2 none"}
	if diff := cmp.Diff(want, told(r, pb.Role_ROLE_TARGET)); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff(want[1:], told(r, pb.Role_ROLE_PUBLIC)); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff([]string{"A ns.example 127.0.0.1 none"}, told(r, pb.Role_ROLE_REFERRAL)); diff != "" {
		t.Error(diff)
	}

	spec.Family = pb.Family_FAMILY_UNSPECIFIED
	for _, s := range run(t, env, spec).GetSteps() {
		if s.GetRole() == pb.Role_ROLE_REFERRAL && s.GetType() == "AAAA" && s.GetAttempts() != 1 {
			t.Errorf("it has an address, and is looked up %d times for the other family: %v", s.GetAttempts(), s)
		}
	}

	spec.Family = pb.Family_FAMILY_IPV4
	spec.GetDns().Resolver = "nobody.example"
	s := one(t, run(t, env, spec), pb.StepKind_STEP_KIND_DNS_QUERY)
	if s.GetFailure() != pb.Failure_FAILURE_DNS_UNREACHABLE || s.GetAddress() != "" || !strings.Contains(s.GetEvidence().GetText(), "nobody.example cannot be asked: asking for its address ended with dns_nxdomain") {
		t.Errorf("a name that does not resolve: %v", s)
	}
}

// TestPublicResolvers: one that fails is asked for names that are known to exist too, and a silent one does not
// keep the others waiting for as long as the agent's own resolver may.
func TestPublicResolvers(t *testing.T) {
	t.Parallel()
	zone := probetest.Zone{"www.example": {Records: []string{"www.example. 60 IN A 127.0.0.2"}}}
	env := newEnv(t, zone)
	good := must[*probetest.DNSServer](t)(probetest.ServeDNS(at("127.0.3.1"), zoneCopy(zone), true))
	failing := must[*probetest.DNSServer](t)(probetest.ServeDNS(at("127.0.3.2"), probetest.Zone{
		"www.example": {Rcode: dns.RcodeServerFailure}, "control.example": {Records: []string{"control.example. 60 IN A 127.0.0.9"}},
	}, true))
	silent := must[*probetest.DNSServer](t)(probetest.ServeDNS(at("127.0.3.3"), probetest.Zone{
		"www.example": {Fault: probetest.Silent}, "control.example": {Fault: probetest.Silent},
	}, false))
	spec := dnsSpec("www.example", "A")
	for _, s := range []*probetest.DNSServer{good, failing, silent} {
		spec.GetDns().PublicResolvers = append(spec.GetDns().GetPublicResolvers(), s.Addr().String())
	}
	began := time.Now()
	r := run(t, env, spec)
	if took := time.Since(began); took >= 5*time.Second+tcpTimeout {
		t.Errorf("it took %v, as long as the agent's own resolver may", took)
	}
	want := []string{"A www.example 127.0.3.1 none", "A www.example 127.0.3.2 dns_servfail", "A www.example 127.0.3.3 dns_timeout"}
	if diff := cmp.Diff(want, told(r, pb.Role_ROLE_PUBLIC)); diff != "" {
		t.Error(diff)
	}
	want = []string{"A control.example 127.0.3.2 none", "A control.example 127.0.3.3 dns_timeout"}
	if diff := cmp.Diff(want, told(r, pb.Role_ROLE_CONTROL)); diff != "" {
		t.Error(diff)
	}
	if s := one(t, r, pb.StepKind_STEP_KIND_DNS_QUERY); s.GetFailure() != pb.Failure_FAILURE_NONE {
		t.Errorf("the agent's own: %v", s)
	}
}

func TestResolverHost(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		text      string
		transport pb.Transport
		host      string
		port      uint16
	}{
		{"192.0.2.1", pb.Transport_TRANSPORT_UNSPECIFIED, "192.0.2.1", 53},
		{"192.0.2.1:5353", pb.Transport_TRANSPORT_TLS, "192.0.2.1", 5353},
		{"2001:db8::1", pb.Transport_TRANSPORT_QUIC, "2001:db8::1", 853},
		{"[2001:db8::1]:54", pb.Transport_TRANSPORT_UNSPECIFIED, "2001:db8::1", 54},
		{"dns.example", pb.Transport_TRANSPORT_HTTPS_GET, "dns.example", 443},
		{"dns.example:8443", pb.Transport_TRANSPORT_HTTPS, "dns.example", 8443},
		{"dns.example:99999", pb.Transport_TRANSPORT_HTTPS, "", 0},
		{"a b", pb.Transport_TRANSPORT_UNSPECIFIED, "", 0},
		{"fe80::1%eth0", pb.Transport_TRANSPORT_UNSPECIFIED, "", 0},
		{"192.0.2.1:0", pb.Transport_TRANSPORT_UNSPECIFIED, "", 0},
	} {
		host, port, err := resolverHost(tt.text, tt.transport)
		if (err == nil) != (tt.host != "") || err == nil && (host != tt.host || port != tt.port) {
			t.Errorf("%s: %s %d, %v", tt.text, host, port, err)
		}
	}
}

func TestWhatIsLeftOutMovesReferences(t *testing.T) {
	t.Parallel()
	tr := newTrace(&Env{Resolvers: []netip.AddrPort{}}, newJob(tcpSpec("127.0.0.1", 1), time.Second))
	side := &trace{record: tr.record, aside: true}
	late := side.open(&pb.Step{})
	kept := tr.open(&pb.Step{})
	beside, gone := kept.index, late.index
	tr.open(&pb.Step{Beside: &beside}).end()
	tr.open(&pb.Step{Beside: &gone}).end()
	late.end(pb.Failure_FAILURE_AGENT_DEADLINE)
	kept.end()
	r := tr.result()
	if len(r.GetSteps()) != 3 || r.GetSteps()[1].Beside == nil || r.GetSteps()[1].GetBeside() != 0 || r.GetSteps()[2].Beside != nil {
		t.Errorf("%v", r.GetSteps())
	}
	if !slices.Equal([]int32{beside, gone}, []int32{1, 0}) {
		t.Error("a number that steps share was changed")
	}
}

// TestAWrongClockIsTheAgentsOwn: the validator beside an agent goes by a clock that is a month behind the
// coordinator's, for which the signatures are good.
func TestAWrongClockIsTheAgentsOwn(t *testing.T) {
	t.Parallel()
	month := time.Now().UTC().Add(30 * 24 * time.Hour)
	stamp := func(d time.Duration) string { return month.Add(d).Format("20060102150405") }
	day := 24 * time.Hour
	env := newEnv(t, probetest.Zone{"www.zone.example": {Fault: probetest.Bogus, Records: []string{
		"www.zone.example. 60 IN A 127.0.0.2",
		fmt.Sprintf("www.zone.example. 60 IN RRSIG A 13 3 60 %s %s 1 zone.example. c2lnbmF0dXJl", stamp(day), stamp(-day)),
	}}})
	job := newJob(dnsSpec("www.zone.example", "A"), 28*time.Second)
	job.CoordinatorTime = timestamppb.New(month)
	s := one(t, Run(t.Context(), env, job), pb.StepKind_STEP_KIND_DNS_QUERY)
	if text := s.GetEvidence().GetText(); s.GetFailure() != pb.Failure_FAILURE_AGENT_CLOCK_SKEW || !strings.Contains(text, "clock is -72") {
		t.Errorf("%s: %s", Short(s.GetFailure()), text)
	}
}

// TestTheOtherFamily: a name without addresses of one family may have some of the other.
func TestTheOtherFamily(t *testing.T) {
	t.Parallel()
	env := newEnv(t, probetest.Zone{
		"six.example":  {Records: []string{"six.example. 60 IN AAAA ::1"}},
		"text.example": {Records: []string{`text.example. 60 IN TXT "none"`}},
	})
	type lookup struct {
		name, host, qtype string
		want              []string
	}
	all(t, func(l lookup) string { return l.name }, []lookup{
		{"AAAA, and no A", "six.example", "A", []string{"AAAA none"}},
		{"neither", "text.example", "AAAA", []string{"A dns_nodata"}},
		{"another type has no family", "six.example", "MX", nil},
		{"what is there needs no second look", "six.example", "AAAA", nil},
	}, func(t *testing.T, l lookup) func(*testing.T) {
		r := run(t, env, dnsSpec(l.host, l.qtype))
		return func(t *testing.T) {
			var got []string
			for _, s := range ofVariant(r, pb.Variant_VARIANT_OTHER_FAMILY) {
				got = append(got, s.GetType()+" "+Short(s.GetFailure()))
			}
			if diff := cmp.Diff(l.want, got); diff != "" {
				t.Error(diff)
			}
		}
	})
}
