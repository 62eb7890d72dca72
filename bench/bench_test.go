// Package bench measures what the network adds to the probes. `make bench` runs it; README.md has the
// last figures.
package bench

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/elsewhere-net/elsewhere/internal/network"
	"github.com/elsewhere-net/elsewhere/pkg/probe"
	pb "github.com/elsewhere-net/elsewhere/proto/elsewhere/v1"
)

// BenchmarkOverhead4 is the time from create to the closed verdict less the slowest probe, with four
// agents on loopback, one measurement at a time.
func BenchmarkOverhead4(b *testing.B) { overhead(b, 4) }

// BenchmarkOverhead1000 is the same with a thousand agents in this process.
func BenchmarkOverhead1000(b *testing.B) { overhead(b, 1000) }

func overhead(b *testing.B, agents int) {
	target := listen(b)
	api := start(b, agents)
	request := &pb.CreateMeasurementRequest{
		Spec:  &pb.Spec{Check: &pb.Spec_Tcp{Tcp: &pb.TCPSpec{Host: target.Addr().String(), Port: uint32(target.Port())}}},
		Limit: int32(agents),
	}
	var samples []time.Duration
	for b.Loop() {
		samples = append(samples, measure(b, api, request))
	}
	slices.Sort(samples)
	at := func(p int) float64 {
		return float64(samples[(len(samples)-1)*p/100].Microseconds()) / 1000
	}
	b.ReportMetric(0, "ns/op") // the figures below say it
	b.ReportMetric(at(50), "p50-ms")
	b.ReportMetric(at(99), "p99-ms")
}

// measure asks once and returns what the network added to the slowest probe.
func measure(b *testing.B, api pb.MeasurementServiceClient, request *pb.CreateMeasurementRequest) time.Duration {
	began := time.Now()
	created, err := api.CreateMeasurement(b.Context(), request)
	if err != nil {
		b.Fatal(err)
	}
	stream, err := api.WatchMeasurement(b.Context(), &pb.WatchMeasurementRequest{Id: created.GetMeasurement().GetId(), Results: true})
	if err != nil {
		b.Fatal(err)
	}
	var slowest time.Duration
	for {
		response, err := stream.Recv()
		if err != nil {
			b.Fatal(err)
		}
		for _, r := range response.GetResults() {
			slowest = max(slowest, r.GetDuration().AsDuration())
		}
		m := response.GetMeasurement()
		if m.GetState() != pb.State_STATE_FINISHED {
			continue
		}
		took := time.Since(began)
		if m.GetLedger().GetAnswered() != m.GetLedger().GetAsked() || m.GetVerdict().GetOutcome() != pb.Outcome_OUTCOME_OK {
			b.Fatalf("%v %v", m.GetLedger(), m.GetVerdict())
		}
		if _, err := stream.Recv(); err != io.EOF { //nolint:errorlint // the end itself
			b.Fatal(err)
		}
		return took - slowest
	}
}

// ended waits until a measurement is closed.
func ended(ctx context.Context, api pb.MeasurementServiceClient, id string) (*pb.Measurement, error) {
	stream, err := api.WatchMeasurement(ctx, &pb.WatchMeasurementRequest{Id: id})
	for err == nil {
		var r *pb.WatchMeasurementResponse
		if r, err = stream.Recv(); err == nil && r.GetMeasurement().GetState() != pb.State_STATE_RUNNING {
			return r.GetMeasurement(), nil
		}
	}
	return nil, err
}

// start starts a network of so many agents over four regions and returns its API.
func start(b *testing.B, agents int) pb.MeasurementServiceClient {
	opts := network.Options{Dir: b.TempDir()}
	for i := range agents {
		opts.Agents = append(opts.Agents, network.Agent{
			ID:      fmt.Sprintf("agent-%04d", i),
			Vantage: &pb.Vantage{Region: fmt.Sprint("region-", i%4), Asn: uint32(64500 + i/4)},
			Env: &probe.Env{
				Egress:    probe.Egress{Allow: []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}},
				Resolvers: []netip.AddrPort{}, Controls: []string{},
			},
		})
	}
	ctx, cancel := context.WithTimeout(b.Context(), 2*time.Minute)
	defer cancel()
	n, err := network.Start(ctx, opts)
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() {
		if err := n.Stop(); err != nil {
			b.Error(err)
		}
	})
	conn, err := n.Dial()
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { _ = conn.Close() })
	return pb.NewMeasurementServiceClient(conn)
}

func listen(b *testing.B) netip.AddrPort {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { _ = l.Close() })
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			go func() { _, _ = io.Copy(io.Discard, conn); _ = conn.Close() }()
		}
	}()
	return netip.MustParseAddrPort(l.Addr().String())
}
