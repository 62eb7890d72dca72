package probe

import (
	"bytes"
	"fmt"
	"strings"
	"testing"
	"unicode/utf8"

	"google.golang.org/protobuf/proto"

	pb "github.com/elsewhere-net/elsewhere/proto/elsewhere/v1"
)

func TestAResultIsBounded(t *testing.T) {
	t.Parallel()
	names := func(n int) []string {
		out := make([]string, n)
		for i := range out {
			out[i] = fmt.Sprintf("%s%d.example", strings.Repeat("x", 200), i)
		}
		return out
	}
	chain := func(n int) *pb.Evidence {
		e := &pb.Evidence{Tls: &pb.TLSEvidence{}}
		for i := range n {
			e.Tls.Chain = append(e.Tls.Chain, &pb.Certificate{
				Sha256: fmt.Sprint(i), DnsNames: names(100), Der: bytes.Repeat([]byte{1}, 3000),
			})
		}
		return e
	}
	replies := func() *pb.Evidence {
		r := &pb.DNSReply{}
		for range 256 {
			rec := &pb.Record{Data: strings.Repeat("y", 4000)}
			r.Answers, r.Authority = append(r.Answers, rec), append(r.Authority, rec)
		}
		return &pb.Evidence{Replies: []*pb.DNSReply{r, r}, Text: "the last error"}
	}
	response := func() *pb.Evidence {
		h := &pb.HTTPEvidence{Status: 502, BodyExcerpt: strings.Repeat("b", 1024)}
		for range 200 {
			h.Headers = append(h.Headers, &pb.HeaderField{Name: "x", Value: strings.Repeat("h", 8000)})
		}
		return &pb.Evidence{Http: h}
	}
	enumerated := func() *pb.Evidence {
		e := &pb.Evidence{Tls: &pb.TLSEvidence{}}
		for range 5 {
			e.Tls.Versions = append(e.Tls.Versions, &pb.VersionSupport{CipherSuites: names(350)})
		}
		return e
	}
	sections := func() *pb.Evidence {
		e := replies()
		for _, r := range e.GetReplies() {
			r.Answers, r.Additional = nil, r.GetAnswers()
		}
		return e
	}
	step := func(role pb.Role, e *pb.Evidence) *pb.Step {
		return &pb.Step{Role: role, Failures: []pb.Failure{pb.Failure_FAILURE_TLS_RESET}, Evidence: e}
	}
	for name, r := range map[string]*pb.Result{
		"long chains":   {Steps: []*pb.Step{step(pb.Role_ROLE_TARGET, chain(16)), step(pb.Role_ROLE_TARGET, chain(16))}},
		"long answers":  {Steps: []*pb.Step{step(pb.Role_ROLE_TARGET, replies()), step(pb.Role_ROLE_CONTROL, replies())}},
		"long headers":  {Steps: []*pb.Step{step(pb.Role_ROLE_TARGET, response()), step(pb.Role_ROLE_REDIRECT, response())}},
		"many suites":   {Steps: []*pb.Step{step(pb.Role_ROLE_TARGET, enumerated())}},
		"all sections":  {Steps: []*pb.Step{step(pb.Role_ROLE_TARGET, sections()), step(pb.Role_ROLE_REFERRAL, sections())}},
		"nothing to do": {Steps: []*pb.Step{step(pb.Role_ROLE_TARGET, &pb.Evidence{Text: "fine"})}},
	} {
		before := proto.Size(r)
		fit(r)
		if n := proto.Size(r); n > maxResult {
			t.Errorf("%s: %d bytes", name, n)
		}
		for _, s := range r.GetSteps() {
			if len(s.GetFailures()) != 1 {
				t.Errorf("%s: a step lost its failures", name)
			}
			cut := strings.HasPrefix(s.GetEvidence().GetText(), cutNote)
			if before <= maxResult && cut || strings.Count(s.GetEvidence().GetText(), cutNote) > 1 {
				t.Errorf("%s: text %q", name, s.GetEvidence().GetText())
			}
		}
		if before > maxResult && !strings.HasPrefix(r.GetSteps()[0].GetEvidence().GetText(), cutNote) {
			t.Errorf("%s: the cut is not said: %q", name, r.GetSteps()[0].GetEvidence().GetText())
		}
	}
}

