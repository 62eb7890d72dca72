package render

import (
	"bytes"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"

	pb "github.com/elsewhere-net/elsewhere/proto/elsewhere/v1"
)

// originSpec is an origin judged by a profile.
func originSpec() *pb.Spec {
	return &pb.Spec{Check: &pb.Spec_Origin{Origin: &pb.OriginSpec{
		Url: "https://origin.example.com/", Profile: &pb.Profile{Name: "cloudfront", Title: "Amazon CloudFront"},
	}}}
}

// offered is a handshake by the client's own hello.
func offered(address string) *pb.Step {
	s := step(handshake, address, 9*time.Millisecond)
	s.Role, s.Variant, s.Beside = pb.Role_ROLE_VARIANT, pb.Variant_VARIANT_PROFILE_OFFER, proto.Int32(1)
	s.Evidence = &pb.Evidence{Tls: &pb.TLSEvidence{Version: "TLS 1.2", CipherSuite: "TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256"}}
	return s
}

// visit is what an agent saw of a healthy origin at an address.
func visit(address string) []*pb.Step {
	shaken := step(handshake, address, 8*time.Millisecond)
	shaken.Evidence = &pb.Evidence{Tls: &pb.TLSEvidence{Version: "TLS 1.3", CipherSuite: "TLS_AES_128_GCM_SHA256"}}
	return []*pb.Step{step(connect, address, 3*time.Millisecond), shaken, offered(address), fetched(address, 200)}
}

// seenFrom is the result of an agent.
func seenFrom(region, agent string, steps ...*pb.Step) *pb.Result {
	return &pb.Result{Agent: agent, Vantage: &pb.Vantage{Region: region}, Steps: steps, Duration: durationpb.New(time.Second)}
}

// healthyOrigin is an origin that nothing is wrong with, for the tests of all questions.
func healthyOrigin() (*pb.Spec, *pb.Result) {
	return originSpec(), seenFrom("eu-west", "eu-1", visit("203.0.113.10:443")...)
}

// originWorld is an origin that is served from us-east, at one of two addresses from eu-west, not from ap-south,
// and that nobody looked at from sa-east.
func originWorld() *pb.Measurement {
	half := append(visit("203.0.113.10:443"), step(connect, "203.0.113.11:443", time.Second, pb.Failure_FAILURE_TCP_REFUSED))
	m := &pb.Measurement{
		Id: "x", State: pb.State_STATE_FINISHED, Spec: originSpec(), Ledger: &pb.Ledger{Asked: 5, Answered: 4, Lost: 1},
		Results: []*pb.Result{
			seenFrom("us-east", "us-1", visit("203.0.113.10:443")...), seenFrom("us-east", "us-2", visit("203.0.113.11:443")...),
			seenFrom("eu-west", "eu-1", half...),
			seenFrom("ap-south", "ap-1", step(connect, "203.0.113.10:443", 8*time.Second, pb.Failure_FAILURE_TCP_TIMEOUT)),
		},
		Verdict: &pb.Verdict{Outcome: pb.Outcome_OUTCOME_FAIL, Findings: []*pb.Finding{
			{
				Code: pb.FindingCode_FINDING_CODE_ORIGIN_INCOMPATIBLE, Severity: pb.Severity_SEVERITY_ERROR, Regions: []string{"eu-west"}, Addresses: []string{"203.0.113.11:443"},
				Summary: "refused.", Hint: "start it.", Blame: pb.Blame_BLAME_TARGET, Prediction: &pb.Prediction{
					Profile: "cloudfront", Cause: pb.OriginCause_ORIGIN_CAUSE_PORT_CLOSED, Status: "502", Text: "the origin is rejecting traffic",
					Source: &pb.Source{Document: "https://docs.example/502.html", Date: "2026-04-13"},
				},
			},
			{
				Code: pb.FindingCode_FINDING_CODE_ORIGIN_INCOMPATIBLE, Severity: pb.Severity_SEVERITY_ERROR, Regions: []string{"ap-south"}, Addresses: []string{"203.0.113.10:443"},
				Summary: "silent.", Prediction: &pb.Prediction{
					Profile: "cloudfront", Cause: pb.OriginCause_ORIGIN_CAUSE_FIREWALL, Status: "502 or 504", Text: "traffic is blocked by a firewall",
					Source: &pb.Source{Document: "https://docs.example/504.html", Unverified: true, Note: "documents conflict."},
				},
			},
		}},
	}
	for _, a := range [][2]string{{"us-1", "us-east"}, {"us-2", "us-east"}, {"eu-1", "eu-west"}, {"ap-1", "ap-south"}, {"sa-1", "sa-east"}} {
		ask := &pb.Ask{Agent: a[0], Vantage: &pb.Vantage{Region: a[1]}, State: pb.AskState_ASK_STATE_ANSWERED}
		if a[0] == "sa-1" {
			ask.State = pb.AskState_ASK_STATE_LOST
		}
		m.Asks = append(m.Asks, ask)
	}
	return m
}

