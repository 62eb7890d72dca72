package coordinator

import (
	"context"
	"crypto/sha256"
	"fmt"
	"math"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"

	"github.com/elsewhere-net/elsewhere/internal/chaos"
	"github.com/elsewhere-net/elsewhere/internal/results"
	"github.com/elsewhere-net/elsewhere/internal/store"
	pb "github.com/elsewhere-net/elsewhere/proto/elsewhere/v1"
)

// The fields of LogBatch and LogEntry that a result goes into.
const (
	fieldEntries = 1
	fieldResult  = 2
)

// maxExpected bounds the room that is made for a batch beforehand, in bytes.
const maxExpected = 512 << 10

// canonicalize appends a result as bytes, the same whenever it comes.
func canonicalize(b []byte, r *pb.Result) ([]byte, error) {
	return proto.MarshalOptions{Deterministic: true}.MarshalAppend(b, r)
}

// Admit implements results.Sink.
func (c *Coordinator) Admit(ctx context.Context, hello *pb.Hello) error {
	if err := c.speaksFor(ctx, hello.GetAgent()); err != nil {
		return err
	}
	if err := c.refuseUnready(); err != nil {
		return err
	}
	if c.opts.Insecure {
		if !c.Verify(hello.GetAgent(), hello.GetCredential()) {
			return status.Errorf(codes.Unauthenticated, "the credential is not that of agent %.63q: register first", hello.GetAgent())
		}
		return nil
	}
	claim, err := c.claims.current(ctx, hello.GetAgent())
	switch {
	case err != nil:
		return unavailable(err)
	case hello.GetSession() < claim.GetSession():
		return status.Error(codes.Aborted, "a newer session of this agent has taken over: register again")
	case hello.GetSession() > claim.GetSession():
		return status.Errorf(codes.FailedPrecondition, "session %d was never given out: register first", hello.GetSession())
	case hello.GetEpoch() != claim.GetEpoch():
		return status.Errorf(codes.FailedPrecondition, "the epoch of session %d is %d: register again", claim.GetSession(), claim.GetEpoch())
	case !c.heard.current(hello.GetAgent()):
		return status.Error(codes.FailedPrecondition, "the authorities have changed meanwhile: register again")
	}
	return nil
}

// Flooding implements results.Sink.
func (c *Coordinator) Flooding(agent string) {
	c.audit(&pb.AuditEvent{Kind: pb.AuditKind_AUDIT_KIND_FLOOD, Agent: agent, Detail: "it sends more than it may, and has to wait"})
}

// Keep implements results.Sink: what was asked for and is not there yet goes into the log, in one message; what
// never will be goes there as gaps, so that everything that is acknowledged is in the log. It returns when the log
// has it. The fold follows: what comes a second time meanwhile stands in the log twice and is folded once.
func (c *Coordinator) Keep(ctx context.Context, from *pb.Hello, batch *pb.ResultBatch) (wasted int, err error) {
	if !c.store.Room(from.GetAgent(), from.GetEpoch()) && !unbroken(batch) {
		return 0, fmt.Errorf("the numbers of agent %s are scattered", from.GetAgent())
	}
	for again := batch; again != nil && err == nil; {
		k := keeping{Coordinator: c, from: from, vantage: c.fleet.Get(from.GetAgent()).GetVantage()}
		again, err = k.keep(ctx, again)
		wasted += k.wasted
	}
	if err != nil && ctx.Err() == nil {
		c.log.Error("results could not be made durable; the agent will send them again", "agent", from.GetAgent(), "error", err)
	}
	return wasted, err
}

// keep puts a batch into the log. What nobody seems to have asked for was perhaps asked for by another coordinator, of which
// this one knows no more than it has folded: by what the log says where the gap stands, such results come again.
func (k *keeping) keep(ctx context.Context, batch *pb.ResultBatch) (again *pb.ResultBatch, err error) {
	k.entries = make([]*pb.LogEntry, 0, len(batch.GetResults())+1)
	for _, r := range batch.GetResults() {
		if err := k.take(r); err != nil {
			return nil, err
		}
	}
	for _, g := range batch.GetGaps() {
		if !k.store.Covers(k.from.GetAgent(), k.from.GetEpoch(), g) {
			g.MeasurementId = "" // which is the coordinators' to say
			k.gaps = append(k.gaps, g)
		}
	}
	stored := len(k.entries)
	if len(k.gaps) > 0 {
		if err := k.addGaps(); err != nil {
			return nil, err
		}
	}
	if len(k.entries) == 0 {
		return nil, nil // the log has it all
	}
	position, err := k.commitEncoded(ctx, k.entries, k.data)
	if err != nil {
		return nil, err
	}
	chaos.Point("keep.kept")
	k.metrics.results.WithLabelValues("stored").Add(float64(stored))
	if len(k.unasked) == 0 {
		return nil, nil
	}
	if err := k.folded(ctx, position); err != nil {
		return nil, err
	}
	return k.wantedAfterAll(), nil
}