func TestWhatIsLeftOutIsCounted(t *testing.T) {
	t.Parallel()
	reply := &pb.DNSReply{}
	for i := range 200 {
		reply.Answers = append(reply.Answers, &pb.Record{Data: fmt.Sprint(i, strings.Repeat("y", 1000))})
	}
	fit(&pb.Result{Steps: []*pb.Step{{Evidence: &pb.Evidence{Replies: []*pb.DNSReply{reply}}}}})
	if n := len(reply.GetAnswers()); n == 0 || n == 200 || n+int(reply.GetLeftOut()) != 200 {
		t.Errorf("%d records of 200 are there, %d are left out", n, reply.GetLeftOut())
	}
}

func TestWhatIsSmallOutlivesEveryCut(t *testing.T) {
	t.Parallel()
	r := &pb.Result{}
	for range 30 {
		e := &pb.Evidence{BytesRead: 7, Errno: "ECONNRESET", Text: strings.Repeat("x", 500), Tls: &pb.TLSEvidence{}}
		for range 16 {
			e.Tls.Chain = append(e.Tls.Chain, &pb.Certificate{Subject: strings.Repeat("s", 300), Issuer: strings.Repeat("i", 300)})
		}
		r.Steps = append(r.Steps, &pb.Step{Evidence: e})
	}
	fit(r)
	for i, s := range r.GetSteps() {
		if e := s.GetEvidence(); e.GetBytesRead() != 7 || e.GetErrno() != "ECONNRESET" {
			t.Errorf("step %d lost what says how it ended: %v", i, e)
		}
	}
	if r.GetSteps()[0].GetEvidence().GetTls() != nil || proto.Size(r) > maxResult {
		t.Errorf("%d bytes; nothing was cut", proto.Size(r))
	}
}

func TestDERIsKeptOnce(t *testing.T) {
	t.Parallel()
	r := &pb.Result{}
	for range 3 {
		r.Steps = append(r.Steps, &pb.Step{Evidence: &pb.Evidence{Tls: &pb.TLSEvidence{Chain: []*pb.Certificate{
			{Sha256: "a", Der: []byte("leaf")}, {Sha256: "b", Der: make([]byte, maxDER)},
		}}}})
	}
	fit(r)
	var kept []string
	for i, s := range r.GetSteps() {
		for _, c := range s.GetEvidence().GetTls().GetChain() {
			if len(c.GetDer()) > 0 {
				kept = append(kept, fmt.Sprintf("%d%s", i, c.GetSha256()))
			}
		}
	}
	if fmt.Sprint(kept) != "[0a]" {
		t.Errorf("DER kept: %v, want the leaf's where it is first seen, and not what is over the bound", kept)
	}
}

func TestClean(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct{ why, in, want string }{
		{"plain text is kept", "plain", "plain"},
		{"lines become spaces", "a\nb\tc", "a b c"},
		{"terminal escapes lose their teeth", "\x1b[31mred\x1b[0m", "[31mred[0m"},
		{"what turns the direction of text goes", "abc\u202edef", "abcdef"},
		{"bytes that are no UTF-8 go", "a\xff\xfeb", "ab"},
		{"letters are not cut in two", "ééééééé", "ééééé"},
	} {
		if got := clean(tt.in, 10); got != tt.want {
			t.Errorf("%s: %q, want %q", tt.why, got, tt.want)
		}
	}
}

func FuzzClean(f *testing.F) {
	f.Add("a\xffb\u202e\x1b", 3)
	f.Fuzz(func(t *testing.T, s string, limit int) {
		limit &= 0xff
		if got := clean(s, limit); !utf8.ValidString(got) || len(got) > limit || strings.ContainsAny(got, "\x00\x1b\n\u202e") {
			t.Errorf("clean(%q, %d) = %q", s, limit, got)
		}
	})
}
