package render

import (
	"bytes"
	"fmt"
	"strings"
	"testing"
	"time"

	tea "charm.land/bubbletea/v2"
	"charm.land/lipgloss/v2"
	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/types/known/timestamppb"

	pb "github.com/elsewhere-net/elsewhere/proto/elsewhere/v1"
)

// finished is when the fixture's measurement was.
func finished() time.Time { return time.Date(2027, 3, 4, 12, 0, 0, 0, time.Local) }

// halfway is a propagation on its way: three serve it, two do not yet, one is unknown, a server is behind.
func halfway() *pb.Measurement {
	until := func(d time.Duration) *timestamppb.Timestamp { return timestamppb.New(finished().Add(d)) }
	p := &pb.Propagation{Serving: 3, Judged: 5, Unknown: 1, Until: until(12 * time.Minute), Perspectives: []*pb.Perspective{
		{Region: "eu-west", Server: "192.0.2.53:53", Agents: []string{"eu-1", "eu-2", "eu-3"}, Judged: true, Values: []string{"198.51.100.7"}, Until: until(12 * time.Minute)},
		{Region: "ap-south", Server: "9.9.9.9:53", Name: "Quad9", Public: true, Judged: true, Failure: pb.Failure_FAILURE_DNS_NXDOMAIN, Until: until(70 * time.Second)},
		{Region: "ap-south", Server: "192.0.2.54:53", Agents: []string{"ap-1"}, Failure: pb.Failure_FAILURE_DNS_SERVFAIL},
		{Region: "ap-south", Server: "1.1.1.1:53", Name: "Cloud\x1bflare", Public: true, Judged: true, Serving: true, Values: []string{"203.0.113.10"}},
		{Region: "eu-west", Server: "1.1.1.1:53", Name: "Cloudflare", Public: true, Judged: true, Serving: true, Values: []string{"203.0.113.10"}},
		{Region: "eu-west", Server: "9.9.9.9:53", Name: "Quad9", Public: true, Judged: true, Serving: true, Values: []string{"203.0.113.10"}},
	}}
	return &pb.Measurement{
		Id: "x", State: pb.State_STATE_FINISHED, FinishTime: timestamppb.New(finished()),
		Spec:    &pb.Spec{Check: &pb.Spec_Dns{Dns: &pb.DNSSpec{Name: "www.example", Expect: []string{"203.0.113.10"}, Authoritative: true, LocalPublicResolvers: true}}},
		Verdict: &pb.Verdict{Findings: []*pb.Finding{{Code: pb.FindingCode_FINDING_CODE_PROPAGATION, Summary: "in the judge's words.", Hint: "wait.", Propagation: p}}},
	}
}

// shownAs is a measurement in words, without the last line.
func shownAs(m *pb.Measurement, verbose bool) string {
	var out bytes.Buffer
	r := Screen{Out: &out, Err: &bytes.Buffer{}, Verbose: verbose}.Reporter(false)
	r.Begin(m)
	r.Update(m, nil)
	_ = r.End(m)
	text := strings.TrimSuffix(out.String(), "\n")
	return text[:strings.LastIndexByte(text, '\n')+1]
}

func TestAPropagationIsASumBarsAndPerspectives(t *testing.T) {
	want := `3 of 5 perspectives (60 %) serve www.example A 203.0.113.10; the rest by 12:12:00, in 12 min; 1 more could not be judged
ap-south  ██████████░░░░░░░░░░  1/2  1 unknown
eu-west   █████████████░░░░░░░  2/3
  ap-south  ✗  9.9.9.9:53     Quad9                     dns_nxdomain  remembers that until 12:01:10, in 1 min 10 s
  eu-west   ✗  192.0.2.53:53  of eu-1, eu-2 and 1 more  198.51.100.7  until 12:12:00, in 12 min
  ap-south  ?  192.0.2.54:53  of ap-1                   dns_servfail
  ap-south  ✓  1.1.1.1:53     Cloud\x1bflare            203.0.113.10
  eu-west   ✓  1.1.1.1:53     Cloudflare                203.0.113.10
  eu-west   ✓  9.9.9.9:53     Quad9                     203.0.113.10
  hint: wait.
`
	if diff := cmp.Diff(want, shownAs(halfway(), false)); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if all := shownAs(halfway(), true); !strings.Contains(all, "in the judge's words.") {
		t.Errorf("in depth the judge is not heard:\n%s", all)
	}
}

