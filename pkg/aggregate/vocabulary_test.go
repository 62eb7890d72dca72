package aggregate

import (
	"strings"
	"testing"

	pb "github.com/elsewhere-net/elsewhere/proto/elsewhere/v1"
)

// Every failure belongs to the stage that its name begins with, so that a new one cannot be judged at
// the wrong stage, or at none.
func TestEveryFailureHasItsStage(t *testing.T) {
	prefixes := map[string]pb.Stage{
		"agent": pb.Stage_STAGE_AGENT, "dns": pb.Stage_STAGE_DNS, "tcp": pb.Stage_STAGE_TCP,
		"tls": pb.Stage_STAGE_TLS, "cert": pb.Stage_STAGE_CERTIFICATE, "http": pb.Stage_STAGE_HTTP,
		"none": pb.Stage_STAGE_UNSPECIFIED, "unspecified": pb.Stage_STAGE_UNSPECIFIED,
	}
	for n := range pb.Failure_name {
		name := ShortFailure(pb.Failure(n))
		prefix, _, _ := strings.Cut(name, "_")
		want, known := prefixes[prefix]
		if !known || stageOf(pb.Failure(n)) != want {
			t.Errorf("%s is of stage %v, want %v (known: %v)", name, stageOf(pb.Failure(n)), want, known)
		}
		if name != strings.ToLower(name) || strings.HasPrefix(name, "failure") {
			t.Errorf("%q is no short form", name)
		}
	}
	if got := stageOf(pb.Failure(9999)); got != pb.Stage_STAGE_UNSPECIFIED {
		t.Errorf("a failure that is not known is of stage %v", got)
	}
}

// Every failure that can end a connect says how the way is shut; the contract has no other ones.
func TestEveryConnectFailureIsABlock(t *testing.T) {
	for n := range pb.Failure_name {
		f := pb.Failure(n)
		block := blockOf(&pb.Step{Failure: f})
		if stageOf(f) == pb.Stage_STAGE_TCP && block == pb.BlockKind_BLOCK_KIND_UNSPECIFIED {
			t.Errorf("%v is no block", f)
		}
		if s := stageOf(f); s != pb.Stage_STAGE_TCP && s != pb.Stage_STAGE_TLS && block != pb.BlockKind_BLOCK_KIND_UNSPECIFIED {
			t.Errorf("%v is a block: %v", f, block)
		}
	}
}

func TestEveryCodeHasASeverity(t *testing.T) {
	for n := range pb.FindingCode_name {
		c := pb.FindingCode(n)
		if (severityOf(c) == pb.Severity_SEVERITY_UNSPECIFIED) != (c == pb.FindingCode_FINDING_CODE_UNSPECIFIED) {
			t.Errorf("%v has severity %v", c, severityOf(c))
		}
		if name := ShortCode(c); name == "" || strings.Contains(name, "code") {
			t.Errorf("%q is no short form", name)
		}
	}
}

func TestEveryBlockHasWords(t *testing.T) {
	words := map[string]bool{}
	for n := range pb.BlockKind_name {
		b := pb.BlockKind(n)
		if (meaning(b) == "") != (b == pb.BlockKind_BLOCK_KIND_UNSPECIFIED) || words[meaning(b)] {
			t.Errorf("%v means %q", b, meaning(b))
		}
		words[meaning(b)] = true
	}
}

func TestShortForms(t *testing.T) {
	for _, c := range []struct{ got, want string }{
		{ShortFailure(pb.Failure_FAILURE_TCP_TIMEOUT), "tcp_timeout"},
		{ShortFailure(pb.Failure_FAILURE_NONE), "none"},
		{ShortCode(pb.FindingCode_FINDING_CODE_REGIONAL_BLOCK), "regional_block"},
		{ShortBlock(pb.BlockKind_BLOCK_KIND_DROP), "drop"},
		{ShortBlame(pb.Blame_BLAME_PATH), "path"},
		{ShortConfidence(pb.Confidence_CONFIDENCE_HIGH), "high"},
		{ShortOutcome(pb.Outcome_OUTCOME_INCONCLUSIVE), "inconclusive"},
	} {
		if c.got != c.want {
			t.Errorf("got %q, want %q", c.got, c.want)
		}
	}
}
