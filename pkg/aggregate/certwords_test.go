package aggregate

import (
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	pb "github.com/elsewhere-net/elsewhere/proto/elsewhere/v1"
)

// showing changes what the handshake of steps shows.
func showing(steps []*pb.Step, change func(*pb.TLSEvidence)) []*pb.Step {
	s := steps[len(steps)-1]
	if s.GetEvidence().GetTls() == nil {
		s.Evidence.Tls = &pb.TLSEvidence{}
	}
	change(s.GetEvidence().GetTls())
	return steps
}

// TestWhatIsWrongWithACertificate: each failure with the value that was seen, and with what repairs that one.
func TestWhatIsWrongWithACertificate(t *testing.T) {
	t.Parallel()
	const (
		oldIssuer  = pb.Failure_FAILURE_CERT_INTERMEDIATE_EXPIRED
		untrusted  = pb.Failure_FAILURE_CERT_UNTRUSTED_ROOT
		incomplete = pb.Failure_FAILURE_CERT_CHAIN_INCOMPLETE
	)
	because := func(why pb.Distrust, detail string) func(*pb.TLSEvidence) {
		return func(e *pb.TLSEvidence) { e.ChainAnalysis = &pb.ChainEvidence{Distrust: why, Detail: detail} }
	}
	long := `"CN=Example CA" permits the names below ` + strings.Repeat("x", 100) + ` and not "www.example"`
	for _, tt := range []struct {
		sentence      string
		failures      []pb.Failure
		change        func(*pb.TLSEvidence)
		summary, hint string // Parts of them.
	}{
		{
			"expired and for another name: both are said",
			[]pb.Failure{expired, mismatch},
			func(e *pb.TLSEvidence) { e.Chain[0].DnsNames = []string{"other.example"} },
			"it ended 2027-02-19 12:00 UTC; it is for “other.example”, asked was “www.example”", "for “www.example” that is valid now",
		},
		{
			"which intermediate ended",
			[]pb.Failure{oldIssuer},
			func(e *pb.TLSEvidence) {
				e.Chain = append(e.Chain, &pb.Certificate{Subject: "CN=Old CA", NotAfter: timestamppb.New(judgedTime.Add(-24 * time.Hour)), Failures: []pb.Failure{oldIssuer}})
			},
			"“CN=Old CA” ended 2026-11-20 12:00 UTC", "successor of “CN=Old CA” into the chain file",
		},
		{
			"the common name is not what counts",
			[]pb.Failure{mismatch},
			func(e *pb.TLSEvidence) {
				e.Chain[0].DnsNames, e.Names = nil, []*pb.NameMatch{{Name: "www.example", CommonName: true}}
			},
			"its common name alone is for “www.example”", "",
		},
		{"a kind of key", []pb.Failure{pb.Failure_FAILURE_CERT_KEY_UNSUPPORTED}, func(e *pb.TLSEvidence) { e.Chain[0].Key = "Ed448" }, "it has the key Ed448", "ECDSA key on P-256"},
		{"a sentence of the probe's is whole", []pb.Failure{untrusted}, because(pb.Distrust_DISTRUST_NAME_CONSTRAINTS, long), long, "may issue for these names"},
		{"not for servers", []pb.Failure{untrusted}, because(pb.Distrust_DISTRUST_USAGE, "x"), "", "serverAuth"},
		{"an unknown critical extension", []pb.Failure{untrusted}, because(pb.Distrust_DISTRUST_CRITICAL_EXTENSION, "x"), "", "without the critical extension"},
		{"a leaf that issued", []pb.Failure{untrusted}, because(pb.Distrust_DISTRUST_NOT_AN_AUTHORITY, "x"), "", "that an authority issued"},
		{"a root that is being let go", []pb.Failure{untrusted}, because(pb.Distrust_DISTRUST_ISSUED_AFTER, "x"), "", "another authority"},
		{"a root that nobody knows", []pb.Failure{untrusted}, because(pb.Distrust_DISTRUST_UNKNOWN_ROOT, "x"), "", "publicly trusted authority"},
		{
			"revoked, since when",
			[]pb.Failure{pb.Failure_FAILURE_CERT_REVOKED},
			func(e *pb.TLSEvidence) { e.Ocsp = &pb.OCSP{Status: "revoked", RevokedAt: timestamppb.New(judgedTime)} },
			"since 2026-11-21 12:00 UTC", "new key",
		},
		{
			"an intermediate that could be had",
			[]pb.Failure{incomplete},
			func(e *pb.TLSEvidence) {
				e.ChainAnalysis = &pb.ChainEvidence{Missing: []*pb.Certificate{{Subject: "CN=R3"}}, IssuerUrl: "http://ca.example/r3"}
			},
			"the intermediate “CN=R3” is not served", "append the missing intermediate “CN=R3” (http://ca.example/r3) to the chain file",
		},
		{
			"one that could not",
			[]pb.Failure{incomplete},
			func(e *pb.TLSEvidence) {
				e.ChainAnalysis = &pb.ChainEvidence{Detail: "it could not be fetched", IssuerUrl: "http://ca.example/r3: the answer is 404"}
			},
			"it could not be fetched", "(http://ca.example/r3: the answer is 404).",
		},
		{"the chain was cut to fit", []pb.Failure{expired}, func(e *pb.TLSEvidence) { e.Chain = nil }, "which fails as cert_expired (from agent ap only)", "renew"},
	} {
		f := tlsWorld().in("ap", showing(tls(ip1, "c0ffee", tt.failures...), tt.change)).judge().GetFindings()[0]
		if !strings.Contains(f.GetSummary(), tt.summary) || !strings.Contains(f.GetHint(), tt.hint) {
			t.Errorf("%s:\n%s\n%s", tt.sentence, f.GetSummary(), f.GetHint())
		}
	}
	weak := tlsWorld().in("ap", showing(tls(ip1, "c0ffee", weakKey), func(e *pb.TLSEvidence) { e.Chain[0].Key = "RSA 1024" })).judge().GetFindings()[0]
	if !strings.Contains(weak.GetSummary(), "it has the key RSA 1024") {
		t.Errorf("a warning: %s", weak.GetSummary())
	}
}

