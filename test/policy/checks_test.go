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
	short := strings.ToLower(strings.TrimPrefix(failure, "FAILURE_"))
	source := testsOf(t, named[1])
	if why := missing(source, named); why != "" {
		return why
	}
	if !strings.Contains(source, "pb.Failure_"+failure) && !strings.Contains(source, " "+short+`"`) {
		return "is in a package that tests no such failure"
	}
	return ""
}

// testsOf is the source of a package's tests.
func testsOf(t *testing.T, name string) string {
	t.Helper()
	dir := map[string]string{
		"probe": "pkg/probe", "aggregate": "pkg/aggregate", "agent": "internal/agent", "cli": "internal/cli",
		"coordinator": "internal/coordinator", "lab": "test/lab",
	}[name]
	patterns := []string{dir + "/*_test.go"}
	if name == "probe" {
		patterns = append(patterns, "pkg/probe/probetest/zoo*.go") // cases of the zoo
	}
	return sourceOf(t, patterns...)
}

// sourceOf is the text of all files of patterns, seen from the root.
func sourceOf(t *testing.T, patterns ...string) string {
	t.Helper()
	var text strings.Builder
	for _, pattern := range patterns {
		files, err := filepath.Glob("../../" + pattern)
		if err != nil {
			t.Fatal(err)
		}
		for _, f := range files {
			source, err := os.ReadFile(f)
			if err != nil {
				t.Fatal(err)
			}
			text.Write(source)
		}
	}
	return text.String()
}

// missing says what of a test that is named is not in the source, "" for nothing.
func missing(source string, named []string) string {
	switch {
	case source == "":
		return "is in no package that is known"
	case !strings.Contains(source, "func "+named[2]+"("):
		return "is not there"
	case named[3] != "" && !strings.Contains(source, `"`+named[3]):
		return "has no case “" + named[3] + "”"
	}
	return ""
}
