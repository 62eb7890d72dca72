package aggregate

import (
	"testing"

	pb "github.com/elsewhere-net/elsewhere/proto/elsewhere/v1"
)

func TestAGuessIsNoAnswer(t *testing.T) {
	t.Parallel()
	reply := func(ip string, mismatched bool) *pb.DNSReply {
		return &pb.DNSReply{Rcode: "NOERROR", Mismatched: mismatched, Answers: []*pb.Record{{Type: "A", Data: ip}}}
	}
	s := &pb.Step{Evidence: &pb.Evidence{Replies: []*pb.DNSReply{reply("192.0.2.66", true), reply("192.0.2.1", false)}}}
	if got := answerOf(s, "A"); got != s.GetEvidence().GetReplies()[1] {
		t.Errorf("%v is taken for the answer", got)
	}
}
