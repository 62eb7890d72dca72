package probe

import (
	"context"
	"encoding/json"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	"github.com/elsewhere-net/elsewhere/pkg/probe/probetest"
	pb "github.com/elsewhere-net/elsewhere/proto/elsewhere/v1"
)

// Bounds of a visit to the zoo.
const (
	visitTime  = 28 * time.Second
	shortVisit = 1500 * time.Millisecond
	lateBy     = slack
	visitHeap  = 8 << 20
	raceFactor = 8 // What the race detector adds to memory (golang.org/doc/articles/race_detector).
)

// visit is what a process of its own found: a Result, and what the visit cost.
type visit struct {
	Result      json.RawMessage
	Took        time.Duration
	Short       time.Duration // The same with little time.
	Grown       int64         // By how much the peak of resident memory rose, in bytes.
	Goroutines  int           // Those that were left.
	Descriptors int
}

// TestZoo visits every animal in a process of its own, so that time, memory and what is left behind are
// that visit's alone.
func TestZoo(t *testing.T) {
	t.Parallel()
	zoo := probetest.Zoo()
	if len(zoo) < 25 {
		t.Errorf("%d animals", len(zoo))
	}
	visitAll(t, zoo, func(a probetest.Animal, addr netip.AddrPort) *pb.Spec { return a.Spec(addr) }, func(t *testing.T, a probetest.Animal, r *pb.Result) {
		if s := deepest(r); s.GetFailure() != a.Want {
			t.Errorf("%s, want %s: %s", Short(s.GetFailure()), Short(a.Want), s.GetEvidence().GetText())
		}
	})
}

// TestZooOfOrigins visits those that speak TLS or HTTP as a CDN does, by several handshakes at once.
func TestZooOfOrigins(t *testing.T) {
	t.Parallel()
	zoo := slices.DeleteFunc(probetest.Zoo(), func(a probetest.Animal) bool { return asOrigin(a, netip.AddrPort{}) == nil })
	if len(zoo) < 40 {
		t.Errorf("%d animals", len(zoo))
	}
	visitAll(t, zoo, asOrigin, func(t *testing.T, _ probetest.Animal, r *pb.Result) {
		for _, s := range r.GetSteps() {
			if s.GetFailure() == pb.Failure_FAILURE_AGENT_INTERNAL || s.GetFailure() == pb.Failure_FAILURE_UNSPECIFIED {
				t.Errorf("%v", s)
			}
		}
	})
}

// asOrigin asks for an animal as for an origin. Nil: it speaks neither TLS nor HTTP.
func asOrigin(a probetest.Animal, addr netip.AddrPort) *pb.Spec {
	switch spec := a.Spec(addr); {
	case spec.GetTls() != nil:
		return originSpec(&pb.OriginSpec{Url: "https://" + addr.String() + "/", HostHeader: "zoo.example"})
	case spec.GetHttp() != nil:
		return originSpec(&pb.OriginSpec{Url: spec.GetHttp().GetUrl(), HostHeader: "zoo.example"})
	}
	return nil
}

// visitAll visits animals, some at once, and checks what any visit must be like, and what else there is to.
func visitAll(t *testing.T, zoo []probetest.Animal, ask func(probetest.Animal, netip.AddrPort) *pb.Spec, check func(*testing.T, probetest.Animal, *pb.Result)) {
	t.Helper()
	tame := must[*probetest.Host](t)(probetest.Listen(at("127.0.0.2"), probetest.Accept))
	gate := make(chan struct{}, 12)
	for _, animal := range zoo {
		t.Run(animal.Name, func(t *testing.T) {
			t.Parallel()
			gate <- struct{}{}
			defer func() { <-gate }()
			server, err := animal.Listen(at("127.0.0.2"))
			if err != nil {
				t.Fatal(err)
			}
			defer func() { _ = server.Close() }()
			v := send(t, ask(animal, server.Addr()), tame.Addr())
			var r pb.Result
			if err := protojson.Unmarshal(v.Result, &r); err != nil {
				t.Fatal(err)
			}
			v.check(t)
			checkTame(t, &r)
			check(t, animal, &r)
		})
	}
}

// deepest is the deepest step about the target that was made.
func deepest(r *pb.Result) *pb.Step {
	var found *pb.Step
	for _, s := range r.GetSteps() {
		if s.GetRole() == pb.Role_ROLE_TARGET && (found == nil || s.GetKind() >= found.GetKind()) {
			found = s
		}
	}
	return found
}

func (v *visit) check(t *testing.T) {
	t.Helper()
	limit := int64(visitHeap)
	if raceEnabled {
		limit *= raceFactor
	}
	if v.Took > visitTime+lateBy || v.Short > shortVisit+lateBy {
		t.Errorf("it took %v of %v, and %v of %v", v.Took, visitTime, v.Short, shortVisit)
	}
	if v.Grown > limit {
		t.Errorf("memory grew by %.1f MiB", float64(v.Grown)/(1<<20))
	}
	if v.Goroutines > 0 || v.Descriptors > 0 {
		t.Errorf("%d goroutines and %d descriptors are left", v.Goroutines, v.Descriptors)
	}
}

