//go:build !chaos

package chaos

import (
	"io"

	pb "github.com/elsewhere-net/elsewhere/proto/elsewhere/v1"
)

// Result tells what becomes of a result; err is why, if there is a reason.
func Result(Op, *pb.Result, error) {}

// Spool tells that a result is about to be written under a number.
func Spool(r *pb.Result, epoch, seq uint64) {}

// Move tells that what stood at one place of a spool is about to stand at another.
func Move(from, to *pb.Place) {}

// Numbers tells what becomes of numbers of a spool; why may be empty.
func Numbers(op Op, epoch uint64, numbers *pb.SeqRange, why string) {}

// Note tells of something that is about no result.
func Note(op Op, detail string) {}

// Point is a place to die at.
func Point(name string) {}

// Tear is a place to die at in the middle of a write.
func Tear(name string, w io.WriterAt, data []byte, offset int64) {}