// wantedAfterAll are the results that seemed to be unasked, and were asked for where the log has that; nil: none. The others
// are the agent's to answer for.
func (k *keeping) wantedAfterAll() *pb.ResultBatch {
	var again []*pb.SpooledResult
	for _, r := range k.unasked {
		if !k.store.Has(k.from.GetAgent(), k.from.GetEpoch(), r.GetSeq()) {
			again = append(again, r)
			continue
		}
		k.waste(pb.GapReason_GAP_REASON_UNASKED)
		k.note(pb.AuditKind_AUDIT_KIND_UNASKED_RESULT, "of measurement "+clip(r.GetResult().GetMeasurementId()))
	}
	if again == nil {
		return nil
	}
	return &pb.ResultBatch{Results: again}
}

// unbroken tells whether the numbers of a batch follow each other.
func unbroken(batch *pb.ResultBatch) bool {
	count, first, last := uint64(0), uint64(math.MaxUint64), uint64(0)
	for _, r := range batch.GetResults() {
		count, first, last = count+1, min(first, r.GetSeq()), max(last, r.GetSeq())
	}
	for _, g := range batch.GetGaps() {
		count, first, last = count+g.GetLast()-g.GetFirst()+1, min(first, g.GetFirst()), max(last, g.GetLast())
	}
	return last-first+1 == count // no number comes twice in a batch
}

// keeping is a batch on its way into the log.
type keeping struct {
	*Coordinator
	from    *pb.Hello
	vantage *pb.Vantage // where the agent stands now; nil if that is not known
	entries []*pb.LogEntry
	data    []byte // the entries, as a LogBatch
	scratch []byte // for the result at hand
	gaps    []*pb.Gap
	unasked []*pb.SpooledResult // that nobody asked for, by what is folded
	wasted  int
}

// take takes up one result, or the gap in its place. An error is the disk's, not the result's: it comes again.
func (k *keeping) take(spooled *pb.SpooledResult) error {
	r := spooled.GetResult()
	canonical, err := canonicalize(k.scratch[:0], r)
	k.scratch = canonical
	switch {
	case err != nil:
		k.refuse(spooled.GetSeq(), fmt.Sprintf("a result that is not well formed: %v", err))
		return nil
	case len(canonical) > results.MaxResult:
		k.refuse(spooled.GetSeq(), fmt.Sprintf("a result of %d bytes; at most %d", len(canonical), results.MaxResult))
		return nil
	case results.TooHeavy(canonical):
		k.refuse(spooled.GetSeq(), fmt.Sprintf("a result of %d bytes that takes more than %d of memory", len(canonical), results.MaxResultWeight))
		return nil
	case r.GetAgent() != k.from.GetAgent():
		k.refuse(spooled.GetSeq(), "a result in the name of "+clip(r.GetAgent()))
		k.note(pb.AuditKind_AUDIT_KIND_SPOOFING_REFUSED, "it sent a result in the name of "+clip(r.GetAgent()))
		return nil
	}
	digest := sha256.Sum256(canonical) // of the result as it came
	place := &pb.Place{Epoch: k.from.GetEpoch(), Seq: spooled.GetSeq(), Digest: digest[:]}
	fate, err := k.store.Fate(r, place)
	if err != nil {
		return err
	}
	switch fate {
	case store.FateWanted:
		return k.addResult(r, place, canonical)
	case store.FateKnown:
		k.metrics.results.WithLabelValues("known").Inc()
	case store.FateUnasked:
		k.addGap(&pb.Gap{First: spooled.GetSeq(), Last: spooled.GetSeq(), Reason: pb.GapReason_GAP_REASON_UNASKED, MeasurementId: named(r)})
		k.unasked = append(k.unasked, spooled)
	case store.FateDuplicate:
		k.gap(spooled.GetSeq(), pb.GapReason_GAP_REASON_DUPLICATE)
	case store.FateEquivocation:
		k.gap(spooled.GetSeq(), pb.GapReason_GAP_REASON_DUPLICATE)
		k.note(pb.AuditKind_AUDIT_KIND_EQUIVOCATION, equivocation(r.GetMeasurementId(), place))
	}
	return nil
}

