package render

import (
	"cmp"
	"encoding/hex"
	"strconv"
	"strings"

	"google.golang.org/protobuf/proto"

	pb "github.com/elsewhere-net/elsewhere/proto/elsewhere/v1"
)

// Coordinators writes a list of coordinators. For people a state is its beginning.
func (s Screen) Coordinators(list *pb.ListCoordinatorsResponse) error {
	rows := [][]string{{"NAME", "STATE", "ADDRESS", "POSITION", "LAG", "HASH", "LEADS", "VERSION", "NOTE"}}
	items := make([]proto.Message, 0, len(list.GetCoordinators()))
	several := formats(list.GetCoordinators()) > 1
	for _, c := range list.GetCoordinators() {
		items = append(items, c)
		st := c.GetState()
		row := []string{c.GetName(), liveness(c), c.GetGrpcAddress(), "", "", "", "", c.GetVersion(), ""}
		if st != nil {
			hash := hex.EncodeToString(st.GetStateHash())
			if s.Format == Table {
				hash = hash[:min(len(hash), 12)]
			}
			note := st.GetUnready()
			if st.GetDiffersFrom() != "" {
				note = "its state differs from that of " + st.GetDiffersFrom()
			}
			if several && note == "" {
				note = "of format " + cmp.Or(st.GetFoldFormat(), "unknown") + ": compare its hash with its like alone"
			}
			row[3], row[4], row[5] = strconv.FormatUint(st.GetPosition(), 10), strconv.FormatUint(st.GetLag(), 10), hash
			row[6], row[8] = strings.Join(st.GetLeads(), " "), note
		}
		rows = append(rows, row)
	}
	return s.list(list, items, rows)
}

// formats is in how many ways they fold the log: while they are upgraded there may be two.
func formats(all []*pb.Coordinator) int {
	ways := map[string]bool{}
	for _, c := range all {
		if c.GetState() != nil {
			ways[c.GetState().GetFoldFormat()] = true
		}
	}
	return len(ways)
}

// liveness is how a coordinator is, in a word.
func liveness(c *pb.Coordinator) string {
	switch {
	case c.GetLiveness() == pb.Liveness_LIVENESS_ALIVE && c.GetState().GetUnready() == "" && c.GetState() != nil:
		return "ready"
	case c.GetLiveness() == pb.Liveness_LIVENESS_ALIVE:
		return "not ready"
	}
	return strings.ToLower(strings.TrimPrefix(c.GetLiveness().String(), "LIVENESS_"))
}
