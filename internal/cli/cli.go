// Package cli is the command line: it asks a coordinator questions and shows what it answers. What it
// prints, its flags and its exit codes are a contract that scripts depend on.
package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"github.com/elsewhere-net/elsewhere/internal/cli/render"
)

// Program is the command line with what it needs of the world. Its zero value is the real one.
type Program struct {
	// Version is the version of the program.
	Version string
	// In is what a command reads that is given "-" for a file. Default: stdin.
	In io.Reader
	// Out takes the data, Err everything else. Default: stdout and stderr.
	Out, Err io.Writer
	// Getenv reads the environment. Default: os.Getenv.
	Getenv func(string) string
	// Extra are commands beside those of this package.
	Extra []*cobra.Command
}

// Run runs one command line, without the program's name, and returns its exit code. Whatever goes
// wrong is one line on Err.
func (p Program) Run(ctx context.Context, args []string) int {
	p = p.real()
	root := p.root()
	root.SetArgs(args)
	err := unknownFirst(root, args)
	if err == nil {
		err = root.ExecuteContext(ctx)
	}
	var coded *Error
	if errors.As(err, &coded) && coded.Err == nil {
		return coded.Code
	}
	if err != nil {
		// Cobra's errors may have more lines: suggestions. The first one says it.
		line, _, _ := strings.Cut(err.Error(), "\n")
		fmt.Fprintln(p.Err, "elsewhere:", render.Clean(line))
	}
	return code(err)
}

// unknownFirst is the error of a command line that begins with a word that is no command: cobra would
// complain of that command's flags first.
func unknownFirst(root *cobra.Command, args []string) error {
	if len(args) == 0 || strings.HasPrefix(args[0], "-") || strings.HasPrefix(args[0], "__complete") {
		return nil
	}
	root.InitDefaultHelpCmd()
	if cmd, _, err := root.Find(args[:1]); err == nil && cmd != root {
		return nil
	}
	return unknownCommand(root, args[:1])
}

// real fills in the real world.
func (p Program) real() Program {
	if p.In == nil {
		p.In = os.Stdin
	}
	if p.Out == nil {
		p.Out = os.Stdout
	}
	if p.Err == nil {
		p.Err = os.Stderr
	}
	if p.Getenv == nil {
		p.Getenv = os.Getenv
	}
	return p
}

// root is the command with all commands below it.
func (p Program) root() *cobra.Command {
	root := &cobra.Command{
		Use:   "elsewhere",
		Short: "It works here. Does it work elsewhere?",
		Long: `It works here. Does it work elsewhere?

Elsewhere asks small agents in many regions to resolve, connect to, shake hands with and exchange a
request with a target, and says which regions see something different, what is in the way, how sure it
is, and what to do.`,
		Example: `  elsewhere tls example.com
  elsewhere tcp example.com:443 from Germany+AWS,JP
  elsewhere dns example.com AAAA --expect 2001:db8::1
  elsewhere propagation www.example.com A --expect 203.0.113.10 --watch
  elsewhere origin https://origin.example.com --host-header www.example.com
  elsewhere allowlist verify partners.yaml
  elsewhere agents
  elsewhere token create --region eu-west`,
		SilenceErrors: true,
		SilenceUsage:  true,
		Args:          unknownCommand,
		RunE:          showHelp,
	}
	root.SetIn(p.In)
	root.SetOut(p.Out)
	root.SetErr(p.Err)
	s := newSettings(root, p)
	root.AddCommand(
		s.dns(), s.tcp(), s.tls(), s.http(), s.origin(),
		s.propagation(), s.allowlist(), s.edgeResponse(),
		s.agents(), s.measurements(), s.show(), s.watch(),
		s.token(), s.audit(), s.cluster(), s.backup(), s.authority(), s.version(p.Version),
	)
	root.AddCommand(p.Extra...)
	root.SetHelpCommand(help(root))
	root.InitDefaultCompletionCmd()
	if completion, _, err := root.Find([]string{"completion"}); err == nil && completion != root {
		completion.Args, completion.RunE = unknownCommand, showHelp
	}
	root.SetFlagErrorFunc(func(cmd *cobra.Command, err error) error {
		return usagef("%w; '%s --help' lists the flags", err, cmd.CommandPath())
	})
	return root
}

// showHelp is what a command does that has only commands below it.
func showHelp(cmd *cobra.Command, _ []string) error { return cmd.Help() }

// unknownCommand is the one line for a command that does not exist.
func unknownCommand(cmd *cobra.Command, args []string) error {
	if len(args) == 0 {
		return nil
	}
	cmd.SuggestionsMinimumDistance = 1
	if near := cmd.SuggestionsFor(args[0]); len(near) > 0 {
		return usagef("%q is not a command; did you mean %q?", args[0], near[0])
	}
	return usagef("%q is not a command; '%s --help' lists them", args[0], cmd.CommandPath())
}

// help is the help command, which knows an unknown command as an error.
func help(root *cobra.Command) *cobra.Command {
	return &cobra.Command{
		Use:   "help [command]",
		Short: "Show what a command does",
		RunE: func(_ *cobra.Command, args []string) error {
			cmd, rest, err := root.Find(args)
			if err != nil || len(rest) > 0 {
				return unknownCommand(root, args)
			}
			cmd.InitDefaultHelpFlag()
			return cmd.Help()
		},
	}
}
