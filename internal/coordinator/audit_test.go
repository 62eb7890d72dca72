package coordinator

import (
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	pb "github.com/elsewhere-net/elsewhere/proto/elsewhere/v1"
)

// audited runs an auditor in a bubble and returns what reached the log, and how many were left out.
func audited(t *testing.T, err error, happen func(note func(*pb.AuditEvent))) (events []*pb.AuditEvent, dropped int64) {
	t.Helper()
	var lost atomic.Int64
	synctest.Test(t, func(*testing.T) {
		write := func(entries []*pb.LogEntry) error {
			for _, e := range entries {
				events = append(events, e.GetAudit())
			}
			return err
		}
		a := newAuditor(slog.New(slog.DiscardHandler), write, func(n int) { lost.Add(int64(n)) })
		go a.run()
		happen(a.note)
		a.stop()
	})
	return events, lost.Load()
}

func refused(address string) *pb.AuditEvent {
	return &pb.AuditEvent{Kind: pb.AuditKind_AUDIT_KIND_TOKEN_REFUSED, Address: address}
}

func TestAuditCountsWhatHappensAgain(t *testing.T) {
	events, _ := audited(t, nil, func(note func(*pb.AuditEvent)) {
		for range 1000 {
			note(refused("192.0.2.1"))
			note(refused("192.0.2.2"))
			time.Sleep(50 * time.Millisecond) // 50 s in all
		}
		time.Sleep(2 * time.Minute)
		note(refused("192.0.2.1"))
	})
	var said []string
	for _, e := range events {
		said = append(said, fmt.Sprintf("%s %d", e.GetAddress(), e.GetRepeatedCount()))
	}
	got := strings.Join(said, ", ")
	if len(events) != 5 || strings.Count(got, " 999") != 2 || said[4] != "192.0.2.1 0" {
		t.Errorf("%s: want each at once, then 999 more of each, then the one of a new minute", got)
	}
}

func TestAuditCannotBeFilledByManyAddresses(t *testing.T) {
	events, dropped := audited(t, nil, func(note func(*pb.AuditEvent)) {
		for i := range 100_000 {
			note(refused(fmt.Sprintf("2001:db8::%x", i)))
			if i%1000 == 0 {
				synctest.Wait()
			}
		}
	})
	if len(events) > auditSubjects+2 || dropped != 0 {
		t.Errorf("%d events and %d dropped of 100,000 addresses; at most %d", len(events), dropped, auditSubjects+2)
	}
	if last := events[len(events)-1]; last.GetRepeatedCount() != 100_000-auditSubjects-1 {
		t.Errorf("the last one is %v: want the count of all others", last)
	}
}

func TestAuditTellsEachDeed(t *testing.T) {
	events, _ := audited(t, nil, func(note func(*pb.AuditEvent)) {
		for i := range 1000 {
			note(&pb.AuditEvent{Kind: pb.AuditKind_AUDIT_KIND_AGENT_ENROLLED, Agent: fmt.Sprint("a-", i), Detail: strings.Repeat("é", 1000)})
		}
	})
	if len(events) != 1000 {
		t.Errorf("%d of 1000 enrolments", len(events))
	}
	if e := events[0]; e.GetTime() == nil || len(e.GetDetail()) != auditDetail {
		t.Errorf("%v: want a time and %d bytes of words", e, auditDetail)
	}
}

func TestAuditNeverWaits(t *testing.T) {
	_, dropped := audited(t, errors.New("the disk is full"), func(note func(*pb.AuditEvent)) {
		for i := range 2 * auditQueue {
			note(&pb.AuditEvent{Kind: pb.AuditKind_AUDIT_KIND_AGENT_ENROLLED, Agent: fmt.Sprint("a-", i)})
		}
	})
	if dropped != 2*auditQueue {
		t.Errorf("%d of %d were counted as left out", dropped, 2*auditQueue)
	}
}
