// Package demo is `elsewhere demo`: a network of eight agents in four regions, looking at a little
// internet on loopback whose faults are made by the kernel and by real servers.
package demo

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/grpc"

	"github.com/elsewhere-net/elsewhere/internal/cli"
	"github.com/elsewhere-net/elsewhere/internal/cli/question"
	"github.com/elsewhere-net/elsewhere/internal/flags"
	"github.com/elsewhere-net/elsewhere/internal/network"
	pb "github.com/elsewhere-net/elsewhere/proto/elsewhere/v1"
)

// scene is one question of the demo.
type scene struct {
	// title says what it is about; behind, what is really there.
	title, behind string
	// words are the command line after "elsewhere".
	words []string
	// want are the findings of the verdict with their regions: the demo fails without them.
	want []finding
}

type finding struct {
	code    pb.FindingCode
	regions string
}

func scenes() []scene {
	return []scene{
		{
			title: "A healthy target",
			words: []string{"tls", "shop.example:8443"},
		},
		{
			title:  "A firewall that drops one region",
			behind: "ap-south's way to that address leads to a socket whose accept queue is full: the kernel drops its SYNs",
			words:  []string{"tcp", "api.example:8443"},
			want:   []finding{{pb.FindingCode_FINDING_CODE_REGIONAL_BLOCK, "ap-south"}},
		},
		{
			title:  "An origin that browsers reach and a CDN does not",
			behind: "it speaks TLS 1.2 with ChaCha20 alone, which browsers have and CloudFront has not",
			words:  []string{"origin", "https://origin.example:8443/"},
			want:   []finding{{pb.FindingCode_FINDING_CODE_CIPHER_MISMATCH, "ap-south,eu-west,sa-east,us-east"}},
		},
		{
			title:  "A new record that one region does not see yet",
			behind: "each region has a resolver of its own; the one of eu-west still has the old data",
			words:  []string{"propagation", "news.example", "CNAME", "--expect", newCDN},
			want: []finding{
				{pb.FindingCode_FINDING_CODE_EXPECTATION_FAILED, "eu-west"},
				{pb.FindingCode_FINDING_CODE_PROPAGATION, "eu-west"},
			},
		},
		{
			title:  "An expired certificate in one place",
			behind: "us-east's way to that address leads to a server whose certificate ended two days ago",
			words:  []string{"tls", "pay.example:8443"},
			want:   []finding{{pb.FindingCode_FINDING_CODE_REGIONAL_CERTIFICATE, "us-east"}},
		},
		{
			title:  "A page that one region is not to see",
			behind: "sa-east's way to that address leads to a server that answers 403",
			words:  []string{"http", "https://films.example:8443/"},
			want:   []finding{{pb.FindingCode_FINDING_CODE_REGIONAL_BLOCK, "sa-east"}},
		},
		{
			title:  "A target that is down for everyone",
			behind: "nobody listens on that port",
			words:  []string{"tcp", "old.example:8443"},
			want:   []finding{{pb.FindingCode_FINDING_CODE_TARGET_DOWN, "ap-south,eu-west,sa-east,us-east"}},
		},
	}
}

// Command is `elsewhere demo`.
func Command() *cobra.Command {
	return &cobra.Command{
		Use:   "demo",
		Short: "Watch a network of eight agents find six faults, on this machine alone",
		Long: `Run a coordinator, eight agents in four regions and a little internet, all in this process and on
loopback, ask some questions and show the verdicts. It needs neither root nor a network, and leaves
nothing behind. It takes about 15 seconds.`,
		Example: `  elsewhere demo`,
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) > 0 {
				return flags.Usagef("unexpected argument %q; the demo takes none", args[0])
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, _ []string) error {
			return run(cmd.Context(), cmd.OutOrStdout(), cmd.ErrOrStderr())
		},
	}
}

