package cli

import (
	"context"
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/elsewhere-net/elsewhere/internal/cli/cover"
	"github.com/elsewhere-net/elsewhere/pkg/profile"
	pb "github.com/elsewhere-net/elsewhere/proto/elsewhere/v1"
)

// cover is the allowlist cover command.
func (s *settings) cover() *cobra.Command {
	var q cover.Question
	var ranges string
	cmd := &cobra.Command{
		Use:   "cover RULES --ranges FILE",
		Short: "Compare firewall rules with the ranges that a CDN comes from, offline",
		Long: `Compare firewall rules with the ranges that a CDN comes from. Nobody is asked: agents cannot send
from those addresses, so an origin that admits its CDN alone looks shut to all of them.

RULES is a list of CIDR blocks and addresses, one on a line, with # for comments; or what
'aws ec2 describe-security-groups' prints: then the inbound rules for --port count. A prefix list in
them is known by its id alone: --prefix-list says that it is the CDN's own list of IPv4
(com.amazonaws.global.cloudfront.origin-facing), --prefix-list-ipv6 that of IPv6.

FILE is AWS's ip-ranges.json, or a list of CIDR blocks as other CDNs publish it. One
of both may be -, which reads standard input.

It lists what is missing and what else is admitted, IPv4 and IPv6 apart, and what a security group's
rules weigh: the CDN's prefix list takes 55 of the usual 60 each time it is there.

Exit code: 0 every known range is admitted, 1 one is not, 2 a file or a flag is wrong, 3 it cannot be
told, because a prefix list is not known.`,
		Example: `  elsewhere allowlist cover rules.txt --ranges ip-ranges.json
  elsewhere allowlist cover groups.json --ranges ip-ranges.json --group sg-0123 --prefix-list pl-0123
  elsewhere allowlist cover rules.txt --provider cloudflare --ranges ips.txt -J`,
		Args:              oneFile,
		ValidArgsFunction: completeFile("json", "txt"),
		RunE: func(cmd *cobra.Command, args []string) error {
			if ranges == "" {
				return usagef("which ranges? Give --ranges FILE: %s", whereRanges(q.Provider))
			}
			return s.runCover(cmd.Context(), q, args[0], ranges)
		},
	}
	flags := cmd.Flags()
	flags.StringVar(&q.Provider, "provider", "cloudfront", "`NAME` of the CDN's profile")
	flags.StringVar(&ranges, "ranges", "", "`FILE` with the ranges that the CDN publishes")
	flags.Uint16Var(&q.Port, "port", 443, "the TCP `PORT` that has to be open")
	flags.StringArrayVar(&q.Groups, "group", nil, "`ID` of the security group; repeatable (default: all of the file)")
	flags.StringArrayVar(&q.Lists, "prefix-list", nil, "`ID` of the prefix list with the CDN's IPv4 ranges; repeatable")
	flags.StringArrayVar(&q.ListsIPv6, "prefix-list-ipv6", nil, "`ID` of the prefix list with the CDN's IPv6 ranges; repeatable")
	flags.IntVar(&q.MaxRules, "max-rules", 60, "what the rules of a security group may weigh, for each family")
	for flag, words := range map[string][]string{
		"provider": profile.Names(), "port": {"80", "443"}, "group": nil, "prefix-list": nil, "prefix-list-ipv6": nil, "max-rules": {"60"},
	} {
		complete(cmd, flag, words...)
	}
	return cmd
}

// whereRanges says where a provider publishes its ranges.
func whereRanges(provider string) string {
	if p, err := profile.Load(provider); err == nil && p.GetRanges() != "" {
		return provider + " publishes them at " + p.GetRanges()
	}
	return "a list of CIDR blocks, or AWS's ip-ranges.json"
}

// runCover reads both files and shows the report.
func (s *settings) runCover(ctx context.Context, q cover.Question, rulesFile, rangesFile string) error {
	screen, err := s.screen()
	if err != nil {
		return err
	}
	if err := checkCover(q); err != nil {
		return usage(err)
	}
	published, err := s.input(ctx, rangesFile, cover.MaxSize)
	if err != nil {
		return err
	}
	rules, err := s.input(ctx, rulesFile, cover.MaxSize)
	if err != nil {
		return err
	}
	report, err := coverReport(q, rules, published)
	if err != nil {
		return usage(err)
	}
	if err := written(screen.Cover(report)); err != nil {
		return err
	}
	switch report.GetCoverage() {
	case pb.Coverage_COVERAGE_FULL:
		return nil
	case pb.Coverage_COVERAGE_PARTIAL, pb.Coverage_COVERAGE_NONE:
		return &Error{Code: ExitFail}
	case pb.Coverage_COVERAGE_UNKNOWN, pb.Coverage_COVERAGE_UNSPECIFIED:
	}
	return &Error{Code: ExitInconclusive}
}

// checkCover says what is wrong with the flags.
func checkCover(q cover.Question) error {
	if _, err := profile.Load(q.Provider); err != nil {
		return fmt.Errorf("--provider: %w", err)
	}
	if q.Port == 0 || q.MaxRules < 1 {
		return errors.New("--port and --max-rules begin at 1")
	}
	return nil
}

// coverReport compares two files.
func coverReport(q cover.Question, rulesFile, rangesFile input) (*pb.CoverReport, error) {
	ranges, err := cover.ReadRanges(rangesFile.name, rangesFile.data, q.Provider)
	if err != nil {
		return nil, err
	}
	rules, err := cover.ReadRules(rulesFile.name, rulesFile.data, q)
	if err != nil {
		return nil, err
	}
	return cover.Report(q, ranges, rules)
}
