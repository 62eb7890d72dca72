package cli_test

import (
	"os"
	"regexp"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/elsewhere-net/elsewhere/internal/cli/allowlist"
)

// offline is a command line of the README that asks nobody, and what it printed.
var offline = regexp.MustCompile("(?m)^\\$ elsewhere ((?:allowlist cover|edge-response) [^\n]*)\n((?s:.*?))^```")

// TestTheReadmeShowsWhatIsPrintedOffline runs what the README shows and needs no network: word by word the same.
func TestTheReadmeShowsWhatIsPrintedOffline(t *testing.T) {
	const path = "../../README.md"
	text := string(must[[]byte](t)(os.ReadFile(path)))
	found := offline.FindAllStringSubmatchIndex(text, -1)
	if len(found) < 2 {
		t.Errorf("only %d transcripts", len(found))
	}
	printed := make([]string, len(found))
	t.Run("in its directory", func(t *testing.T) {
		t.Chdir("testdata/readme")
		for i, at := range found {
			printed[i] = newWorld(t).run(t, shellWords(text[at[2]:at[3]])...).out
			if diff := cmp.Diff(text[at[4]:at[5]], printed[i]); diff != "" && !*update {
				t.Errorf("%s (-README +printed):\n%s", text[at[2]:at[3]], diff)
			}
		}
	})
	if *update {
		rewrite(t, path, text, found, printed)
	}
}

// TestTheAllowlistOfTheReadmeIsOne reads the file that the README shows.
func TestTheAllowlistOfTheReadmeIsOne(t *testing.T) {
	_, text, _ := strings.Cut(string(must[[]byte](t)(os.ReadFile("../../README.md"))), "$ cat partners.yaml\n")
	text, _, _ = strings.Cut(text, "$ elsewhere")
	rules := must[[]allowlist.Rule](t)(allowlist.Parse("partners.yaml", []byte(text)))
	if len(rules) != 2 {
		t.Errorf("%d rules", len(rules))
	}
}
