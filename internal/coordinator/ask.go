package coordinator

import (
	"context"
	"errors"
	"slices"
	"strings"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/elsewhere-net/elsewhere/internal/bus"
	"github.com/elsewhere-net/elsewhere/internal/publicdns"
	pb "github.com/elsewhere-net/elsewhere/proto/elsewhere/v1"
)

const (
	// deliveryTime is what is taken off a job's time for the delivery of its result.
	deliveryTime = 2 * time.Second
	// maxVersion bounds the words for an agent's version, as at its registration.
	maxVersion = 100
	// askPause is the pause before an agent that did not reply is asked once more.
	askPause = 250 * time.Millisecond
)

// askAll asks every agent of a measurement, all at once.
func (c *Coordinator) askAll(m *pb.Measurement) {
	for _, a := range m.GetAsks() {
		c.work.Go(func() { c.ask(m, a) })
	}
}

// ask asks one agent, and once more if there is no reply; then it is left to the deadline. An agent
// that comes back is asked again.
func (c *Coordinator) ask(m *pb.Measurement, a *pb.Ask) {
	agent := a.GetAgent()
	ctx, cancel := context.WithDeadline(c.alive, m.GetDeadline().AsTime())
	defer cancel()
	for again := range 2 {
		if again > 0 {
			if _, wanted, err := c.store.Asked(m.GetId(), agent); err == nil && !wanted {
				return // it has answered another question, from when it came back
			}
		}
		reply, err := c.agents.Ask(ctx, c.job(m, a))
		if err == nil {
			reply.Failure = known(reply.GetFailure())
			c.metrics.replies.WithLabelValues(short(reply.GetFailure().String())).Inc()
			c.onReply(ctx, m.GetId(), agent, reply)
			return
		}
		label := "no_reply"
		if errors.Is(err, bus.ErrNoResponder) {
			label = "no_responder"
		}
		c.metrics.replies.WithLabelValues(label).Inc()
		c.log.Debug("no reply to a job", "measurement", m.GetId(), "agent", agent, "error", err)
		select {
		case <-time.After(askPause):
		case <-ctx.Done():
			return
		}
	}
}

// job is what an agent is told now.
func (c *Coordinator) job(m *pb.Measurement, a *pb.Ask) *pb.Job {
	now := time.Now()
	left := m.GetDeadline().AsTime().Sub(now)
	// A short measurement keeps most of its time for the work.
	left -= min(deliveryTime, left/4)
	return &pb.Job{
		MeasurementId:   m.GetId(),
		Agent:           a.GetAgent(),
		Spec:            specFor(m, a),
		CoordinatorTime: timestamppb.New(now),
		Remaining:       durationpb.New(left),
		OptOuts:         c.optOuts().Entries,
	}
}

// specFor is what one agent is to look at: the measurement's spec, with the public resolvers of the agent's
// place after those that the question names.
func specFor(m *pb.Measurement, a *pb.Ask) *pb.Spec {
	spec := m.GetSpec()
	if !spec.GetDns().GetLocalPublicResolvers() {
		return spec
	}
	spec = proto.CloneOf(spec)
	d := spec.GetDns()
	for _, address := range publicdns.For(m.GetPublicResolvers(), a, spec.GetFamily()) {
		if len(d.GetPublicResolvers()) < publicdns.MaxAsked && !slices.Contains(d.GetPublicResolvers(), address) {
			d.PublicResolvers = append(d.PublicResolvers, address)
		}
	}
	return spec
}

// known is an agent's reason as far as it is one: agents may be newer, or hostile.
func known(f pb.Failure) pb.Failure {
	switch name, ok := pb.Failure_name[int32(f)]; {
	case f == pb.Failure_FAILURE_UNSPECIFIED, f == pb.Failure_FAILURE_NONE, ok && strings.HasPrefix(name, "FAILURE_AGENT_"):
		return f
	default:
		return pb.Failure_FAILURE_AGENT_INTERNAL
	}
}

// onReply puts a no into the log. A yes needs nothing: the result will say it.
func (c *Coordinator) onReply(ctx context.Context, id, agent string, reply *pb.JobReply) {
	switch reply.GetFailure() {
	case pb.Failure_FAILURE_NONE:
		return
	case pb.Failure_FAILURE_UNSPECIFIED, pb.Failure_FAILURE_AGENT_DEADLINE:
		return // not an answer to the question: left to the deadline
	default:
	}
	err := c.append(ctx, &pb.LogEntry{Entry: &pb.LogEntry_Declined{Declined: &pb.Declined{
		MeasurementId: id, Agent: agent, Failure: reply.GetFailure(), Detail: clip(reply.GetDetail()),
	}}})
	if err != nil {
		c.log.Warn("an agent's no is not in the log: it will count as lost", "measurement", id, "agent", agent, "error", err)
	}
}

// onBeat notes that an agent lives. One that has come, or come back, is asked what is still open for
// it: it runs nothing twice.
func (c *Coordinator) onBeat(from string, b *pb.Beat) {
	if b.GetAgent() != from {
		c.audit(&pb.AuditEvent{
			Kind: pb.AuditKind_AUDIT_KIND_SPOOFING_REFUSED, Agent: from, Detail: "it sent a beat in the name of " + clip(b.GetAgent()),
		})
		return
	}
	if c.validator.Validate(b.GetVantage()) != nil || len(b.GetVersion()) > maxVersion {
		return
	}
	if c.fleet.Beat(b) {
		c.askAgain(b.GetAgent())
	}
}

// askAgain asks an agent that is there again what it has not answered.
func (c *Coordinator) askAgain(agent string) {
	for _, waits := range c.store.Awaits(agent) {
		if c.owns(waits.Measurement.GetId()) && time.Until(waits.Measurement.GetDeadline().AsTime()) > 0 {
			c.work.Go(func() { c.ask(waits.Measurement, waits.Ask) })
		}
	}
}

// clip bounds an agent's words to 200 bytes of valid UTF-8.
func clip(s string) string {
	return strings.ToValidUTF8(s[:min(len(s), 200)], "")
}
