package render

import (
	"encoding/csv"
	"io"
	"strconv"
	"strings"
	"time"

	"github.com/elsewhere-net/elsewhere/pkg/aggregate"
	pb "github.com/elsewhere-net/elsewhere/proto/elsewhere/v1"
)

// writeCSV writes a row for each step about the target, quoted as RFC 4180 says.
func writeCSV(w io.Writer, m *pb.Measurement) error {
	out := [][]string{{
		"measurement", "agent", "region", "country", "city", "provider", "asn",
		"kind", "name", "address", "failure", "failures", "duration_ms", "attempts",
		"answers", "version", "status",
	}}
	for _, r := range m.GetResults() {
		for _, s := range r.GetSteps() {
			if s.GetRole() == pb.Role_ROLE_TARGET {
				out = append(out, csvRow(m.GetId(), r, s))
			}
		}
	}
	return writeCSVRows(w, out)
}

// csvRow is one step.
func csvRow(id string, r *pb.Result, s *pb.Step) []string {
	v, e := r.GetVantage(), s.GetEvidence()
	all := make([]string, len(s.GetFailures()))
	for i, f := range s.GetFailures() {
		all[i] = aggregate.ShortFailure(f)
	}
	return []string{
		id, r.GetAgent(), v.GetRegion(), v.GetCountry(), v.GetCity(), v.GetProvider(), strconv.FormatUint(uint64(v.GetAsn()), 10),
		shortKind(s.GetKind()), s.GetName(), s.GetAddress(), aggregate.ShortFailure(s.GetFailure()), strings.Join(all, " "),
		strconv.FormatFloat(float64(s.GetDuration().AsDuration())/float64(time.Millisecond), 'f', 3, 64),
		strconv.Itoa(int(s.GetAttempts())), csvAnswers(s), e.GetTls().GetVersion() + e.GetHttp().GetVersion(), csvStatus(s),
	}
}

// csvAnswers are the data of the type that was asked for, with a semicolon between them.
func csvAnswers(s *pb.Step) string {
	if s.GetKind() != pb.StepKind_STEP_KIND_DNS_QUERY {
		return ""
	}
	return strings.Join(answersOf(s, s.GetType()), "; ")
}

// csvStatus is the status of a response, or the rcode of a reply.
func csvStatus(s *pb.Step) string {
	if n := s.GetEvidence().GetHttp().GetStatus(); n != 0 {
		return strconv.FormatUint(uint64(n), 10)
	}
	return counted(s).GetRcode()
}

// inert is a cell that no spreadsheet takes for a formula: one that begins like it gets an apostrophe before it, as
// spreadsheets have it for text. Numbers stay as they are.
func inert(cell string) string {
	if cell == "" || !strings.ContainsRune("=+-@", rune(cell[0])) {
		return cell
	}
	if _, err := strconv.ParseFloat(cell, 64); err == nil {
		return cell
	}
	return "'" + cell
}

// writeCSVRows writes rows of cells that may hold anything.
func writeCSVRows(w io.Writer, rows [][]string) error {
	out := csv.NewWriter(w)
	for _, r := range rows {
		for i := range r {
			r[i] = inert(Clean(r[i]))
		}
		if err := out.Write(r); err != nil {
			return err
		}
	}
	out.Flush()
	return out.Error()
}
