package aggregate

import (
	"net/http"
	"slices"
	"time"

	pb "github.com/elsewhere-net/elsewhere/proto/elsewhere/v1"
)

// maxAgentHead is how much of a header an agent reads, in bytes.
const maxAgentHead = 64 << 10

// roomBeside is the time that a measurement takes beside the wait for a response, controls and second
// attempts included.
const roomBeside = 30 * time.Second

// receive judges a response, or what came in its place, as the client takes it. An agent that lost
// patience before the client would have shows nothing, nor does one that a response had begun to come to,
// since clients wait for its parts; and neither does a header that is too large for the agent alone.
func (f *facts) receive(v *sight) {
	c := f.client
	if c == nil {
		return
	}
	limit := c.GetMaxHeaderBytes()
	switch s := v.at(); {
	case v.failure == pb.Failure_FAILURE_HTTP_TOO_LARGE && (limit <= 0 || limit > maxAgentHead):
		v.state, v.failure = unknown, pb.Failure_FAILURE_NONE
	case gaveUp(s) && (waited(s) < c.GetResponseTimeout().AsDuration() || s.GetEvidence().GetHttp().GetStatus() > 0):
		v.state, v.failure = unknown, pb.Failure_FAILURE_NONE
		f.impatient = append(f.impatient, v)
	case v.state == good && limit > 0 && s.GetEvidence().GetHttp().GetHeaderSize() > limit:
		v.state, v.failure = bad, pb.Failure_FAILURE_HTTP_TOO_LARGE
	}
}

// gaveUp says whether an agent stopped waiting for a response, be it that there was no more time for it.
func gaveUp(s *pb.Step) bool {
	return s.GetFailure() == pb.Failure_FAILURE_HTTP_TIMEOUT || s.GetFailure() == pb.Failure_FAILURE_AGENT_DEADLINE && s.GetAttempts() > 0
}

// waited is how long the agent waited for a response, at the most.
func waited(s *pb.Step) time.Duration {
	if len(s.GetEvidence().GetTries()) == 0 {
		return s.GetDuration().AsDuration()
	}
	var longest time.Duration
	for _, try := range s.GetEvidence().GetTries() {
		longest = max(longest, try.GetDuration().AsDuration())
	}
	return longest
}

// relayed says which responses the client passes on to viewers as they are: those of status 4xx. That is no
// trouble with the origin, unless it serves those who ask from somewhere else and denies them (403, 451) to
// these.
func (f *facts) relayed(spots []*spot) func(*sight) bool {
	serves := map[*thing]bool{}
	for _, s := range spots {
		serves[s.thing] = serves[s.thing] || s.open()
	}
	return func(v *sight) bool {
		return f.client != nil && v.failure == pb.Failure_FAILURE_HTTP_STATUS &&
			v.at().GetEvidence().GetHttp().GetStatus() < http.StatusInternalServerError &&
			(v.block != pb.BlockKind_BLOCK_KIND_HTTP_DENY || !serves[v.thing])
	}
}

// stillWaiting are the exchanges that agents gave up before the client would have, where no other agent of the
// region came to an end.
func (f *facts) stillWaiting() []*sight {
	type place struct {
		region *region
		thing  *thing
	}
	ended := map[place]bool{}
	for _, v := range f.reach {
		if v.state != unknown {
			ended[place{v.agent.region, v.thing}] = true
		}
	}
	return slices.DeleteFunc(slices.Clone(f.impatient), func(v *sight) bool {
		return v.thing.unused || ended[place{v.agent.region, v.thing}]
	})
}

// lostPatience states that agents did not wait as long as the client does.
func (f *facts) lostPatience() []*pb.Finding {
	waiting := f.stillWaiting()
	if len(waiting) == 0 {
		return nil
	}
	p := aboutSights(pb.FindingCode_FINDING_CODE_INSUFFICIENT_VANTAGE, waiting, nil)
	p.Stage, p.Failure, p.Failures = pb.Stage_STAGE_HTTP, pb.Failure_FAILURE_HTTP_TIMEOUT, []pb.Failure{pb.Failure_FAILURE_HTTP_TIMEOUT}
	p.Regions = regionNames(waiting)
	p.Addresses = collect(waiting, func(v *sight) string { return v.thing.text })
	p.Confidence = pb.Confidence_CONFIDENCE_LOW
	longest := time.Duration(0)
	for _, v := range waiting {
		longest = max(longest, waited(v.at()))
	}
	p.Summary = join(p.GetRegions()) + ": " + seen(p.GetFailure()) + " " + join(p.GetAddresses()) + " within " + longest.Round(time.Second).String() +
		"; " + f.client.label() + " waits for " + f.client.GetResponseTimeout().AsDuration().String() + ", so that it may still get one."
	p.Hint = "look at what keeps the server busy; with a --timeout of " + (f.client.GetResponseTimeout().AsDuration() + roomBeside).String() + " the agents wait as long."
	return []*pb.Finding{p}
}
