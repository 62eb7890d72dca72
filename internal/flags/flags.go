// Package flags is what the programs' command lines have in common: every flag is also an environment
// variable, and what is wrong is said in one line.
package flags

import (
	"errors"
	"fmt"
	"log/slog"
	"os"
	"strings"

	"github.com/spf13/pflag"
)

// ErrUsage marks an error of the one who typed the command; the exit status is 2.
var ErrUsage = errors.New("")

// Usagef makes an error that says what is wrong with the command line.
func Usagef(format string, args ...any) error {
	return fmt.Errorf("%w%w", ErrUsage, fmt.Errorf(format, args...))
}

// EnvName is the environment variable of a flag: ELSEWHERE_DATA_DIR for data-dir.
func EnvName(flag string) string {
	return "ELSEWHERE_" + strings.ToUpper(strings.ReplaceAll(flag, "-", "_"))
}

// FromEnv sets the flags that the command line does not from the environment.
func FromEnv(set *pflag.FlagSet) error {
	var errs []error
	set.VisitAll(func(f *pflag.Flag) {
		value, ok := os.LookupEnv(EnvName(f.Name))
		if f.Changed || !ok || value == "" {
			return
		}
		if err := set.Set(f.Name, value); err != nil {
			errs = append(errs, Usagef("%s=%q: %w", EnvName(f.Name), value, err))
		}
	})
	return errors.Join(errs...)
}

// Parse reads a program's arguments and its environment. It returns pflag.ErrHelp after printing help.
func Parse(set *pflag.FlagSet, args []string, help string) error {
	set.SortFlags = false
	set.Usage = func() {} // an error is one line, not a page
	err := set.Parse(args)
	if errors.Is(err, pflag.ErrHelp) {
		fmt.Print(help, "\nFlags (each also as ELSEWHERE_… in the environment, such as ", EnvName("data-dir"), "):\n", set.FlagUsages())
		return err
	}
	if err != nil {
		return Usagef("%w; --help lists the flags", err)
	}
	if set.NArg() > 0 {
		return Usagef("unexpected argument %q; --help lists the flags", set.Arg(0))
	}
	return FromEnv(set)
}

// Exit ends the program as err says: 0, 2 for usage, 1 for the rest, with one line on stderr.
func Exit(program string, err error) {
	switch {
	case err == nil, errors.Is(err, pflag.ErrHelp):
		os.Exit(0)
	case errors.Is(err, ErrUsage):
		fmt.Fprintf(os.Stderr, "%s: %s\n", program, oneLine(err))
		os.Exit(2)
	default:
		fmt.Fprintf(os.Stderr, "%s: %s\n", program, oneLine(err))
		os.Exit(1)
	}
}

func oneLine(err error) string { return strings.ReplaceAll(err.Error(), "\n", "; ") }

// Logger writes structured lines to stderr.
func Logger() *slog.Logger { return slog.New(slog.NewTextHandler(os.Stderr, nil)) }
