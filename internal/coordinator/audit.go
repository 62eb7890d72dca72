package coordinator

import (
	"context"
	"log/slog"
	"strings"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	pb "github.com/elsewhere-net/elsewhere/proto/elsewhere/v1"
)

const (
	// auditQueue bounds the events that wait for the log. Beyond it they are counted and left out.
	auditQueue = 4096
	// auditWindow is the time in which the same happening again is one event with a count.
	auditWindow = time.Minute
	// auditSubjects bounds whom one kind of event is told of in auditWindow, each by itself. Beyond it, they are
	// counted together: whoever has a network full of addresses cannot fill the log with them.
	auditSubjects = 64
	// auditDetail bounds the words of an event, in bytes.
	auditDetail = 500
	// auditBatch bounds the events in one append.
	auditBatch = 256
	// auditTimeout bounds one append.
	auditTimeout = 15 * time.Second
)

// audit notes something about trust, in the log and in a line of the program's own. It never waits. The first of
// its kind about somebody is written at once; the same again within a minute is one event with a count. The words
// must hold no secret.
func (c *Coordinator) audit(e *pb.AuditEvent) { c.auditor.note(e) }

// appendAudit adds events to the log.
func (c *Coordinator) appendAudit(entries []*pb.LogEntry) error {
	ctx, cancel := context.WithTimeout(c.alive, auditTimeout)
	defer cancel()
	return c.append(ctx, entries...)
}

// auditor writes events of audit to the log.
type auditor struct {
	log *slog.Logger
	// write makes entries durable.
	write func([]*pb.LogEntry) error
	// dropped hears how many events were left out, for want of room or because the log would not take them.
	dropped func(int)

	events         chan *pb.AuditEvent
	stopping, done chan struct{}
	seen           map[auditKey]*pb.AuditEvent // told in this window; what came again is counted in it
	subjects       map[pb.AuditKind]int        // how many of seen are of a kind
	waiting        []*pb.LogEntry
}

// auditKey is what makes two events the same.
type auditKey struct {
	kind    pb.AuditKind
	subject string
}

func newAuditor(log *slog.Logger, write func([]*pb.LogEntry) error, dropped func(int)) *auditor {
	return &auditor{
		log: log, write: write, dropped: dropped,
		events: make(chan *pb.AuditEvent, auditQueue), stopping: make(chan struct{}), done: make(chan struct{}),
		seen: map[auditKey]*pb.AuditEvent{}, subjects: map[pb.AuditKind]int{},
	}
}

// note queues an event, or counts it if the queue is full.
func (a *auditor) note(e *pb.AuditEvent) {
	e = proto.CloneOf(e)
	if e.GetTime() == nil {
		e.Time = timestamppb.Now()
	}
	e.Agent, e.TokenId, e.Address = clip(e.GetAgent()), clip(e.GetTokenId()), clip(e.GetAddress())
	e.Detail = strings.ToValidUTF8(e.GetDetail()[:min(len(e.GetDetail()), auditDetail)], "")
	select {
	case a.events <- e:
	default:
		a.dropped(1)
	}
}

// run writes what is noted until stop.
func (a *auditor) run() {
	defer close(a.done)
	tick := time.NewTicker(auditWindow)
	defer tick.Stop()
	for {
		select {
		case e := <-a.events:
			a.take(e)
			a.gather()
			a.flush()
		case <-tick.C:
			a.endWindow()
			a.flush()
		case <-a.stopping:
			for len(a.events) > 0 {
				a.gather()
				a.flush()
			}
			a.endWindow()
			a.flush()
			return
		}
	}
}

// stop writes what is left and returns when that is done.
func (a *auditor) stop() {
	close(a.stopping)
	<-a.done
}

// gather takes what waits in the queue, as much as one append holds.
func (a *auditor) gather() {
	for len(a.waiting) < auditBatch {
		select {
		case e := <-a.events:
			a.take(e)
		default:
			return
		}
	}
}

