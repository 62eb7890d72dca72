package cli

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/grpc"

	"github.com/elsewhere-net/elsewhere/internal/cli/question"
	"github.com/elsewhere-net/elsewhere/internal/cli/render"
	"github.com/elsewhere-net/elsewhere/internal/cli/state"
	"github.com/elsewhere-net/elsewhere/internal/identity"
	pb "github.com/elsewhere-net/elsewhere/proto/elsewhere/v1"
)

const (
	defaultCoordinator = "127.0.0.1:7700"
	defaultLimit       = 20
	maxLimit           = 10_000
	defaultTimeout     = 30 * time.Second
	originTimeout      = time.Minute // A CDN waits for a response as long as others have for all.
	minTimeout         = time.Second
	maxTimeout         = 10 * time.Minute
)

// settings are the flags that all commands have, each also a variable of the environment. They are
// read when a command needs them, so that a mistake in one that it does not need is no error.
type settings struct {
	root    *cobra.Command
	program Program
	stdin   bool // standard input was read
}

// newSettings adds the flags to the root.
func newSettings(root *cobra.Command, p Program) *settings {
	f := root.PersistentFlags()
	f.SortFlags = false
	f.StringP("from", "F", "", "ask from `WHERE`: world, a region, country, city, provider, AS64500, a label; + is AND, a comma a list; last or an id asks the same agents again (default world)")
	f.StringP("limit", "L", "", "ask `N` agents at most, 1 to 10000 (default 20)")
	f.BoolP("ipv4", "4", false, "look at IPv4 alone")
	f.BoolP("ipv6", "6", false, "look at IPv6 alone")
	f.String("timeout", "", "`TIME` for the whole measurement, such as 45s, 2m or 45; 1s to 10m (default 30s; origin: 1m)")
	f.String("coordinator", "", "the coordinator's `HOST:PORT`, or those of several, with commas: any of them will do (default: the one of 'elsewhere up', else "+defaultCoordinator+")")
	f.String("token", "", "the `TOKEN` to be let in with; @FILE reads it from a file")
	f.String("ca", "", "PEM `FILE` with the CA of the coordinator (default: the system's)")
	f.Bool("insecure", false, "speak in clear and send no token, to a coordinator that runs with --insecure")
	f.String("format", "", "`FORMAT` of the output: "+strings.Join(render.Formats(), ", ")+" (default table)")
	f.BoolP("json", "J", false, "the same as --format json")
	f.BoolP("verbose", "v", false, "show all that each agent saw; in JSON it is always there")
	s := &settings{root: root, program: p}
	s.completions()
	return s
}

// value is the value of a flag, else of its variable; name is the one that gave it, "" for neither.
func (s *settings) value(flag string) (value, name string) {
	if f := s.root.PersistentFlags().Lookup(flag); f.Changed {
		return f.Value.String(), "--" + flag
	}
	variable := "ELSEWHERE_" + strings.ToUpper(flag)
	if v := s.program.Getenv(variable); v != "" {
		return v, variable
	}
	return "", ""
}

// truth reads a flag that is on or off.
func (s *settings) truth(flag string) (bool, error) {
	v, name := s.value(flag)
	if name == "" {
		return false, nil
	}
	on, err := strconv.ParseBool(v)
	if err != nil {
		return false, usagef("%s is %q; it is true or false", name, v)
	}
	return on, nil
}

// options are what the flags say about a question; words is the WHERE of its words.
func (s *settings) options(words string) (o question.Options, err error) {
	if o.From, err = s.from(words); err != nil {
		return o, err
	}
	if o.Limit, _, err = s.limit(); err != nil {
		return o, err
	}
	if o.Family, err = s.family(); err != nil {
		return o, err
	}
	o.Timeout, err = s.timeout()
	return o, err
}

// from is WHERE: of the words or of the flag, never of both, or of the environment. "last" becomes
// the id of the last measurement.
func (s *settings) from(words string) (string, error) {
	where, name := s.value("from")
	switch {
	case words != "" && name == "--from":
		return "", usagef("where is said twice: 'from %s' and --from %s; leave out one of them", words, where)
	case words != "":
		where = words
	case name == "":
		return "world", nil
	default:
		if err := question.CheckWhere(name, where); err != nil {
			return "", usage(err)
		}
	}
	if where = strings.TrimSpace(where); where == "last" {
		return s.last()
	}
	return where, nil
}

// last is the id of the last measurement that was asked of this coordinator from this machine.
func (s *settings) last() (string, error) {
	e, err := s.endpoint()
	if err != nil {
		return "", err
	}
	id := state.Last(s.stateDir(), e.Address)
	if id == "" {
		return "", usagef("there is no last measurement: nothing was asked of %s from here yet", e.Address)
	}
	return id, nil
}

// limit is the number of agents; set says whether anybody asked for it.
func (s *settings) limit() (n int32, set bool, err error) {
	v, name := s.value("limit")
	if name == "" {
		return defaultLimit, false, nil
	}
	parsed, err := strconv.ParseInt(v, 10, 32)
	if err != nil || parsed < 1 || parsed > maxLimit {
		return 0, true, usagef("%s is %q; it is a number from 1 to %d", name, v, maxLimit)
	}
	return int32(parsed), true, nil
}