// TestWhyAHandshakeFails: what the server said is said, and what to do about that.
func TestWhyAHandshakeFails(t *testing.T) {
	t.Parallel()
	hand := func(f pb.Failure, change func(*pb.Step)) func() []*pb.Step {
		return func() []*pb.Step {
			steps := tls(ip1, "", f)
			change(steps[1])
			return append(steps, passing4()...)
		}
	}
	alert := func(code uint32, name string) func(*pb.Step) {
		return func(s *pb.Step) { s.Evidence.Tls = &pb.TLSEvidence{Alert: &pb.TLSAlert{Code: code, Name: name}} }
	}
	variant := func(steps []*pb.Step, v pb.Variant) []*pb.Step {
		s := step(pb.StepKind_STEP_KIND_TLS_HANDSHAKE, pb.Role_ROLE_VARIANT, ip1, none)
		beside := int32(1)
		s.Variant, s.Beside = v, &beside
		return append(steps, s)
	}
	plain := func(*pb.Step) {}
	for _, tt := range []struct {
		sentence      string
		steps         func() []*pb.Step
		summary, hint string
	}{
		{"an alert by number and name", hand(tlsAlert, alert(80, "internal_error")), "the handshake ended with an alert by 203.0.113.10:443 (2 attempts, alert 80, internal_error)", ""},
		{
			"what is spoken in place of TLS", hand(pb.Failure_FAILURE_TLS_NOT_TLS, func(s *pb.Step) { s.Evidence.Text = `it begins with "HTTP/1.1 400\r\n"` }),
			`it begins with "HTTP/1.1 400\r\n"`, "speaks no TLS",
		},
		{
			"what would be spoken", hand(pb.Failure_FAILURE_TLS_VERSION_UNSUPPORTED, func(s *pb.Step) {
				s.Evidence.Tls = &pb.TLSEvidence{Version: "SSL 3.0", CipherSuite: "TLS_RSA_WITH_RC4_128_MD5"}
			}), "it would speak SSL 3.0 with TLS_RSA_WITH_RC4_128_MD5", "--enumerate",
		},
		{"a client certificate", hand(pb.Failure_FAILURE_TLS_CLIENT_CERT_REQUIRED, plain), "", "no certificate to show"},
		{"an unknown name", hand(pb.Failure_FAILURE_TLS_UNRECOGNIZED_NAME, plain), "", "add “www.example” to the names"},
		{
			"another name gets through, from everywhere", func() []*pb.Step { return variant(hand(tlsReset, plain)(), pb.Variant_VARIANT_OTHER_NAME) },
			"→ something resets connections for this name", "another name than “www.example” gets through",
		},
		{
			"small packets get through, from everywhere", func() []*pb.Step { return variant(hand(hung, plain)(), pb.Variant_VARIANT_SMALL_SEGMENTS) },
			"→ full-sized packets are lost on the way", "packet too big",
		},
		{"silence is no filter", hand(hung, plain), "control from ap and eu passed.", "the port is open but the handshake fails"},
	} {
		f := tlsWorld().in("ap", tt.steps()).in("eu", tt.steps()).judge().GetFindings()[0]
		if f.GetCode() != pb.FindingCode_FINDING_CODE_TARGET_DOWN || !strings.Contains(f.GetSummary(), tt.summary) || !strings.Contains(f.GetHint(), tt.hint) {
			t.Errorf("%s: %v\n%s\n%s", tt.sentence, f.GetCode(), f.GetSummary(), f.GetHint())
		}
	}
}
