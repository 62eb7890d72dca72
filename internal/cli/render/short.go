package render

import (
	"fmt"
	"io"
	"slices"

	pb "github.com/elsewhere-net/elsewhere/proto/elsewhere/v1"
)

// writeShort writes the distinct answers of each region, "REGION<tab>ANSWER" a line, and to errs a
// line for each region that has none.
func writeShort(w, errs io.Writer, m *pb.Measurement) error {
	answered := map[string][]string{}
	failed := map[string]string{}
	for _, r := range m.GetResults() {
		region := r.GetVantage().GetRegion()
		for _, s := range targets(r, pb.StepKind_STEP_KIND_DNS_QUERY) {
			if stepMark(s) == markOK {
				answered[region] = append(answered[region], answers(m.GetSpec().GetDns(), s)...)
			} else {
				failed[region] = failures(s)
			}
		}
	}
	for _, region := range regions(m) {
		all := answered[region]
		slices.Sort(all)
		for _, a := range slices.Compact(all) {
			if _, err := fmt.Fprintf(w, "%s\t%s\n", Clean(region), a); err != nil {
				return err
			}
		}
		if len(all) == 0 {
			why := failed[region]
			if why == "" {
				why = "no answer"
			}
			fmt.Fprintf(errs, "%s: %s\n", Clean(region), why)
		}
	}
	return nil
}