// printed is a measurement in a format.
func printed(t *testing.T, m *pb.Measurement, s Screen) string {
	t.Helper()
	var out bytes.Buffer
	s.Out, s.Err = &out, &bytes.Buffer{}
	r := s.Reporter(false)
	r.Begin(m)
	r.Update(m, m.GetResults())
	if err := r.End(m); err != nil {
		t.Fatal(err)
	}
	return out.String()
}

func TestAnOriginIsAnsweredByRegion(t *testing.T) {
	const question = "origin https://origin.example.com/ --profile cloudfront from world\n"
	want := `ap-south  ✗ likely 502 or 504: traffic is blocked by a firewall
eu-west   ✗ 502: the origin is rejecting traffic (at 203.0.113.11:443 of 2 addresses)
sa-east   ? not known: no agent of the region answered
us-east   ✓ Amazon CloudFront can serve it: 2 agents, 203.0.113.10:443 and 1 more, TLS 1.2 TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256, 200
ERROR origin_incompatible  eu-west  (cause port_closed, cloudfront: 502, blame target)
  refused.
  hint: start it.
  source: https://docs.example/502.html (2026-04-13)
ERROR origin_incompatible  ap-south  (cause firewall, cloudfront: likely 502 or 504)
  silent.
  source: https://docs.example/504.html, unverified: documents conflict.
FAIL · 5 asked, 4 answered, 1 lost · x
`
	if diff := cmp.Diff(want, printed(t, originWorld(), Screen{})); diff != "" {
		t.Errorf("in a pipe (-want +got):\n%s", diff)
	}
	whole := strings.Join(Screen{}.whole(originWorld()), "\n") + "\n"
	if diff := cmp.Diff(question+want, whole); diff != "" {
		t.Errorf("on a terminal (-want +got):\n%s", diff)
	}
	deep := printed(t, originWorld(), Screen{Verbose: true})
	if !strings.Contains(deep, "eu-west   ✗ 502") || !strings.Contains(deep, "us-2") || !strings.Contains(deep, "with the profile's ClientHello: ✓ TLS 1.2") {
		t.Errorf("in depth:\n%s", deep)
	}
}

func TestAHealthyOriginIsALineForEachRegion(t *testing.T) {
	spec, r := healthyOrigin()
	m := &pb.Measurement{Id: "x", State: pb.State_STATE_FINISHED, Spec: spec, Results: []*pb.Result{r}, Verdict: &pb.Verdict{Outcome: pb.Outcome_OUTCOME_OK}}
	m.Asks = []*pb.Ask{{Agent: r.GetAgent(), Vantage: r.GetVantage(), State: pb.AskState_ASK_STATE_ANSWERED}}
	want := "eu-west  ✓ Amazon CloudFront can serve it: 1 agent, 203.0.113.10:443, TLS 1.2 TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256, 200\nOK · 0 asked, 0 answered · x\n"
	if diff := cmp.Diff(want, printed(t, m, Screen{})); diff != "" {
		t.Error(diff)
	}
}

