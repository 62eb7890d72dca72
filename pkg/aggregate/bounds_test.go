package aggregate

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"google.golang.org/protobuf/proto"

	pb "github.com/elsewhere-net/elsewhere/proto/elsewhere/v1"
)

// farAndWide is one of ten thousand regions, with a name as long as it may be.
func farAndWide(i int) string { return fmt.Sprintf("%05d%s", i, strings.Repeat("x", 58)) }

// What ten thousand agents in as many regions see fits into a message, whatever is found; what does not is
// counted.
func TestAVerdictFitsIntoAMessage(t *testing.T) {
	const regions = 10_000
	everywhere := func(w *world, sees func(i int) []*pb.Step) *world {
		for i := range regions {
			w.in(farAndWide(i), sees(i))
		}
		return w
	}
	quarrels := tcpWorld() // in half as many regions two agents contradict each other
	for i := range regions {
		sees := open(ip1)
		if i%2 == 0 {
			sees = blocked(ip1, timeout)
		}
		quarrels.in(fmt.Sprintf("%s/%d", farAndWide(i/2), i%2), sees)
	}
	denials := func(int) []*pb.Step { // three resolvers that break an expectation in three ways
		return slices.Concat(answers(1, "A", "192.0.2.9"), unnamed(2, nxdomain), unnamed(3, nodata))
	}
	for _, c := range []struct {
		sentence          string
		world             *world
		findings, regions int    // of the last one
		says              string // likewise, at the end of its summary
	}{
		{
			"one finding has room for all regions",
			everywhere(tcpWorld(), func(int) []*pb.Step { return blocked(ip1, timeout) }),
			1, regions, "passed.",
		},
		{
			"so have three",
			everywhere(tlsWorld(), func(int) []*pb.Step {
				return slices.Concat(tls(ip1, "c1", weakKey), tls(ip2, "c1", expired), blocked(ip3, timeout))
			}),
			3, regions, ".",
		},
		{
			"three that list the agents as well do not, and say so",
			everywhere(dnsWorld("A", "192.0.2.1"), denials),
			4, 4096, "Of 10000 regions the first 4096 are told.",
		},
		{"thousands of findings", quarrels, 3628, 1, "Of 5000 findings the first 3628 are told."},
	} {
		t.Run(c.sentence, func(t *testing.T) {
			v := c.world.judge()
			if size := proto.Size(v); size > maxVerdict {
				t.Errorf("the verdict has %d bytes", size)
			}
			last := v.GetFindings()[len(v.GetFindings())-1]
			if len(v.GetFindings()) != c.findings || len(last.GetRegions()) != c.regions || !strings.HasSuffix(last.GetSummary(), c.says) {
				t.Errorf("%d findings; of the last one %d regions: %s", len(v.GetFindings()), len(last.GetRegions()), last.GetSummary())
			}
		})
	}
}
