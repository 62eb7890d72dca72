package cli_test

import (
	"os"
	"regexp"
	"strings"
	"testing"

	"github.com/elsewhere-net/elsewhere/internal/cli"
)

// shellWords splits a command line as a shell does, as far as examples need it: single quotes, and a
// comment at the end.
func shellWords(line string) (words []string) {
	line, _, _ = strings.Cut(line, " #")
	quoted, open := false, false
	for _, r := range line {
		switch {
		case r == '\'':
			quoted = !quoted
		case r == ' ' && !quoted:
			open = false
			continue
		}
		if !open {
			words, open = append(words, ""), true
		}
		if r != '\'' {
			words[len(words)-1] += string(r)
		}
	}
	return words
}

// TestExamplesAreGoodQuestions runs the examples of the help and of the README: none is a wrong request.
func TestExamplesAreGoodQuestions(t *testing.T) {
	w := newWorld(t).at(blocked().serve(t))
	w.run(t, "tcp", "example.com:443") // so that there is a last one
	readme, err := os.ReadFile("../../README.md")
	if err != nil {
		t.Fatal(err)
	}
	text := string(readme)
	for _, check := range []string{"dns", "tcp", "tls", "http", "origin", "propagation"} {
		text += w.run(t, check, "--help").out
	}
	lines := regexp.MustCompile(`(?m)^(?:  |\$ )?(?:bin/)?elsewhere ((?:dns|tcp|tls|http|origin|propagation) .*)$`).FindAllStringSubmatch(text, -1)
	if len(lines) < 30 {
		t.Errorf("only %d examples", len(lines))
	}
	for _, line := range lines {
		if strings.HasSuffix(line[1], "[flags]") {
			continue // how it is used, and no example
		}
		once, _, _ := strings.Cut(line[1], " --watch") // which goes on for an hour
		args := shellWords(once)
		for i := range args {
			if args[i] == "--coordinator" {
				args[i+1] = w["ELSEWHERE_COORDINATOR"]
			}
		}
		if got := w.run(t, args...); got.code == cli.ExitUsage || got.code == cli.ExitNetwork {
			t.Errorf("%s: exit %d, %s", line[1], got.code, got.err)
		}
	}
}

func TestShellWords(t *testing.T) {
	for line, want := range map[string]string{
		"tcp a:1 from b":    "tcp|a:1|from|b",
		"tcp '[::1]:22' -6": "tcp|[::1]:22|-6",
		"http u -H 'A: b c' --expect-header 'D: e' -v": "http|u|-H|A: b c|--expect-header|D: e|-v",
		"tcp localhost:1   # in another one":           "tcp|localhost:1",
	} {
		if got := strings.Join(shellWords(line), "|"); got != want {
			t.Errorf("%s: got %s, want %s", line, got, want)
		}
	}
}