func TestAPrivateAddressIsNoPromise(t *testing.T) {
	const agreed = "TLS 1.2 TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256, 200"
	const wayOfItsOwn = "no public address: Amazon CloudFront needs a way of its own to get there"
	for sentence, tc := range map[string]struct {
		addresses []string
		ipv4Only  bool
		want      []string
	}{
		"a public address": {
			[]string{"203.0.113.10:443"}, true, []string{"eu  ✓ Amazon CloudFront can serve it: 1 agent, 203.0.113.10:443, " + agreed},
		},
		"loopback": {
			[]string{"127.0.0.1:443"},
			true,
			[]string{"eu  ✓ Amazon CloudFront can serve it, if it gets there: 1 agent, 127.0.0.1:443, " + agreed, "note: 127.0.0.1:443  " + wayOfItsOwn},
		},
		"RFC 1918, in the form of IPv6": {
			[]string{"[::ffff:10.0.0.1]:443"},
			true,
			[]string{"eu  ✓ Amazon CloudFront can serve it, if it gets there: 1 agent, [::ffff:10.0.0.1]:443, " + agreed, "note: [::ffff:10.0.0.1]:443  " + wayOfItsOwn},
		},
		"a unique local address that it comes to": {
			[]string{"[fd00::1]:443"},
			false,
			[]string{"eu  ✓ Amazon CloudFront can serve it, if it gets there: 1 agent, [fd00::1]:443, " + agreed, "note: [fd00::1]:443  " + wayOfItsOwn},
		},
		"one that it does not come to, beside a public one": {
			[]string{"203.0.113.10:443", "[fd00::1]:443"},
			true,
			[]string{"eu  ✓ Amazon CloudFront can serve it: 1 agent, 203.0.113.10:443 and 1 more, " + agreed},
		},
		"one of two": {
			[]string{"203.0.113.10:443", "192.168.0.1:443"},
			true,
			[]string{"eu  ✓ Amazon CloudFront can serve it, if it gets there: 1 agent, 192.168.0.1:443 and 1 more, " + agreed, "note: 192.168.0.1:443  " + wayOfItsOwn},
		},
	} {
		spec := originSpec()
		spec.GetOrigin().Profile.Ipv4Only = tc.ipv4Only
		var steps []*pb.Step
		for _, address := range tc.addresses {
			steps = append(steps, visit(address)...)
		}
		m := &pb.Measurement{Spec: spec, Results: []*pb.Result{seenFrom("eu", "eu-1", steps...)}, Verdict: &pb.Verdict{}}
		m.Asks = []*pb.Ask{{Agent: "eu-1", Vantage: m.GetResults()[0].GetVantage(), State: pb.AskState_ASK_STATE_ANSWERED}}
		if diff := cmp.Diff(tc.want, served(m, theme{}, 0)); diff != "" {
			t.Errorf("%s (-want +got):\n%s", sentence, diff)
		}
	}
}

