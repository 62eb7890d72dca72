package policy

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	pb "github.com/elsewhere-net/elsewhere/proto/elsewhere/v1"
)

// shown is a test that docs/checks.md names, with the sentence of its case.
var shown = regexp.MustCompile("`(\\w+): (Test\\w+)`(?: “([^”]+)”)?")

// TestEveryFailureIsShownByATest holds docs/checks.md against the contract and the tests: each failure has
// a row, and a row's test is there, has the case that is named, and is about that failure.
func TestEveryFailureIsShownByATest(t *testing.T) {
	text, err := os.ReadFile("../../docs/checks.md")
	if err != nil {
		t.Fatal(err)
	}
	rows := map[string]string{}
	for line := range strings.Lines(string(text)) {
		if cells := strings.Split(line, "|"); len(cells) == 6 && strings.HasPrefix(cells[1], " `") {
			rows[strings.Trim(cells[1], " `")] = cells[4]
		}
	}
	for number, name := range pb.Failure_name {
		short := strings.ToLower(strings.TrimPrefix(name, "FAILURE_"))
		if number <= int32(pb.Failure_FAILURE_NONE) {
			continue
		}
		by, ok := rows[short]
		delete(rows, short)
		tests := shown.FindAllStringSubmatch(by, -1)
		if !ok || len(tests) == 0 {
			t.Errorf("docs/checks.md has no row for %s with a test", short)
		}
		for _, one := range tests {
			if why := notShown(t, name, one); why != "" {
				t.Errorf("docs/checks.md, %s: %s: %s %s", short, one[1], one[2], why)
			}
		}
	}
	for short := range rows {
		t.Errorf("docs/checks.md has a row for %s, which is no failure", short)
	}
}

// notShown says what is wrong with a test that a row names, "" for nothing. The failure's name is
// somewhere in the package's tests, as cases share their names for it.
func notShown(t *testing.T, failure string, named []string) string {
	t.Helper()
	dir := map[string]string{"probe": "pkg/probe", "agent": "internal/agent", "lab": "test/lab"}[named[1]]
	files, err := filepath.Glob("../../" + dir + "/*_test.go")
	if err != nil || len(files) == 0 {
		return "is in no package that is known"
	}
	animals, err := filepath.Glob("../../pkg/probe/probetest/zoo*.go") // cases of the zoo
	if err != nil {
		t.Fatal(err)
	}
	function, sentence, meant := false, named[3] == "", false
	short := strings.ToLower(strings.TrimPrefix(failure, "FAILURE_"))
	for _, f := range append(files, animals...) {
		source, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		text := string(source)
		function = function || strings.Contains(text, "func "+named[2]+"(")
		sentence = sentence || strings.Contains(text, `"`+named[3])
		meant = meant || strings.Contains(text, "pb.Failure_"+failure) || strings.Contains(text, " "+short+`"`)
	}
	switch {
	case !function:
		return "is not there"
	case !sentence:
		return "has no case “" + named[3] + "”"
	case !meant:
		return "is in a package that tests no such failure"
	}
	return ""
}
