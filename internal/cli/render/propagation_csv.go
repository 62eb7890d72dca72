package render

import (
	"io"
	"strconv"
	"strings"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/elsewhere-net/elsewhere/pkg/aggregate"
	pb "github.com/elsewhere-net/elsewhere/proto/elsewhere/v1"
)

// writePropagationCSV writes a row for each perspective, and for each of the zone's own servers that serves
// something else. A state is serving, waiting (for what is expected), unknown, or behind: waiting does not help.
func writePropagationCSV(w io.Writer, m *pb.Measurement) error {
	p := PropagationOf(m).GetPropagation()
	rows := [][]string{{"measurement", "kind", "region", "server", "name", "state", "serves", "failure", "until", "agents"}}
	for _, one := range p.GetPerspectives() {
		kind := "own"
		if one.GetPublic() {
			kind = "public"
		}
		rows = append(rows, perspectiveRow(m, kind, one))
	}
	for _, one := range p.GetAuthorities() {
		rows = append(rows, perspectiveRow(m, "authority", one))
	}
	return writeCSVRows(w, rows)
}

// perspectiveRow is one row.
func perspectiveRow(m *pb.Measurement, kind string, p *pb.Perspective) []string {
	state := map[mark]string{markOK: "serving", markFail: "waiting", markUnknown: "unknown"}[perspectiveMark(p)]
	if kind == "authority" {
		state = "behind"
	}
	return []string{
		m.GetId(), kind, p.GetRegion(), p.GetServer(), p.GetName(), state, strings.Join(p.GetValues(), "; "),
		aggregate.ShortFailure(p.GetFailure()), instant(p.GetUntil()), strconv.Itoa(len(p.GetAgents())),
	}
}

// instant is a time as RFC 3339 has it, in UTC; "" for none.
func instant(t *timestamppb.Timestamp) string {
	if t == nil {
		return ""
	}
	return t.AsTime().UTC().Format(time.RFC3339)
}
