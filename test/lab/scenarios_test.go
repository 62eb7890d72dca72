package lab

import (
	"context"
	"net/netip"
	"slices"

	pb "github.com/elsewhere-net/elsewhere/proto/elsewhere/v1"
)

// scenario is one fault, and what must be said about it. Its name is also its target's: each has
// addresses of its own, so that all can run at once in one world.
type scenario struct {
	name  string
	says  string
	hosts []host
	// faults are nftables rules for the forward chain of the router, its nat chain ("middlebox"), or
	// the output chain of an agent. Names like $ap_south and $ap_2 are defined.
	faults         []fault
	detours        []detour
	resolverFaults []resolverFault
	lies           string                              // the name that they are about; default: the scenario's
	texts          []string                            // TXT records that the name has besides
	records        []string                            // lines of the zone besides
	before         func(context.Context, *world) error // what has to happen before the proofs
	proofs         []proof
	harm           harm
	ask            string // the command line, with NAME for the target's name
	want           want
}

// fault is a rule at a place: "router", "middlebox" or an agent.
type fault struct{ at, rule string }

// resolverFault makes the resolver of a region answer the scenario's name with NXDOMAIN, SERVFAIL, or
// an address of its own.
type resolverFault struct{ region, answer string }

// harm is done to an agent once its job has begun: "stop" until the measurement is closed, "kill" and
// start again, or "drain" (SIGTERM) and start again.
type harm struct{ agent, how string }

// want is what must be said. Of a finding, the fields that are set here must be as they are here. Findings
// of severity WARN and ERROR must all be listed, those of severity INFO may be.
type want struct {
	exit     int
	outcome  pb.Outcome
	asked    int32
	lost     int32
	findings []*pb.Finding
	// icmp is the message that the region's router must have been seen to send: "3/13".
	icmp string
	// mentions are words of the summary and hint of the finding that is listed first.
	mentions []string
	// shows says what is wrong with the results: the evidence that the row is about.
	shows func(*pb.Measurement) []string
}

// at is a host with a good certificate on port 443.
func at(addr string) host { return host{addr: netip.MustParseAddr(addr)} }

// without is a host that nothing listens on.
func without(addr string) host { return host{addr: netip.MustParseAddr(addr), service: closed} }

// outdated is a host whose certificate has expired.
func outdated(addr string) host { return host{addr: netip.MustParseAddr(addr), service: expired} }

// fine is the verdict with nothing to say.
func fine() want { return want{outcome: pb.Outcome_OUTCOME_OK, asked: 8} }

// warns is a verdict that is OK, with warnings.
func warns(findings ...*pb.Finding) want {
	for _, f := range findings {
		f.Severity = pb.Severity_SEVERITY_WARN
	}
	return want{outcome: pb.Outcome_OUTCOME_OK, asked: 8, findings: findings}
}

// fails is a verdict with errors and nothing else to say.
func fails(findings ...*pb.Finding) want {
	for _, f := range findings {
		f.Severity = pb.Severity_SEVERITY_ERROR
	}
	return want{exit: 1, outcome: pb.Outcome_OUTCOME_FAIL, asked: 8, findings: findings}
}

// unsure is a verdict that is inconclusive, with warnings.
func unsure(findings ...*pb.Finding) want {
	w := warns(findings...)
	w.exit, w.outcome = 3, pb.Outcome_OUTCOME_INCONCLUSIVE
	return w
}

// noting is the same verdict, with findings that are good to know.
func (w want) noting(findings ...*pb.Finding) want {
	for _, f := range findings {
		f.Severity = pb.Severity_SEVERITY_INFO
	}
	w.findings = slices.Concat(w.findings, findings)
	return w
}

// saying is the same verdict, on the word of the region's router.
func (w want) saying(icmp string) want {
	w.icmp = icmp
	return w
}

// mentioning is the same verdict, in these words.
func (w want) mentioning(words ...string) want {
	w.mentions = words
	return w
}

// besides is the same verdict, with warnings.
func (w want) besides(findings ...*pb.Finding) want {
	for _, f := range findings {
		f.Severity = pb.Severity_SEVERITY_WARN
	}
	w.findings = append(w.findings, findings...)
	return w
}

// showing is the same verdict, on this evidence.
func (w want) showing(shows func(*pb.Measurement) []string) want {
	w.shows = shows
	return w
}

// asking is the same verdict with another count of agents.
func (w want) asking(agents int32) want {
	w.asked = agents
	return w
}

// losing is the same verdict with lost agents.
func (w want) losing(lost int32) want {
	w.lost = lost
	return w
}

