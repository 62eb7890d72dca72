package aggregate

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	pb "github.com/elsewhere-net/elsewhere/proto/elsewhere/v1"
)

// Addresses of the documentation ranges (RFC 5737, RFC 3849).
const (
	ip1 = "203.0.113.10:443"
	ip2 = "203.0.113.11:443"
	ip3 = "203.0.113.12:443"
	v61 = "[2001:db8::10]:443"
	v62 = "[2001:db8::11]:443"
)

// Short names for what the tables say often.
const (
	none       = pb.Failure_FAILURE_NONE
	timeout    = pb.Failure_FAILURE_TCP_TIMEOUT
	refused    = pb.Failure_FAILURE_TCP_REFUSED
	reset      = pb.Failure_FAILURE_TCP_RESET
	prohibited = pb.Failure_FAILURE_TCP_ADMIN_PROHIBITED
	portUnr    = pb.Failure_FAILURE_TCP_PORT_UNREACHABLE
	hung       = pb.Failure_FAILURE_TLS_TIMEOUT
	nxdomain   = pb.Failure_FAILURE_DNS_NXDOMAIN
	nodata     = pb.Failure_FAILURE_DNS_NODATA
	servfail   = pb.Failure_FAILURE_DNS_SERVFAIL
	dnsSilent  = pb.Failure_FAILURE_DNS_TIMEOUT
	expired    = pb.Failure_FAILURE_CERT_EXPIRED
	mismatch   = pb.Failure_FAILURE_CERT_NAME_MISMATCH
	weakKey    = pb.Failure_FAILURE_CERT_WEAK_KEY
	deadline   = pb.Failure_FAILURE_AGENT_DEADLINE
	noEgress   = pb.Failure_FAILURE_AGENT_NO_EGRESS
	noFamily   = pb.Failure_FAILURE_AGENT_CAPABILITY_MISSING
	bogon      = pb.Failure_FAILURE_DNS_BOGON
	bogus      = pb.Failure_FAILURE_DNS_DNSSEC_BOGUS
	brokenName = pb.Failure_FAILURE_DNS_CNAME_BROKEN
	tlsReset   = pb.Failure_FAILURE_TLS_RESET
	tlsAlert   = pb.Failure_FAILURE_TLS_ALERT
	httpStatus = pb.Failure_FAILURE_HTTP_STATUS

	httpHung = pb.Failure_FAILURE_HTTP_TIMEOUT
)

// judgedTime is the coordinator's time in every handshake.
var judgedTime = time.Date(2026, 11, 21, 12, 0, 0, 0, time.UTC)

// world is a measurement and its results in the making.
type world struct {
	m       *pb.Measurement
	results []*pb.Result
}

func tcpWorld() *world {
	return &world{m: &pb.Measurement{Id: "m", State: pb.State_STATE_FINISHED, Spec: &pb.Spec{
		Check: &pb.Spec_Tcp{Tcp: &pb.TCPSpec{Host: "www.example", Port: 443}},
	}}}
}

func expectWorld(r pb.Reachability) *world {
	w := tcpWorld()
	w.m.Spec.GetTcp().Expect = r
	return w
}

func tlsWorld() *world {
	w := tcpWorld()
	w.m.Spec = &pb.Spec{Check: &pb.Spec_Tls{Tls: &pb.TLSSpec{Host: "www.example", Port: 443}}}
	return w
}

func dnsWorld(kind string, expect ...string) *world {
	w := tcpWorld()
	w.m.Spec = &pb.Spec{Check: &pb.Spec_Dns{Dns: &pb.DNSSpec{Name: "www.example", Type: kind, Expect: expect}}}
	return w
}

// in adds an agent, answered, alone in its network; id is "region/name", the region alone if there is
// no slash.
func (w *world) in(id string, steps ...[]*pb.Step) *world {
	return w.from(id, uint32(64500+len(w.m.Asks)), steps...)
}

// from is in with a given network.
func (w *world) from(id string, asn uint32, steps ...[]*pb.Step) *world {
	region, _, _ := strings.Cut(id, "/")
	w.ask(id, asn, pb.AskState_ASK_STATE_ANSWERED, pb.Failure_FAILURE_UNSPECIFIED)
	w.results = append(w.results, &pb.Result{
		MeasurementId: "m", Agent: agentID(id), Steps: slices.Concat(steps...),
		Vantage: &pb.Vantage{Region: "a-lie-about-" + region}, // never read
	})
	return w
}

// gone adds an agent without a result.
func (w *world) gone(id string, s pb.AskState, why pb.Failure) *world {
	w.ask(id, uint32(64500+len(w.m.Asks)), s, why)
	return w
}

func (w *world) ask(id string, asn uint32, s pb.AskState, why pb.Failure) {
	region, _, _ := strings.Cut(id, "/")
	w.m.Asks = append(w.m.Asks, &pb.Ask{Agent: agentID(id), State: s, Failure: why, Vantage: &pb.Vantage{Region: region, Asn: asn}})
}

