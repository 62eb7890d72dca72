package main

import (
	"context"
	"fmt"
	"math"
	mathrand "math/rand/v2"
	"net"
	"strings"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	pb "github.com/elsewhere-net/elsewhere/proto/elsewhere/v1"
)

// mode is a way to be hostile: what is said differently than an honest coordinator says it.
type mode = *behaviour

type behaviour struct {
	// register changes the answer to Register.
	register func(*hostile, *pb.RegisterRequest, *pb.RegisterResponse)
	// attack is what is done to an agent that has subscribed its subjects.
	attack func(context.Context, *hostile, *peer) error
	// stream answers a result stream in place of keep.
	stream func(*hostile, pb.ResultService_ReportServer) error
	// servers names further servers of NATS to agents that are connected.
	servers bool
}

// modes are all of them.
var modes = map[string]mode{
	// One job a second for the target, nothing else.
	"honest": {attack: func(ctx context.Context, h *hostile, p *peer) error {
		return every(ctx, time.Second, func(n int) error { return h.job(p, tcp(n, h.target.Addr().String(), h.target.Port())) })
	}},
	// As many jobs as --rate for the target, and nothing else.
	"flood": {attack: flood},
	// As many lookups as --rate at the target, of A, TXT and ANY.
	"queries": {attack: queries},
	// Jobs for all addresses of --victims, in every check that leads there.
	"forbidden": {attack: forbidden},
	// Jobs of up to 8 MiB.
	"huge": {attack: huge},
	// Bytes that are no jobs, and jobs that make no sense.
	"malformed": {attack: malformed},
	// Jobs of other agents.
	"foreign": {attack: func(ctx context.Context, h *hostile, p *peer) error {
		return every(ctx, time.Millisecond, func(n int) error {
			job := tcp(n, h.target.Addr().String(), h.target.Port())
			job.Agent = fmt.Sprint("someone-else-", n%7)
			return h.raw(p, job)
		})
	}},
	// The end of every job that there could be.
	"cancel": {attack: cancelAll},
	// A message that is announced to be longer than memory, after each of which the connection is new.
	"bomb": {attack: func(_ context.Context, _ *hostile, p *peer) error {
		return p.write("MSG jobs.%s %s %s 99999999999999999\r\nx", p.agent, p.jobs, replies)
	}},
	// A line without an end.
	"endless-line": {attack: func(ctx context.Context, _ *hostile, p *peer) error {
		for ctx.Err() == nil {
			if err := p.write("%s", strings.Repeat("-ERR ", 4096)); err != nil {
				return nil //nolint:nilerr // the agent hung up
			}
		}
		return nil
	}},
	// An error that the agent's library takes for the last word, once the agent has what it wants.
	"dismissal": {attack: func(ctx context.Context, _ *hostile, p *peer) error {
		select {
		case <-time.After(300 * time.Millisecond):
		case <-ctx.Done():
		}
		return p.write("-ERR 'Go Away'\r\n")
	}},
	// Acknowledgements of what was never sent, of all numbers, and backwards.
	"acks": {attack: slowly, stream: acks},
	// An hour's, a year's and ten thousand years' patience for every batch.
	"retry-after": {attack: slowly, stream: retryAfter},
	// The wish to come again, at once and each time.
	"go-away": {attack: slowly, stream: func(h *hostile, stream pb.ResultService_ReportServer) error {
		return h.say(stream, &pb.ReportResponse{Message: &pb.ReportResponse_GoAway{GoAway: &pb.GoAway{}}})
	}},
	// A registration of nearly all that a message may have.
	"giant-registration": {register: giant, stream: again},
	// NATS servers that are the victims.
	"victims": {register: victims, stream: again},
	// The same, told to those that are connected.
	"more-servers": {servers: true, attack: func(ctx context.Context, _ *hostile, p *peer) error {
		return p.conn.Close()
	}},
	// Trust in nobody that there is.
	"authorities": {attack: slowly, register: func(_ *hostile, _ *pb.RegisterRequest, out *pb.RegisterResponse) {
		out.Authorities = [][]byte{[]byte("no certificate"), make([]byte, 64<<10)}
	}, stream: again},
	// Epochs and sessions that go backwards, to nothing.
	"epochs": {attack: slowly, register: func(_ *hostile, r *pb.RegisterRequest, out *pb.RegisterResponse) {
		out.Epoch, out.Session = r.GetEpoch()/2, math.MaxUint64-out.GetSession()
	}, stream: again},
}

