// Package chaos is how a program tells a test what it does, and how it dies where a test wants it to.
//
// All of it is empty, and costs nothing, unless the program is built with the tag "chaos". Then each event is
// a line of JSON at the end of the file that ELSEWHERE_CHAOS_EVENTS names, written before the program acts on
// it; and a program kills itself at a point that the file of ELSEWHERE_CHAOS_POINT names, in the words
// "POINT N": when it passes there for the Nth time from then on.
package chaos

import (
	"crypto/sha256"
	"encoding/hex"
	"time"

	"google.golang.org/protobuf/proto"

	pb "github.com/elsewhere-net/elsewhere/proto/elsewhere/v1"
)

// The environment that a program is told by.
const (
	EventsVariable = "ELSEWHERE_CHAOS_EVENTS"
	PointVariable  = "ELSEWHERE_CHAOS_POINT"
)

// Op is what an event is about.
type Op string

// What programs tell of.
const (
	Attempted Op = "attempted" // a job was run, and this is its result
	Spooling  Op = "spooling"  // a result is about to be written under a number
	Moved     Op = "moved"     // a result has another number from now on
	Discarded Op = "discarded" // a result could not be kept
	Acked     Op = "acked"     // numbers were acknowledged, and are about to be forgotten
	Dropped   Op = "dropped"   // numbers will bring no result
	Connected Op = "connected" // a result stream stands
	Dying     Op = "dying"     // the program is about to kill itself at a point
	Running   Op = "running"   // it lives: once a second
)

// Event is one thing that a program did.
type Event struct {
	// Time is when, in nanoseconds since 1970.
	Time int64 `json:"t"`
	Op   Op    `json:"op"`
	// Measurement and Round are the job.
	Measurement string `json:"m,omitempty"`
	Round       int32  `json:"r,omitempty"`
	// Digest is that of the result.
	Digest string `json:"d,omitempty"`
	// Epoch, First and Last are numbers of a spool; a single one is First and Last.
	Epoch uint64 `json:"e,omitempty"`
	First uint64 `json:"a,omitempty"`
	Last  uint64 `json:"z,omitempty"`
	// FromEpoch and FromSeq are the number that a result had before it was moved.
	FromEpoch uint64 `json:"fe,omitempty"`
	FromSeq   uint64 `json:"fs,omitempty"`
	// Detail is the reason of what was dropped or discarded, or the point.
	Detail string `json:"why,omitempty"`
	// Goroutines is how many there are.
	Goroutines int `json:"g,omitempty"`
}

// At is the time of the event.
func (e Event) At() time.Time { return time.Unix(0, e.Time) }

// Digest stands for a result as its agent made it: SHA-256, in hex, without the vantage, in place of which
// the coordinator puts what it knows.
func Digest(r *pb.Result) string {
	bare := proto.CloneOf(r)
	bare.Vantage = nil
	data, err := proto.MarshalOptions{Deterministic: true}.Marshal(bare)
	if err != nil {
		return "unmarshalable: " + err.Error()
	}
	sum := sha256.Sum256(data)
	return hex.EncodeToString(sum[:])
}