func TestWaitingIsNotEnoughWhereAServerIsBehind(t *testing.T) {
	m := halfway()
	p := PropagationOf(m).GetPropagation()
	for _, region := range []string{"ap-south", "eu-west", "us-east"} {
		p.Authorities = append(p.Authorities, &pb.Perspective{Region: region, Server: "192.0.2.2:53", Name: "ns2.example", Values: []string{"198.51.100.7"}})
	}
	got := shownAs(m, false)
	for _, want := range []string{
		"waiting is not enough: one of the zone's own servers serves something else",
		"  ✗  ns2.example  192.0.2.2:53  198.51.100.7  (seen from ap-south, eu-west and 1 more)",
	} {
		if !strings.Contains(got, want) {
			t.Errorf("no %q in\n%s", want, got)
		}
	}
	if strings.Contains(got, "the rest by") {
		t.Errorf("an end is promised:\n%s", got)
	}
}

func TestManyPerspectivesThatServeItAreCounted(t *testing.T) {
	m := halfway()
	p := PropagationOf(m).GetPropagation()
	for i := range 300 {
		p.Perspectives = append(p.Perspectives, &pb.Perspective{Region: "us-east", Server: fmt.Sprintf("192.0.2.%d:53", i), Judged: true, Serving: true})
	}
	p.Serving, p.Judged = 303, 305
	got := shownAs(m, false)
	if !strings.Contains(got, "… and 303 more that serve it") || strings.Count(got, "\n") > 12 || !strings.Contains(got, "(99 %)") {
		t.Errorf("%s", got)
	}
}

func TestABarIsFullOnlyWhereAllAre(t *testing.T) {
	for _, tc := range []struct {
		k, n int32
		want string
	}{{0, 0, "░░░░"}, {0, 9, "░░░░"}, {1, 900, "█░░░"}, {1, 2, "██░░"}, {899, 900, "███░"}, {900, 900, "████"}} {
		if got := bar(tc.k, tc.n, 4); got != tc.want {
			t.Errorf("%d of %d is %s, want %s", tc.k, tc.n, got, tc.want)
		}
	}
}

func TestMomentsAreForPeopleWhoWait(t *testing.T) {
	now := finished()
	for left, want := range map[time.Duration]string{
		12 * time.Second: "12:00:12, in 12 s", 70 * time.Second: "12:01:10, in 1 min 10 s", 5 * time.Minute: "12:05:00, in 5 min",
		42*time.Minute + 29*time.Second: "12:42:29, in 42 min", 2 * time.Hour: "14:00:00, in 2 h", 185 * time.Minute: "15:05:00, in 3 h 5 min",
		47 * time.Hour: "6 Mar 11:00, in 47 h", 72 * time.Hour: "7 Mar 12:00, in 3 days", -time.Minute: "11:59:00, 1 min ago", 0: "12:00:00, 0 s ago",
	} {
		if got := moment(now.Add(left), now); got != want {
			t.Errorf("%v: %q, want %q", left, got, want)
		}
	}
}

func TestAPropagationIsReadLaterByTheClockOfThen(t *testing.T) {
	var out bytes.Buffer
	r := Screen{Out: &out, Err: &bytes.Buffer{}}.Reporter(true)
	if err := r.End(halfway()); err != nil || strings.Contains(out.String(), "in 12 min") {
		t.Errorf("%v: 12 minutes then are not 12 minutes now\n%s", err, &out)
	}
}

// drawn are the lines of a board after some messages, without colours.
func drawn(b *bars, messages ...tea.Msg) []string {
	for _, msg := range messages {
		next, _ := b.Update(msg)
		b, _ = next.(*bars)
	}
	return b.lines()
}

