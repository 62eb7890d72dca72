package render

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	tea "charm.land/bubbletea/v2"
	"charm.land/lipgloss/v2"
	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"

	pb "github.com/elsewhere-net/elsewhere/proto/elsewhere/v1"
)

func TestCleanEscapesWhatSteersATerminal(t *testing.T) {
	for in, want := range map[string]string{
		"plain, größe, 日本":   "plain, größe, 日本",
		"\x1b[2J":            `\x1b[2J`,
		"a\nb\tc\rd":         `a\x0ab\x09c\x0dd`,
		"\x7f":               `\x7f`,
		"\u009b31m":          `\u009b31m`,
		"\x9b31m":            `\x9b31m`,
		"abc\u202egnp":       `abc\u202egnp`,
		"zero\u200bwidth":    `zero\u200bwidth`,
		"line\u2028line":     `line\u2028line`,
		"tag \U000e0041 end": `tag \U000e0041 end`,
	} {
		if got := Clean(in); got != want {
			t.Errorf("%q: got %q, want %q", in, got, want)
		}
	}
}

func TestCleanedJSONIsTheSameDocument(t *testing.T) {
	in := map[string]string{"text": "a\u009bb\x7fc\u202ed\U000e0041e\u00adf ü"}
	doc, err := json.Marshal(in)
	if err != nil {
		t.Fatal(err)
	}
	cleaned := cleanJSON(doc)
	if strings.ContainsFunc(string(cleaned), unsafe) {
		t.Errorf("still there: %q", cleaned)
	}
	var out map[string]string
	if err := json.Unmarshal(cleaned, &out); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(in, out); diff != "" {
		t.Error(diff)
	}
}

func TestDurationsAreForPeople(t *testing.T) {
	for d, want := range map[time.Duration]string{
		0: "0.00 ms", 42 * time.Microsecond: "0.04 ms", 996 * time.Microsecond: "1.0 ms", 9949 * time.Microsecond: "9.9 ms", 9960 * time.Microsecond: "10 ms",
		12 * time.Millisecond: "12 ms", 999 * time.Millisecond: "999 ms", time.Second: "1.0 s", 8100 * time.Millisecond: "8.1 s", 2 * time.Minute: "120 s",
	} {
		if got := human(d); got != want {
			t.Errorf("%v: got %q, want %q", d, got, want)
		}
	}
}

// step is a step about the target; the failures are in the order given.
func step(kind pb.StepKind, address string, took time.Duration, failed ...pb.Failure) *pb.Step {
	s := &pb.Step{Kind: kind, Role: pb.Role_ROLE_TARGET, Address: address, Duration: durationpb.New(took), Failure: pb.Failure_FAILURE_NONE, Failures: failed}
	if len(failed) > 0 {
		s.Failure = failed[0]
	}
	return s
}

const (
	query     = pb.StepKind_STEP_KIND_DNS_QUERY
	connect   = pb.StepKind_STEP_KIND_TCP_CONNECT
	handshake = pb.StepKind_STEP_KIND_TLS_HANDSHAKE
)

// answer gives a query an answer of type A.
func answer(s *pb.Step, data ...string) *pb.Step {
	reply := &pb.DNSReply{Rcode: "NOERROR"}
	for _, d := range data {
		reply.Answers = append(reply.Answers, &pb.Record{Type: "A", Data: d})
	}
	s.Evidence = &pb.Evidence{Replies: []*pb.DNSReply{reply}}
	return s
}

// fetched is an exchange with a response.
func fetched(address string, status uint32, failed ...pb.Failure) *pb.Step {
	s := step(pb.StepKind_STEP_KIND_HTTP_EXCHANGE, address, 2*time.Millisecond, failed...)
	s.Evidence = &pb.Evidence{Http: &pb.HTTPEvidence{Status: status, Version: "HTTP/2.0"}}
	return s
}