// shut is a regional block of one address on port 443, seen by both agents of the region.
func shut(region, addr string, block pb.BlockKind, failure pb.Failure) *pb.Finding {
	return &pb.Finding{
		Code: pb.FindingCode_FINDING_CODE_REGIONAL_BLOCK, Regions: []string{region}, Addresses: []string{addr + ":443"},
		Stage: pb.Stage_STAGE_TCP, Block: block, Failure: failure, Failures: []pb.Failure{failure},
		Blame: pb.Blame_BLAME_PATH, Confidence: pb.Confidence_CONFIDENCE_HIGH,
	}
}

// everywhere lists all regions, as findings do.
func everywhere() []string { return []string{"ap-south", "eu-west", "sa-east", "us-east"} }

// all names all agents, for proofs.
const all = "us-1 us-2 eu-1 eu-2 ap-1 ap-2 sa-1 sa-2"

// targetScenarios have their fault on the way to one target, so that they do not touch each other.
func targetScenarios() []scenario {
	var table []scenario
	for _, part := range [][]scenario{
		healthy(), blocks(), outages(), addresses(), resolvers(), certificates(), interception(), expectations(), shutDoors(),
		meddling(), traces(), handshakes(), chains(), pages(), brokenPages(), redirectedPages(), brokenNames(), delegations(), encrypted(),
		twoFaults(), families(), slowLinks(), endings(), goodCertificates(), doors(), differentNames(), origins(),
	} {
		table = append(table, part...)
	}
	return table
}

func healthy() []scenario {
	hosts := func(last string) []host { return []host{at("203.0.113." + last), at("2001:db8:113::" + last)} }
	return []scenario{
		{
			name: "healthy-tcp", says: "a target that is fine in both families, by TCP",
			hosts:  hosts("11"),
			proofs: []proof{{all, "connect", "203.0.113.11:443", "open"}, {all, "connect", "[2001:db8:113::11]:443", "open"}},
			ask:    "tcp NAME:443", want: fine(),
		},
		{
			name: "healthy-tls", says: "a target that is fine, by TLS",
			hosts:  hosts("12"),
			proofs: []proof{{"us-1 ap-1", "openssl", "203.0.113.12:443", "ok"}, {"sa-2", "openssl", "[2001:db8:113::12]:443", "ok"}},
			ask:    "tls NAME", want: fine(),
		},
		{
			name: "healthy-http", says: "a page that is fine, in both families",
			hosts:  []host{own("203.0.113.14", web(greet)), own("2001:db8:113::14", web(greet))},
			proofs: []proof{{"us-1 ap-1", "curl", "https://NAME/ 203.0.113.14", "200"}, {"sa-2", "curl", "https://NAME/ [2001:db8:113::14]", "200"}},
			ask:    "http https://NAME/", want: fine(),
		},
		{
			name: "healthy-origin", says: "an origin that its CDN would serve",
			hosts:  []host{own("203.0.113.15", web(greet))},
			proofs: []proof{{"us-1 ap-1", "curl", "https://NAME/ 203.0.113.15", "200"}},
			ask:    "origin https://NAME/ --profile cloudfront", want: fine(),
		},
		{
			name: "healthy-record", says: "a record that all resolvers serve",
			hosts:  []host{at("203.0.113.16")},
			proofs: []proof{{all, "dig", "healthy-record." + zone, "NOERROR 203.0.113.16"}},
			ask:    "propagation NAME A --expect 203.0.113.16",
			want:   fine().noting(&pb.Finding{Code: pb.FindingCode_FINDING_CODE_PROPAGATION}),
		},
		{
			name: "healthy-dns", says: "a name that resolves everywhere",
			hosts:  hosts("13"),
			proofs: []proof{{all, "dig", "healthy-dns." + zone, "NOERROR 203.0.113.13"}},
			ask:    "dns NAME A", want: fine(),
		},
	}
}