func TestTheBoardCountsDown(t *testing.T) {
	at := time.Date(2027, 3, 4, 13, 0, 0, 0, time.Local) // an hour ahead of the coordinator
	b := &bars{now: at, end: at.Add(time.Hour)}
	if got := drawn(b, tea.WindowSizeMsg{Width: 120, Height: 24}); len(got) != 1 || !strings.Contains(got[0], "asking for the first time") {
		t.Errorf("%q", got)
	}
	got := strings.Join(drawn(b, turned{m: halfway(), next: 20 * time.Second, behind: time.Hour}, tick(at.Add(5*time.Second))), "\n")
	for _, want := range []string{
		"████████████████████████░░░░░░░░░░░░░░░░  3/5", "3 of 5 perspectives (60 %)", "the rest by 12:12:00, in 12 min", "ap-south  ██████████░░░░░░░░░░  1/2",
		"turn 1 · next in 15 s · until 14:00:00, in 1 h, or Ctrl-C",
	} {
		if !strings.Contains(got, want) {
			t.Errorf("no %q in\n%s", want, got)
		}
	}
	got = strings.Join(drawn(b, tick(at.Add(21*time.Second)), turned{why: "the coordinator\x1b[2J is away", next: 9 * time.Second}), "\n")
	if !strings.Contains(got, "turn 1 · next in 9 s") || !strings.Contains(got, `the coordinator\x1b[2J is away`) {
		t.Errorf("%s", got)
	}
	if got = strings.Join(drawn(b, tick(at.Add(time.Minute))), "\n"); !strings.Contains(got, "turn 1 · asking · ") {
		t.Errorf("%s", got)
	}
}

func TestTheBoardFitsTheTerminal(t *testing.T) {
	m := halfway()
	p := PropagationOf(m).GetPropagation()
	for i := range 60 {
		p.Perspectives = append(p.Perspectives, &pb.Perspective{Region: fmt.Sprintf("region-%02d", i), Server: "192.0.2.1:53", Judged: true})
	}
	for _, size := range []struct{ width, height int }{{80, 24}, {20, 5}, {1, 1}, {300, 200}} {
		b := &bars{now: finished(), end: finished(), theme: colours()}
		lines := drawn(b, tea.WindowSizeMsg{Width: size.width, Height: size.height}, turned{m: m, next: time.Second, why: "x"})
		if len(lines) > max(size.height, 3) {
			t.Errorf("%d lines on %v", len(lines), size)
		}
		for _, l := range lines {
			if w := lipgloss.Width(l); w > size.width {
				t.Errorf("%d cells on %v: %q", w, size, l)
			}
		}
	}
}

func TestAPropagationQuestionIsToldFromADNSQuestion(t *testing.T) {
	for want, spec := range map[string]*pb.DNSSpec{
		"propagation a A --expect b":                             {Name: "a", Expect: []string{"b"}, Authoritative: true, LocalPublicResolvers: true},
		"propagation a TXT --public 192.0.2.1 --expect 'b c'":    {Name: "a", Type: "TXT", Expect: []string{"b c"}, Authoritative: true, PublicResolvers: []string{"192.0.2.1"}},
		"dns a A --authoritative --expect b":                     {Name: "a", Expect: []string{"b"}, Authoritative: true},
		"dns a A --public --expect b":                            {Name: "a", Expect: []string{"b"}, LocalPublicResolvers: true},
		"dns a A --authoritative --public":                       {Name: "a", Authoritative: true, LocalPublicResolvers: true},
		"dns a A @192.0.2.1 --authoritative --public --expect b": {Name: "a", Expect: []string{"b"}, Authoritative: true, LocalPublicResolvers: true, Resolver: "192.0.2.1"},
	} {
		if got := Question(&pb.Spec{Check: &pb.Spec_Dns{Dns: spec}}); got != want {
			t.Errorf("got  %s\nwant %s", got, want)
		}
	}
}