func TestSights(t *testing.T) {
	tcp := &pb.Spec{Check: &pb.Spec_Tcp{Tcp: &pb.TCPSpec{Host: "example.com", Port: 443}}}
	tls := &pb.Spec{Check: &pb.Spec_Tls{Tls: &pb.TLSSpec{Host: "example.com"}}}
	dns := &pb.Spec{Check: &pb.Spec_Dns{Dns: &pb.DNSSpec{Name: "example.com"}}}
	ms := time.Millisecond
	version := step(handshake, "192.0.2.1:443", 30*ms)
	version.Evidence = &pb.Evidence{Tls: &pb.TLSEvidence{Version: "TLS 1.3"}}
	control := step(connect, "198.51.100.1:443", ms)
	control.Role = pb.Role_ROLE_CONTROL
	for name, tc := range map[string]struct {
		spec  *pb.Spec
		steps []*pb.Step
		want  []string
	}{
		"each address by itself": {
			tcp,
			[]*pb.Step{step(query, "r:53", ms), step(connect, "192.0.2.1:443", 12*ms), step(connect, "192.0.2.2:443", 8*time.Second, pb.Failure_FAILURE_TCP_TIMEOUT)},
			[]string{"192.0.2.1:443 ✓ 12 ms", "192.0.2.2:443 ✗ tcp_timeout 8.0 s"},
		},
		"a handshake stands for its connect, a failing connect for itself": {
			tls,
			[]*pb.Step{step(connect, "192.0.2.1:443", ms), step(connect, "192.0.2.2:443", ms, pb.Failure_FAILURE_TCP_REFUSED), version},
			[]string{"192.0.2.1:443 ✓ TLS 1.3 30 ms", "192.0.2.2:443 ✗ tcp_refused 1.0 ms"},
		},
		"a page behind a certificate that is wrong is not fine": {
			&pb.Spec{Check: &pb.Spec_Http{Http: &pb.HTTPSpec{Url: "https://example.com/"}}},
			[]*pb.Step{step(handshake, "192.0.2.1:443", ms, pb.Failure_FAILURE_CERT_EXPIRED), fetched("192.0.2.1:443", 200), fetched("192.0.2.2:443", 200)},
			[]string{"192.0.2.1:443 ✗ cert_expired 200 HTTP/2 2.0 ms", "192.0.2.2:443 ✓ 200 HTTP/2 2.0 ms"},
		},
		"and may be wrong itself": {
			&pb.Spec{Check: &pb.Spec_Http{Http: &pb.HTTPSpec{Url: "https://example.com/"}}},
			[]*pb.Step{step(handshake, "192.0.2.1:443", ms, pb.Failure_FAILURE_CERT_EXPIRED), fetched("192.0.2.1:443", 500, pb.Failure_FAILURE_HTTP_STATUS)},
			[]string{"192.0.2.1:443 ✗ cert_expired, http_status 500 HTTP/2 2.0 ms"},
		},
		"all that is wrong with a certificate": {
			tls,
			[]*pb.Step{step(handshake, "192.0.2.1:443", ms, pb.Failure_FAILURE_CERT_EXPIRED, pb.Failure_FAILURE_CERT_NAME_MISMATCH)},
			[]string{"192.0.2.1:443 ✗ cert_expired, cert_name_mismatch 1.0 ms"},
		},
		"a name that leads nowhere": {
			tcp,
			[]*pb.Step{step(query, "r:53", ms, pb.Failure_FAILURE_DNS_NXDOMAIN), step(query, "r:53", ms, pb.Failure_FAILURE_DNS_NXDOMAIN)},
			[]string{"✗ dns_nxdomain 1.0 ms"},
		},
		"an agent's own trouble is not the target's": {
			tcp,
			[]*pb.Step{step(connect, "[2001:db8::1]:443", 0, pb.Failure_FAILURE_AGENT_CAPABILITY_MISSING)},
			[]string{"[2001:db8::1]:443 ? agent_capability_missing 0.00 ms"},
		},
		"controls are not shown": {tcp, []*pb.Step{control}, nil},
		"resolvers that agree are one sight": {
			dns,
			[]*pb.Step{answer(step(query, "r1:53", ms), "192.0.2.2", "192.0.2.1"), answer(step(query, "r2:53", ms), "192.0.2.1", "192.0.2.2")},
			[]string{"✓ 192.0.2.1, 192.0.2.2 ttl 0 1.0 ms"},
		},
		"resolvers that differ are named": {
			dns,
			[]*pb.Step{answer(step(query, "r1:53", ms), "192.0.2.1"), step(query, "r2:53", ms, pb.Failure_FAILURE_DNS_SERVFAIL)},
			[]string{"@r1:53 ✓ 192.0.2.1 ttl 0 1.0 ms", "@r2:53 ✗ dns_servfail 1.0 ms"},
		},
		"many answers are cut": {
			dns,
			[]*pb.Step{answer(step(query, "r:53", ms), "1", "2", "3", "4", "5", "6", "7", "8")},
			[]string{"✓ 1, 2, 3, 4, 5, 6, … ttl 0 1.0 ms"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			var got []string
			for _, s := range sights(tc.spec, &pb.Result{Steps: tc.steps}) {
				got = append(got, s.String())
			}
			if diff := cmp.Diff(tc.want, got); diff != "" {
				t.Error(diff)
			}
		})
	}
}

