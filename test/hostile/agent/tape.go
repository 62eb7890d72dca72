package main

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"time"

	"google.golang.org/protobuf/proto"

	pb "github.com/elsewhere-net/elsewhere/proto/elsewhere/v1"
)

// keepTape writes a batch to the tape, unless there is one.
func (h *hostile) keepTape(batch *pb.ResultBatch) error {
	if _, err := os.Stat(h.tape); !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	data, err := proto.Marshal(batch)
	if err != nil {
		return err
	}
	return os.WriteFile(h.tape, data, 0o600)
}

// play sends the batch of the tape ten times, as it was sent, and ends the program when all of it was acknowledged.
func play(ctx context.Context, h *hostile, stream pb.ResultService_ReportClient) error {
	data, err := os.ReadFile(h.tape)
	if err != nil {
		return err
	}
	batch := &pb.ResultBatch{}
	if err := proto.Unmarshal(data, batch); err != nil {
		return err
	}
	for range 10 {
		if err := h.send(stream, batch.GetResults()...); err != nil {
			return err
		}
	}
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for {
		h.mu.Lock()
		heard := h.report.Acked >= 10*len(batch.GetResults())
		h.mu.Unlock()
		if heard {
			h.end()
			return nil
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}