// send lets another process visit.
func send(t *testing.T, spec *pb.Spec, tame netip.AddrPort) *visit {
	t.Helper()
	question, err := protojson.Marshal(spec)
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "visit.json")
	ctx, cancel := context.WithTimeout(t.Context(), 3*visitTime)
	defer cancel()
	cmd := exec.CommandContext(ctx, os.Args[0], "-test.run=^TestZooVisitor$")
	cmd.Env = append(os.Environ(), "ZOO_SPEC="+string(question), "ZOO_TAME="+tame.String(), "ZOO_FILE="+file)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	report, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	v := &visit{}
	if err := json.Unmarshal(report, v); err != nil {
		t.Fatal(err)
	}
	return v
}

// TestZooVisitor is the process that visits; by itself it has nothing to do.
func TestZooVisitor(t *testing.T) {
	file := os.Getenv("ZOO_FILE")
	if file == "" {
		return
	}
	spec := &pb.Spec{}
	if err := protojson.Unmarshal([]byte(os.Getenv("ZOO_SPEC")), spec); err != nil {
		t.Fatal(err)
	}
	tame := netip.MustParseAddrPort(os.Getenv("ZOO_TAME"))
	env := &Env{Resolvers: []netip.AddrPort{}, Hints: []netip.AddrPort{}, Egress: Egress{Allow: loopback}, Controls: []string{tame.String()}}
	// What is made once for all checks, such as the roots, is no animal's doing.
	run(t, env, tcpSpec(tame.Addr().String(), tame.Port()))
	newAnchors(nil)
	v := &visit{}
	goroutines, descriptors := runtime.NumGoroutine(), openFiles(t)
	resetPeak(t)
	peak := peakMemory(t)
	began := time.Now()
	r := Run(t.Context(), env, newJob(spec, visitTime))
	v.Took, v.Grown = time.Since(began), peakMemory(t)-peak
	began = time.Now()
	Run(t.Context(), env, newJob(spec, shortVisit))
	v.Short = time.Since(began)
	v.Goroutines, v.Descriptors = settle(func() int { return runtime.NumGoroutine() - goroutines }), openFiles(t)-descriptors
	var err error
	if v.Result, err = protojson.Marshal(r); err != nil {
		t.Fatal(err)
	}
	report, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, report, 0o600); err != nil {
		t.Fatal(err)
	}
}

// settle gives what is about to end, such as servers' ends of connections, the time to do so.
func settle(left func() int) int {
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for range 1000 {
		if left() <= 0 {
			return 0
		}
		<-tick.C
	}
	return left()
}

// openFiles counts the process's descriptors.
func openFiles(t *testing.T) int {
	t.Helper()
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(entries)
}

// resetPeak begins the peak of the process's resident memory anew (proc(5), clear_refs).
func resetPeak(t *testing.T) {
	t.Helper()
	debug.FreeOSMemory()
	if err := os.WriteFile("/proc/self/clear_refs", []byte("5"), 0o200); err != nil {
		t.Fatal(err)
	}
}

// peakMemory is the peak of the process's resident memory.
func peakMemory(t *testing.T) int64 {
	t.Helper()
	status, err := os.ReadFile("/proc/self/status")
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(status), "VmHWM:")
	kib, err := strconv.ParseInt(strings.Fields(rest)[0], 10, 64)
	if err != nil {
		t.Fatal(err)
	}
	return kib << 10
}

// checkTame wants a result that is small and whose text can be shown.
func checkTame(t *testing.T, r *pb.Result) {
	t.Helper()
	if n := proto.Size(r); n > maxResult {
		t.Errorf("a result of %d bytes", n)
	}
	checkText(t, r.ProtoReflect())
}

// checkText looks at every string of a message.
func checkText(t *testing.T, m protoreflect.Message) {
	t.Helper()
	m.Range(func(field protoreflect.FieldDescriptor, value protoreflect.Value) bool {
		each := func(v protoreflect.Value) {
			switch field.Kind() {
			case protoreflect.MessageKind:
				checkText(t, v.Message())
			case protoreflect.StringKind:
				if s := v.String(); !utf8.ValidString(s) || strings.ContainsAny(s, "\x00\x07\x1b\u202e\n") {
					t.Errorf("%s is not clean: %q", field.FullName(), s)
				}
			}
		}
		switch {
		case field.IsMap(): // The vantage's labels, which are not the target's.
		case field.IsList():
			for i := range value.List().Len() {
				each(value.List().Get(i))
			}
		default:
			each(value)
		}
		return true
	})
}