// addResult adds a result that is wanted. It is in the log as it came, and not encoded once more, but that the
// coordinator says where the agent stands.
func (k *keeping) addResult(r *pb.Result, place *pb.Place, canonical []byte) (err error) {
	if r.GetVantage() != nil {
		r.Vantage = nil
		if canonical, err = canonicalize(canonical[:0], r); err != nil {
			return err
		}
	}
	vantage, err := k.stands(r.GetMeasurementId())
	if err != nil {
		return err
	}
	stands, err := proto.Marshal(&pb.Result{Vantage: vantage})
	if err != nil {
		return err
	}
	where, err := proto.Marshal(&pb.LogEntry{Place: place})
	if err != nil {
		return err
	}
	r.Vantage = vantage
	k.entries = append(k.entries, &pb.LogEntry{Entry: &pb.LogEntry_Result{Result: r}, Place: place})
	if k.data == nil { // others will be about as large
		k.data = make([]byte, 0, min((len(canonical)+len(stands)+len(where)+16)*cap(k.entries), maxExpected))
	}
	// Messages as bytes, one after the other, are the message that has the fields of both.
	size := len(canonical) + len(stands)
	k.data = protowire.AppendTag(k.data, fieldEntries, protowire.BytesType)
	k.data = protowire.AppendVarint(k.data, uint64(protowire.SizeTag(fieldResult)+protowire.SizeBytes(size)+len(where)))
	k.data = protowire.AppendTag(k.data, fieldResult, protowire.BytesType)
	k.data = protowire.AppendVarint(k.data, uint64(size))
	k.data = append(append(append(k.data, canonical...), stands...), where...)
	return nil
}

// addGaps adds the numbers that bring no result.
func (k *keeping) addGaps() (err error) {
	entry := &pb.LogEntry{Entry: &pb.LogEntry_Gaps{Gaps: &pb.Gaps{Agent: k.from.GetAgent(), Epoch: k.from.GetEpoch(), Gaps: k.gaps}}}
	k.entries = append(k.entries, entry)
	k.data, err = (proto.MarshalOptions{}).MarshalAppend(k.data, &pb.LogBatch{Entries: []*pb.LogEntry{entry}})
	return err
}

// stands is where the agent stands; after a restart it may not have been heard of yet, and stands where it was asked.
func (k *keeping) stands(measurement string) (*pb.Vantage, error) {
	if k.vantage != nil {
		return k.vantage, nil
	}
	vantage, _, err := k.store.Asked(measurement, k.from.GetAgent())
	return vantage, err
}

// refuse notes a result that can never be kept.
func (k *keeping) refuse(seq uint64, why string) {
	k.log.Warn("a result is refused", "agent", k.from.GetAgent(), "number", seq, "reason", why)
	k.gap(seq, pb.GapReason_GAP_REASON_REFUSED)
}

// gap notes a number that brings no result, unless the log knows it.
func (k *keeping) gap(seq uint64, reason pb.GapReason) {
	k.waste(reason)
	if !k.store.Has(k.from.GetAgent(), k.from.GetEpoch(), seq) {
		k.addGap(&pb.Gap{First: seq, Last: seq, Reason: reason})
	}
}

// addGap adds a gap to the last one, if that is of the same kind.
func (k *keeping) addGap(g *pb.Gap) {
	if n := len(k.gaps); n > 0 {
		last := k.gaps[n-1]
		if last.GetReason() == g.GetReason() && last.GetMeasurementId() == g.GetMeasurementId() && last.GetLast()+1 == g.GetFirst() {
			last.Last = g.GetLast()
			return
		}
	}
	k.gaps = append(k.gaps, g)
}

// waste counts a result that is of no use.
func (k *keeping) waste(reason pb.GapReason) {
	k.wasted++
	k.metrics.results.WithLabelValues(short(reason.String())).Inc()
}

// named is the measurement of a result, empty if that is no measurement's name.
func named(r *pb.Result) string {
	if !isID(r.GetMeasurementId()) {
		return ""
	}
	return r.GetMeasurementId()
}

// note writes about the agent in the audit.
func (k *keeping) note(kind pb.AuditKind, detail string) {
	k.audit(&pb.AuditEvent{Kind: kind, Agent: k.from.GetAgent(), Detail: detail})
}

// equivocation says what an agent said two things about.
func equivocation(measurement string, at *pb.Place) string {
	return fmt.Sprintf("it said something else before: measurement %s, number %d of epoch %d", clip(measurement), at.GetSeq(), at.GetEpoch())
}