// fleetOf makes a running measurement of n agents in regions of 10, and the result of each; every
// 10th agent sees silence.
func fleetOf(n int) (*pb.Measurement, []*pb.Result) {
	m := &pb.Measurement{
		Id: "01k5w8zv3c4x7e9m2n6p8q0r1s", State: pb.State_STATE_RUNNING, From: "world", Ledger: &pb.Ledger{Asked: int32(n)},
		Spec: &pb.Spec{Check: &pb.Spec_Tcp{Tcp: &pb.TCPSpec{Host: "example.com", Port: 443}}},
	}
	var results []*pb.Result
	for i := range n {
		v := &pb.Vantage{Region: fmt.Sprintf("region-%02d", i/10), City: "Zürich", Provider: "AWS"}
		agent := fmt.Sprintf("agent-%03d", i)
		m.Asks = append(m.Asks, &pb.Ask{Agent: agent, Vantage: v, State: pb.AskState_ASK_STATE_PENDING})
		s := step(connect, "203.0.113.10:443", 12*time.Millisecond)
		if i%10 == 0 {
			s = step(connect, "203.0.113.10:443", 8*time.Second, pb.Failure_FAILURE_TCP_TIMEOUT)
		}
		results = append(results, &pb.Result{Agent: agent, Vantage: v, Steps: []*pb.Step{s}})
	}
	return m, results
}

// sized gives the model a terminal.
func sized(m *model, width, height int) *model {
	m.width, m.height = width, height
	return m
}

// view renders the model, without colours.
func view(m *model) []string {
	var out bytes.Buffer
	_, _ = lipgloss.Fprint(&out, m.View().Content)
	return strings.Split(out.String(), "\n")
}

func TestTheLiveTableFillsIn(t *testing.T) {
	m, results := fleetOf(3)
	at := time.Unix(0, 0)
	table := sized(newModel(m, at), 80, 24)
	want := []string{
		"tcp example.com:443 from world  0 of 3 answered · 0.00 ms",
		"⠋ region-00  agent-000  Zürich/AWS  waiting",
		"⠋ region-00  agent-001  Zürich/AWS  waiting",
		"⠋ region-00  agent-002  Zürich/AWS  waiting",
	}
	if diff := cmp.Diff(want, view(table)); diff != "" {
		t.Errorf("at the beginning (-want +got):\n%s", diff)
	}
	table.Update(changed{m, results[:2]})
	table.Update(changed{m, results[:2]})
	table.Update(tick(at.Add(1200 * time.Millisecond)))
	want = []string{
		"tcp example.com:443 from world  2 of 3 answered · 1.2 s",
		"✗ region-00  agent-000  Zürich/AWS  203.0.113.10:443 ✗ tcp_timeout 8.0 s",
		"✓ region-00  agent-001  Zürich/AWS  203.0.113.10:443 ✓ 12 ms",
		"⠙ region-00  agent-002  Zürich/AWS  waiting",
	}
	if diff := cmp.Diff(want, view(table)); diff != "" {
		t.Errorf("after two answers (-want +got):\n%s", diff)
	}
	if _, cmd := table.Update(over{}); cmd == nil {
		t.Error("it does not end")
	}
}

