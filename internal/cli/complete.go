package cli

import (
	"context"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/grpc"

	"github.com/elsewhere-net/elsewhere/internal/cli/question"
	"github.com/elsewhere-net/elsewhere/internal/cli/render"
	pb "github.com/elsewhere-net/elsewhere/proto/elsewhere/v1"
)

// completionTime is how long a shell waits for us when Tab is pressed.
const completionTime = time.Second

// completions are those of the flags that all commands have.
func (s *settings) completions() {
	complete(s.root, "format", render.Formats()...)
	for _, flag := range []string{"limit", "timeout", "coordinator", "token"} {
		complete(s.root, flag)
	}
	where := func(_ *cobra.Command, _ []string, _ string) ([]string, cobra.ShellCompDirective) {
		return s.places(), cobra.ShellCompDirectiveNoFileComp
	}
	// The error is about a flag that does not exist; the tests complete each of them.
	_ = s.root.RegisterFlagCompletionFunc("from", where)
}

// complete completes a flag with words that are known.
func complete(cmd *cobra.Command, flag string, words ...string) {
	_ = cmd.RegisterFlagCompletionFunc(flag, cobra.FixedCompletions(words, cobra.ShellCompDirectiveNoFileComp))
}

// completeDNS completes the words of dns: a type after the name, then as completeFrom.
func (s *settings) completeDNS(cmd *cobra.Command, args []string, word string) ([]string, cobra.ShellCompDirective) {
	if strings.HasPrefix(word, "+") {
		return question.DigOptions(), cobra.ShellCompDirectiveNoFileComp | cobra.ShellCompDirectiveNoSpace
	}
	words, directive := s.completeFrom(cmd, args, word)
	if len(args) > 0 && !slices.Contains(args, "from") {
		words = append(words, question.CommonTypes()...)
		if lower := strings.ToLower(word); word != "" && word == lower {
			for i := range words {
				words[i] = strings.ToLower(words[i])
			}
		}
	}
	return words, directive
}

// completeFrom completes "from", and a place after it.
func (s *settings) completeFrom(_ *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
	switch {
	case len(args) > 0 && args[len(args)-1] == "from":
		return s.places(), cobra.ShellCompDirectiveNoFileComp
	case !slices.Contains(args, "from"):
		return []string{"from"}, cobra.ShellCompDirectiveNoFileComp
	}
	return nil, cobra.ShellCompDirectiveNoFileComp
}

// completeID completes the ids of the last measurements.
func (s *settings) completeID(_ *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
	if len(args) > 0 {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	out := []string{"last"}
	s.ask(func(ctx context.Context, conn grpc.ClientConnInterface) error {
		resp, err := listMeasurements(ctx, pb.NewMeasurementServiceClient(conn), defaultLimit)
		for _, m := range resp.GetMeasurements() {
			out = append(out, m.GetId()+"\t"+render.Question(m.GetSpec()))
		}
		return err
	})
	return out, cobra.ShellCompDirectiveNoFileComp
}

// places are the words that WHERE can be: those that are always there, and the regions.
func (s *settings) places() []string {
	out := []string{"world", "last"}
	s.ask(func(ctx context.Context, conn grpc.ClientConnInterface) error {
		resp, err := pb.NewFleetServiceClient(conn).ListAgents(ctx, &pb.ListAgentsRequest{})
		for _, a := range resp.GetAgents() {
			if region := render.Clean(a.GetVantage().GetRegion()); !slices.Contains(out, region) {
				out = append(out, region)
			}
		}
		return err
	})
	return out
}

// ask makes a call for a completion. If it fails there is nothing to complete, and nobody to tell.
func (s *settings) ask(do func(context.Context, grpc.ClientConnInterface) error) {
	conn, _, err := s.dial()
	if err != nil {
		return
	}
	defer func() { _ = conn.Close() }()
	ctx, cancel := context.WithTimeout(s.root.Context(), completionTime)
	defer cancel()
	_ = do(ctx, conn)
}
