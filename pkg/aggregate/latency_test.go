package aggregate

import (
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	pb "github.com/elsewhere-net/elsewhere/proto/elsewhere/v1"
)

// taking makes the connects of steps take so many milliseconds.
func taking(ms int, steps []*pb.Step) []*pb.Step {
	for _, s := range steps {
		if s.GetKind() == pb.StepKind_STEP_KIND_TCP_CONNECT && s.GetFailure() == none {
			s.Evidence.Rtt = durationpb.New(time.Duration(ms) * time.Millisecond)
		}
	}
	return steps
}

func TestLatency(t *testing.T) {
	t.Parallel()
	runCases(t, []verdictCase{
		{"two regions are no peers to compare with", tcpWorld().in("ap", taking(900, open(ip1))).in("eu", open(ip1)), []string{"ok"}},
		{
			"of two peers the slower one is what is usual",
			tcpWorld().in("ap", taking(200, open(ip1))).in("eu", taking(90, open(ip1))).in("us", open(ip1)),
			[]string{"ok"},
		},
		{
			"several regions are told together",
			tcpWorld().in("ap", taking(250, open(ip1))).in("eu", open(ip1)).in("oc", taking(350, open(ip1))).in("sa", open(ip1)).in("us", open(ip1)),
			[]string{"ok", "INFO latency_outlier [ap oc] at 203.0.113.10:443 blame=unknown medium"},
		},
		{
			"two agents on two networks make it sure",
			tcpWorld().in("ap/1", taking(250, open(ip1))).in("ap/2", taking(260, open(ip1))).in("eu", open(ip1)).in("us", open(ip1)),
			[]string{"ok", "INFO latency_outlier [ap] at 203.0.113.10:443 blame=unknown high"},
		},
		{
			"one slow agent of a region is not a slow region",
			tcpWorld().in("ap/1", taking(250, open(ip1))).in("ap/2", open(ip1)).in("eu", open(ip1)).in("us", open(ip1)),
			[]string{"ok"},
		},
		{
			"a SYN that was lost is not a distance",
			tcpWorld().in("ap", taking(1020, open(ip1))).in("eu", open(ip1)).in("us", open(ip1)),
			[]string{"ok"},
		},
		{
			"what cannot be reached has no latency",
			tcpWorld().in("ap", taking(250, blocked(ip1, timeout))).in("eu", open(ip1)).in("us", open(ip1)),
			[]string{"fail", "ERROR regional_block [ap] at 203.0.113.10:443 tcp_timeout block=drop blame=path medium"},
		},
		{
			"of a handshake it is the connect that counts",
			tlsWorld().in("ap", taking(250, tls(ip1, "c1"))).in("eu", tls(ip1, "c1")).in("us", tls(ip1, "c1")),
			[]string{"ok", "INFO latency_outlier [ap] at 203.0.113.10:443 blame=unknown medium"},
		},
		{
			"a resolver that is slow says nothing about the target",
			dnsWorld("A").in("ap", slowly(answers(1, "A", "192.0.2.1"))).in("eu", answers(2, "A", "192.0.2.1")).in("us", answers(3, "A", "192.0.2.1")),
			[]string{"ok"},
		},
	})
}

func slowly(steps []*pb.Step) []*pb.Step {
	steps[0].Evidence.Rtt = durationpb.New(900 * time.Millisecond)
	return steps
}

func TestLatencyInWords(t *testing.T) {
	t.Parallel()
	v := tcpWorld().in("ap", taking(250, open(ip1))).in("eu", open(ip1)).in("us", open(ip1)).judge()
	want := "far slower than others to 203.0.113.10:443: ap connects in 250 ms where its peers take 20 ms (from agent ap only), by the median of each region."
	if got := v.GetFindings()[0].GetSummary(); got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
	if hint := v.GetFindings()[0].GetHint(); !strings.Contains(hint, "the way from ap") {
		t.Error(hint)
	}
}
