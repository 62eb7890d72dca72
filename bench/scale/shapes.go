//go:build linux

package main

import (
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"

	pb "github.com/elsewhere-net/elsewhere/proto/elsewhere/v1"
)

const (
	// places is how many places the recorded agents stand at: two in each.
	places = 4
	// variants is how many forms of a recorded result there are: each has a resolver and times of its own.
	variants = 16
)

// shape is a recorded measurement, as others are made of it: what was asked, and what agents at each place saw.
type shape struct {
	name    string
	weight  int // how many of ten measurements are like it
	outcome pb.Outcome
	spec    *pb.Spec
	policy  *pb.Policy
	// bodies are results, by place and variant, as bytes and without what differs from agent to agent.
	bodies [places][variants][]byte
}

// recorded are the measurements that shapes are made of. One of ten is of a firewall that drops what comes from one
// place, and one of a certificate that has expired at one address.
func recorded() []*shape {
	return []*shape{
		{name: "healthy-tcp", weight: 4, outcome: pb.Outcome_OUTCOME_OK},
		{name: "healthy-dns", weight: 2, outcome: pb.Outcome_OUTCOME_OK},
		{name: "healthy-tls", weight: 2, outcome: pb.Outcome_OUTCOME_OK},
		{name: "drop", weight: 1, outcome: pb.Outcome_OUTCOME_FAIL},
		{name: "expired-one", weight: 1, outcome: pb.Outcome_OUTCOME_FAIL},
	}
}

// loadShapes reads the recorded measurements.
func loadShapes(dir string) ([]*shape, error) {
	shapes := recorded()
	for _, s := range shapes {
		if err := s.load(filepath.Join(dir, s.name+".json.gz")); err != nil {
			return nil, fmt.Errorf("%s: %w", s.name, err)
		}
	}
	return shapes, nil
}

func (s *shape) load(path string) error {
	file, err := os.Open(path)
	if err != nil {
		return err
	}
	defer func() { _ = file.Close() }() // it was only read
	zip, err := gzip.NewReader(file)
	if err != nil {
		return err
	}
	text, err := io.ReadAll(zip)
	var m pb.Measurement
	if err = errors.Join(err, protojson.Unmarshal(text, &m)); err != nil {
		return err
	}
	s.spec, s.policy = m.GetSpec(), m.GetPolicy()
	var regions []string
	for _, r := range m.GetResults() {
		regions = append(regions, r.GetVantage().GetRegion())
	}
	slices.Sort(regions)
	if regions = slices.Compact(regions); len(regions) != places {
		return fmt.Errorf("it has results of %v, which are not %d places", regions, places)
	}
	chance := rand.New(rand.NewPCG(7, 7))
	for place, region := range regions {
		i := slices.IndexFunc(m.GetResults(), func(r *pb.Result) bool { return r.GetVantage().GetRegion() == region })
		for v := range variants {
			if s.bodies[place][v], err = body(m.GetResults()[i], v, chance); err != nil {
				return err
			}
		}
	}
	return nil
}

// resolver is the one that agents of a variant have.
func resolver(variant int) string { return fmt.Sprintf("198.51.100.%d:53", variant+1) }

// body is a variant of a recorded result, encoded: another resolver, and all that took a while took up to four times as
// long.
func body(recorded *pb.Result, variant int, chance *rand.Rand) ([]byte, error) {
	r := proto.CloneOf(recorded)
	own := r.GetVantage().GetResolvers()
	for _, step := range r.GetSteps() {
		if slices.Contains(own, step.GetAddress()) {
			step.Address = resolver(variant)
		}
		slower := 1 + 3*chance.Float64()
		step.Duration = stretched(step.GetDuration(), slower)
		if e := step.GetEvidence(); e.GetRtt() != nil {
			e.Rtt = stretched(e.GetRtt(), slower)
		}
	}
	r.MeasurementId, r.Agent, r.Vantage = "", "", nil
	return proto.MarshalOptions{Deterministic: true}.Marshal(r)
}

func stretched(d *durationpb.Duration, by float64) *durationpb.Duration {
	return durationpb.New(time.Duration(float64(d.AsDuration()) * by))
}

// vantage is where an agent stands: one of 32 regions, each at one of the recorded places.
func vantage(agent int) *pb.Vantage {
	cities := strings.Fields("Ashburn Frankfurt Mumbai Osaka")
	return &pb.Vantage{
		Region: fmt.Sprintf("region-%02d", agent%regions), Country: "DE", City: cities[agent%len(cities)],
		Provider: "Example Hosting", Asn: uint32(64512 + agent/regions%1000), Ipv4: true, Ipv6: true,
		Resolvers: []string{resolver(agent / regions % variants)}, ObservedAddress: fmt.Sprintf("192.0.2.%d", agent%250+1),
		Addresses: []string{fmt.Sprintf("192.0.2.%d", agent%250+1)},
	}
}