func agentID(id string) string { return strings.ReplaceAll(id, "/", "-") }

func (w *world) judge() *pb.Verdict { return Judge(w.m, w.results) }

// control is a control step of the kind that stands beside s.
func passing4() []*pb.Step { return ctl("192.0.2.1:443", none) }
func passing6() []*pb.Step { return ctl("[2001:db8:c::1]:443", none) }
func failing4() []*pb.Step { return ctl("192.0.2.1:443", timeout) }

func ctl(address string, f pb.Failure) []*pb.Step {
	return []*pb.Step{step(pb.StepKind_STEP_KIND_TCP_CONNECT, pb.Role_ROLE_CONTROL, address, f)}
}

func step(k pb.StepKind, r pb.Role, address string, f pb.Failure) *pb.Step {
	s := &pb.Step{
		Kind: k, Role: r, Address: address, Failure: f, Attempts: 2,
		Start: durationpb.New(0), Duration: durationpb.New(30 * time.Millisecond), Evidence: &pb.Evidence{ErrorQueue: true},
	}
	if f != none {
		s.Failures = []pb.Failure{f}
	}
	return s
}

// tcp is a connect to the target.
func tcp(address string, f pb.Failure) []*pb.Step {
	s := step(pb.StepKind_STEP_KIND_TCP_CONNECT, pb.Role_ROLE_TARGET, address, f)
	s.Evidence.Rtt = durationpb.New(20 * time.Millisecond)
	return []*pb.Step{s}
}

// blocked is a failing connect with the control of its family passing.
func blocked(address string, f pb.Failure) []*pb.Step {
	if netip.MustParseAddrPort(address).Addr().Is6() {
		return slices.Concat(tcp(address, f), passing6())
	}
	return slices.Concat(tcp(address, f), passing4())
}

// open is a connect that is accepted.
func open(address string) []*pb.Step { return tcp(address, none) }

// tls is an accepted connect and a handshake, which shows the certificate serial, ending in failures.
func tls(address, serial string, failures ...pb.Failure) []*pb.Step {
	s := step(pb.StepKind_STEP_KIND_TLS_HANDSHAKE, pb.Role_ROLE_TARGET, address, none)
	s.Name, s.Failures = "www.example", failures
	if len(failures) > 0 {
		s.Failure = failures[0]
	}
	if serial != "" {
		s.Evidence.Tls = &pb.TLSEvidence{
			Version: "TLS 1.3", JudgedTime: timestamppb.New(judgedTime),
			Chain: []*pb.Certificate{{
				Sha256: serial, Subject: "CN=" + serial, Issuer: "CN=Example CA", DnsNames: []string{"www.example"},
				NotBefore: timestamppb.New(judgedTime.Add(-time.Hour)), NotAfter: timestamppb.New(judgedTime.Add(90 * 24 * time.Hour)),
			}},
		}
	}
	return append(open(address), s)
}

// ending makes the certificates of steps end after a time.
func ending(after time.Duration, steps []*pb.Step) []*pb.Step {
	for _, s := range steps {
		for _, c := range s.GetEvidence().GetTls().GetChain() {
			c.NotAfter = timestamppb.New(judgedTime.Add(after))
		}
	}
	return steps
}

// query asks resolver 198.51.100.n for addresses.
func query(n int, f pb.Failure, addresses ...string) []*pb.Step {
	s := step(pb.StepKind_STEP_KIND_DNS_QUERY, pb.Role_ROLE_TARGET, fmt.Sprintf("198.51.100.%d:53", n), f)
	s.Name, s.Evidence.Addresses = "www.example", addresses
	return []*pb.Step{s}
}

// unnamed is a failing query with the control names resolving at the same resolver.
func unnamed(n int, f pb.Failure) []*pb.Step {
	return slices.Concat(query(n, f), control53(n, none))
}

func control53(n int, f pb.Failure) []*pb.Step {
	return []*pb.Step{step(pb.StepKind_STEP_KIND_DNS_QUERY, pb.Role_ROLE_CONTROL, fmt.Sprintf("198.51.100.%d:53", n), f)}
}

// answers is a query for records of a type that is answered with data.
func answers(n int, kind string, data ...string) []*pb.Step {
	s := query(n, none)
	reply := &pb.DNSReply{Transport: "udp", Rcode: "NOERROR"}
	for i, d := range data {
		reply.Answers = append(reply.Answers, &pb.Record{Name: "www.example.", Ttl: uint32(10 * i), Type: kind, Data: d})
	}
	s[0].Evidence.Replies = []*pb.DNSReply{reply}
	return s
}

// attemptsOf sets the attempts of the first step.
func attemptsOf(n int32, steps []*pb.Step) []*pb.Step {
	steps[0].Attempts = n
	return steps
}

// bytesRead sets the bytes read by the last step.
func bytesRead(n int32, steps []*pb.Step) []*pb.Step {
	steps[len(steps)-1].Evidence.BytesRead = n
	return steps
}