func blocks() []scenario {
	return []scenario{
		{
			name: "drop", says: "the way from one region drops packets",
			hosts:  []host{at("203.0.113.20")},
			faults: []fault{{"router", "ip saddr $ap_south ip daddr 203.0.113.20 counter drop"}},
			proofs: []proof{
				{"ap-1 ap-2", "connect", "203.0.113.20:443", "silent"},
				{"us-1 eu-1 sa-1", "connect", "203.0.113.20:443", "open"},
			},
			ask:  "tcp NAME:443",
			want: fails(shut("ap-south", "203.0.113.20", pb.BlockKind_BLOCK_KIND_DROP, pb.Failure_FAILURE_TCP_TIMEOUT)),
		},
		{
			name: "rst", says: "a firewall answers one region with RST",
			hosts:  []host{at("203.0.113.21")},
			faults: []fault{{"router", "ip saddr $eu_west ip daddr 203.0.113.21 tcp dport 443 counter reject with tcp reset"}},
			proofs: []proof{
				{"eu-1 eu-2", "connect", "203.0.113.21:443", "refused"},
				{"us-1 ap-1 sa-1", "connect", "203.0.113.21:443", "open"},
			},
			ask:  "tcp NAME:443",
			want: fails(shut("eu-west", "203.0.113.21", pb.BlockKind_BLOCK_KIND_REJECT_RST, pb.Failure_FAILURE_TCP_REFUSED)),
		},
		{
			name: "admin-prohibited", says: "a router answers one region with ICMP 3/13",
			hosts:  []host{at("203.0.113.22")},
			faults: []fault{{"router", "ip saddr $sa_east ip daddr 203.0.113.22 counter reject with icmp type admin-prohibited"}},
			proofs: []proof{
				{"sa-1", "connect", "203.0.113.22:443", "icmp 3/13 from 10.4.1.1"},
				{"sa-2", "connect", "203.0.113.22:443", "icmp 3/13 from 10.4.2.1"},
				{"us-1 eu-1 ap-1", "connect", "203.0.113.22:443", "open"},
			},
			ask:  "tcp NAME:443",
			want: fails(shut("sa-east", "203.0.113.22", pb.BlockKind_BLOCK_KIND_REJECT_ICMP, pb.Failure_FAILURE_TCP_ADMIN_PROHIBITED)).saying("3/13"),
		},
		{
			name: "port-unreachable", says: "a firewall answers one region with ICMP 3/3, which errno calls refused",
			hosts:  []host{at("203.0.113.23")},
			faults: []fault{{"router", "ip saddr $us_east ip daddr 203.0.113.23 counter reject with icmp type port-unreachable"}},
			proofs: []proof{
				{"us-1", "connect", "203.0.113.23:443", "icmp 3/3 from 10.1.1.1"},
				{"us-2", "connect", "203.0.113.23:443", "icmp 3/3 from 10.1.2.1"},
				{"eu-1 ap-1 sa-1", "connect", "203.0.113.23:443", "open"},
			},
			ask:  "tcp NAME:443",
			want: fails(shut("us-east", "203.0.113.23", pb.BlockKind_BLOCK_KIND_REJECT_ICMP, pb.Failure_FAILURE_TCP_PORT_UNREACHABLE)).saying("3/3"),
		},
		{
			name: "reset-after-connect", says: "a middlebox resets one region's connections once they stand",
			hosts:  []host{at("203.0.113.24")},
			faults: []fault{{"router", "ip saddr $sa_east ip daddr 203.0.113.24 tcp flags & (syn|ack|rst) == ack counter reject with tcp reset"}},
			proofs: []proof{
				{"sa-1 sa-2", "connect", "203.0.113.24:443", "reset after connect"},
				{"us-1 eu-1 ap-1", "connect", "203.0.113.24:443", "open"},
			},
			ask:  "tcp NAME:443",
			want: fails(shut("sa-east", "203.0.113.24", pb.BlockKind_BLOCK_KIND_RESET_AFTER_CONNECT, pb.Failure_FAILURE_TCP_RESET)),
		},
		{
			name: "hello-drop", says: "connections stand, but what one region sends on them is dropped",
			hosts:  []host{at("203.0.113.25")},
			faults: []fault{{"router", "ip saddr $us_east ip daddr 203.0.113.25 ip length > 100 counter drop"}},
			proofs: []proof{
				{"us-1 us-2", "openssl", "203.0.113.25:443", "silent"},
				{"us-1 us-2", "connect", "203.0.113.25:443", "open"},
				{"eu-1 ap-1 sa-1", "openssl", "203.0.113.25:443", "ok"},
			},
			ask: "tls NAME",
			want: fails(&pb.Finding{
				Code: pb.FindingCode_FINDING_CODE_REGIONAL_BLOCK, Regions: []string{"us-east"}, Addresses: []string{"203.0.113.25:443"},
				Stage: pb.Stage_STAGE_TLS, Failure: pb.Failure_FAILURE_TLS_TIMEOUT, Confidence: pb.Confidence_CONFIDENCE_HIGH,
			}),
		},
	}
}

