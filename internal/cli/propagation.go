package cli

import (
	"cmp"
	"errors"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"github.com/elsewhere-net/elsewhere/internal/cli/question"
	pb "github.com/elsewhere-net/elsewhere/proto/elsewhere/v1"
)

const (
	minEvery, maxEvery = 5 * time.Second, time.Hour
	defaultFor         = time.Hour
	minFor, maxFor     = 5 * time.Second, 7 * 24 * time.Hour
)

// watchFlags say whether a question is asked again, how often, and for how long.
type watchFlags struct {
	watch        bool
	every, while string
}

// times are how often to ask again, 0 for as the times to live say, and for how long.
func (f watchFlags) times() (every, while time.Duration, err error) {
	if !f.watch && (f.every != "" || f.while != "") {
		return 0, 0, errors.New("--every and --for are for --watch; add it, or leave them out")
	}
	while = defaultFor
	if f.every != "" {
		every, err = span("--every", f.every, minEvery, maxEvery)
	}
	if f.while != "" && err == nil {
		while, err = span("--for", f.while, minFor, maxFor)
	}
	return every, while, err
}

// span reads a time within bounds: a Go duration or a number of seconds.
func span(flag, text string, least, most time.Duration) (time.Duration, error) {
	d, err := time.ParseDuration(text)
	if err != nil {
		d, err = time.ParseDuration(text + "s")
	}
	if err != nil || d < least || d > most {
		return 0, fmt.Errorf("%s is %q; it is a time from %v to %v, such as 30s or 10m", flag, text, least, most)
	}
	return d, nil
}

// propagation is the propagation command.
func (s *settings) propagation() *cobra.Command {
	var f question.PropagationFlags
	var again watchFlags
	cmd := &cobra.Command{
		Use:   "propagation NAME [TYPE] --expect VALUE [from WHERE] [--watch]",
		Short: "See which resolvers serve a new record already, and until when the others do not",
		Long: `See which resolvers serve a new record already, what the others serve and until when, and which of the
zone's own servers still have the old data, where waiting does not help.

From each place the agents' own resolvers are asked, the public ones that people use there, as the
coordinator lists them, and all of the zone's own servers. A perspective is one resolver as one region
sees it. Each --expect is data that it should serve; TYPE is A unless you say so, and may be any: NS and
DS ask about a delegation.

--watch asks the same agents again until every perspective serves it or --for is over, shortly after
the next time to live ends, or every 15 s where none is known; --every says otherwise. --timeout bounds
each time that it asks. A terminal shows bars that fill; a pipe gets a line for each change; JSON, csv
and junit are about the last measurement, and jsonl is a line for each. Exit code 0 then says that every
perspective serves it, and 1 that the time was over first.

--format json is one document, the Measurement with its results; csv a row for each perspective, and
for each of the zone's own servers that has something else; junit a test case for each region.` + exits,
		Example: `  elsewhere propagation www.example.com A --expect 203.0.113.10
  elsewhere propagation example.com TXT --expect 'v=spf1 mx -all' from Germany,JP
  elsewhere propagation example.com NS --expect ns1.example.net --expect ns2.example.net
  elsewhere propagation www.example.com --expect 203.0.113.10 --public 9.9.9.9,1.1.1.1
  elsewhere propagation www.example.com --expect 203.0.113.10 --watch --for 2h`,
		ValidArgsFunction: s.completeDNS,
		RunE: func(cmd *cobra.Command, args []string) error {
			q, err := question.Propagation(args, f)
			every, while, bad := again.times()
			if err = cmp.Or(err, bad); !again.watch {
				return s.check(cmd, q, err)
			}
			a, err := s.prepare(cmd, q, err)
			if err != nil {
				return err
			}
			defer func() { _ = a.conn.Close() }()
			w := &watching{asking: a, client: pb.NewMeasurementServiceClient(a.conn), every: every, turns: a.screen.Turns(while)}
			return w.run(cmd.Context(), while)
		},
	}
	flags := cmd.Flags()
	flags.StringArrayVar(&f.Expect, "expect", nil, "`VALUE` that every resolver should serve; repeatable")
	flags.StringVar(&f.PublicAt, "public", "", "public resolvers to ask, `IP,IP` (default: those of each place)")
	flags.BoolVar(&again.watch, "watch", false, "ask again until every perspective serves it")
	flags.StringVar(&again.every, "every", "", "how often to ask again, such as 30s; 5s to 1h (default: when a time to live ends)")
	flags.StringVar(&again.while, "for", "", "how long to watch, such as 30m; 5s to 168h (default 1h)")
	for _, flag := range []string{"expect", "public", "every", "for"} {
		complete(cmd, flag)
	}
	return cmd
}