// take counts an event that was told already, or tells it.
func (a *auditor) take(e *pb.AuditEvent) {
	key := auditKey{e.GetKind(), subject(e)}
	if !deliberate(e.GetKind()) && a.seen[key] == nil && a.subjects[e.GetKind()] >= auditSubjects {
		key.subject = "" // no event has this one: what is beyond the bound
		e.Agent, e.TokenId, e.Address, e.Detail = "", "", "", "of many"
	}
	if again := a.seen[key]; again != nil {
		e.RepeatedCount = again.GetRepeatedCount() + 1
		a.seen[key] = e // the newest words
		return
	}
	if !deliberate(e.GetKind()) {
		a.seen[key] = &pb.AuditEvent{}
		a.subjects[e.GetKind()]++
	}
	a.tell(e)
}

// endWindow tells what came again, and begins a new window with it.
func (a *auditor) endWindow() {
	for key, e := range a.seen {
		if e.GetRepeatedCount() > 0 {
			a.tell(e)
			a.seen[key] = &pb.AuditEvent{}
			continue
		}
		delete(a.seen, key)
		a.subjects[key.kind]--
	}
}

func (a *auditor) tell(e *pb.AuditEvent) {
	a.waiting = append(a.waiting, &pb.LogEntry{Entry: &pb.LogEntry_Audit{Audit: e}})
	a.log.Info("audit", "kind", e.GetKind(), "agent", e.GetAgent(), "token", e.GetTokenId(), "address", e.GetAddress(),
		"detail", e.GetDetail(), "repeated", e.GetRepeatedCount())
}

// flush appends what is to be told. What the log does not take is in the program's own lines alone.
func (a *auditor) flush() {
	if len(a.waiting) == 0 {
		return
	}
	if err := a.write(a.waiting); err != nil {
		a.dropped(len(a.waiting))
		a.log.Error("audit events are not in the log", "events", len(a.waiting), "error", err)
	}
	a.waiting = nil
}

// subject is whom an event is about: the agent, or else the token, or else where it came from.
func subject(e *pb.AuditEvent) string {
	for _, s := range []string{"agent " + e.GetAgent(), "token " + e.GetTokenId(), "address " + e.GetAddress()} {
		if !strings.HasSuffix(s, " ") {
			return s
		}
	}
	return "nobody"
}

// deliberate tells whether only somebody who was let in can bring about an event, on purpose: each of them is told.
func deliberate(kind pb.AuditKind) bool {
	switch kind {
	case pb.AuditKind_AUDIT_KIND_AGENT_ENROLLED, pb.AuditKind_AUDIT_KIND_AGENT_REVOKED,
		pb.AuditKind_AUDIT_KIND_TOKEN_CREATED, pb.AuditKind_AUDIT_KIND_TOKEN_REVOKED,
		pb.AuditKind_AUDIT_KIND_AUTHORITY_CHANGED, pb.AuditKind_AUDIT_KIND_BACKUP_TAKEN, pb.AuditKind_AUDIT_KIND_RESTORED:
		return true
	case pb.AuditKind_AUDIT_KIND_UNSPECIFIED, pb.AuditKind_AUDIT_KIND_AGENT_RETURNED, pb.AuditKind_AUDIT_KIND_TOKEN_REFUSED,
		pb.AuditKind_AUDIT_KIND_SPOOFING_REFUSED, pb.AuditKind_AUDIT_KIND_EQUIVOCATION, pb.AuditKind_AUDIT_KIND_UNASKED_RESULT,
		pb.AuditKind_AUDIT_KIND_IDENTITY_CONFLICT, pb.AuditKind_AUDIT_KIND_QUOTA_REACHED, pb.AuditKind_AUDIT_KIND_FLOOD,
		pb.AuditKind_AUDIT_KIND_CANARY_MISMATCH, pb.AuditKind_AUDIT_KIND_STATES_DIFFER:
	}
	return false
}
