package cli

import (
	"cmp"
	"fmt"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	"google.golang.org/grpc"

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
without them; csv a row for each step; junit a test case for each region.` + exits

// exits is the part of the help about exit codes.
const exits = `

Exit code: 0 as expected, 1 the target has a problem or an expectation failed, 2 the request is wrong,
3 inconclusive, 4 the network cannot be used, 130 interrupted and cancelled.`

// dns is the dns command.
func (s *settings) dns() *cobra.Command {
	var f question.DNSFlags
	var public string
	cmd := &cobra.Command{
		Use:   "dns NAME [TYPE] [CLASS] [@SERVER] [from WHERE] [+option]...",
		Short: "Resolve a name from many places",
		Long: `Resolve a name from many places, by the agents' own resolvers or by a server that you name, by
address or by name, with a port or without one. Internationalised names become A-labels. TYPE is a
mnemonic or TYPE65280, A unless you say so; CLASS is IN or CH. Each --expect is data that every
place's answer should hold.

Two of the zone's own servers are asked from each place too, or all of them with --authoritative.
--public asks public resolvers beside the agents' own: those that people use at each place, as the
coordinator lists them, or the ones that you name.

Options are dig's, also shortened and with +no as dig has it:
  +dnssec           ask for signatures (DO)
  +cdflag, +cd      ask for data that fails validation too
  +norecurse        ask for what the server knows itself
  +nsid             ask which server it is
  +subnet=PREFIX    the client's network to ask for: 192.0.2.0/24, 192.0.2.1, or 0 for none
  +bufsize=BYTES    the largest reply over UDP, 512 to 65535
  +tcp +tls +quic   how the query travels; UDP, then TCP, unless you say so
  +https[=PATH]     over HTTPS by POST (+https-post), or by GET (+https-get)
  +tls-hostname=N   the name that the server's certificate is for; that of @SERVER unless you say so
  +trace            walk down from the root and show each referral
  +short            the distinct answers of each region alone` + formats,
		Example: `  elsewhere dns example.com
  elsewhere dns example.com MX @192.0.2.53 from Germany,JP
  elsewhere dns www.example.com --expect 203.0.113.10 --authoritative
  elsewhere dns example.com AAAA @dns.example:8853 +tls +dnssec
  elsewhere dns id.server CH TXT @192.0.2.53 +norec
  elsewhere dns -x 2001:db8::1 --public
  elsewhere dns example.com TXT +short from last`,
		ValidArgsFunction: s.completeDNS,
		RunE: func(cmd *cobra.Command, args []string) error {
			if f.Public = public != ""; public != wellKnown {
				f.PublicAt = public
			}
			q, err := question.DNS(args, f)
			return s.check(cmd, q, err)
		},
	}
	flags := cmd.Flags()
	flags.StringArrayVar(&f.Expect, "expect", nil, "`VALUE` that every answer should hold; repeatable")
	flags.StringVarP(&f.Reverse, "reverse", "x", "", "the name of this `ADDRESS`, of either family")
	flags.StringVarP(&f.Type, "type", "t", "", "the record `TYPE`, as the word")
	flags.StringVarP(&f.Class, "class", "c", "", "the `CLASS`, IN or CH, as the word")
	flags.BoolVar(&f.Authoritative, "authoritative", false, "ask all of the zone's own servers, at each of their addresses")
	flags.StringVar(&public, "public", "", "ask public resolvers too; =`IP,IP` chooses them")
	flags.Lookup("public").NoOptDefVal = wellKnown
	for flag, words := range map[string][]string{"expect": nil, "reverse": nil, "type": question.CommonTypes(), "class": {"IN", "CH"}, "public": {wellKnown}} {
		complete(cmd, flag, words...)
	}
	return cmd
}

// wellKnown is what --public is without a value.
const wellKnown = "well-known"

// tcp is the tcp command.
func (s *settings) tcp() *cobra.Command {
	var f question.TCPFlags
	cmd := &cobra.Command{
		Use:   "tcp HOST:PORT [from WHERE] [--expect open|blocked|refused|dropped] [--path]",
		Short: "Connect to every address of a host from many places",
		Long: `Connect to every address of a host from many places. With --expect, a place that sees something
else is a finding. With --path each agent finds out how far its packets get: hop by hop, by connects
with a limited TTL, to each address.` + formats,
		Example: `  elsewhere tcp example.com:443
  elsewhere tcp '[2001:db8::1]:22' -6 from eu-west-1
  elsewhere tcp db.example.com:5432 --expect blocked from world -L 100
  elsewhere tcp example.com:443 --path from JP`,
		ValidArgsFunction: s.completeFrom,
		RunE: func(cmd *cobra.Command, args []string) error {
			q, err := question.TCP(args, f)
			return s.check(cmd, q, err)
		},
	}
	cmd.Flags().StringVar(&f.Expect, "expect", "", "`WHAT` every place should see: open or blocked, or in which way blocked: refused or dropped")
	cmd.Flags().BoolVar(&f.Path, "path", false, "trace the path to every address")
	complete(cmd, "expect", question.Reachabilities()...)
	return cmd
}

// tls is the tls command.
func (s *settings) tls() *cobra.Command {
	var f question.TLSFlags
	var client string
	cmd := &cobra.Command{
		Use:   "tls HOST[:PORT] [from WHERE] [--servername NAME] [--profile NAME]",
		Short: "Shake hands with every address of a host from many places",
		Long: `Shake hands with every address of a host, port 443 unless you name one, from many places, and
examine the certificates that are served: their names, dates, keys, order, and what is missing.

An offer of your own (--tls-version, --ciphers, --groups, --sigalgs) takes the place of all that the
agent can; TLS 1.2 and below, and what the agent's library lacks, are then offered by a ClientHello
made by hand, which goes as far as the server's first flight: up to TLS 1.2 that shows the
certificates, in TLS 1.3 what was agreed on. --enumerate finds out which versions and suites the
server accepts, in its order of preference. --profile judges the server for one client of origins,
such as a CDN: its versions, suites, keys and the names that it takes.` + formats,
		Example: `  elsewhere tls example.com
  elsewhere tls 192.0.2.10:8443 --servername www.example.com
  elsewhere tls example.com --enumerate from eu-west-1
  elsewhere tls example.com --tls-version tls1.2 --ciphers TLS_RSA_WITH_AES_128_CBC_SHA
  elsewhere tls origin.example.com --name www.example.com --noservername
  elsewhere tls origin.example.com --profile cloudfront
  elsewhere tls example.com from Germany+AWS,JP --format junit`,
		ValidArgsFunction: s.completeFrom,
		RunE: func(cmd *cobra.Command, args []string) error {
			q, err := question.TLS(args, f)
			if err == nil {
				q.Spec.GetTls().Profile, err = s.profile(cmd.Context(), client)
			}
			return s.check(cmd, q, err)
		},
	}
	flags := cmd.Flags()
	flags.StringVar(&f.ServerName, "servername", "", "`NAME` to send and to compare the certificate with (default: the host)")
	flags.BoolVar(&f.NoServerName, "noservername", false, "send no name; the certificate is still compared")
	flags.StringArrayVar(&f.Names, "name", nil, "`NAME` that the certificate is compared with too; repeatable")
	flags.StringVar(&f.ALPN, "alpn", "", "`PROTOCOLS` to offer, with commas between them (default h2,http/1.1)")
	flags.StringVar(&f.Versions, "tls-version", "", "`VERSIONS` to offer, with commas: ssl3, tls1, tls1.1, tls1.2, tls1.3")
	flags.StringVar(&f.Ciphers, "ciphers", "", "`SUITES` to offer, with colons, by IANA's names or openssl's")
	flags.StringVar(&f.Groups, "groups", "", "`GROUPS` to offer, with colons, such as x25519:secp256r1")
	flags.StringVar(&f.SigAlgs, "sigalgs", "", "signature `SCHEMES` to offer, with colons, such as rsa_pkcs1_sha256")
	flags.StringVar(&f.Expect, "expect", "", "`WHAT` every place should see of the way, whatever the certificate: open, blocked, refused or dropped")
	flags.StringVar(&client, "profile", "", profileFlag)
	flags.BoolVar(&f.Enumerate, "enumerate", false, "find out which versions and suites the server accepts")
	for flag, words := range map[string][]string{
		"expect": question.Reachabilities(), "servername": nil, "name": nil, "ciphers": nil, "groups": {"x25519", "secp256r1", "secp384r1"}, "sigalgs": nil,
		"alpn": {"h2", "http/1.1", "h2,http/1.1"}, "tls-version": {"ssl3", "tls1", "tls1.1", "tls1.2", "tls1.3"},
	} {
		complete(cmd, flag, words...)
	}
	completeProfile(cmd)
	return cmd
}

// http is the http command.
func (s *settings) http() *cobra.Command {
	var f question.HTTPFlags
	cmd := &cobra.Command{
		Use:   "http URL [from WHERE] [--host-header NAME] [--expect-status 200]",
		Short: "Ask every address of a URL's host for it from many places",
		Long: `Ask every address of a URL's host for it, by GET, from many places: resolve, connect, shake hands if
the URL says https, exchange. Status codes of 400 and above are failures unless --expect-status says
otherwise. Redirects are not followed without --follow; each one is then resolved and checked against
the agent's policy anew. -v shows the phases' times, header fields and the beginning of the body.` + formats,
		Example: `  elsewhere http https://example.com/health --expect-status 200
  elsewhere http http://example.com/ --follow
  elsewhere http https://203.0.113.10/ --host-header www.example.com
  elsewhere http https://example.com/ -H 'Accept-Language: de' --expect-header 'Content-Type: ^text/html'
  elsewhere http https://example.com/status --expect-body '"ok": *true' from Germany,JP -v`,
		ValidArgsFunction: s.completeFrom,
		RunE: func(cmd *cobra.Command, args []string) error {
			q, err := question.HTTP(args, f)
			return s.check(cmd, q, err)
		},
	}
	flags := cmd.Flags()
	flags.StringVarP(&f.Method, "request", "X", "", "`METHOD`: GET or HEAD (default GET)")
	flags.StringVar(&f.Host, "host-header", "", "`NAME` to send as Host, and as server_name (default: the URL's host)")
	flags.StringVar(&f.ServerName, "servername", "", "`NAME` to send as server_name (default: that of Host)")
	flags.StringArrayVarP(&f.Headers, "header", "H", nil, "header `FIELD` to send, as 'NAME: VALUE'; repeatable")
	flags.BoolVar(&f.HTTP1, "http1.1", false, "speak HTTP/1.1 alone")
	flags.BoolVar(&f.HTTP2, "http2", false, "speak HTTP/2 alone")
	flags.IntVar(&f.Follow, "follow", 0, "follow redirects, at most 5; =`N` follows fewer")
	flags.Lookup("follow").NoOptDefVal = "5"
	flags.StringVar(&f.Expect, "expect", "", "`WHAT` every place should see of the way, whatever the response: open, blocked, refused or dropped")
	flags.StringArrayVar(&f.ExpectStatus, "expect-status", nil, "`STATUS` that is as expected: 200, 2xx, 200-299; repeatable, or with commas")
	flags.StringArrayVar(&f.ExpectHeader, "expect-header", nil, "`FIELD` that the response must have, as 'NAME: REGEXP'; repeatable")
	flags.StringVar(&f.ExpectBody, "expect-body", "", "`REGEXP` that the body must match")
	for flag, words := range map[string][]string{
		"request": {"GET", "HEAD"}, "expect": question.Reachabilities(), "host-header": nil, "servername": nil, "header": nil, "follow": {"1", "2", "3", "4", "5"},
		"expect-status": {"200", "2xx", "3xx", "200-299"}, "expect-header": nil, "expect-body": nil,
	} {
		complete(cmd, flag, words...)
	}
	return cmd
}

