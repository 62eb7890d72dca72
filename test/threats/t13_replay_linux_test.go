package threats

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"google.golang.org/protobuf/proto"

	"github.com/elsewhere-net/elsewhere/internal/backup"
	"github.com/elsewhere-net/elsewhere/pkg/probe/probetest/space"
	pb "github.com/elsewhere-net/elsewhere/proto/elsewhere/v1"
)

// TestT13Replay: a batch of results that was captured is sent again in another session, in another epoch, and by another
// agent. No result changes, none is counted again, and in its own epoch the log gets nothing but what is audited.
func TestT13Replay(t *testing.T) {
	programs(t)
	if !space.Own(t) {
		return
	}
	space.Build(t, "ip link set lo up\n")
	w := &world{t: t, grpc: "127.0.0.1:7700", nats: "127.0.0.1:4222"}
	w.coordinate()
	dir, tape := t.TempDir(), filepath.Join(t.TempDir(), "tape")
	recorder := w.evilIn(dir, "thief", "record", "--join", w.token("thief", "evil"), "--tape", tape, "--for", patience.String())
	w.online(1)
	m := w.measure("tcp", "127.0.0.8:80", "--timeout", "20s")
	if m.GetLedger().GetAnswered() != 1 {
		t.Fatalf("there is nothing to capture: %v", m)
	}
	recorder.stop(t)
	epoch := recorder.did(t).Epoch
	shown := w.shown(m.GetId())

	before := w.status()
	played := w.evilIn(dir, "thief", "play", "--tape", tape, "--epoch", fmt.Sprint(epoch), "--for", patience.String()).did(t)
	t.Logf("another session: %+v", played)
	if played.Epoch != epoch || played.Acked < 10 {
		t.Fatalf("the replay did not happen in epoch %d: %+v", epoch, played)
	}
	w.onlyAuditSince(before)

	played = w.evilIn(dir, "thief", "play", "--tape", tape, "--for", patience.String()).did(t)
	t.Logf("another epoch: %+v", played)
	if played.Epoch == epoch || played.Acked < 10 {
		t.Fatalf("the replay did not happen in another epoch than %d: %+v", epoch, played)
	}
	if now := w.shown(m.GetId()); now != shown {
		t.Errorf("the measurement changed from\n%s to\n%s", shown, now)
	}

	played = w.evil("other", "play", "--tape", tape, "--for", patience.String()).did(t)
	t.Logf("another agent: %+v", played)
	if played.Acked < 10 {
		t.Fatalf("the replay did not happen: %+v", played)
	}
	if now := w.shown(m.GetId()); now != shown {
		t.Errorf("the measurement changed from\n%s to\n%s", shown, now)
	}
	events, err := w.cli("audit", "-J")
	if err != nil || !strings.Contains(events, "AUDIT_KIND_SPOOFING_REFUSED") || strings.Contains(events, "AUDIT_KIND_EQUIVOCATION") {
		t.Errorf("another agent's results are a spoofing, and nothing is an equivocation: %v %s", err, events)
	}
	list := &pb.ListMeasurementsResponse{}
	if w.ask(list, "measurements", "-J"); len(list.GetMeasurements()) != 1 {
		t.Errorf("%v", list)
	}
}

// shown is all that the coordinator has of a measurement.
func (w *world) shown(id string) string {
	w.t.Helper()
	out, err := w.cli("show", id, "-J")
	if err != nil {
		w.t.Fatal(err)
	}
	return out
}

// status is where the coordinator's log stands, and what it amounts to.
func (w *world) status() *pb.GetStatusResponse {
	w.t.Helper()
	s, err := pb.NewCoordinatorServiceClient(w.dial()).GetStatus(w.t.Context(), &pb.GetStatusRequest{})
	if err != nil || len(s.GetStateHash()) == 0 {
		w.t.Fatal(s, err)
	}
	return s
}

// onlyAuditSince looks at the log, as a backup has it: since then nothing has come but what is audited, and where nothing
// has come the state is the same bit by bit. The proof that it would see more: it has seen what came before.
func (w *world) onlyAuditSince(before *pb.GetStatusResponse) {
	w.t.Helper()
	if now := w.status(); now.GetPosition() == before.GetPosition() {
		if !bytes.Equal(now.GetStateHash(), before.GetStateHash()) {
			w.t.Errorf("at position %d the state was %x and is %x", now.GetPosition(), before.GetStateHash(), now.GetStateHash())
		}
	}
	path := filepath.Join(w.t.TempDir(), "backup")
	if _, err := w.cli("backup", path); err != nil {
		w.t.Fatal(err)
	}
	file, err := os.Open(path)
	if err != nil {
		w.t.Fatal(err)
	}
	defer file.Close()
	seen := 0
	_, err = backup.Read(file, backup.Contents{Message: func(position uint64, data []byte) error {
		var batch pb.LogBatch
		if err := proto.Unmarshal(data, &batch); err != nil {
			return err
		}
		for _, e := range batch.GetEntries() {
			switch {
			case position <= before.GetPosition() && e.GetAudit() == nil:
				seen++
			case position > before.GetPosition() && e.GetAudit() == nil:
				w.t.Errorf("at position %d the log got %v", position, e)
			}
		}
		return nil
	}})
	if err != nil || seen == 0 {
		w.t.Errorf("%d entries were seen of before: %v", seen, err)
	}
}
