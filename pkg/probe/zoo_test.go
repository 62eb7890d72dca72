package probe

import (
	"crypto/tls"
	"fmt"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protopath"
	"google.golang.org/protobuf/reflect/protorange"

	"github.com/elsewhere-net/elsewhere/pkg/probe/probetest"
	pb "github.com/elsewhere-net/elsewhere/proto/elsewhere/v1"
)

// The zoo: targets that mean harm. Each probe of them must end in time, small and in clean text.

func TestZooDNS(t *testing.T) {
	t.Parallel()
	var many, long []string
	for i := range 2000 {
		many = append(many, fmt.Sprintf("many.example. 1 IN A 127.%d.%d.1", i/250, i%250))
	}
	for i := range 200 {
		long = append(long, fmt.Sprintf(`long.example. 1 IN TXT "%d%s"`, i, strings.Repeat("x", 250)))
	}
	env := newEnv(t, probetest.Zone{
		"many.example": {Records: many, Fault: probetest.Truncated},
		"long.example": {Records: long, Fault: probetest.Truncated},
		"ugly.example": {Records: []string{`ugly.example. 1 IN TXT "\027[31m\000\255<script>"`}},
		"loop.example": {Records: []string{"loop.example. 1 IN CNAME loop.example."}},
	})
	type animal struct {
		name, qtype string
		want        pb.Failure
	}
	all(t, func(a animal) string { return a.name }, []animal{
		{"many.example", "A", pb.Failure_FAILURE_NONE},
		{"long.example", "TXT", pb.Failure_FAILURE_NONE},
		{"ugly.example", "TXT", pb.Failure_FAILURE_NONE},
		{"loop.example", "A", pb.Failure_FAILURE_DNS_CNAME_LOOP},
	}, func(t *testing.T, a animal) func(*testing.T) {
		r := run(t, env, dnsSpec(a.name, a.qtype))
		return func(t *testing.T) {
			s := one(t, r, pb.StepKind_STEP_KIND_DNS_QUERY)
			if s.GetFailure() != a.want {
				t.Errorf("%s, want %s", Short(s.GetFailure()), Short(a.want))
			}
			checkTame(t, r)
		}
	})
}

func TestZooTLS(t *testing.T) {
	t.Parallel()
	escapes := "\x1b]0;owned\x07<b>.example"
	cert, _ := issue(t, probetest.CAOptions{}, probetest.Leaf{Names: []string{escapes}}, true)
	endless := cert
	for range 400 {
		endless.Certificate = append(endless.Certificate, cert.Certificate[1])
	}
	alerts := strings.Repeat("\x15\x03\x03\x00\x02\x01\x70", 10_000)   // Warnings without end.
	giant := "\x16\x03\x03\x40\x00\x02\xff\xff\xff" + zeros(1<<14)     // A ServerHello of 16 MiB.
	stream := strings.Repeat("\x16\x03\x03\x40\x00"+zeros(1<<14), 200) // HelloRequests, 3 MiB of them.
	type animal struct {
		name   string
		listen func() (*probetest.Host, error)
		want   pb.Failure
	}
	say := func(answer string) func() (*probetest.Host, error) {
		return func() (*probetest.Host, error) { return probetest.ListenSaying(at("127.0.0.2"), []byte(answer)) }
	}
	serve := func(c tls.Certificate) func() (*probetest.Host, error) {
		return func() (*probetest.Host, error) { return probetest.ListenTLS(at("127.0.0.2"), serverConfig(c)) }
	}
	all(t, func(a animal) string { return a.name }, []animal{
		{"a certificate with escapes in its names", serve(cert), pb.Failure_FAILURE_CERT_NAME_MISMATCH},
		{"a chain of four hundred", serve(endless), pb.Failure_FAILURE_CERT_NAME_MISMATCH},
		{"warnings without end", say(alerts), pb.Failure_FAILURE_TLS_MALFORMED},
		{"a message of sixteen megabytes", say(giant), pb.Failure_FAILURE_TLS_MALFORMED},
		{"messages without end", say(stream), pb.Failure_FAILURE_TLS_MALFORMED},
		{"a record that never ends", say("\x16\x03\x03\x40\x00"), pb.Failure_FAILURE_TLS_TIMEOUT},
	}, func(t *testing.T, a animal) func(*testing.T) {
		host := must[*probetest.Host](t)(a.listen())
		env := newEnv(t, nil)
		r := run(t, env, tlsSpec("127.0.0.2", host.Addr().Port(), "www.example"))
		return func(t *testing.T) {
			s := one(t, r, pb.StepKind_STEP_KIND_TLS_HANDSHAKE)
			if s.GetFailure() != a.want || s.GetDuration().AsDuration() > 2*handshakeTimeout+time.Second {
				t.Errorf("%s after %v, want %s: %s", Short(s.GetFailure()), s.GetDuration().AsDuration(), Short(a.want), s.GetEvidence().GetText())
			}
			if n := len(s.GetEvidence().GetTls().GetChain()); n > maxChain {
				t.Errorf("%d certificates kept", n)
			}
			checkTame(t, r)
		}
	})
}

// checkTame wants a result that is small and whose text can be shown.
func checkTame(t *testing.T, r *pb.Result) {
	t.Helper()
	if n := proto.Size(r); n > maxResult {
		t.Errorf("a result of %d bytes", n)
	}
	err := protorange.Range(r.ProtoReflect(), func(p protopath.Values) error {
		text, isText := p.Index(-1).Value.Interface().(string)
		if isText && (!utf8.ValidString(text) || strings.ContainsAny(text, "\x00\x07\x1b\u202e\n")) {
			t.Errorf("%v is not clean: %q", p.Path, text)
		}
		return nil
	})
	if err != nil {
		t.Error(err)
	}
}

func zeros(n int) string { return strings.Repeat("\x00", n) }
