package cli_test

import (
	"context"
	"io"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/testing/protocmp"

	"github.com/elsewhere-net/elsewhere/internal/cli"
	pb "github.com/elsewhere-net/elsewhere/proto/elsewhere/v1"
)

// readers are the command lines that read a file, where FILE stands.
func readers(t *testing.T) map[string]string {
	t.Helper()
	other := file(t, "other", "192.0.2.0/24\n")
	return map[string]string{
		"a profile":             "origin https://a.example --profile FILE",
		"a profile, for tls":    "tls a.example --profile FILE",
		"an allowlist":          "allowlist verify FILE",
		"rules":                 "allowlist cover FILE --ranges " + other,
		"ranges":                "allowlist cover " + other + " --ranges FILE",
		"what a function made":  "edge-response validate FILE --event viewer-request",
		"what it was asked for": "edge-response validate " + other + " --event viewer-request --original FILE",
	}
}

// runOn runs a command line with stdin, FILE being a path.
func runOn(ctx context.Context, stdin io.Reader, line, path string) outcome {
	words := strings.Fields(line)
	words[slices.Index(words, "FILE")] = path
	var out, err strings.Builder
	code := cli.Program{In: stdin, Out: &out, Err: &err, Getenv: func(string) string { return "" }}.Run(ctx, words)
	return outcome{code, out.String(), err.String()}
}

func TestEveryFileIsReadTheSameWay(t *testing.T) {
	none := filepath.Join(t.TempDir(), "none.yaml")
	for what, line := range readers(t) {
		for sentence, tc := range map[string]struct{ path, says string }{
			"not there":   {none, none + ": no such file or directory"},
			"a directory": {"/", "/: is a directory"},
			"endless":     {"/dev/zero", "/dev/zero: larger than "},
		} {
			got := runOn(t.Context(), strings.NewReader(""), line, tc.path)
			if got.code != cli.ExitUsage || got.out != "" || strings.Count(got.err, "\n") != 1 || !strings.Contains(got.err, tc.says) {
				t.Errorf("%s, %s: exit %d\n%s%s", what, sentence, got.code, got.out, got.err)
			}
		}
	}
}

func TestStandardInputIsAFileToo(t *testing.T) {
	for what, line := range readers(t) {
		got := runOn(t.Context(), strings.NewReader("\ufeff{no:"), line, "-")
		if got.code == cli.ExitOK || !strings.Contains(got.out+got.err, "stdin") && !strings.Contains(got.err, "the original: line 1") {
			t.Errorf("%s: exit %d\n%s%s", what, got.code, got.out, got.err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		endless, _ := io.Pipe()
		if got := runOn(ctx, endless, line, "-"); got.code != cli.ExitInterrupted || got.out != "" {
			t.Errorf("%s, interrupted: exit %d\n%s%s", what, got.code, got.out, got.err)
		}
	}
	rules := strings.NewReader("192.0.2.0/24\n")
	if got := runOn(t.Context(), rules, readers(t)["rules"], "-"); got.code != cli.ExitOK || !strings.Contains(got.out, "COVERED: every range") {
		t.Errorf("rules: exit %d\n%s%s", got.code, got.out, got.err)
	}
	if got := runOn(t.Context(), rules, "allowlist cover - --ranges FILE", "-"); got.code != cli.ExitUsage || !strings.Contains(got.err, "stdin can be read once") {
		t.Errorf("twice: exit %d, %s", got.code, got.err)
	}
}

// TestAProfileOfOnesOwnGoesWhole asks a coordinator by a file's profile, and by the name of one that is shipped.
func TestAProfileOfOnesOwnGoesWhole(t *testing.T) {
	c := blocked()
	w := newWorld(t).at(c.serve(t))
	ours := file(t, "ours.yaml", "name: ours\nipv4_only: true\nsources:\n  ipv4_only: { document: our wiki }\n")
	for _, words := range [][]string{
		{"origin", "https://a.example", "--profile", ours},
		{"tls", "a.example", "--profile", ours},
		{"origin", "https://a.example", "--profile", "cloudflare"},
	} {
		w.run(t, words...)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	var got []*pb.Profile
	for _, req := range c.created {
		got = append(got, req.GetSpec().GetOrigin().GetProfile(), req.GetSpec().GetTls().GetProfile())
	}
	whole := &pb.Profile{Name: "ours", Ipv4Only: true, Sources: map[string]*pb.Source{"ipv4_only": {Document: "our wiki"}}}
	if diff := cmp.Diff([]*pb.Profile{whole, nil, nil, whole, {Name: "cloudflare"}, nil}, got, protocmp.Transform()); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}