// family is -4 or -6. A flag beats both variables.
func (s *settings) family() (pb.Family, error) {
	v4, err := s.truth("ipv4")
	if err != nil {
		return 0, err
	}
	v6, err := s.truth("ipv6")
	if err != nil {
		return 0, err
	}
	if v4 && v6 {
		flags := s.root.PersistentFlags()
		switch four, six := flags.Changed("ipv4"), flags.Changed("ipv6"); {
		case four == six:
			return 0, usagef("-4 and -6 exclude each other; leave out both to look at both families")
		case four:
			v6 = false
		default:
			v4 = false
		}
	}
	switch {
	case v4:
		return pb.Family_FAMILY_IPV4, nil
	case v6:
		return pb.Family_FAMILY_IPV6, nil
	}
	return pb.Family_FAMILY_UNSPECIFIED, nil
}

// timeout is a Go duration or a number of seconds.
func (s *settings) timeout() (time.Duration, error) {
	v, name := s.value("timeout")
	if name == "" {
		return defaultTimeout, nil
	}
	d, err := time.ParseDuration(v)
	if err != nil {
		d, err = time.ParseDuration(v + "s")
	}
	if err != nil || d < minTimeout || d > maxTimeout {
		return 0, usagef("%s is %q; it is a time from 1s to 10m, such as 45s, 2m or 45", name, v)
	}
	return d, nil
}

// screen is where and in which format to show things.
func (s *settings) screen() (render.Screen, error) {
	screen := render.NewScreen(s.program.Out, s.program.Err, s.program.Getenv)
	v, name := s.value("format")
	if name != "" {
		format, err := render.ParseFormat(v)
		if err != nil {
			return screen, usagef("%s: %w", name, err)
		}
		screen.Format = format
	}
	var err error
	if screen.Verbose, err = s.truth("verbose"); err != nil {
		return screen, err
	}
	flags := s.root.PersistentFlags()
	asJSON, err := s.truth("json")
	switch {
	case err != nil:
		return screen, err
	case !asJSON:
	case flags.Changed("format") && flags.Changed("json") && screen.Format != render.JSON:
		return screen, usagef("-J and --format %s exclude each other; leave out one of them", screen.Format)
	case flags.Changed("json") || !flags.Changed("format"):
		screen.Format = render.JSON
	}
	return screen, nil
}

// endpoint is the coordinator: by flag, variable, what 'elsewhere up' left, or the default. What
// 'elsewhere up' left about its own coordinator also holds when that one is named.
func (s *settings) endpoint() (e Endpoint, err error) {
	address, name := s.value("coordinator")
	up, found, err := state.ReadUp(s.stateDir())
	if err != nil && name == "" {
		return e, usage(err)
	}
	if found && (name == "" || address == up.Coordinator) {
		e = Endpoint{Address: up.Coordinator, Insecure: up.Insecure, Token: up.Token, CA: up.CA}
	} else if e.Address = defaultCoordinator; name != "" {
		e.Address = address
	}
	if err := checkAddresses(e.Address); err != nil {
		return e, usagef("%s: %w", name, err)
	}
	if _, name := s.value("insecure"); name != "" {
		if e.Insecure, err = s.truth("insecure"); err != nil {
			return e, err
		}
	}
	if v, name := s.value("token"); name != "" {
		if e.Token, err = identity.ReadToken(v); err != nil {
			return e, usagef("%s: %w", name, err)
		}
	}
	if v, name := s.value("ca"); name != "" {
		e.CA = v
	}
	return e, nil
}

// checkAddress checks the HOST:PORT of a coordinator.
func checkAddress(s string) error {
	host, port, err := net.SplitHostPort(s)
	if n, bad := strconv.ParseUint(port, 10, 16); err != nil || host == "" || bad != nil || n == 0 {
		return fmt.Errorf("%q is not a coordinator's HOST:PORT, such as %s", s, defaultCoordinator)
	}
	return nil
}

// dial prepares the connection to the coordinator.
func (s *settings) dial() (*grpc.ClientConn, Endpoint, error) {
	e, err := s.endpoint()
	if err != nil {
		return nil, e, err
	}
	conn, err := Dial(e)
	return conn, e, usage(err)
}

// call runs the calls of a command that follows no measurement, within --timeout.
func (s *settings) call(ctx context.Context, do func(context.Context, grpc.ClientConnInterface) error) error {
	e, err := s.endpoint()
	if err != nil {
		return err
	}
	return s.callAt(ctx, e, do)
}

// callAt runs them at a coordinator.
func (s *settings) callAt(ctx context.Context, e Endpoint, do func(context.Context, grpc.ClientConnInterface) error) error {
	timeout, err := s.timeout()
	if err != nil {
		return err
	}
	conn, err := Dial(e)
	if err != nil {
		return usage(err)
	}
	defer func() { _ = conn.Close() }()
	limited, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	err = do(limited, conn)
	var coded *Error
	if err == nil || errors.As(err, &coded) {
		return err
	}
	return e.explain(ctx, err)
}

// stateDir is where things are remembered.
func (s *settings) stateDir() string { return state.Dir(s.program.Getenv) }