func outages() []scenario {
	down := func(addr string, failure pb.Failure) want {
		return fails(&pb.Finding{
			Code: pb.FindingCode_FINDING_CODE_TARGET_DOWN, Regions: everywhere(), Addresses: []string{addr + ":443"},
			Stage: pb.Stage_STAGE_TCP, Failure: failure, Failures: []pb.Failure{failure}, Confidence: pb.Confidence_CONFIDENCE_HIGH,
		})
	}
	return []scenario{
		{
			name: "down", says: "nothing listens on the port",
			hosts: []host{without("203.0.113.30")},
			proofs: []proof{
				{all, "connect", "203.0.113.30:443", "refused"},
				{all, "connect", "198.51.100.10:443", "open"},
			},
			ask:  "tcp NAME:443",
			want: down("203.0.113.30", pb.Failure_FAILURE_TCP_REFUSED),
		},
		{
			name: "silent", says: "the target's own firewall drops everything",
			hosts:  []host{at("203.0.113.31")},
			faults: []fault{{"router", "ip daddr 203.0.113.31 counter drop"}},
			proofs: []proof{
				{all, "connect", "203.0.113.31:443", "silent"},
				{all, "connect", "198.51.100.10:443", "open"},
			},
			ask:  "tcp NAME:443",
			want: down("203.0.113.31", pb.Failure_FAILURE_TCP_TIMEOUT),
		},
		{
			name: "alone", says: "one region is asked alone, and the target is silent: nobody to compare with",
			hosts:  []host{at("203.0.113.32")},
			faults: []fault{{"router", "ip daddr 203.0.113.32 counter drop"}},
			proofs: []proof{{"ap-1 ap-2", "connect", "203.0.113.32:443", "silent"}},
			ask:    "tcp NAME:443 --from ap-south",
			want: unsure(&pb.Finding{
				Code: pb.FindingCode_FINDING_CODE_INSUFFICIENT_VANTAGE, Regions: []string{"ap-south"},
			}).asking(2),
		},
	}
}

func addresses() []scenario {
	return []scenario{
		{
			name: "one-of-three", says: "one of three addresses is dead",
			hosts: []host{at("203.0.113.40"), without("203.0.113.41"), at("203.0.113.42")},
			proofs: []proof{
				{all, "connect", "203.0.113.41:443", "refused"},
				{all, "connect", "203.0.113.40:443", "open"},
				{all, "connect", "203.0.113.42:443", "open"},
				{"us-1", "dig", "one-of-three." + zone, "NOERROR 203.0.113.40 203.0.113.41 203.0.113.42"},
			},
			ask: "tcp NAME:443",
			want: fails(&pb.Finding{
				Code: pb.FindingCode_FINDING_CODE_PARTIAL_ADDRESS_FAILURE, Regions: everywhere(),
				Addresses: []string{"203.0.113.41:443"}, Stage: pb.Stage_STAGE_TCP, Failure: pb.Failure_FAILURE_TCP_REFUSED,
			}),
		},
		{
			name: "family", says: "all IPv6 addresses of a name are silent",
			hosts:  []host{at("203.0.113.43"), at("2001:db8:113::43"), at("2001:db8:113::44")},
			faults: []fault{{"router", "ip6 daddr { 2001:db8:113::43, 2001:db8:113::44 } counter drop"}},
			proofs: []proof{
				{all, "connect", "[2001:db8:113::43]:443", "silent"},
				{all, "connect", "[2001:db8:113::44]:443", "silent"},
				{all, "connect", "203.0.113.43:443", "open"},
				{all, "connect", "[2001:db8:51::10]:443", "open"},
			},
			ask: "tcp NAME:443",
			want: warns(&pb.Finding{
				Code:      pb.FindingCode_FINDING_CODE_FAMILY_BROKEN,
				Addresses: []string{"[2001:db8:113::43]:443", "[2001:db8:113::44]:443"},
				Stage:     pb.Stage_STAGE_TCP, Failure: pb.Failure_FAILURE_TCP_TIMEOUT,
			}),
		},
		{
			name: "one-agent", says: "one agent's network is blocked, its fellow's is not",
			hosts:  []host{at("203.0.113.45")},
			faults: []fault{{"router", "ip saddr $eu_2 ip daddr 203.0.113.45 counter drop"}},
			proofs: []proof{
				{"eu-2", "connect", "203.0.113.45:443", "silent"},
				{"us-1 us-2 eu-1 ap-1 ap-2 sa-1 sa-2", "connect", "203.0.113.45:443", "open"},
			},
			ask: "tcp NAME:443",
			want: warns(&pb.Finding{
				Code: pb.FindingCode_FINDING_CODE_AGENTS_DIFFER, Regions: []string{"eu-west"}, Agents: []string{"eu-2"},
				Addresses: []string{"203.0.113.45:443"}, Stage: pb.Stage_STAGE_TCP, Failure: pb.Failure_FAILURE_TCP_TIMEOUT,
			}),
		},
	}
}