func TestTheLiveTableNeverOutgrowsTheTerminal(t *testing.T) {
	for _, size := range []struct{ agents, width, height int }{{40, 80, 50}, {41, 80, 50}, {500, 80, 24}, {500, 30, 10}, {5, 10, 4}, {1000, 200, 100}, {3, 1, 1}} {
		m, results := fleetOf(size.agents)
		table := sized(newModel(m, time.Unix(0, 0)), size.width, size.height)
		table.Update(changed{m, results})
		lines := view(table)
		if limit := max(3, size.height-1); len(lines) > limit {
			t.Errorf("%+v: %d lines", size, len(lines))
		}
		for _, line := range lines[:min(len(lines), 3)] {
			if w := lipgloss.Width(line); w > size.width {
				t.Errorf("%+v: %d cells: %q", size, w, line)
			}
		}
		folded := strings.Contains(strings.Join(lines, "\n"), "agents")
		if want := size.agents > size.height-3 || size.agents > maxRows; folded != want && size.width > 30 {
			t.Errorf("%+v: folded by region is %v, want %v", size, folded, want)
		}
	}
}

func TestAFoldedRegionSaysHowManySeeWhat(t *testing.T) {
	m, results := fleetOf(50)
	table := sized(newModel(m, time.Unix(0, 0)), 80, 24)
	table.Update(changed{m, results[:5]})
	if want, got := "⠋ region-00  10 agents  4 ✓  1 ✗  5 ·  tcp_timeout", view(table)[1]; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	table.Update(changed{m, results[5:10]})
	if want, got := "✗ region-00  10 agents  9 ✓  1 ✗  tcp_timeout", view(table)[1]; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestAWindowThatIsResizedIsFollowed(t *testing.T) {
	m, _ := fleetOf(3)
	table := sized(newModel(m, time.Unix(0, 0)), 80, 24)
	table.Update(tea.WindowSizeMsg{Width: 40, Height: 24})
	if got := view(table)[1]; strings.Contains(got, "Zürich") || lipgloss.Width(got) > 40 {
		t.Errorf("the place is still there: %q", got)
	}
}

func TestHostileTextReachesNoTerminal(t *testing.T) {
	const evil = "\x1b]0;owned\x07\u009b2J\u202e"
	m, results := fleetOf(2)
	m.From = evil
	m.Asks[1].State, m.Asks[1].Failure, m.Asks[1].Detail = pb.AskState_ASK_STATE_REFUSED, pb.Failure_FAILURE_AGENT_POLICY_DENIED, evil
	m.Asks[0].Vantage.City, m.Asks[0].Vantage.Region = evil, evil
	results[0].Steps[0].Address = evil
	m.Verdict = &pb.Verdict{Findings: []*pb.Finding{{Summary: evil, Hint: evil, Regions: []string{evil}, Prediction: &pb.Prediction{
		Profile: evil, Status: evil, Text: evil, Source: &pb.Source{Document: evil, Date: evil, Note: evil},
	}}}}
	m.State, m.Results = pb.State_STATE_FINISHED, results[:1]
	for _, format := range Formats() {
		var out, errs bytes.Buffer
		r := Screen{Out: &out, Err: &errs, Format: Format(format)}.Reporter(false)
		r.Begin(m)
		r.Update(m, m.GetResults())
		if err := r.End(m); err != nil {
			t.Fatal(err)
		}
		text := strings.ReplaceAll(out.String()+errs.String(), "\n", "")
		if strings.ContainsFunc(text, unsafe) || !strings.Contains(text, "owned") {
			t.Errorf("%s: %q", format, text)
		}
	}
	table := sized(newModel(m, time.Unix(0, 0)), 200, 24)
	table.Update(changed{m, results[:1]})
	if text := strings.Join(view(table), ""); strings.ContainsFunc(text, unsafe) {
		t.Errorf("live: %q", text)
	}
}

func TestFindingsAreBrokenAtTheTerminalsWidth(t *testing.T) {
	m := &pb.Measurement{Verdict: &pb.Verdict{Findings: []*pb.Finding{{
		Code: pb.FindingCode_FINDING_CODE_TARGET_DOWN, Severity: pb.Severity_SEVERITY_ERROR, Summary: strings.Repeat("eu-west-1 ", 40), Hint: "do something",
		Regions: []string{"eu-west-1", "us-east-1", "ap-south-1"}, Blame: pb.Blame_BLAME_TARGET, Confidence: pb.Confidence_CONFIDENCE_HIGH,
	}}}}
	lines := conclusion(m, theme{}, 60)
	if text := strings.Join(lines, "\n"); strings.Count(text, "eu-west-1") != 41 || !strings.Contains(text, "confidence high)") {
		t.Errorf("a word is broken:\n%s", text)
	}
	for _, line := range lines {
		if w := lipgloss.Width(line); w > 60 {
			t.Errorf("%d cells: %q", w, line)
		}
	}
}

// full is a disk without room.
type full struct{}

func (full) Write([]byte) (int, error) { return 0, errors.New("no space left") }

func TestWhatCannotBeWrittenIsAnError(t *testing.T) {
	m, results := fleetOf(2)
	m.State, m.Results = pb.State_STATE_FINISHED, results
	for _, format := range Formats() {
		r := Screen{Out: full{}, Err: &bytes.Buffer{}, Format: Format(format)}.Reporter(false)
		r.Begin(m)
		r.Update(m, results)
		if err := r.End(m); err == nil {
			t.Errorf("%s: no error", format)
		}
	}
}

func TestCIMeansNoTerminal(t *testing.T) {
	if s := NewScreen(&bytes.Buffer{}, &bytes.Buffer{}, func(string) string { return "" }); s.Terminal {
		t.Error("a buffer is a terminal")
	}
}

func TestTheLiveTableIsReplacedByText(t *testing.T) {
	m, results := fleetOf(3)
	var out bytes.Buffer
	r := Screen{Out: &out, Err: &bytes.Buffer{}, Terminal: true}.Reporter(false)
	r.Begin(m)
	r.Update(m, results)
	m = proto.CloneOf(m) // what was shown is not changed afterwards
	m.State, m.Results = pb.State_STATE_FINISHED, results
	if err := r.End(m); err != nil {
		t.Fatal(err)
	}
	before, after, found := strings.Cut(out.String(), "\r"+strings.Repeat(cursorUp, 3)+eraseBelow)
	if !found || !strings.Contains(before, "3 of 3 answered") {
		t.Errorf("four lines are not taken away: %q", out.String())
	}
	if strings.Contains(after, "\x1b") || strings.Count(after, "203.0.113.10:443") != 3 {
		t.Errorf("text after it: %q", after)
	}
	if strings.Contains(before, "\x1b[?2026$p") || strings.Contains(before, "\x1b[?u") || strings.Contains(before, "\x1b[c") {
		t.Errorf("the terminal is asked something that nobody reads: %q", before)
	}
}

func TestTheLiveTableSaysThatTheCoordinatorIsGone(t *testing.T) {
	m, results := fleetOf(2)
	table := sized(newModel(m, time.Unix(0, 0)), 200, 24)
	table.Update(silence{})
	if head := view(table)[0]; !strings.Contains(head, noAnswer) {
		t.Errorf("gone: %q", head)
	}
	table.Update(changed{m, results})
	if head := view(table)[0]; !strings.Contains(head, "2 of 2 answered") {
		t.Errorf("back: %q", head)
	}
}

func TestAnInterruptedTableGivesTheTerminalBackBeforeTheEnd(t *testing.T) {
	m, results := fleetOf(2)
	var out bytes.Buffer
	r := Screen{Out: &out, Err: &bytes.Buffer{}, Terminal: true}.Reporter(false)
	r.Begin(m)
	r.Abort()
	const showCursor = "\x1b[?25h"
	if !strings.Contains(out.String(), showCursor) {
		t.Errorf("the cursor is hidden: %q", out.String())
	}
	out.Reset()
	r.Update(m, results)
	m.Results = results
	if err := r.End(m); err != nil || strings.Count(out.String(), "203.0.113.10:443") != 2 {
		t.Errorf("err %v, %q", err, out.String())
	}
}
