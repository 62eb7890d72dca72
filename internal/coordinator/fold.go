package coordinator

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/elsewhere-net/elsewhere/internal/bus"
	"github.com/elsewhere-net/elsewhere/internal/store"
	pb "github.com/elsewhere-net/elsewhere/proto/elsewhere/v1"
)

// deliveryGrace is the time that agents get to deliver after a restart, before what is overdue is
// closed.
const deliveryGrace = 10 * time.Second

// foldPatience is how long a commit waits for the fold of the one before, unless it has more entries than crowded.
const (
	foldPatience = 50 * time.Millisecond
	crowded      = 64
)

// fold follows the log until ctx ends.
func (c *Coordinator) fold(ctx context.Context) error {
	position, _ := c.store.Position()
	return c.history.Fold(ctx, position, func(m bus.Message) error {
		applied, err := c.store.Apply(m.Position, m.Batch, m.Data)
		if err != nil {
			return fmt.Errorf("fold at %d: %w", m.Position, err)
		}
		c.noteState()
		if !c.recovered.Load() {
			return nil // history: what had to be done about it was done
		}
		for _, e := range applied.Equivocations { // the first was on its way into the log when the second came
			if !c.owns(e.MeasurementID) {
				continue // each of several sees it, and one tells
			}
			c.audit(&pb.AuditEvent{
				Kind: pb.AuditKind_AUDIT_KIND_EQUIVOCATION, Agent: e.Agent, Detail: equivocation(e.MeasurementID, e.Place),
			})
		}
		for _, enrolment := range applied.Enrolments {
			c.onEnrolment(enrolment)
		}
		for _, change := range applied.Measurements {
			switch {
			case change.Closed:
				c.onClosed(change.ID, change.Pending)
			case change.Opened:
				c.closer.at(change.ID, change.Deadline.Add(c.afterOthers(change.ID)))
				c.chargeOthers(change.Entry)
				c.askForTheDead(change.Entry)
			}
			if change.Settled {
				c.closer.at(change.ID, time.Now().Add(c.afterOthers(change.ID)))
			}
		}
		return nil
	})
}

// recover folds what the log holds and sees to the measurements that were left open: they are closed
// at their deadline, but agents get time to deliver first. They are asked again when they come.
func (c *Coordinator) recover(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Minute)
	defer cancel()
	bounds, err := c.history.Bounds(ctx)
	if err != nil {
		return err
	}
	// What was purged will not come; what is there will.
	if bounds.Last >= bounds.First && bounds.Last > 0 {
		if err := c.folded(ctx, bounds.Last); err != nil {
			return fmt.Errorf("folding the log to %d: %w", bounds.Last, err)
		}
	}
	if err := c.checkBeginning(bounds.First); err != nil {
		return err
	}
	for _, enrolment := range c.store.Enrolments() {
		c.fleet.Enrolled(enrolment)
	}
	c.recovered.Store(true)
	earliest := time.Now().Add(deliveryGrace)
	for _, m := range c.store.Open() {
		if l := m.GetLedger(); l.GetAsked() == l.GetAnswered()+l.GetRefused()+l.GetIneligible() {
			c.closer.at(m.GetId(), time.Now().Add(c.afterOthers(m.GetId())))
			continue
		}
		// No measurement lasts longer than maxTimeout, whatever the clock was when it was opened.
		at := time.Now().Add(min(time.Until(m.GetDeadline().AsTime()), maxTimeout))
		if at.Before(earliest) {
			at = earliest
		}
		at = at.Add(c.afterOthers(m.GetId()))
		c.closer.at(m.GetId(), at)
		c.log.Info("measurement goes on", "measurement", m.GetId(), "closes_at_latest", at)
	}
	return nil
}

// ownersTime is how long the owner of a measurement has to close it before the next one does.
const ownersTime = 2 * time.Second

// afterOthers is how much later than its owner this coordinator closes a measurement: not at all if it owns it.
func (c *Coordinator) afterOthers(id string) time.Duration {
	return time.Duration(c.rank(id)) * ownersTime
}

// follow closes measurements in the commit that brings their last answer: one commit less to wait for.
// A measurement that it misses is closed when the fold says that it is settled.
func (c *Coordinator) follow(after uint64, batch *pb.LogBatch) (ends []*pb.LogEntry) {
	patience := foldPatience
	if len(batch.GetEntries()) > crowded {
		patience = 0 // the next commit comes at once, and the fold has to keep up meanwhile
	}
	ctx, cancel := context.WithTimeout(c.alive, patience)
	defer cancel()
	if c.folded(ctx, after) != nil {
		return nil
	}
	for _, id := range c.store.Settles(batch) {
		ends = append(ends, closed(id, false))
	}
	return ends
}

// closeMeasurement appends the end of a measurement. It is called again if that fails.
func (c *Coordinator) closeMeasurement(id string) error {
	ctx, cancel := context.WithTimeout(c.alive, 15*time.Second)
	defer cancel()
	return c.append(ctx, closed(id, false))
}

// onClosed tells agents that have not answered that nobody waits any more.
func (c *Coordinator) onClosed(id string, pending []string) {
	c.closer.forget(id)
	for _, agent := range pending {
		if err := c.agents.Cancel(agent, &pb.Cancel{MeasurementId: id}); err != nil {
			c.log.Debug("cancel", "measurement", id, "agent", agent, "error", err)
		}
	}
	if !c.owns(id) {
		return // another one reports it
	}
	if !c.work.Go(func() { c.report(id) }) { // the fold does not wait for the judge, but at the end
		c.report(id)
	}
}

// report writes the one line of a measurement that was closed.
func (c *Coordinator) report(id string) {
	view, err := c.store.Get(id)
	if err != nil {
		return // forgotten already
	}
	m := view.Measurement
	c.metrics.measurements.WithLabelValues(short(m.GetState().String()), short(m.GetVerdict().GetOutcome().String())).Inc()
	c.log.Info("measurement", "id", id, "state", m.GetState(), "outcome", m.GetVerdict().GetOutcome(),
		"findings", len(m.GetVerdict().GetFindings()), "asked", m.GetLedger().GetAsked(),
		"answered", m.GetLedger().GetAnswered(), "lost", m.GetLedger().GetLost(),
		"duration", m.GetFinishTime().AsTime().Sub(m.GetCreateTime().AsTime()))
}

// checkpoint writes the fold to disk, a little behind.
func (c *Coordinator) checkpoint(ctx context.Context) error {
	tick := time.NewTicker(checkpointInterval)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			err := c.store.Checkpoint()
			for _, k := range c.keys {
				err = errors.Join(err, c.noteKeys(ctx, k))
			}
			if errors.Is(err, store.ErrDamaged) {
				return err
			}
			if ctx.Err() != nil {
				return nil // the last checkpoint is the store's
			}
			if c.stale.Store(err != nil); err != nil {
				c.log.Error("checkpoint: will be tried again", "error", err)
			}
		case <-ctx.Done():
			return nil
		}
	}
}