// emptyFlag is the error of a flag of a check that was given and is empty: it would mean as much as to
// leave it out, which is hardly what was meant.
func emptyFlag(cmd *cobra.Command) (err error) {
	cmd.Flags().Visit(func(f *pflag.Flag) {
		if shared := cmd.InheritedFlags().Lookup(f.Name) != nil; !shared && f.Value.String() == "" && err == nil {
			err = fmt.Errorf("--%s is empty; give it a value, or leave it out", f.Name)
		}
	})
	return err
}

// asking is a question that nothing is wrong with, and whom to ask.
type asking struct {
	screen   render.Screen
	request  *pb.CreateMeasurementRequest
	conn     *grpc.ClientConn
	endpoint Endpoint
	stateDir string
}

// prepare checks a question, and everything about it, before anything is dialled.
func (s *settings) prepare(cmd *cobra.Command, q *question.Question, err error) (*asking, error) {
	if err = cmp.Or(emptyFlag(cmd), err); err != nil {
		return nil, usage(err)
	}
	screen, err := s.screen()
	if err != nil {
		return nil, err
	}
	if screen.Short = q.Short; q.Short && screen.Format != render.Table {
		return nil, usagef("+short and --format %s exclude each other; leave out one of them", screen.Format)
	}
	options, err := s.options(q.From)
	if err != nil {
		return nil, err
	}
	if _, said := s.value("timeout"); said == "" && q.Spec.GetOrigin() != nil {
		options.Timeout = originTimeout
	}
	req, err := q.Request(options)
	if err != nil {
		return nil, usage(err)
	}
	conn, e, err := s.dial()
	return &asking{screen, req, conn, e, s.stateDir()}, err
}

// remember keeps the id of a measurement for 'from last'. Where nothing can be kept, that will say so; the
// answer is none the worse.
func (a *asking) remember(m *pb.Measurement) {
	_ = state.Remember(a.stateDir, a.endpoint.Address, m.GetId())
}

// check asks a question, if nothing is wrong with it, and shows what comes of it.
func (s *settings) check(cmd *cobra.Command, q *question.Question, err error) error {
	a, err := s.prepare(cmd, q, err)
	if err != nil {
		return err
	}
	defer func() { _ = a.conn.Close() }()
	client := pb.NewMeasurementServiceClient(a.conn)
	m, err := create(cmd.Context(), client, a.request)
	if err != nil {
		return a.endpoint.explain(cmd.Context(), err)
	}
	a.remember(m)
	f := &follower{client: client, errs: a.screen.Err, report: a.screen.Reporter(false), m: m, owned: true}
	if m, err = f.run(cmd.Context()); err != nil {
		return err
	}
	return verdict(m)
}
