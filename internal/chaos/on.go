//go:build chaos

package chaos

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"runtime"
	"sync"
	"syscall"
	"time"

	pb "github.com/elsewhere-net/elsewhere/proto/elsewhere/v1"
)

// pollInterval is how soon a program knows at which point it is to die.
const pollInterval = 10 * time.Millisecond

// recorder is the one of the process: what it records is the process's life.
type recorder struct {
	mu     sync.Mutex
	events *os.File // nil: nobody listens
	order  string   // the file that says where to die
	point  string   // where; "" for nowhere
	passes int      // how often it may still be passed
}

var open = sync.OnceValue(func() *recorder {
	r := &recorder{order: os.Getenv(PointVariable)}
	if name := os.Getenv(EventsVariable); name != "" {
		file, err := os.OpenFile(name, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
		if err != nil {
			panic(err) // a history with a hole would prove nothing
		}
		r.events = file
	}
	if r.order != "" {
		r.obey()
		go r.poll()
	}
	if r.events != nil {
		go r.live()
	}
	return r
})

// live tells once a second that the program lives, and how large it is.
func (r *recorder) live() {
	for range time.Tick(time.Second) {
		r.write(Event{Op: Running, Goroutines: runtime.NumGoroutine()})
	}
}

func (r *recorder) poll() {
	for range time.Tick(pollInterval) {
		r.obey()
	}
}

// obey reads where to die, once for each order.
func (r *recorder) obey() {
	text, err := os.ReadFile(r.order)
	if err != nil || len(text) == 0 {
		return
	}
	var point string
	var passes int
	if _, err := fmt.Sscan(string(text), &point, &passes); err != nil {
		panic(fmt.Sprintf("%s: %q: %v", r.order, text, err))
	}
	_ = os.Remove(r.order)
	r.mu.Lock()
	defer r.mu.Unlock()
	r.point, r.passes = point, passes
}

// hit says whether the process is to die here, now.
func (r *recorder) hit(name string) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.point != name {
		return false
	}
	r.passes--
	return r.passes == 0
}

func (r *recorder) write(e Event) {
	if r.events == nil {
		return
	}
	e.Time = time.Now().UnixNano()
	line, err := json.Marshal(e)
	if err != nil {
		panic(err)
	}
	// One write(2) each: it outlives the process however that ends.
	if _, err := r.events.Write(append(line, '\n')); err != nil {
		panic(err)
	}
}

// die ends the process as a SIGKILL from outside would.
func (r *recorder) die(name string) {
	r.write(Event{Op: Dying, Detail: name})
	_ = syscall.Kill(os.Getpid(), syscall.SIGKILL)
	select {} // the signal comes
}

// Result tells what becomes of a result; err is why, if there is a reason.
func Result(op Op, result *pb.Result, err error) {
	why := ""
	if err != nil {
		why = err.Error()
	}
	open().write(Event{
		Op: op, Measurement: result.GetMeasurementId(), Round: result.GetRound(), Digest: Digest(result), Detail: why,
	})
}

// Spool tells that a result is about to be written under a number.
func Spool(result *pb.Result, epoch, seq uint64) {
	open().write(Event{
		Op: Spooling, Measurement: result.GetMeasurementId(), Round: result.GetRound(), Digest: Digest(result),
		Epoch: epoch, First: seq, Last: seq,
	})
}

// Move tells that what stood at one place of a spool is about to stand at another.
func Move(from, to *pb.Place) {
	open().write(Event{
		Op: Moved, Epoch: to.GetEpoch(), First: to.GetSeq(), Last: to.GetSeq(), FromEpoch: from.GetEpoch(), FromSeq: from.GetSeq(),
	})
}

// Numbers tells what becomes of numbers of a spool; why may be empty.
func Numbers(op Op, epoch uint64, numbers *pb.SeqRange, why string) {
	open().write(Event{Op: op, Epoch: epoch, First: numbers.GetFirst(), Last: numbers.GetLast(), Detail: why})
}

// Note tells of something that is about no result.
func Note(op Op, detail string) { open().write(Event{Op: op, Detail: detail}) }

// Point is a place to die at.
func Point(name string) {
	if r := open(); r.hit(name) {
		r.die(name)
	}
}

// Tear is a place to die at in the middle of a write: half of the data gets as far as the file.
func Tear(name string, w io.WriterAt, data []byte, offset int64) {
	if r := open(); r.hit(name) {
		_, _ = w.WriteAt(data[:len(data)/2], offset)
		r.die(name)
	}
}
