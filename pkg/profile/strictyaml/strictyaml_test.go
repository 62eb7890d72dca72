package strictyaml_test

import (
	"errors"
	"strings"
	"testing"

	"google.golang.org/protobuf/proto"

	"github.com/elsewhere-net/elsewhere/pkg/profile/strictyaml"
	pb "github.com/elsewhere-net/elsewhere/proto/elsewhere/v1"
)

// named is a rule: a source has a document.
type named struct{}

func (named) Validate(m proto.Message) error {
	if m.(*pb.Source).GetDocument() == "" {
		return errors.New("no document")
	}
	return nil
}

func read(text string) (*pb.Source, error) {
	m := &pb.Source{}
	return m, strictyaml.File{Path: "f.yaml", Max: 1024, Rules: named{}}.Unmarshal([]byte(text), m)
}

func TestWhatIsNotOneTextOfOneDocumentIsAnError(t *testing.T) {
	for sentence, c := range map[string]struct{ text, want string }{
		"too much":                       {"document: x\n#" + strings.Repeat("x", 1024), "f.yaml: larger than 1 KiB"},
		"not UTF-8":                      {"document: \xff", "f.yaml: it is not UTF-8"},
		"UTF-16":                         {"\xff\xfen\x00:\x00", "f.yaml: it is not UTF-8"},
		"a field twice":                  {"document: x\ndocument: y\n", `f.yaml: yaml: unmarshal errors: line 2: mapping key "document" already defined at line 1`},
		"a field twice, the second null": {"document: x\ndocument:\n", "already defined at line 1"},
		"a second document":              {"document: x\n---\ndocument: y\n", "f.yaml: it holds more than one document"},
		"an empty document before it":    {"---\n---\ndocument: x\n", "f.yaml: it holds more than one document"},
		"an anchor within itself":        {"document: &a [*a]\n", "contains itself"},
		"an unknown field":               {"document: x\n\nnot: y\n", "f.yaml:3:1 unknown field"},
		"an unknown field, by lone CRs":  {"document: x\r\rnot: y\r", "f.yaml:3:1 unknown field"},
		"and by U+2028":                  {"document: x\u2028\u2028not: y", "f.yaml:3:1 unknown field"},
		"two mistakes":                   {"document: x\nnot: y\nnor: z\n", "(and 1 more)"},
		"what the rules refuse":          {"date: x\n", "no document"},
		"too deep":                       {strings.Repeat("[", 1000), "f.yaml: "},
	} {
		_, err := read(c.text)
		if err == nil || !strings.Contains(err.Error(), c.want) || strings.Contains(err.Error(), "\n") {
			t.Errorf("%s: %v; want one line with %q", sentence, err, c.want)
		}
	}
}

// TestNothingPanics: protoyaml 0.7.0 does, where a line of its parser is none of strings.Lines.
func TestNothingPanics(t *testing.T) {
	for _, end := range []string{"\r", "\u0085", "\u2028", "\u2029", "---", "---\n", "\n---\n\n", "...\n---\n", "# x"} {
		for _, text := range []string{end, end + end, "document: x\n" + end, end + "document: x", "not: x" + end, "a" + end + "- b"} {
			_, _ = read(text)
		}
	}
}

func TestAnyEndOfLinesWillDo(t *testing.T) {
	for _, end := range []string{"\n", "\r\n", "\r", "\u0085", "\u2028", "\u2029"} {
		if m, err := read("document: x" + end + "note: y" + end); err != nil || m.GetDocument() != "x" || m.GetNote() != "y" {
			t.Errorf("%q: %v, %v", end, m, err)
		}
	}
}

// TestAliasesDoNotMultiply: nine levels of nine are a billion.
func TestAliasesDoNotMultiply(t *testing.T) {
	var b strings.Builder
	b.WriteString("l0: &l0 [x]\n")
	for level := range 9 {
		above, below := string(rune('1'+level)), string(rune('0'+level))
		b.WriteString("l" + above + ": &l" + above + " [" + strings.Repeat("*l"+below+", ", 8) + "*l" + below + "]\n")
	}
	if _, err := read(b.String()); err == nil || !strings.Contains(err.Error(), "excessive aliasing") {
		t.Errorf("got %v", err)
	}
}

func FuzzUnmarshal(f *testing.F) {
	f.Add("document: x\nnote: y\n")
	f.Add("---\r\u2028document: [&a b, *a]\r0")
	f.Fuzz(func(t *testing.T, text string) {
		if m, err := read(text); err == nil && m.GetDocument() == "" && proto.Size(m) > 0 {
			t.Errorf("%q is read as %v, past the rules", text, m)
		}
	})
}