func run(ctx context.Context, out, errs io.Writer) (err error) {
	began := time.Now()
	world, err := newInternet()
	if err != nil {
		return failed("a little internet on 127.77.0.0/16: %w", err)
	}
	defer world.Close()
	dir, err := os.MkdirTemp("", "elsewhere-demo-")
	if err != nil {
		return failed("a temporary directory: %w", err)
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	n, err := network.Start(ctx, network.Options{
		Dir: dir, Agents: world.agents(),
		PublicResolvers: []*pb.PublicResolver{}, // This internet has none.
	})
	if err != nil {
		return failed("starting the network: %w", err)
	}
	defer func() { err = errors.Join(err, n.Stop()) }()
	conn, err := n.Dial()
	if err != nil {
		return failed("the coordinator: %w", err)
	}
	defer func() { _ = conn.Close() }()
	d := &demo{conn: conn, out: out, errs: errs}
	d.say("A coordinator and eight agents in four regions run in this process, and the internet that they look\n" +
		"at is on loopback (127.77.0.0/16). Regions are names here; sockets, servers and faults are real.\n")
	all := scenes()
	for i, s := range all {
		if err := d.show(ctx, fmt.Sprintf("%d/%d  %s", i+1, len(all), s.title), s); err != nil {
			return err
		}
	}
	d.say("That was all, in %.0f s. What to try next:\n"+
		"  bin/elsewhere up                        a network of your own, until Ctrl-C\n"+
		"  bin/elsewhere tcp localhost:22          in another terminal: ask it\n"+
		"  bin/elsewhere --help                    what else can be asked\n"+
		"README.md says how to run real agents in three regions.\n", time.Since(began).Seconds())
	return nil
}

// failed is the error of a demo that could not be shown.
func failed(format string, args ...any) error {
	return &cli.Error{Code: cli.ExitNetwork, Err: fmt.Errorf(format, args...)}
}

type demo struct {
	conn      *grpc.ClientConn
	out, errs io.Writer
}

func (d *demo) say(format string, args ...any) { fmt.Fprintf(d.out, format, args...) }

// show asks the question of one scene and shows the answer.
func (d *demo) show(ctx context.Context, heading string, s scene) error {
	d.say("\n── %s\n$ elsewhere %s\n", heading, strings.Join(s.words, " "))
	request, err := s.request()
	if err != nil {
		return err
	}
	m, err := cli.RunCheck(ctx, d.conn, request, cli.NewScreen(d.out, d.errs, nil))
	if err != nil {
		return err
	}
	if s.behind != "" {
		d.say("(behind the scene: %s)\n", s.behind)
	}
	return s.compare(m)
}

// request reads the scene's words as the command line does.
func (s scene) request() (*pb.CreateMeasurementRequest, error) {
	var q *question.Question
	var err error
	switch rest := s.words[1:]; s.words[0] {
	case "tcp":
		q, err = question.TCP(rest, question.TCPFlags{})
	case "http":
		q, err = question.HTTP(rest, question.HTTPFlags{})
	case "origin":
		q, err = question.Origin(rest, question.OriginFlags{})
	case "propagation":
		q, err = question.Propagation(rest[:2], question.PropagationFlags{Expect: rest[3:]})
	default:
		q, err = question.TLS(rest, question.TLSFlags{})
	}
	if err != nil {
		return nil, err
	}
	return q.Request(question.Options{From: "world", Limit: 20, Timeout: 30 * time.Second})
}

// compare says so if the verdict is not the one that the scene was made for: a demo does not pretend.
func (s scene) compare(m *pb.Measurement) error {
	var got []finding
	for _, f := range m.GetVerdict().GetFindings() {
		if f.GetCode() == pb.FindingCode_FINDING_CODE_LATENCY_OUTLIER {
			continue // All is on this machine: how long a connect takes is its own doing.
		}
		got = append(got, finding{f.GetCode(), strings.Join(f.GetRegions(), ",")})
	}
	if slices.Equal(got, s.want) {
		return nil
	}
	return &cli.Error{Code: cli.ExitFail, Err: fmt.Errorf("%q should find %v and found %v: a bug, or a busy machine; please report it", s.title, s.want, got)}
}
