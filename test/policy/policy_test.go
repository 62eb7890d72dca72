// Package policy holds the rules of the house that a compiler does not: which package may import
// which, and that each says what it is for.
package policy

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

const module = "github.com/elsewhere-net/elsewhere/"

// pkg is what `go list` says of a package.
type pkg struct {
	ImportPath string
	Doc        string
	Imports    []string
	Deps       []string
	GoFiles    []string
}

// list lists the packages of the module, by path below the module.
func list(t *testing.T) map[string]pkg {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "go", "list", "-json=ImportPath,Doc,Imports,Deps,GoFiles", "./...")
	cmd.Dir = "../.."
	cmd.Stderr = os.Stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatal(err)
	}
	packages := map[string]pkg{}
	for d := json.NewDecoder(strings.NewReader(string(out))); ; {
		var p pkg
		if err := d.Decode(&p); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			t.Fatal(err)
		}
		packages[strings.TrimPrefix(p.ImportPath, module)] = p
	}
	if len(packages) < 10 {
		t.Fatalf("only %d packages", len(packages))
	}
	return packages
}

// ours are the imports of the module's own packages, by path below the module.
func ours(imports []string) (paths []string) {
	for _, i := range imports {
		if below, ok := strings.CutPrefix(i, module); ok {
			paths = append(paths, below)
		}
	}
	return paths
}

func TestArrowsPointDown(t *testing.T) {
	rank := func(path string) int {
		for i, layer := range []string{"proto/", "pkg/", "internal/", "cmd/", "bench", "test/"} {
			if strings.HasPrefix(path+"/", layer) {
				return i
			}
		}
		t.Fatalf("%s is in no layer", path)
		return 0
	}
	for path, p := range list(t) {
		for _, below := range ours(p.Imports) {
			switch {
			case rank(below) > rank(path):
				t.Errorf("%s imports %s: arrows point down, cmd → internal → pkg → proto", path, below)
			case rank(below) == 3:
				t.Errorf("%s imports %s: nothing imports cmd", path, below)
			case strings.HasPrefix(path, "pkg/") && strings.HasPrefix(below, "pkg/") && family(path) != family(below) && below != registries:
				t.Errorf("%s imports %s: packages of pkg stand alone", path, below)
			}
		}
	}
}

// registries holds IANA's names of TLS, which are the same for whoever measures and whoever describes.
const registries = "pkg/probe/flight"

// family is the package of pkg that a package belongs to: it and what is below it.
func family(path string) string {
	return strings.Join(strings.SplitN(path, "/", 3)[:2], "/")
}

func TestOneImporterForEachTechnology(t *testing.T) {
	for technology, importers := range map[string][]string{
		"github.com/nats-io/nats.go":                     {"internal/bus"},
		"github.com/nats-io/nats-server/v2/server":       {"internal/bus/embedded"},
		"go.etcd.io/bbolt":                               {"internal/store"},
		"charm.land/bubbletea/v2":                        {"internal/cli/render"},
		"golang.org/x/crypto/x509roots/fallback/bundle":  {"pkg/probe"},
		"github.com/prometheus/client_golang/prometheus": {"internal/coordinator"},
		"github.com/hashicorp/memberlist":                {"internal/cluster"},
		module + "pkg/aggregate":                         {"internal/store", "internal/coordinator", "internal/cli", "internal/cli/render"},
		"golang.org/x/sys/unix":                          {"pkg/probe", "pkg/probe/probetest", "pkg/probe/probetest/space", "internal/agent"},
	} {
		for path, p := range list(t) {
			if slices.Contains(p.Imports, technology) && !slices.Contains(importers, path) {
				t.Errorf("%s imports %s: that is for %s", path, technology, strings.Join(importers, ", "))
			}
		}
	}
}

func TestTheAgentStaysSmall(t *testing.T) {
	for _, heavy := range []string{
		"github.com/nats-io/nats-server/v2/server", "buf.build/go/protovalidate", "go.etcd.io/bbolt",
		"github.com/prometheus/client_golang/prometheus", "github.com/hashicorp/memberlist", module + "pkg/aggregate",
	} {
		if slices.Contains(list(t)["cmd/agent"].Deps, heavy) {
			t.Errorf("the agent carries %s", heavy)
		}
	}
}

func TestEveryPackageSaysWhatItIsFor(t *testing.T) {
	for path, p := range list(t) {
		if len(p.GoFiles) > 0 && p.Doc == "" && !strings.HasPrefix(path, "proto/") {
			t.Errorf("%s has no package comment", path)
		}
		if base := filepath.Base(path); slices.Contains([]string{"util", "utils", "common", "types", "config", "helpers", "misc"}, base) {
			t.Errorf("%s is a drawer, not a package", path)
		}
	}
}

func TestGeneratedPackagesHoldNothingHandwritten(t *testing.T) {
	files, err := filepath.Glob("../../proto/elsewhere/v1/*.go")
	if err != nil || len(files) == 0 {
		t.Fatal(files, err)
	}
	for _, f := range files {
		if !strings.HasSuffix(f, ".pb.go") {
			t.Errorf("%s is handwritten", f)
		}
	}
}

func TestDocumentsNameTestsThatExist(t *testing.T) {
	var sources strings.Builder
	eachTestFile(t, func(_ string, source []byte) { sources.Write(source) })
	for _, page := range []string{"docs/invariants.md", "docs/reliability.md"} {
		names := testName.FindAllString(read(t, "../../"+page), -1)
		if len(names) < 10 {
			t.Errorf("%s names only %d tests", page, len(names))
		}
		for _, name := range names {
			if !strings.Contains(sources.String(), "func "+name+"(") {
				t.Errorf("%s names %s, which is not there", page, name)
			}
		}
	}
}

var testName = regexp.MustCompile(`\b(Test|Fuzz)[A-Z]\w+`)

// TestEveryThreatHasATest: the table has a row for each of T1 to T17, and each row a test.
func TestEveryThreatHasATest(t *testing.T) {
	page := read(t, "../../docs/reliability.md")
	for n := 1; n <= 17; n++ {
		row := regexp.MustCompile(fmt.Sprintf(`(?m)^\| T%d \|.*$`, n)).FindString(page)
		if !testName.MatchString(row) {
			t.Errorf("T%d has no test: %q", n, row)
		}
	}
}

// eachTestFile calls visit for every test file of the module.
func eachTestFile(t *testing.T, visit func(path string, source []byte)) {
	t.Helper()
	err := filepath.WalkDir("../..", func(path string, _ os.DirEntry, err error) error {
		if err != nil || !strings.HasSuffix(path, "_test.go") {
			return err
		}
		source, err := os.ReadFile(path)
		visit(path, source)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}

func TestTestsDoNotSleep(t *testing.T) {
	sleep := regexp.MustCompile(`\btime\.` + `Sleep\(`)
	eachTestFile(t, func(path string, source []byte) {
		// In a bubble time is not real: sleeping is how it passes (testing/synctest).
		if sleep.Match(source) && !strings.Contains(string(source), `"testing/synctest"`) {
			t.Errorf("%s sleeps", path)
		}
	})
}
