package policy

import (
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"unicode/utf8"

	pb "github.com/elsewhere-net/elsewhere/proto/elsewhere/v1"
)

// link is a link of Markdown to something in this repository.
var link = regexp.MustCompile(`\]\(([^):#]*)(#[^)]*)?\)`)

func TestLinksOfDocumentsLeadSomewhere(t *testing.T) {
	pages, err := filepath.Glob("../../docs/*.md")
	if err != nil || len(pages) == 0 {
		t.Fatal(pages, err)
	}
	for _, page := range append(pages, "../../README.md", "../../ARCHITECTURE.md", "../../bench/README.md", "../lab/README.md") {
		for _, to := range link.FindAllStringSubmatch(read(t, page), -1) {
			target := page
			if to[1] != "" {
				target = filepath.Join(filepath.Dir(page), to[1])
			}
			if _, err := os.Stat(target); err != nil {
				t.Errorf("%s: %v", page, err)
			} else if to[2] != "" && !anchored(read(t, target), to[2][1:]) {
				t.Errorf("%s: %s has no heading %s", page, target, to[2])
			}
		}
	}
}

// cited is a document of Markdown that a text names.
var cited = regexp.MustCompile(`[\w./-]+\.md\b`)

// TestDocumentsThatAreCitedAreThere: what a comment or a page names as its source, a reader must be able to open.
func TestDocumentsThatAreCitedAreThere(t *testing.T) {
	const root = "../.."
	seen := 0
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case d.IsDir() && (d.Name() == ".git" || d.Name() == "third_party"):
			return filepath.SkipDir
		case d.IsDir() || !slices.Contains([]string{".go", ".md", ".proto", ".yaml", ".json", ""}, filepath.Ext(path)) || !utf8.ValidString(read(t, path)):
			return nil
		}
		for _, name := range cited.FindAllString(read(t, path), -1) {
			seen++
			_, fromRoot := os.Stat(filepath.Join(root, name))
			_, fromHere := os.Stat(filepath.Join(filepath.Dir(path), name))
			if fromRoot != nil && fromHere != nil {
				t.Errorf("%s cites %s, which is not there", path, name)
			}
		}
		return nil
	})
	if err != nil || seen < 50 {
		t.Errorf("%d documents are cited: %v", seen, err)
	}
}

// anchored says whether a page has a heading that is linked to so.
func anchored(page, anchor string) bool {
	for line := range strings.Lines(page) {
		if !strings.HasPrefix(line, "#") {
			continue
		}
		heading := strings.ToLower(strings.TrimSpace(strings.TrimLeft(line, "#")))
		heading = regexp.MustCompile(`[^\pL\pN _-]`).ReplaceAllString(heading, "")
		if strings.ReplaceAll(heading, " ", "-") == anchor {
			return true
		}
	}
	return false
}

func TestTheReadmeNamesWhatTheJudgeSays(t *testing.T) {
	_, list, _ := strings.Cut(read(t, "../../README.md"), "What it can say now:")
	list, _, _ = strings.Cut(list, "\n\n")
	for number, code := range pb.FindingCode_name {
		short := "`" + strings.ToLower(strings.TrimPrefix(code, "FINDING_CODE_")) + "`"
		if said := strings.Contains(list, short); number != 0 && said != made(t, code) {
			t.Errorf("%s: README %v, judge %v", short, said, !said)
		}
	}
}

func TestTheMapOfTheJudgeHasAllItsFiles(t *testing.T) {
	files, err := filepath.Glob("../../pkg/aggregate/*.go")
	if err != nil || len(files) == 0 {
		t.Fatal(files, err)
	}
	chart := read(t, "../../pkg/aggregate/doc.go")
	for _, f := range files {
		name := filepath.Base(f)
		if !strings.HasSuffix(name, "_test.go") && name != "doc.go" && !regexp.MustCompile(`[ \t]`+name).MatchString(chart) {
			t.Errorf("the package comment does not name %s", name)
		}
	}
	for _, name := range regexp.MustCompile(`\w+\.go\b`).FindAllString(chart, -1) {
		if _, err := os.Stat("../../pkg/aggregate/" + name); err != nil {
			t.Errorf("the package comment names %s: %v", name, err)
		}
	}
}

// read is the text of a file.
func read(t *testing.T, path string) string {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}
