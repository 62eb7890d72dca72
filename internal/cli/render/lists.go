package render

import (
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"

	"google.golang.org/protobuf/proto"

	pb "github.com/elsewhere-net/elsewhere/proto/elsewhere/v1"
)

// Agents writes a list of agents; now is the time that "last seen" is counted from. If it is verbose, it tells too when
// each was enrolled, when its certificate ends, and what is missing of its results.
func (s Screen) Agents(list *pb.ListAgentsResponse, now time.Time) error {
	rows := [][]string{s.agentHead()}
	items := make([]proto.Message, 0, len(list.GetAgents()))
	for _, a := range list.GetAgents() {
		items = append(items, a)
		rows = append(rows, s.agentRow(a, now))
	}
	return s.list(list, items, rows)
}

func (s Screen) agentHead() []string {
	head := []string{"ID", "REGION", "COUNTRY", "CITY", "PROVIDER", "AS", "FAMILIES", "STATE", "LAST SEEN", "JOBS"}
	if s.Verbose {
		head = append(head, "ENROLLED", "EXPIRES", "MISSING", "DROPPED")
	}
	return head
}

// agentRow is one agent. In CSV the time when it was last seen is a time, for people it is an age.
func (s Screen) agentRow(a *pb.Agent, now time.Time) []string {
	v := a.GetVantage()
	as, seen := "", ""
	if v.GetAsn() != 0 {
		as = fmt.Sprintf("AS%d", v.GetAsn())
	}
	if t := a.GetLastSeenTime(); t != nil && s.Format == CSV {
		seen = stamp(t)
	} else if t != nil {
		seen = human(max(0, now.Sub(t.AsTime()))) + " ago"
	}
	row := []string{
		a.GetId(), v.GetRegion(), v.GetCountry(), v.GetCity(), v.GetProvider(), as, families(v),
		shortAgentState(a.GetState()), seen, fmt.Sprintf("%d/%d", a.GetRunning(), a.GetCapacity()),
	}
	if s.Verbose {
		d := a.GetDelivery()
		row = append(row, stamp(a.GetEnrollTime()), stamp(a.GetExpireTime()), strconv.FormatUint(d.GetMissing(), 10), strconv.FormatUint(d.GetDropped(), 10))
	}
	return row
}

// families are the address families that an agent has a route to.
func families(v *pb.Vantage) string {
	var out []string
	if v.GetIpv4() {
		out = append(out, "IPv4")
	}
	if v.GetIpv6() {
		out = append(out, "IPv6")
	}
	return strings.Join(out, "+")
}

// Measurements writes a list of measurements.
func (s Screen) Measurements(list *pb.ListMeasurementsResponse) error {
	rows := [][]string{{"ID", "CREATED", "STATE", "OUTCOME", "QUESTION", "ANSWERED"}}
	items := make([]proto.Message, 0, len(list.GetMeasurements()))
	for i, m := range list.GetMeasurements() {
		// A ledger is always there; what is listed belongs to us alone.
		list.Measurements[i] = withLedger(m).(*pb.Measurement)
		items = append(items, list.Measurements[i])
		outcome := ""
		if m.GetVerdict().GetOutcome() != pb.Outcome_OUTCOME_UNSPECIFIED && m.GetState() != pb.State_STATE_RUNNING {
			outcome = shortOutcome(m)
		}
		rows = append(rows, []string{
			m.GetId(), m.GetCreateTime().AsTime().UTC().Format(time.RFC3339), shortState(m.GetState()), outcome, asked(m),
			strconv.Itoa(int(m.GetLedger().GetAnswered())) + "/" + strconv.Itoa(int(m.GetLedger().GetAsked())),
		})
	}
	return s.list(list, items, rows)
}

// list writes a list in the screen's format: whole is the response, items its parts, rows the same
// in cells under a header.
func (s Screen) list(whole proto.Message, items []proto.Message, rows [][]string) error {
	switch s.Format {
	case JSON:
		return WriteJSON(s.Out, whole)
	case JSONL:
		for _, item := range items {
			if err := writeJSONLine(s.Out, item); err != nil {
				return err
			}
		}
		return nil
	case CSV:
		for i, cell := range rows[0] {
			rows[0][i] = strings.ReplaceAll(strings.ToLower(cell), " ", "_")
		}
		return writeCSVRows(s.Out, rows)
	case Table, JUnit:
	}
	return s.table(rows)
}

// table writes aligned columns under a header.
func (s Screen) table(rows [][]string) error {
	for _, r := range rows {
		for i := range r {
			r[i] = Clean(r[i])
			if r[i] == "" && i < len(r)-1 {
				r[i] = "-" // so that columns can be told apart by a script too
			}
		}
	}
	if len(rows) == 1 {
		_, err := io.WriteString(s.Err, "none\n")
		return err
	}
	lines := grid(rows)
	lines[0] = s.theme().strong.Render(lines[0])
	return s.print(lines)
}