// every calls f again and again, until ctx ends or it fails.
func every(ctx context.Context, pause time.Duration, f func(n int) error) error {
	tick := time.NewTicker(pause)
	defer tick.Stop()
	for n := 0; ; n++ {
		if err := f(n); err != nil {
			return err
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return nil
		}
	}
}

// slowly has an agent make results: what is said about them is the attack.
func slowly(ctx context.Context, h *hostile, p *peer) error {
	return every(ctx, 100*time.Millisecond, func(n int) error { return h.job(p, tcp(n, h.target.Addr().String(), h.target.Port())) })
}

// tcp is a job for an address.
func tcp(n int, host string, port uint16) *pb.Job {
	return of(n, &pb.Spec{Check: &pb.Spec_Tcp{Tcp: &pb.TCPSpec{Host: host, Port: uint32(port)}}})
}

func of(n int, spec *pb.Spec) *pb.Job {
	return &pb.Job{
		MeasurementId: fmt.Sprintf("%d-%d", time.Now().UnixNano(), n), Spec: spec,
		CoordinatorTime: timestamppb.Now(), Remaining: durationpb.New(10 * time.Second),
	}
}

// job sends a job to its agent.
func (h *hostile) job(p *peer, job *pb.Job) error {
	job.Agent = p.agent
	return h.raw(p, job)
}

func (h *hostile) raw(p *peer, job *pb.Job) error {
	if err := h.queue(p, job); err != nil {
		return err
	}
	return p.flush()
}

// queue leaves it to the caller to flush.
func (h *hostile) queue(p *peer, job *pb.Job) error {
	data, err := proto.MarshalOptions{AllowPartial: true}.Marshal(job)
	if err != nil {
		return err
	}
	return h.send(p, p.jobs, data)
}

// flood sends --rate jobs a second, in hundredths of a second.
func flood(ctx context.Context, h *hostile, p *peer) error {
	return every(ctx, 10*time.Millisecond, func(n int) error {
		for i := range h.rate / 100 {
			job := tcp(n*h.rate+i, h.target.Addr().String(), h.target.Port())
			job.Agent = p.agent
			if err := h.queue(p, job); err != nil {
				return err
			}
		}
		return p.flush()
	})
}

// queries sends --rate lookups a second, in hundredths of a second, at the target.
func queries(ctx context.Context, h *hostile, p *peer) error {
	return every(ctx, 10*time.Millisecond, func(n int) error {
		for i := range h.rate / 100 {
			job := of(n*h.rate+i, &pb.Spec{Check: &pb.Spec_Dns{Dns: &pb.DNSSpec{
				Name: fmt.Sprintf("n%d-%d.example", n, i), Type: []string{"A", "ANY", "TXT"}[(n+i)%3], Resolver: h.target.Addr().String(),
			}}})
			job.Agent = p.agent
			if err := h.queue(p, job); err != nil {
				return err
			}
		}
		return p.flush()
	})
}

// forbidden leads to each victim in every way that a job has.
func forbidden(ctx context.Context, h *hostile, p *peer) error {
	return every(ctx, 20*time.Millisecond, func(n int) error {
		for _, host := range h.victims {
			url := "http://" + net.JoinHostPort(host, "80") + "/latest/meta-data/"
			for i, spec := range []*pb.Spec{
				{Check: &pb.Spec_Tcp{Tcp: &pb.TCPSpec{Host: host, Port: 80, Path: n%2 == 0}}},
				{Check: &pb.Spec_Tls{Tls: &pb.TLSSpec{Host: host, Port: 443, Enumerate: n%2 == 0}}},
				{Check: &pb.Spec_Http{Http: &pb.HTTPSpec{Url: url, MaxRedirects: 5}}},
				{Check: &pb.Spec_Dns{Dns: &pb.DNSSpec{Name: "www.example", Resolver: net.JoinHostPort(host, "53")}}},
				{Check: &pb.Spec_Dns{Dns: &pb.DNSSpec{Name: "www.example", PublicResolvers: []string{net.JoinHostPort(host, "53")}}}},
			} {
				if err := h.job(p, of(n*10+i, spec)); err != nil {
					return err
				}
			}
		}
		return nil
	})
}

