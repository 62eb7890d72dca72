package render

import (
	"os"
	"slices"
	"strings"
)

// quiet is the part of the environment that says which colours a terminal has. The variables by
// which bubbletea decides to ask the terminal for its modes are kept from it: with no input read, the
// answers would end up in the user's shell.
func quiet() []string {
	keep := []string{"NO_COLOR", "CLICOLOR", "CLICOLOR_FORCE", "COLORTERM"}
	out := []string{"SSH_TTY=none", "TERM=xterm-256color"}
	for _, kv := range os.Environ() {
		name, value, _ := strings.Cut(kv, "=")
		if slices.Contains(keep, name) {
			out = append(out, kv)
		}
		// Terminals that bubbletea would ask by their name show what xterm shows; the others keep theirs.
		if name == "TERM" && !slices.ContainsFunc([]string{"ghostty", "wezterm", "alacritty", "kitty", "rio"}, func(t string) bool { return strings.Contains(value, t) }) {
			out[1] = kv
		}
	}
	return out
}