func TestNothingIsCutOffOnANarrowTerminal(t *testing.T) {
	m := originWorld()
	got := append(served(m, theme{}, 50)[:4], finding(m.GetVerdict().GetFindings()[1], theme{}, 50)...)
	want := []string{
		"ap-south  ✗ likely 502 or 504: traffic is",
		"            blocked by a firewall",
		"eu-west   ✗ 502: the origin is rejecting traffic",
		"            (at 203.0.113.11:443 of 2 addresses)",
		"ERROR origin_incompatible",
		"  ap-south",
		"  (cause firewall, cloudfront: likely 502 or 504)",
		"  silent.",
		"  source: https://docs.example/504.html,",
		"  unverified: documents conflict.",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func TestWhatIsSaidOfARegion(t *testing.T) {
	for sentence, tc := range map[string]struct {
		steps []*pb.Step
		f     *pb.Finding
		want  string
	}{
		"what the agent's library cannot do, the client may": {
			[]*pb.Step{step(connect, "192.0.2.1:443", 1), step(handshake, "192.0.2.1:443", 1, pb.Failure_FAILURE_TLS_NO_SHARED_CIPHER), offered("192.0.2.1:443")},
			nil,
			"✓ Amazon CloudFront can serve it: 1 agent, 192.0.2.1:443, TLS 1.2 TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256, no agent could ask for a page",
		},
		"what the agent's library cannot go on with after the first flight, the client may": {
			[]*pb.Step{
				step(connect, "192.0.2.1:443", 1), step(handshake, "192.0.2.1:443", 1), offered("192.0.2.1:443"),
				step(pb.StepKind_STEP_KIND_HTTP_EXCHANGE, "192.0.2.1:443", 0, pb.Failure_FAILURE_AGENT_CAPABILITY_MISSING),
			},
			nil,
			"✓ Amazon CloudFront can serve it: 1 agent, 192.0.2.1:443, TLS 1.2 TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256, no agent could ask for a page",
		},
		"an address that nobody got to proves nothing": {
			[]*pb.Step{step(connect, "192.0.2.1:443", 1, pb.Failure_FAILURE_TCP_TIMEOUT)},
			nil,
			"? not known: no agent of the region got as far as the origin",
		},
		"a warning leaves it served": {
			visit("192.0.2.1:443"), &pb.Finding{Severity: pb.Severity_SEVERITY_WARN, Regions: []string{"eu"}},
			"✓ Amazon CloudFront can serve it: 1 agent, 192.0.2.1:443, TLS 1.2 TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256, 200",
		},
		"an error of the origin's own is passed on": {
			[]*pb.Step{fetched("192.0.2.1:443", 503, pb.Failure_FAILURE_HTTP_STATUS)},
			&pb.Finding{Severity: pb.Severity_SEVERITY_ERROR, Regions: []string{"eu"}, Prediction: &pb.Prediction{Text: "it failed"}},
			"✗ the origin's own error 503: it failed",
		},
		"what is shut for all may admit the client alone": {
			nil, &pb.Finding{Severity: pb.Severity_SEVERITY_ERROR, Regions: []string{"eu"}, Confidence: pb.Confidence_CONFIDENCE_LOW, Prediction: &pb.Prediction{
				Profile: "cloudfront", Status: "502 or 504", Text: "blocked", Cause: pb.OriginCause_ORIGIN_CAUSE_FIREWALL,
			}},
			"✗ 502 or 504: blocked (unless it admits cloudfront's own addresses alone)",
		},
		"an error that no profile speaks of is told as it is": {
			nil, &pb.Finding{Severity: pb.Severity_SEVERITY_ERROR, Regions: []string{"eu"}, Summary: "it does not resolve."},
			"✗ it does not resolve.",
		},
	} {
		m := &pb.Measurement{Spec: originSpec(), Results: []*pb.Result{seenFrom("eu", "eu-1", tc.steps...)}, Verdict: &pb.Verdict{}}
		m.Asks = []*pb.Ask{{Agent: "eu-1", Vantage: m.GetResults()[0].GetVantage(), State: pb.AskState_ASK_STATE_ANSWERED}}
		if tc.f != nil {
			m.Verdict.Findings = []*pb.Finding{tc.f}
		}
		mark, said := servedFrom(m, "eu")
		if got := mark.String() + " " + said; got != tc.want {
			t.Errorf("%s:\ngot  %s\nwant %s", sentence, got, tc.want)
		}
	}
}

func TestJUnitNamesThePrediction(t *testing.T) {
	got := printed(t, originWorld(), Screen{Format: JUnit})
	for _, want := range []string{`tests="4" failures="2"`, `skipped="1"`, "cause port_closed, cloudfront: 502, https://docs.example/502.html (2026-04-13)", `classname="elsewhere.origin"`} {
		if !strings.Contains(got, want) {
			t.Errorf("no %q in\n%s", want, got)
		}
	}
}