// huge sends jobs that are as large as a message may be, and beyond.
func huge(ctx context.Context, h *hostile, p *peer) error {
	big := strings.Repeat("x", 900<<10)
	return every(ctx, 50*time.Millisecond, func(n int) error {
		names := make([]string, 100_000)
		for i := range names {
			names[i] = "a.example"
		}
		for i, job := range []*pb.Job{
			tcp(n, big, 1),
			{MeasurementId: big, Agent: p.agent, Remaining: durationpb.New(time.Second), Spec: tcp(0, "a", 1).GetSpec()},
			of(n, &pb.Spec{Check: &pb.Spec_Tls{Tls: &pb.TLSSpec{Host: "a.example", Names: names[:80_000]}}}),
			of(n, &pb.Spec{Check: &pb.Spec_Dns{Dns: &pb.DNSSpec{Name: "a.example", PublicResolvers: names[:80_000]}}}),
			of(n, &pb.Spec{Check: &pb.Spec_Http{Http: &pb.HTTPSpec{Url: "http://a.example/" + big}}}),
			tcp(n, strings.Repeat(big, 8), 1),
		} {
			if i == 5 && n%20 != 0 {
				continue // it costs the connection
			}
			if err := h.job(p, job); err != nil {
				return err
			}
		}
		return nil
	})
}

// malformed sends what is no job.
func malformed(ctx context.Context, h *hostile, p *peer) error {
	rng := mathrand.New(mathrand.NewPCG(1, 2))
	whole, err := proto.Marshal(tcp(0, h.target.Addr().String(), h.target.Port()))
	if err != nil {
		return err
	}
	return every(ctx, time.Millisecond, func(n int) error {
		data := append([]byte{}, whole[:rng.IntN(len(whole)+1)]...)
		for range rng.IntN(8) {
			data = append(data, byte(rng.Uint32()))
		}
		if err := h.send(p, p.jobs, data); err != nil {
			return err
		}
		for i, job := range []*pb.Job{
			of(n, nil), of(n, &pb.Spec{}),
			{Agent: p.agent},
			tcp(n, "", 0), tcp(n, "\x00\xff\x1b[2J", 1), tcp(n, "a b", 1), tcp(n, "fe80::1%eth0", 1),
			of(n, &pb.Spec{Check: &pb.Spec_Dns{Dns: &pb.DNSSpec{Name: strings.Repeat("a.", 200), Type: "AXFR"}}}),
			of(n, &pb.Spec{Family: 77, Check: &pb.Spec_Http{Http: &pb.HTTPSpec{Url: "http://a\r\nHost: b/", ExpectBody: "(((", MaxRedirects: math.MaxUint32}}}),
		} {
			switch i % 3 {
			case 1:
				job.Remaining = durationpb.New(-time.Hour)
			case 2:
				job.Remaining = &durationpb.Duration{Seconds: math.MaxInt64, Nanos: -1}
			}
			job.Round, job.Agent = int32(rng.Uint32()), p.agent
			if data, err := (proto.MarshalOptions{AllowPartial: true}).Marshal(job); err == nil {
				if err := h.send(p, p.jobs, data); err != nil {
					return err
				}
			}
		}
		return p.flush()
	})
}

// cancelAll ends jobs that there are, and thousands that there are not.
func cancelAll(ctx context.Context, h *hostile, p *peer) error {
	return every(ctx, 10*time.Millisecond, func(n int) error {
		job := tcp(n, h.target.Addr().String(), h.target.Port())
		if err := h.job(p, job); err != nil {
			return err
		}
		for i := range h.rate / 100 {
			c := &pb.Cancel{MeasurementId: fmt.Sprint(n, "-", i), Round: int32(i)}
			if i == 0 {
				c = &pb.Cancel{MeasurementId: job.GetMeasurementId()}
			}
			data, err := proto.Marshal(c)
			if err != nil {
				return err
			}
			if err := h.send(p, p.ends, data); err != nil {
				return err
			}
		}
		return p.flush()
	})
}
