package cli

import (
	"github.com/spf13/cobra"

	"github.com/elsewhere-net/elsewhere/internal/cli/question"
	"github.com/elsewhere-net/elsewhere/internal/cli/render"
	"github.com/elsewhere-net/elsewhere/internal/cli/state"
	pb "github.com/elsewhere-net/elsewhere/proto/elsewhere/v1"
)

// formats is the part of the help that checks share.
const formats = `

Words and flags come in any order. A terminal shows a live table; a pipe, or CI in the environment,
gets a line for each agent as it answers, and then the findings. --format json is one document, the
Measurement with its results; jsonl a line for each result as it comes, and last the measurement
without them; csv a row for each step; junit a test case for each region.

Exit code: 0 as expected, 1 the target has a problem or an expectation failed, 2 the request is wrong,
3 inconclusive, 4 the network cannot be used, 130 interrupted and cancelled.`

// dns is the dns command.
func (s *settings) dns() *cobra.Command {
	var expect []string
	cmd := &cobra.Command{
		Use:   "dns NAME [TYPE] [@RESOLVER] [from WHERE] [--expect VALUE]... [+short]",
		Short: "Resolve a name from many places",
		Long: `Resolve a name from many places, by the agents' own resolvers or by one that you name. Each
--expect is data that every place's answer should hold. +short prints the distinct answers of each
region alone.` + formats,
		Example: `  elsewhere dns example.com
  elsewhere dns example.com MX @192.0.2.53 from Germany,JP
  elsewhere dns www.example.com --expect 203.0.113.10
  elsewhere dns example.com TXT +short from last`,
		ValidArgsFunction: s.completeDNS,
		RunE: func(cmd *cobra.Command, args []string) error {
			q, err := question.DNS(args, expect)
			return s.check(cmd, q, err)
		},
	}
	cmd.Flags().StringArrayVar(&expect, "expect", nil, "`VALUE` that every answer should hold; repeatable")
	return cmd
}

// tcp is the tcp command.
func (s *settings) tcp() *cobra.Command {
	var expect string
	cmd := &cobra.Command{
		Use:   "tcp HOST:PORT [from WHERE] [--expect open|blocked]",
		Short: "Connect to every address of a host from many places",
		Long: `Connect to every address of a host from many places. With --expect, a place that sees something
else is a finding.` + formats,
		Example: `  elsewhere tcp example.com:443
  elsewhere tcp '[2001:db8::1]:22' -6 from eu-west-1
  elsewhere tcp db.example.com:5432 --expect blocked from world -L 100`,
		ValidArgsFunction: s.completeFrom,
		RunE: func(cmd *cobra.Command, args []string) error {
			if cmd.Flags().Changed("expect") && expect == "" {
				return usagef("--expect is empty; a port is expected open or blocked")
			}
			q, err := question.TCP(args, expect)
			return s.check(cmd, q, err)
		},
	}
	cmd.Flags().StringVar(&expect, "expect", "", "what every place should see: open or blocked")
	complete(cmd, "expect", "open", "blocked")
	return cmd
}

// tls is the tls command.
func (s *settings) tls() *cobra.Command {
	var name string
	cmd := &cobra.Command{
		Use:   "tls HOST[:PORT] [from WHERE] [--servername NAME]",
		Short: "Shake hands with every address of a host from many places",
		Long: `Shake hands with every address of a host, port 443 unless you name one, from many places, and
examine the certificates that are served.` + formats,
		Example: `  elsewhere tls example.com
  elsewhere tls 192.0.2.10:8443 --servername www.example.com
  elsewhere tls example.com from Germany+AWS,JP --format junit`,
		ValidArgsFunction: s.completeFrom,
		RunE: func(cmd *cobra.Command, args []string) error {
			if cmd.Flags().Changed("servername") && name == "" {
				return usagef("--servername is empty; give a name, or leave it out to send the host")
			}
			q, err := question.TLS(args, name)
			return s.check(cmd, q, err)
		},
	}
	cmd.Flags().StringVar(&name, "servername", "", "`NAME` to send and to compare the certificate with (default: the host)")
	complete(cmd, "servername")
	return cmd
}

// check asks a question, if nothing is wrong with it, and shows what comes of it. Everything is
// checked before anything is dialled.
func (s *settings) check(cmd *cobra.Command, q *question.Question, err error) error {
	if err != nil {
		return usage(err)
	}
	screen, err := s.screen()
	if err != nil {
		return err
	}
	if screen.Short = q.Short; q.Short && screen.Format != render.Table {
		return usagef("+short and --format %s exclude each other; leave out one of them", screen.Format)
	}
	options, err := s.options(q.From)
	if err != nil {
		return err
	}
	req, err := q.Request(options)
	if err != nil {
		return usage(err)
	}
	conn, e, err := s.dial()
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close() }()
	client := pb.NewMeasurementServiceClient(conn)
	m, err := create(cmd.Context(), client, req)
	if err != nil {
		return e.explain(cmd.Context(), err)
	}
	// Where nothing can be kept, 'from last' will say so; the answer is none the worse.
	_ = state.Remember(s.stateDir(), e.Address, m.GetId())
	f := &follower{client: client, errs: screen.Err, report: screen.Reporter(false), m: m, owned: true}
	if m, err = f.run(cmd.Context()); err != nil {
		return err
	}
	return verdict(m)
}
