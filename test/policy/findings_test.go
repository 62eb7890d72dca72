package policy

import (
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	pb "github.com/elsewhere-net/elsewhere/proto/elsewhere/v1"
)

// function is a function of the judge that docs/findings.md names.
var function = regexp.MustCompile("`(\\w+)\\(\\)`")

// TestEveryFindingHasItsEvidence holds docs/findings.md against the contract, the judge and the tests: what
// the judge can say has a row with a test, each function and each test that is named is there, and so is each
// rule of evidence.
func TestEveryFindingHasItsEvidence(t *testing.T) {
	text, err := os.ReadFile("../../docs/findings.md")
	if err != nil {
		t.Fatal(err)
	}
	page := string(text)
	judge := sourceOf(t, "pkg/aggregate/*.go")
	for _, f := range function.FindAllStringSubmatch(page, -1) {
		if !regexp.MustCompile(`(?m)^func (\([^)]*\) )?` + f[1] + `\(`).MatchString(judge) {
			t.Errorf("%s() is not in pkg/aggregate", f[1])
		}
	}
	for _, named := range shown.FindAllStringSubmatch(page, -1) {
		if why := missing(testsOf(t, named[1]), named); why != "" {
			t.Errorf("%s: %s %s", named[1], named[2], why)
		}
	}
	rows := rowsOf(page)
	codes := maps.Clone(pb.FindingCode_name)
	maps.DeleteFunc(codes, func(_ int32, name string) bool { return !made(t, name) })
	checkRows(t, rows, "FINDING_CODE_", codes)
	checkRows(t, rows, "BLOCK_KIND_", pb.BlockKind_name)
	checkRows(t, rows, "BLAME_", pb.Blame_name)
	checkRows(t, rows, "CONFIDENCE_", pb.Confidence_name)
	for i := range (&pb.Policy{}).ProtoReflect().Descriptor().Fields().Len() {
		field := string((&pb.Policy{}).ProtoReflect().Descriptor().Fields().Get(i).Name())
		if rows["`"+field+"`"] == "" {
			t.Errorf("no row for %s of the policy", field)
		}
	}
	for rule := range 22 {
		if row := rows[strconv.Itoa(rule+1)]; !shown.MatchString(row) {
			t.Errorf("no test that holds rule %d", rule+1)
		}
	}
}

// made says whether the judge makes a finding: its code is somewhere else than among the severities.
func made(t *testing.T, code string) bool {
	t.Helper()
	files, err := filepath.Glob("../../pkg/aggregate/*.go")
	if err != nil {
		t.Fatal(err)
	}
	return slices.ContainsFunc(files, func(f string) bool {
		if strings.HasSuffix(f, "_test.go") || strings.HasSuffix(f, "/vocabulary.go") {
			return false
		}
		source, err := os.ReadFile(f)
		return err == nil && strings.Contains(string(source), "FindingCode_"+code)
	})
}

// rowsOf are the rows of all tables, by their first cell.
func rowsOf(page string) map[string]string {
	rows := map[string]string{}
	for line := range strings.Lines(page) {
		if cells := strings.SplitN(line, "|", 3); len(cells) == 3 && cells[0] == "" {
			rows[strings.TrimSpace(cells[1])] = cells[2]
		}
	}
	return rows
}

// checkRows: each value of an enum has a row; a finding or a block in its row a test that is about it.
func checkRows(t *testing.T, rows map[string]string, prefix string, values map[int32]string) {
	t.Helper()
	tests := testsOf(t, "aggregate") + testsOf(t, "lab")
	for number, name := range values {
		short := strings.ToLower(strings.TrimPrefix(name, prefix))
		row := rows["`"+short+"`"]
		switch {
		case number == 0:
		case row == "":
			t.Errorf("no row for %s", name)
		case prefix != "FINDING_CODE_" && prefix != "BLOCK_KIND_":
		case !shown.MatchString(row):
			t.Errorf("no test in the row of %s", short)
		case !strings.Contains(tests, " "+short+" ") && !strings.Contains(tests, "="+short+" ") && !strings.Contains(tests, name):
			t.Errorf("no test is about %s", short)
		}
	}
}
