package main

import (
	"fmt"
	"math"
	"net"
	"strconv"
	"strings"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	pb "github.com/elsewhere-net/elsewhere/proto/elsewhere/v1"
)

// info is what agents that are connected are told of other servers.
func (h *hostile) info() string {
	if !h.mode.servers {
		return ""
	}
	var quoted []string
	for _, v := range h.victims {
		quoted = append(quoted, strconv.Quote(v))
	}
	return `,"connect_urls":[` + strings.Join(quoted, ",") + `]`
}

// acks acknowledges numbers that were never sent, all that there are, and what was acknowledged before.
func acks(h *hostile, stream pb.ResultService_ReportServer) error {
	for _, r := range []*pb.SeqRange{
		{First: 1000, Last: 2000},
		{First: 9, Last: 1},
		{First: math.MaxUint64, Last: math.MaxUint64},
		{First: 0, Last: 0},
		{First: math.MaxUint64 - 5, Last: 3},
		{},
		nil,
	} {
		for range 100 {
			if err := h.say(stream, &pb.ReportResponse{Message: &pb.ReportResponse_Ack{Ack: &pb.Ack{Ranges: []*pb.SeqRange{r, r, r}}}}); err != nil {
				return err
			}
		}
	}
	if err := h.say(stream, &pb.ReportResponse{}); err != nil {
		return err
	}
	for {
		in, err := stream.Recv()
		if err != nil {
			return err
		}
		h.note(func(r *report) { r.Results += len(in.GetBatch().GetResults()) })
		for range in.GetBatch().GetResults() { // None of them is acknowledged; numbers that are not theirs are.
			if err := h.say(stream, &pb.ReportResponse{Message: &pb.ReportResponse_Ack{Ack: &pb.Ack{Ranges: []*pb.SeqRange{{First: 1 << 40, Last: 1<<40 + 1<<19}}}}}); err != nil {
				return err
			}
		}
	}
}

// retryAfter asks for patience.
func retryAfter(h *hostile, stream pb.ResultService_ReportServer) error {
	for n := 0; ; n++ {
		in, err := stream.Recv()
		if err != nil {
			return err
		}
		h.note(func(r *report) { r.Results += len(in.GetBatch().GetResults()) })
		for _, d := range []*durationpb.Duration{
			durationpb.New(time.Hour), durationpb.New(-time.Hour), {Seconds: math.MaxInt64}, {Seconds: math.MinInt64, Nanos: 7}, nil,
		} {
			if err := h.say(stream, &pb.ReportResponse{Message: &pb.ReportResponse_RetryAfter{RetryAfter: &pb.RetryAfter{Delay: d}}}); err != nil {
				return err
			}
		}
	}
}

// again lets a stream live for a moment, so that the agent registers again and again.
func again(h *hostile, stream pb.ResultService_ReportServer) error {
	if _, err := stream.Recv(); err != nil {
		return err
	}
	return h.say(stream, &pb.ReportResponse{Message: &pb.ReportResponse_GoAway{GoAway: &pb.GoAway{}}})
}

// giant fills the answer to a registration with names of victims.
func giant(h *hostile, _ *pb.RegisterRequest, out *pb.RegisterResponse) {
	out.NatsAddresses = nil
	for i := range 15_000 {
		out.NatsAddresses = append(out.NatsAddresses, net.JoinHostPort(fmt.Sprintf("n%d.victim.example", i), "53"))
	}
	for _, v := range h.victims {
		out.NatsAddresses = append([]string{v}, out.NatsAddresses...)
	}
	out.Vantage = &pb.Vantage{Region: strings.Repeat("r", 200<<10)}
}

// victims sends agents to the victims in place of NATS.
func victims(h *hostile, _ *pb.RegisterRequest, out *pb.RegisterResponse) {
	out.NatsAddresses = h.victims
	out.Credential = strings.Repeat("evil\r\nPUB x 1\r\n", 10)
}
