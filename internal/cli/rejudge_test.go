package cli_test

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/testing/protocmp"

	"github.com/elsewhere-net/elsewhere/internal/cli"
	"github.com/elsewhere-net/elsewhere/pkg/aggregate"
	pb "github.com/elsewhere-net/elsewhere/proto/elsewhere/v1"
)

func TestRejudge(t *testing.T) {
	head := "judged again by judge " + aggregate.Version + "; the verdict on record is "
	for _, c := range []struct {
		what   string
		change func(*pb.Measurement)
		says   []string // on stderr, in this order, after what was asked
		exit   int
	}{
		{"another judge said it in other words", func(*pb.Measurement) {}, []string{
			head + "that of judge 1", "~ ERROR regional_block ap-south (drop, tcp_timeout, blame path, confidence medium): summary, hint, evidence",
		}, cli.ExitFail},
		{"another judge was surer", func(m *pb.Measurement) {
			m.Verdict.Findings[0].Confidence = pb.Confidence_CONFIDENCE_HIGH
		}, []string{
			head + "that of judge 1",
			"~ ERROR regional_block ap-south (drop, tcp_timeout, blame path, confidence medium): confidence high → medium, summary, hint, evidence",
		}, cli.ExitFail},
		{"another judge saw nothing", func(m *pb.Measurement) {
			m.Verdict = &pb.Verdict{Outcome: pb.Outcome_OUTCOME_OK, Judge: "0"}
		}, []string{
			head + "that of judge 0", "outcome ok → fail", "+ ERROR regional_block ap-south (drop, tcp_timeout, blame path, confidence medium)",
		}, cli.ExitFail},
		{"another judge accused on one attempt", func(m *pb.Measurement) { m.Results[0].Steps[1].Attempts = 1 }, []string{
			head + "that of judge 1", "outcome fail → inconclusive", "- ERROR regional_block ap-south (drop, tcp_timeout, blame path, confidence medium)",
		}, cli.ExitInconclusive},
		{"this judge made it", func(m *pb.Measurement) { m.Verdict = aggregate.Judge(m, m.GetResults()) }, []string{
			head + "that of judge " + aggregate.Version, "nothing changed",
		}, cli.ExitFail},
		{"it was not judged", func(m *pb.Measurement) { m.Verdict = nil }, []string{
			head + "none", "outcome unspecified → fail", "+ ERROR regional_block ap-south (drop, tcp_timeout, blame path, confidence medium)",
		}, cli.ExitFail},
	} {
		t.Run(c.what, func(t *testing.T) {
			server := blocked()
			c.change(server.m)
			before := proto.CloneOf(server.m)
			w := newWorld(t).at(server.serve(t))
			got := w.run(t, "show", theID, "--rejudge", "-J")
			if diff := cmp.Diff(c.says, strings.Split(strings.TrimSpace(got.err), "\n")); diff != "" {
				t.Errorf("stderr (-want +got):\n%s", diff)
			}
			m := &pb.Measurement{}
			if err := protojson.Unmarshal([]byte(got.out), m); err != nil {
				t.Fatal(err)
			}
			want := proto.CloneOf(before)
			want.Verdict = aggregate.Judge(before, before.GetResults())
			if diff := cmp.Diff(want, m, protocmp.Transform()); diff != "" || got.code != c.exit {
				t.Errorf("exit %d, want %d; the measurement (-want +got):\n%s", got.code, c.exit, diff)
			}
			if table := w.run(t, "show", theID, "--rejudge"); !strings.Contains(table.err, head) || table.code != c.exit {
				t.Errorf("as a table: exit %d, %s", table.code, table.err)
			}
			if len(server.created) > 0 || !proto.Equal(before, server.m) {
				t.Error("something was written")
			}
		})
	}
}
